//! Every stream, timestamp and tag of the input is in the output: synthetic clips, counted and compared.

use crate::common::program::{Folder, Probe, Ran};

const SMALL: &str = "-f lavfi -i testsrc2=s=32x32:r=25";
/// Frame distances from one to three ticks.
const UNEVEN: &str = "-vf select='not(mod(n\\,3))+not(mod(n\\,7))' -fps_mode vfr";
const B_FRAMES: &str = "-c:v libx264 -preset fast -bf 3 -g 48";
const SINE: &str = "-f lavfi -i sine=r=48000";

/// Asserts that both files show the same number of frames at the same timestamps.
fn assert_timestamps(folder: &Folder, before: &str, after: &str) {
    let (input, output) = (folder.probe(before), folder.probe(after));
    assert_eq!(output.video().time_base, input.video().time_base, "{after}");
    assert_eq!(output.video_pts(), input.video_pts(), "{after}");
    assert_eq!(output.video().duration_ts, input.video().duration_ts, "{after}: duration of the stream");
    assert_dts_rise(&output);
}

/// Asserts that packets are in an order that every decoder takes.
fn assert_dts_rise(probe: &Probe) {
    let dts: Vec<i64> =
        probe.packets_of(probe.video().index).iter().filter_map(|packet| packet.dts).collect();
    assert!(dts.is_sorted_by(|a, b| a < b), "dts do not rise: {dts:?}");
}

#[test]
fn every_frame_keeps_its_timestamp() {
    let folder = Folder::new();
    let clip = |rest: &str, name: &str| folder.ffmpeg(&format!("{SMALL} {rest} {name}"));
    let length = "-frames:v 60";
    let offset = "-output_ts_offset 1.5";
    let table = [
        ("b-frames.mp4", format!("{length} {B_FRAMES}")),
        ("b-frames.mkv", format!("{length} {B_FRAMES}")),
        ("b-frames.ts", format!("{length} {B_FRAMES}")),
        ("late.mp4", format!("{length} {B_FRAMES} {offset}")),
        ("late.mkv", format!("{length} {B_FRAMES} {offset}")),
        ("late.nut", format!("{length} -c:v ffv1 {offset}")),
        ("uneven.mp4", format!("{UNEVEN} {length} {B_FRAMES}")),
        ("uneven.mkv", format!("{UNEVEN} {length} {B_FRAMES}")),
        ("uneven.nut", format!("{UNEVEN} {length} -c:v ffv1")),
        ("video.mkv", format!("-r 24000/1001 {length} {B_FRAMES}")),
        ("video.mov", format!("-r 24000/1001 {length} {B_FRAMES}")),
        ("two.mkv", "-frames:v 2 -c:v libx264".to_owned()),
        ("single.mkv", "-frames:v 1 -c:v libx264".to_owned()),
        ("single.mp4", "-frames:v 1 -c:v libx264".to_owned()),
    ];
    for (name, rest) in table {
        clip(&rest, name);
        let out = format!("out-{name}");
        // NUT has no negative timestamps, which packets of reordered frames have: FFV1 does not reorder.
        let encoder = if name.ends_with(".nut") { "--encoder ffv1" } else { "" };
        folder.upscale(&format!("{name} {out} --model none {encoder}"));
        assert_timestamps(&folder, name, &out);
        assert_eq!(folder.frames(&out).len(), folder.frames(name).len(), "{name}: frames shown");
        folder.assert_decodes(&out);
    }
}

#[test]
fn the_last_frame_keeps_its_duration() {
    let folder = Folder::new();
    // The last of three frames lasts a second: the clip is cut before a late fourth one.
    folder.ffmpeg(&format!(
        "{SMALL} -frames:v 4 -vf setpts='if(eq(N\\,3)\\,27\\,N)/25/TB' -fps_mode vfr -bf 0 \
         -video_track_timescale 12800 four.mp4"
    ));
    folder.ffmpeg("-i four.mp4 -c copy -frames:v 3 in.mp4");
    folder.upscale("in.mp4 out.mp4 --model none");
    assert_eq!(folder.probe("in.mp4").video().duration_ts, 2 * 512 + 12800);
    assert_timestamps(&folder, "in.mp4", "out.mp4");
}

#[test]
fn audio_and_video_stay_in_sync_with_negative_timestamps() {
    let folder = Folder::new();
    // AAC and Opus start before 0; the edit list of the third file hides the first half second.
    let sources = [
        ("aac.mp4", format!("{SMALL} {SINE} -t 2 {B_FRAMES} -c:a aac")),
        ("opus.mkv", format!("{SMALL} {SINE} -t 2 {B_FRAMES} -c:a libopus")),
    ];
    for (name, line) in &sources {
        folder.ffmpeg(&format!("{line} {name}"));
    }
    folder.ffmpeg("-itsoffset -0.5 -i aac.mp4 -c copy -avoid_negative_ts disabled cut.mp4");
    for name in ["aac.mp4", "opus.mkv", "cut.mp4"] {
        let out = format!("out-{name}");
        folder.upscale(&format!("{name} {out} --model none"));
        let (before, after) = (folder.probe(name), folder.probe(&out));
        assert_audio(&before, &after, name);
        let times = |name: &str| folder.frames(name).iter().map(|frame| frame.pts).collect::<Vec<_>>();
        assert_eq!(times(&out), times(name), "{name}");
    }
    let first = folder.probe("cut.mp4").video_pts()[0];
    assert!(first < 0, "the clip is to start before 0, not at {first}");
}

/// Asserts the same packets at the same timestamps, to a tick: the delay of Opus is no multiple of Matroska's tick.
fn assert_audio(before: &Probe, after: &Probe, name: &str) {
    let (kept, all) = (after.packets_of(1), before.packets_of(1));
    if name != "opus.mkv" {
        assert_eq!(kept, all, "{name}: audio");
        return;
    }
    assert_eq!(kept.len(), all.len(), "{name}: audio");
    for (new, old) in kept.iter().zip(all) {
        assert_eq!(new.data_hash, old.data_hash, "{name}: audio");
        let moved_ms = new.pts.unwrap() - old.pts.unwrap();
        assert!((-1..=1).contains(&moved_ms), "{name}: audio moved by {moved_ms} ms");
    }
}

#[test]
fn segments_join_without_a_seam() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} -frames:v 500 {B_FRAMES} even.mp4"));
    folder.ffmpeg(&format!("{SMALL} {UNEVEN} -frames:v 500 {B_FRAMES} uneven.mkv"));
    for (name, out) in [("even.mp4", "out-even.mp4"), ("uneven.mkv", "out-uneven.mkv")] {
        let report = format!("--report {out}.json");
        folder.upscale(&format!("{name} {out} --model none --threads 2 {report}"));
        assert_timestamps(&folder, name, out);
        folder.assert_decodes(out);
        let frames = folder.frames(out);
        assert_eq!(frames.len(), 500);
        for cut in [0, 240, 480] {
            assert_eq!(frames[cut].key_frame, 1, "{out}: frame {cut} starts a segment");
        }
        let reordered = folder.probe(out).packets.is_sorted_by_key(|packet| packet.pts);
        assert!(!reordered, "the encoder is to use B-frames");
        let report: serde_json::Value = serde_json::from_slice(&folder.read(&format!("{out}.json"))).unwrap();
        assert_eq!(report["segments"], 3);

        let second = format!("second-{out}");
        folder.upscale(&format!("{name} {second} --model none --threads 2"));
        assert!(folder.read(&second) == folder.read(out), "{out}: the same input gives the same file");
    }
}

#[test]
fn all_other_streams_are_copied_bit_for_bit() {
    let folder = Folder::new();
    let text = |line: &str| {
        format!("1\n00:00:00,200 --> 00:00:00,900\n{line}\n\n2\n00:00:01,000 --> 00:00:01,500\nII\n")
    };
    folder.write("en.srt", text("Hello"));
    folder.write("fr.srt", text("Bonjour"));
    folder.write("font.ttf", b"not really a font, but bytes to be kept");
    folder.write(
        "meta.txt",
        ";FFMETADATA1\ntitle=A video\nartist=Somebody\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=One\n\
         [CHAPTER]\nTIMEBASE=1/1000\nSTART=1000\nEND=2000\ntitle=Two\n",
    );
    folder.ffmpeg(&format!(
        "{SINE} {SMALL} -f lavfi -i sine=f=880:r=44100 -f lavfi -i sine=f=220 -i en.srt -i fr.srt -i meta.txt \
         -map 0 -map 4 -map 1 -map 2 -map 3 -map 5 -map_metadata 6 -map_chapters 6 -t 2 {B_FRAMES} \
         -c:a:0 aac -c:a:1 flac -c:a:2 ac3 -c:s:0 srt -c:s:1 ass -attach font.ttf \
         -metadata:s:t mimetype=application/x-truetype-font -metadata:s:a:0 language=eng -metadata:s:a:1 language=fra \
         -metadata:s:a:1 title=Director -metadata:s:a:2 language=deu -metadata:s:s:0 language=eng \
         -metadata:s:s:1 language=fra -metadata:s:s:1 title=Signs -metadata:s:v language=jpn -metadata:s:v title=Main \
         -disposition:a:0 0 -disposition:a:1 default -disposition:a:2 visual_impaired -disposition:s:1 forced in.mkv"
    ));
    let ran = folder.upscale("in.mkv out.mkv --model none");
    assert!(!ran.stderr.contains("left out"), "{}", ran.stderr);
    let (before, after) = (folder.probe("in.mkv"), folder.probe("out.mkv"));
    let kinds: Vec<_> = before.streams.iter().map(|stream| stream.codec_type.as_str()).collect();
    assert_eq!(kinds, ["audio", "subtitle", "video", "audio", "audio", "subtitle", "attachment"]);
    assert_eq!(after.streams.len(), before.streams.len());
    for (old, new) in before.streams.iter().zip(&after.streams) {
        let index = old.index;
        assert_eq!(new.title_and_language(), old.title_and_language(), "stream {index}");
        assert_eq!(new.disposition, old.disposition, "stream {index}");
        if old.codec_type != "video" {
            assert_eq!(new.codec_name, old.codec_name, "stream {index}");
            assert_eq!(new.extradata_hash, old.extradata_hash, "stream {index}");
            assert_eq!(after.packets_of(index), before.packets_of(index), "stream {index}");
        }
    }
    assert_eq!(after.video_pts(), before.video_pts());
    assert_eq!(after.chapters, before.chapters);
    for (key, value) in [("title", "A video"), ("ARTIST", "Somebody")] {
        assert_eq!(after.format.tags.get(key).map(String::as_str), Some(value), "{key}");
    }
}

#[test]
fn streams_that_a_container_cannot_hold_are_reported() {
    let folder = Folder::new();
    folder.write("en.srt", "1\n00:00:00,200 --> 00:00:00,900\nHello\n");
    folder.ffmpeg(&format!(
        "{SMALL} {SINE} -i en.srt -map 0 -map 1 -map 2 -t 1 {B_FRAMES} -c:a aac -c:s srt in.mkv"
    ));
    let ran = folder.upscale("in.mkv out.ts --model none --report report.json");
    assert!(ran.stderr.contains("stream 2 (subtitle, subrip)"), "{}", ran.stderr);
    let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    assert_eq!(report["left_out"].as_array().map(Vec::len), Some(1));
    assert_eq!(folder.probe("out.ts").packets_of(1).len(), folder.probe("in.mkv").packets_of(1).len());
}

#[test]
fn clips_are_frame_accurate() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} {SINE} -t 4 {B_FRAMES} -c:a flac in.mkv"));
    folder.upscale("in.mkv complete.mkv --model none --encoder ffv1");
    let complete = folder.frame_hashes("complete.mkv", "yuv420p");
    // At 25 fps; keyframes are at 0, 48 and 96.
    for (from, to, frames) in [
        ("1", "2", 25..50),
        ("0:01.92", "0:00:03", 48..75),
        ("0", "0.2", 0..5),
        ("3.98", "100", 100..100),
        ("3.9", "9", 98..100),
    ] {
        let line = format!("in.mkv part.mkv -y --model none --encoder ffv1 --from {from} --to {to}");
        if frames.is_empty() {
            let ran = folder.hasn(&format!("upscale {line}"));
            assert_eq!(ran.code, Some(1), "{from} to {to}");
            assert!(ran.stderr.contains("no frame in that part"), "{}", ran.stderr);
            continue;
        }
        folder.upscale(&line);
        assert_eq!(folder.frame_hashes("part.mkv", "yuv420p"), complete[frames.clone()], "{from} to {to}");
        let (part, source) = (folder.probe("part.mkv"), folder.probe("in.mkv"));
        let from_s: f64 = from.rsplit(':').next().unwrap().parse().unwrap();
        let expected = frames.start as f64 / 25.0 - from_s;
        assert!(
            (part.video_seconds()[0] - expected).abs() < 0.0015,
            "{from} to {to}: {:?}",
            part.video_pts()
        );
        let hashes = |probe: &Probe| {
            probe.packets_of(1).iter().map(|packet| packet.data_hash.clone()).collect::<Vec<_>>()
        };
        let (kept, all) = (hashes(&part), hashes(&source));
        assert!(!kept.is_empty() && all.windows(kept.len()).any(|run| run == kept), "{from} to {to}: audio");
    }
}

#[test]
fn the_display_matrix_is_kept_or_applied() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} -frames:v 5 -c:v libx264 level.mp4"));
    let mut file = std::fs::read(folder.path("level.mp4")).unwrap();
    // A rotation by 90 degrees in the first track header, in 16.16 and 2.30 fixed point (ISO 14496-12, 8.3.2).
    let matrix = file.windows(4).position(|word| word == b"tkhd").unwrap() + 4 + 40;
    let quarter_turn = [0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30];
    file[matrix..][..36].copy_from_slice(&quarter_turn.map(i32::to_be_bytes).concat());
    std::fs::write(folder.path("in.mp4"), file).unwrap();
    folder.upscale("in.mp4 out.mp4 --model none");
    let rotation = |name: &str| folder.probe(name).video().side_data_list.clone();
    assert_eq!(rotation("in.mp4").len(), 1);
    assert_eq!(rotation("out.mp4"), rotation("in.mp4"));
    // FFmpeg's Matroska muxer writes none: frames are turned upright, also those of a later part.
    let line = "--model none --scale 1 --strict --encoder ffv1";
    folder.upscale(&format!("in.mp4 out.mkv {line}"));
    folder.upscale(&format!("in.mp4 part.mkv {line} --from 0.08"));
    folder.ffmpeg("-noautorotate -i in.mp4 -vf transpose=clock -c:v ffv1 upright.mkv");
    let expected = folder.frame_hashes("upright.mkv", "yuv420p");
    assert_eq!(folder.frame_hashes("out.mkv", "yuv420p"), expected);
    assert_eq!(folder.frame_hashes("part.mkv", "yuv420p"), expected[2..]);
    assert_eq!(folder.probe("out.mkv").video_pts(), folder.probe("upright.mkv").video_pts());
    // A filter gets upright frames, whatever the container holds.
    folder.upscale("in.mp4 filtered.mp4 --model none --scale 1 --filter hflip");
    folder.ffmpeg("-i in.mp4 -vf hflip flipped.mp4");
    let [filtered, flipped] = ["filtered.mp4", "flipped.mp4"].map(|name| folder.probe(name));
    assert_eq!(rotation("filtered.mp4"), rotation("flipped.mp4"));
    assert_eq!(rotation("filtered.mp4").len(), 0);
    let size = |probe: &Probe| (probe.video().width, probe.video().height);
    assert_eq!(size(&filtered), size(&flipped));
    // An eighth of a turn cannot be applied without a loss.
    let half = (1 << 16) * 181 / 256;
    let mut file = folder.read("in.mp4");
    let eighth_turn = [half, half, 0, -half, half, 0, 0, 0, 1 << 30];
    file[matrix..][..36].copy_from_slice(&eighth_turn.map(i32::to_be_bytes).concat());
    folder.write("eighth.mp4", file);
    let ran = folder.upscale("eighth.mp4 eighth.mkv --model none");
    assert!(ran.stderr.contains("cannot hold the display matrix of stream 0"), "{}", ran.stderr);
    folder
        .hasn("upscale eighth.mp4 strict.mkv --model none --strict")
        .assert_told("the display matrix of stream 0", "--strict");
}

#[test]
fn the_default_video_is_upscaled_then_the_largest() {
    let folder = Folder::new();
    let (large, small) = ("-f lavfi -i testsrc2=s=64x48:r=25", "-f lavfi -i color=gray:s=32x32:r=25");
    for (dispositions, expected) in
        [(["default", "default"], [128, 32]), (["0", "default"], [64, 64]), (["0", "0"], [128, 32])]
    {
        let [first, second] = dispositions;
        folder.ffmpeg(&format!(
            "{large} {small} -map 0 -map 1 -frames:v 5 -c:v mpeg4 -b:v:1 9M -y \
             -disposition:v:0 {first} -disposition:v:1 {second} in.mkv"
        ));
        let ran = folder.upscale("in.mkv out.mkv -y --model none");
        let widths: Vec<_> = folder.probe("out.mkv").streams.iter().map(|stream| stream.width).collect();
        assert_eq!(widths, expected, "{dispositions:?}");
        assert!(ran.stderr.contains("is upscaled, stream"), "{}", ran.stderr);
    }
}

#[test]
fn streams_whose_ids_are_pids_of_tables_are_moved() {
    let folder = Folder::new();
    let source = "-f lavfi -i testsrc2=s=32x32:r=25 -f lavfi -i sine=r=48000 -t 0.2 -c:v mpeg2video -c:a mp2";
    let ids = |name: &str| -> Vec<String> {
        folder.probe(name).streams.iter().map(|stream| stream.id.clone()).collect()
    };
    for (options, expected) in [
        ("-streamid 0:4096 -streamid 1:256 -mpegts_pmt_start_pid 0x20 in.ts", ["0x101", "0x100"]),
        ("-streamid 0:300 -streamid 1:301 in.ts", ["0x12c", "0x12d"]),
        ("in.mp4", ["0x100", "0x101"]),
    ] {
        folder.ffmpeg(&format!("{source} -y {options}"));
        let input = options.split(' ').next_back().unwrap();
        folder.upscale(&format!("{input} out.ts -y --model none"));
        assert_eq!(ids("out.ts"), expected, "{options}");
    }
}

#[test]
fn a_stream_that_appears_later_is_reported() {
    let folder = Folder::new();
    let frame = "-f lavfi -i testsrc2=s=32x32:r=25";
    let audio = "-f lavfi -i sine=r=48000";
    let codecs = "-c:v mpeg2video -c:a mp2";
    folder.ffmpeg(&format!("{frame} {audio} -t 12 {codecs} one.ts"));
    folder.ffmpeg(&format!(
        "{frame} {audio} {audio} -map 0 -map 1 -map 2 -t 2 {codecs} -output_ts_offset 12 two.ts"
    ));
    folder.write("in.ts", [folder.read("one.ts"), folder.read("two.ts")].concat());
    // The end of a file is probed when it is opened, that of a pipe is not.
    let piped = |command: &mut std::process::Command| {
        let file = std::fs::File::open(folder.path("in.ts")).unwrap();
        Ran::of(command.stdin(file).output().unwrap())
    };
    for (source, expected) in [("in.ts", "cannot hold stream 2"), ("pipe:0", "stream 2 first appears at")] {
        let ran = piped(&mut folder.hasn_command(&format!("upscale {source} out.mkv -y --model none")));
        ran.assert_done();
        assert_eq!(ran.stderr.matches(expected).count(), 1, "{}", ran.stderr);
        assert_eq!(ran.stderr.matches("the transport stream is discontinuous").count(), 1, "{}", ran.stderr);
    }
    let probe = folder.probe("out.mkv");
    assert_eq!(probe.streams.len(), 2);
    assert_eq!(probe.packets_of(0).len(), 350);
}
