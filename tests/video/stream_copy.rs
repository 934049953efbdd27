//! Streams, covers, chapters, programs and tags in every container: copied, converted, or left out and reported.

use crate::common::program::{Folder, Probe, Ran, Stream};

const SMALL: &str = "-f lavfi -i testsrc2=s=32x32:r=25";
const SINE: &str = "-f lavfi -i sine=r=48000";

/// A folder with a clip of video, two audio and two subtitle streams, a font, a cover and chapters.
fn folder_with_every_stream() -> Folder {
    let folder = Folder::new();
    folder.write(
        "en.srt",
        "1\n00:00:00,200 --> 00:00:00,900\nHello <i>there</i>\n\n2\n00:00:01,000 --> 00:00:01,500\nII\n",
    );
    folder.write("font.ttf", b"not really a font, but bytes to be kept");
    folder.write("meta.txt", ";FFMETADATA1\ntitle=A video\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=One\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=1000\nEND=2000\ntitle=Two\n");
    folder.ffmpeg("-f lavfi -i color=red:s=16x16 -frames:v 1 cover.jpg");
    folder.ffmpeg(&format!(
        "{SMALL} {SINE} -f lavfi -i sine=f=220:r=44100 -i en.srt -i en.srt -i meta.txt -map 0 -map 1 -map 2 -map 3 -map 4 \
         -map_metadata 5 -map_chapters 5 -t 2 -c:v libx264 -bf 2 -c:a:0 aac -c:a:1 vorbis -strict -2 -ac:a:1 2 \
         -c:s:0 srt -c:s:1 ass -attach cover.jpg -metadata:s:t:0 mimetype=image/jpeg -attach font.ttf \
         -metadata:s:t:1 mimetype=application/x-truetype-font -metadata:s:a:0 language=eng \
         -metadata:s:a:1 language=fra -metadata:s:s:0 language=eng -metadata:s:s:1 language=fra in.mkv"
    ));
    folder
}

/// Kind, codec and language of every stream, covers and fonts last.
fn table(probe: &Probe) -> Vec<String> {
    let is_attached = |stream: &&Stream| stream.codec_type == "attachment" || is_cover(stream);
    let row = |stream: &Stream| {
        let language = stream.tags.get("language").map_or("", String::as_str);
        let cover = if is_cover(stream) { "cover" } else { language };
        format!("{} {} {cover}", stream.codec_type, stream.codec_name)
            .trim_end_matches(" und")
            .trim()
            .to_owned()
    };
    let (attached, tracks): (Vec<_>, Vec<_>) = probe.streams.iter().partition(is_attached);
    // MP4 has a chapter track, which players do not show.
    let shown = tracks.into_iter().chain(attached).filter(|stream| stream.codec_type != "data");
    shown.map(row).collect()
}

fn is_cover(stream: &Stream) -> bool {
    stream.disposition.get("attached_pic") == Some(&1)
}

fn chapters(probe: &Probe) -> Vec<(String, String)> {
    let seconds = |text: &str| format!("{:.2}", text.parse::<f64>().unwrap());
    probe
        .chapters
        .iter()
        .map(|chapter| (seconds(&chapter.start_time), chapter.tags["title"].clone()))
        .collect()
}

/// Text of a subtitle stream, and its timestamps from the first frame on, in hundredths of a second.
fn text(folder: &Folder, name: &str, place: usize) -> (String, Vec<i64>) {
    let srt = folder.ffmpeg(&format!("-i {name} -map 0:s:{place} -f srt -"));
    let srt = String::from_utf8(srt).unwrap().replace("\r\n", "\n");
    let words = srt.lines().filter(|line| !line.contains("-->")).collect::<Vec<_>>().join("\n");
    let probe = folder.probe(name);
    let stream = probe.streams.iter().filter(|stream| stream.codec_type == "subtitle").nth(place).unwrap();
    let begin = probe.video_seconds()[0];
    // MP4 fills the gaps between subtitles with empty ones of two bytes.
    let packets = probe
        .packets_of(stream.index)
        .into_iter()
        .filter(|packet| !name.ends_with(".mp4") || packet.size != "2");
    let hundredths = |ticks: i64| (ticks as f64 * stream.tick() - begin) * 100.0;
    let times =
        packets.flat_map(|packet| [packet.pts.unwrap(), packet.pts.unwrap() + packet.duration.unwrap()]);
    (words, times.map(|ticks| hundredths(ticks).round() as i64).collect())
}

/// Start and end of the decoded audio, in seconds from the first frame on.
fn audio_span(folder: &Folder, name: &str, stream: usize) -> (f64, f64) {
    let probe = folder.probe(name);
    let packets = probe.packets_of(stream);
    let tick = probe.streams[stream].tick();
    let begin = packets.iter().filter_map(|packet| packet.pts).min().unwrap() as f64 * tick;
    let end = packets.iter().map(|packet| packet.pts.unwrap() + packet.duration.unwrap_or(0)).max().unwrap();
    (begin - probe.video_seconds()[0], end as f64 * tick - probe.video_seconds()[0])
}

#[test]
fn every_stream_goes_into_mp4_or_is_reported() {
    let folder = folder_with_every_stream();
    let ran = folder.upscale("in.mkv out.mp4 --model none --report out.json");
    let probe = folder.probe("out.mp4");
    assert_eq!(
        table(&probe),
        [
            "video h264",
            "audio aac eng",
            "audio vorbis fra",
            "subtitle mov_text eng",
            "subtitle mov_text fra",
            "video mjpeg cover"
        ]
    );
    assert_eq!(chapters(&probe), [("0.00".into(), "One".into()), ("1.00".into(), "Two".into())]);
    assert_eq!(probe.format.tags["title"], "A video");
    assert!(ran.stderr.contains("(attachment, ttf); it is left out"), "{}", ran.stderr);
    let report: serde_json::Value = serde_json::from_slice(&folder.read("out.json")).unwrap();
    assert_eq!(report["left_out"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["converted"].as_array().unwrap().len(), 2, "{report}");
    let ran = folder.hasn("upscale in.mkv strict.mp4 --model none --strict");
    ran.assert_told("mp4 cannot hold stream", "--strict");
    assert!(!folder.names().iter().any(|name| name.starts_with("strict")));
    assert_eq!(text(&folder, "in.mkv", 0).1, [20, 90, 100, 150]);
    for place in [0, 1] {
        assert_eq!(text(&folder, "out.mp4", place), text(&folder, "in.mkv", 0), "text {place}");
    }

    // And back from MP4.
    folder.upscale("out.mp4 back.mkv --model none --strict");
    let back = folder.probe("back.mkv");
    assert_eq!(table(&back)[3..], ["subtitle subrip eng", "subtitle subrip fra", "video mjpeg cover"]);
    assert_eq!(chapters(&back), chapters(&probe));
    assert_eq!(text(&folder, "back.mkv", 0), text(&folder, "in.mkv", 0));
    let cover = |name: &str| folder.ffmpeg(&format!("-i {name} -map 0:v:1 -c copy -f image2pipe -"));
    assert!(cover("back.mkv") == folder.read("cover.jpg"), "the cover is to be the same file");
    assert!(cover("out.mp4") == folder.read("cover.jpg"), "the cover is to be the same file");
    folder.upscale("in.mkv cut.mp4 --model none --from 0.5 --to 1.5");
    assert!(cover("cut.mp4") == folder.read("cover.jpg"), "a trim leaves the cover alone");
}

#[test]
fn audio_and_text_are_converted_for_webm() {
    let folder = folder_with_every_stream();
    folder.upscale("in.mkv out.webm --model none --encoder-opt cpu-used=8 --encoder-opt deadline=realtime");
    let probe = folder.probe("out.webm");
    let expected =
        ["video vp9", "audio opus eng", "audio vorbis fra", "subtitle webvtt eng", "subtitle webvtt fra"];
    assert_eq!(table(&probe), expected);
    assert_eq!(text(&folder, "out.webm", 0), text(&folder, "in.mkv", 0));
    let (old, new) = (audio_span(&folder, "in.mkv", 1), audio_span(&folder, "out.webm", 1));
    assert!((new.0 - old.0).abs() < 0.03 && (new.1 - old.1).abs() < 0.03, "{old:?} became {new:?}");
    folder.assert_decodes("out.webm");
}

#[test]
fn maps_select_streams_as_in_ffmpeg() {
    let folder = folder_with_every_stream();
    let all = table(&folder.probe("in.mkv"));
    assert_eq!(all.len(), 7);
    for (maps, kept) in [
        ("--map 0", vec![0, 1, 2, 3, 4, 5, 6]),
        ("--map 0:v:0 --map 0:a:1", vec![0, 2]),
        ("--map 0:a:1 --map 0:v:0 --map 0:a:0", vec![2, 0, 1]),
        ("--map 0 --map -0:s", vec![0, 1, 2, 5, 6]),
        ("--map -0:s --map -0:t?", vec![0, 1, 2, 5]),
        ("--map 0:V --map 0:m:language:fra", vec![0, 2, 4]),
        ("--map 0:v:0 --map 0:a:7?", vec![0]),
    ] {
        folder.upscale(&format!("in.mkv out.mkv -y --model none --strict {maps}"));
        let expected: Vec<_> = kept.iter().map(|&index| all[index].clone()).collect();
        assert_eq!(table(&folder.probe("out.mkv")), expected, "{maps}");
    }
    for (maps, expected) in [
        ("--map 0:v:0 --map 0:a:7", "--map 0:a:7: matches no stream"),
        ("--map 1:a", "input 0, the only one"),
        ("--map 0:a", "none of the streams of --map is video"),
        ("--map 0:nonsense", "--map 0:nonsense: "),
    ] {
        folder.hasn(&format!("upscale in.mkv none.mkv --model none {maps}")).assert_told(expected, maps);
    }
}

#[test]
fn audio_is_dropped_copied_or_encoded_as_asked() {
    let folder = folder_with_every_stream();
    for (audio, codecs) in [("none", vec![]), ("copy", vec!["aac", "vorbis"]), ("flac", vec!["flac", "flac"])]
    {
        folder.upscale(&format!("in.mkv out.mkv -y --model none --strict --audio {audio}"));
        let probe = folder.probe("out.mkv");
        let written = probe.streams.iter().filter(|stream| stream.codec_type == "audio");
        assert_eq!(written.map(|stream| stream.codec_name.as_str()).collect::<Vec<_>>(), codecs, "{audio}");
    }
    // FLAC is lossless: the samples are the decoded source's.
    let samples = |name: &str| folder.ffmpeg(&format!("-i {name} -map 0:a:0 -f s16le -"));
    assert!(samples("out.mkv").len().abs_diff(samples("in.mkv").len()) < 4096, "the audio's length");
    let ran = folder.hasn("upscale in.mkv none.mkv --model none --audio no_such");
    ran.assert_told("no audio encoder 'no_such'", "--audio no_such");
    let ran = folder.hasn("upscale in.mkv none.webm --model none --audio aac");
    ran.assert_told("webm cannot hold aac", "--audio aac");
}

#[test]
fn converted_audio_keeps_its_gaps() {
    let folder = Folder::new();
    // A second of audio is missing in the middle.
    folder.ffmpeg(&format!(
        "{SMALL} {SINE} -t 4 -af aselect='not(between(t\\,1\\,2))' -c:v libx264 -c:a pcm_s16le in.mkv"
    ));
    folder.upscale("in.mkv out.mkv --model none --audio flac");
    let (old, new) = (audio_span(&folder, "in.mkv", 1), audio_span(&folder, "out.mkv", 1));
    assert!((new.0 - old.0).abs() < 0.022 && (new.1 - old.1).abs() < 0.022, "{old:?} became {new:?}");
}

#[test]
fn programs_of_a_transport_stream_are_kept() {
    let folder = Folder::new();
    folder.ffmpeg(&format!(
        "{SMALL} {SINE} {SINE} -map 0 -map 1 -map 2 -t 2 -c:v libx264 -c:a mp2 \
         -program program_num=7:title=One:st=0:st=1 -program program_num=9:title=Two:st=2 \
         -metadata:s:a:0 language=eng -metadata:s:a:1 language=fra in.ts"
    ));
    folder.upscale("in.ts out.ts --model none");
    let programs = |name: &str| -> Vec<(u64, String, usize)> {
        let programs = folder.programs(name);
        let row = |program: &serde_json::Value| {
            let title = program["tags"]["service_name"].as_str().unwrap_or_default().to_owned();
            (program["program_num"].as_u64().unwrap(), title, program["streams"].as_array().unwrap().len())
        };
        programs.iter().map(row).collect()
    };
    assert_eq!(programs("in.ts"), [(7, "One".into(), 2), (9, "Two".into(), 1)]);
    assert_eq!(programs("out.ts"), programs("in.ts"));
    let ids =
        |name: &str| folder.probe(name).streams.iter().map(|stream| stream.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids("out.ts"), ids("in.ts"));
    assert_eq!(table(&folder.probe("out.ts")), table(&folder.probe("in.ts")));
}

#[test]
fn audio_is_converted_to_a_codec_of_the_container() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} {SINE} -t 1 -c:v libx264 -c:a libopus in.mkv"));
    for (out, codec) in [
        ("out.mov", "aac"),
        ("out.mp4", "opus"),
        ("out.ts", "opus"),
        ("out.nut", "opus"),
        ("out.avi", "mp3"),
        ("out.flv", "mp3"),
        ("out.wmv", "wmav2"),
        ("out.mpg", "mp2"),
    ] {
        // NUT has no negative timestamps, which packets of reordered frames have.
        let encoder = if out == "out.nut" { "--encoder ffv1" } else { "" };
        folder.upscale(&format!("in.mkv {out} --model none --strict {encoder}"));
        let probe = folder.probe(out);
        let audio = probe.streams.iter().find(|stream| stream.codec_type == "audio").expect("audio");
        assert_eq!(audio.codec_name, codec, "{out}");
    }
}

#[test]
fn tags_that_are_not_utf8_are_kept_as_bytes() {
    let folder = Folder::new();
    folder.write(
        "meta.txt",
        b";FFMETADATA1\ntitle=Gar\xe7on\n[STREAM]\ntitle=Fran\xe7ais\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=900\n\
          title=Caf\xe9\n",
    );
    folder.ffmpeg(&format!(
        "{SMALL} {SINE} -i meta.txt -map 0 -map 1 -t 1 -map_metadata 2 -map_metadata:s:a 2:s:0 -map_chapters 2 \
         -c:v libx264 -c:a aac in.mkv"
    ));
    let count =
        |name: &str, tag: &[u8]| folder.read(name).windows(tag.len()).filter(|word| *word == tag).count();
    for audio in ["copy", "flac"] {
        folder.upscale(&format!("in.mkv out.mkv -y --model none --audio {audio}"));
        for tag in [b"Gar\xe7on".as_slice(), b"Fran\xe7ais", b"Caf\xe9"] {
            assert_eq!(count("in.mkv", tag), 1, "the clip is to have its tags");
            assert_eq!(count("out.mkv", tag), 1, "{audio}: {}", String::from_utf8_lossy(tag));
        }
    }
}

/// Tags of FLV: kind, size in 3 bytes, time in 3 and 1, stream in 3; payload; size of all that (Adobe's FLV
/// specification, E.4.1). Calls `change` with the kind, the time and the bytes of each.
fn change_flv(flv: &[u8], mut change: impl FnMut(u8, usize, &[u8]) -> Vec<u8>) -> Vec<u8> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |value, &byte| value << 8 | usize::from(byte));
    let (mut changed, mut rest) = (flv[..13].to_vec(), &flv[13..]);
    while !rest.is_empty() {
        let (tag, after) = rest.split_at(11 + number(&rest[1..4]) + 4);
        changed.extend(change(tag[0], number(&tag[4..7]), tag));
        rest = after;
    }
    changed
}

#[test]
fn a_repeated_codec_header_is_written_once() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} {SINE} -t 3 -c:v libx264 -c:a aac -ar 44100 clip.flv"));
    let flv = folder.read("clip.flv");
    for (name, changes) in [("same.flv", false), ("other.flv", true)] {
        let (mut header, mut second) = (Vec::new(), 0);
        let repeated = change_flv(&flv, |kind, ms, tag| {
            // Kind 8 is audio, 0xa. AAC; its packet type 0 is the header.
            if kind == 8 && tag[11] >> 4 == 10 && tag[12] == 0 {
                header = tag.to_vec();
            }
            if kind != 8 || ms / 1000 == second {
                return tag.to_vec();
            }
            second = ms / 1000;
            let mut again = header.clone();
            again[4..7].copy_from_slice(&tag[4..7]);
            if changes && second == 2 {
                // Another number of channels in the AudioSpecificConfig.
                again[14] ^= 0x18;
            }
            [&again[..], tag].concat()
        });
        assert!(repeated.len() > flv.len(), "the header is repeated");
        folder.write(name, repeated);
        for out in ["out.mkv", "out.mp4", "out.flv"] {
            let ran = folder.upscale(&format!("{name} {out} -y --model none"));
            let is_lost = changes && out != "out.flv";
            let logged = ran.stderr.matches("the codec header of stream 1 changes").count();
            assert_eq!(logged, usize::from(is_lost), "{name} to {out}: {}", ran.stderr);
            let [before, after] = ["clip.flv", out].map(|name| folder.probe(name));
            assert_eq!(after.packets_of(1).len(), before.packets_of(1).len(), "{name} to {out}");
            if out != "out.flv" {
                assert_eq!(
                    after.streams[1].extradata_hash, before.streams[1].extradata_hash,
                    "{name} to {out}"
                );
                folder.assert_decodes(out);
            }
        }
    }
}

/// The join reads from before the part, where a packet may begin in the middle of a frame of MP2.
#[test]
fn damage_before_a_part_is_none_of_it() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} {SINE} -t 8 -c:v mpeg2video -bf 2 -c:a mp2 in.mpg"));
    folder.upscale("in.mpg out.mkv --model none --audio aac --from 2.35 --to 5.1 --report out.json");
    let report: serde_json::Value = serde_json::from_slice(&folder.read("out.json")).unwrap();
    assert_eq!(report["damaged"], 0, "{report}");
}

#[test]
fn damaged_packets_of_converted_audio_count() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} {SINE} -t 4 -c:v libx264 -c:a flac clip.mkv"));
    let mut clip = folder.read("clip.mkv");
    let probe = folder.probe("clip.mkv");
    let frames = probe.packets_of(1).len();
    // A frame of FLAC begins with a sync code, two bytes, and its number (RFC 9639, 9.1), below 128 in one byte.
    let (mut starts, mut at) = (Vec::new(), 0);
    while starts.len() < frames.min(128) {
        let is_start = |bytes: &[u8]| bytes[..2] == [0xff, 0xf8] && usize::from(bytes[4]) == starts.len();
        at += clip[at..].windows(5).position(is_start).expect("every frame is found");
        starts.push(at);
        at += 1;
    }
    for &at in &starts[10..13] {
        clip[at] = 0;
    }
    folder.write("in.mkv", clip);
    let ran = folder.hasn("upscale in.mkv out.mkv --model none --audio aac --report out.json");
    ran.assert_told("3 damaged frames or packets, the first: a packet of stream 1 cannot be decoded", "FLAC");
    let report: serde_json::Value = serde_json::from_slice(&folder.read("out.json")).unwrap();
    assert_eq!(report["damaged"], 3, "{report}");
    let places = report["damaged_places"].as_array().unwrap();
    let expected = probe.packets_of(1)[10].pts.unwrap();
    assert_eq!((places.len(), &places[0]["pts"]), (3, &expected.into()), "{report}");
    folder.upscale("in.mkv out.mkv -y --model none --audio aac --report out.json --tolerate 3");
    // From a pipe it is written directly.
    let file = std::fs::File::open(folder.path("in.mkv")).unwrap();
    let mut command = folder.hasn_command("upscale pipe:0 piped.mkv --model none --audio aac");
    let piped = Ran::of(command.stdin(file).output().unwrap());
    piped.assert_told("3 damaged frames or packets", "FLAC from a pipe");
}
