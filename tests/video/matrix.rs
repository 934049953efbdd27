//! Containers and codecs, one row each: encoded by `ffmpeg`, upscaled, read back.

use crate::common::program::{Folder, Probe};

/// Input and output have the same codec and container.
struct Row {
    name: &'static str,
    /// `ffmpeg`'s encoder and options of the clip.
    video: &'static str,
    audio: &'static str,
    /// `hasn`'s encoder and options.
    encoder: &'static str,
    /// What is compared besides frames and their timestamps.
    holds: &'static str,
}

const fn row(
    name: &'static str,
    video: &'static str,
    audio: &'static str,
    encoder: &'static str,
    holds: &'static str,
) -> Row {
    Row { name, video, audio, encoder, holds }
}

const ALL: &str = "audio language title chapters";
const X264: &str = "libx264 -preset ultrafast -bf 2 -b_strategy 0";
const X265: &str = "libx265 -preset ultrafast -x265-params log-level=error:bframes=2";
const VP9: &str = "libvpx-vp9 -deadline realtime -cpu-used 8";
const AV1: &str = "libaom-av1 -usage realtime -cpu-used 8";
const TO_X264: &str = "libx264 --encoder-opt preset=fast";
const TO_X265: &str = "libx265 --encoder-opt preset=ultrafast";
const TO_VP9: &str = "libvpx-vp9 --encoder-opt deadline=realtime --encoder-opt cpu-used=8";
const TO_AV1: &str = "libaom-av1 --encoder-opt usage=realtime --encoder-opt cpu-used=8";

#[rustfmt::skip]
const ROWS: [Row; 24] = [
    //   file           encoded by                           audio       upscaled with   holds
    row("h264.mp4",     X264,                                "aac",      TO_X264,        ALL),
    row("hevc.mp4",     X265,                                "aac",      TO_X265,        ALL),
    row("av1.mp4",      AV1,                                 "aac",      TO_AV1,         ALL),
    row("vp9.mp4",      VP9,                                 "libopus",  TO_VP9,         ALL),
    row("mpeg2.mp4",    "mpeg2video -bf 2",                  "mp2",      "mpeg2video",   ALL),
    row("h264.mkv",     X264,                                "flac",     TO_X264,        ALL),
    row("hevc.mkv",     X265,                                "ac3",      TO_X265,        ALL),
    row("av1.mkv",      AV1,                                 "libopus",  TO_AV1,         ALL),
    row("vp9.mkv",      VP9,                                 "libvorbis", TO_VP9,        ALL),
    row("mpeg2.mkv",    "mpeg2video -bf 2",                  "mp2",      "mpeg2video",   ALL),
    row("prores.mkv",   "prores_ks -pix_fmt yuv422p10le",    "pcm_s24le", "prores_ks",   ALL),
    row("ffv1.mkv",     "ffv1",                              "flac",     "ffv1",         ALL),
    row("mjpeg.mkv",    "mjpeg -pix_fmt yuvj420p",           "pcm_s16le", "mjpeg",       ALL),
    row("h264.mov",     X264,                                "aac",      TO_X264,        ALL),
    row("hevc.mov",     X265,                                "aac",      TO_X265,        ALL),
    row("prores.mov",   "prores_ks -pix_fmt yuv422p10le",    "pcm_s24le", "prores_ks",   ALL),
    row("mjpeg.mov",    "mjpeg -pix_fmt yuvj420p",           "pcm_s16le", "mjpeg",       ALL),
    row("vp9.webm",     VP9,                                 "libopus",  TO_VP9,         ALL),
    row("av1.webm",     AV1,                                 "libvorbis", TO_AV1,        ALL),
    row("h264.ts",      X264,                                "aac",      TO_X264,        "audio language"),
    row("hevc.ts",      X265,                                "ac3",      TO_X265,        "audio language"),
    row("mpeg2.ts",     "mpeg2video -bf 2",                  "mp2",      "mpeg2video",   "audio language"),
    row("gif.gif",      "gif",                               "",         "gif",          ""),
    row("image.png",    "png -frames:v 1 -update 1",         "",         "png",          ""),
];

#[test]
fn every_container_keeps_what_it_holds() {
    let folder = Folder::new();
    folder.write(
        "meta.txt",
        ";FFMETADATA1\ntitle=A video\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=400\ntitle=One\n\
         [CHAPTER]\nTIMEBASE=1/1000\nSTART=400\nEND=800\ntitle=Two\n",
    );
    let wrong: Vec<String> = ROWS.iter().flat_map(|row| check(&folder, row)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A line for each difference.
fn check(folder: &Folder, row: &Row) -> Vec<String> {
    let Row { name, video, audio, encoder, holds } = row;
    let (inputs, maps) = match *audio {
        "" => ("", String::new()),
        audio => (
            "-f lavfi -i sine=r=48000 -i meta.txt -map 0 -map 1 -map_metadata 2 -map_chapters 2",
            format!("-c:a {audio} -metadata:s:a language=fra"),
        ),
    };
    let frames = "-f lavfi -i testsrc2=s=64x64:r=25";
    folder.ffmpeg(&format!("{frames} {inputs} -t 0.8 -c:v {video} {maps} {name}"));
    let out = format!("out-{name}");
    let ran = folder.hasn(&format!("upscale {name} {out} --model none --strict --encoder {encoder}"));
    if ran.code != Some(0) {
        return vec![format!("{name}: {}", ran.stderr)];
    }
    let (before, after) = (folder.probe(name), folder.probe(&out));
    let mut wrong = Vec::new();
    let mut note = |holds: bool, what: String| {
        if !holds {
            wrong.push(format!("{name}: {what}"));
        }
    };
    note(after.video().codec_name == before.video().codec_name, format!("is {}", after.video().codec_name));
    note(after.video().width == 128, format!("is {} wide", after.video().width));
    let (old, new) = (relative(&before, before.video().index), relative(&after, after.video().index));
    note(new.len() == old.len() && !new.is_empty(), format!("{} frames of {}", new.len(), old.len()));
    note(are_near(&old, &new), format!("frames at {new:?}, not {old:?}"));
    folder.assert_decodes(&out);
    for what in holds.split_whitespace() {
        let same = match what {
            "audio" => {
                // Timestamps after the first frame: a container without negative ones shifts all alike.
                let payloads = |probe: &Probe| -> Vec<String> {
                    probe.packets_of(1).iter().map(|packet| packet.data_hash.clone()).collect()
                };
                payloads(&before) == payloads(&after) && are_near(&relative(&before, 1), &relative(&after, 1))
            }
            "language" => after.streams[1].title_and_language() == before.streams[1].title_and_language(),
            "title" => after.format.tags.get("title").map(String::as_str) == Some("A video"),
            "chapters" => {
                let titles = |probe: &Probe| -> Vec<String> {
                    probe.chapters.iter().map(|chapter| chapter.tags["title"].clone()).collect()
                };
                titles(&after) == ["One", "Two"] && titles(&before) == titles(&after)
            }
            _ => unreachable!("{what} is in no row"),
        };
        note(same, format!("{what} differs"));
    }
    wrong
}

/// pts of a stream in seconds after the first frame.
fn relative(probe: &Probe, stream: usize) -> Vec<f64> {
    let packets = probe.packets_of(stream);
    let Some(&begin) = probe.video_seconds().first() else { return Vec::new() };
    let tick = probe.streams[stream].tick();
    let mut times: Vec<f64> =
        packets.iter().map(|packet| packet.pts.unwrap() as f64 * tick - begin).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// To two milliseconds: Matroska counts in milliseconds.
fn are_near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.002)
}
