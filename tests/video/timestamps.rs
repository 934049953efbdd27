//! Irregular timestamps and A/V sync: jumps of the clock, doubled timestamps, ten minutes of variable frame rate.

use crate::common::program::{Folder, Probe};

const SMALL: &str = "-f lavfi -i testsrc2=s=32x32:r=25";
const SINE: &str = "-f lavfi -i sine=r=48000";

fn report(folder: &Folder, name: &str) -> serde_json::Value {
    serde_json::from_slice(&folder.read(name)).unwrap()
}

/// pts of a stream in seconds after the first frame, in order.
fn seconds(probe: &Probe, stream: usize) -> Vec<f64> {
    let (tick, begin) = (probe.streams[stream].tick(), probe.video_seconds()[0]);
    let times = probe.packets_of(stream).into_iter().map(|packet| packet.pts.unwrap() as f64 * tick - begin);
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn a_clock_that_jumps_is_made_continuous() {
    let folder = Folder::new();
    for (name, offset) in [("a.ts", 0), ("b.ts", 1000), ("c.ts", 77)] {
        let codecs = "-c:v libx264 -bf 2 -g 25 -c:a mp2";
        folder.ffmpeg(&format!("{SMALL} {SINE} -t 2 {codecs} -output_ts_offset {offset} {name}"));
    }
    for parts in [["a.ts", "b.ts", "c.ts"], ["b.ts", "a.ts", "c.ts"], ["c.ts", "a.ts", "b.ts"]] {
        folder.write("in.ts", parts.map(|part| folder.read(part)).concat());
        for out in ["out.mkv", "out.ts"] {
            folder.upscale(&format!("in.ts {out} -y --model none --report out.json"));
            let probe = folder.probe(out);
            let (frames, audio) = (seconds(&probe, 0), seconds(&probe, 1));
            assert_eq!(frames.len(), 150, "{parts:?} to {out}");
            let gaps = |times: &[f64]| {
                let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
                (gaps.iter().copied().fold(1e9, f64::min), gaps.iter().copied().fold(0.0, f64::max))
            };
            let (least, most) = gaps(&frames);
            assert!(least > 0.0 && most < 0.13, "{parts:?} to {out}: frames are {least} to {most} s apart");
            let (least, most) = gaps(&audio);
            assert!(least >= 0.0 && most < 0.13, "{parts:?} to {out}: audio is {least} to {most} s apart");
            let apart = audio.last().unwrap() - frames.last().unwrap();
            assert!(apart.abs() < 0.1, "{parts:?} to {out}: audio ends {apart} s after the frames");
            assert!(report(&folder, "out.json")["clock_jumps"].as_u64().unwrap() >= 2);
        }
    }
}

#[test]
fn a_stream_that_was_away_comes_back_in_sync() {
    let folder = Folder::new();
    // Of the audio's 24 s, 12 are missing.
    folder.ffmpeg(
        "-f lavfi -i testsrc2=s=32x32:r=10 -f lavfi -i sine=r=48000 -t 24 \
         -filter_complex [1:a]aselect='not(between(t\\,4\\,16))'[a] -map 0:v -map [a] -c:v libx264 -c:a mp2 in.ts",
    );
    let before = folder.probe("in.ts");
    for out in ["out.mkv", "out.ts"] {
        folder.upscale(&format!("in.ts {out} --model none --report out.json"));
        let after = folder.probe(out);
        for stream in [0, 1] {
            let apart = largest_difference(&seconds(&before, stream), &seconds(&after, stream));
            assert!(apart < 0.002, "{out}: stream {stream} is off by {apart} s");
        }
        assert_eq!(report(&folder, "out.json")["clock_jumps"], 0, "{out}");
    }
}

#[test]
fn a_clock_that_goes_back_in_a_file_is_made_continuous() {
    let folder = Folder::new();
    let clip = |rest: &str, name: &str| {
        folder.ffmpeg(&format!("{SMALL} {SINE} -t 12 -c:v libx264 -bf 2 -c:a aac {rest} {name}"));
    };
    clip("-ar 44100", "clip.flv");
    clip("", "clip.mkv");
    // Both behind one header; and both with theirs.
    let (flv, mkv) = (folder.read("clip.flv"), folder.read("clip.mkv"));
    folder.write("in.flv", [&flv[..], &flv[13..]].concat());
    folder.write("in.mkv", mkv.repeat(2));
    for name in ["in.flv", "in.mkv"] {
        folder.upscale(&format!("{name} out.mkv -y --model none --report out.json"));
        let probe = folder.probe("out.mkv");
        for (stream, most) in [(0, 0.13), (1, 0.13)] {
            let times = seconds(&probe, stream);
            let widest = times.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
            let end = times.last().unwrap();
            assert!(widest < most, "{name}: stream {stream} has a gap of {widest} s");
            assert!((end - 24.0).abs() < 0.2, "{name}: stream {stream} ends at {end} s");
        }
        assert_eq!(probe.packets_of(0).len(), 600, "{name}");
        assert_eq!(report(&folder, "out.json")["clock_jumps"], 1, "{name}");
    }
}

#[test]
fn a_stray_timestamp_does_not_shift_what_follows() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} -r 25 {SINE} -t 16 -c:v libx264 -bf 0 -c:a aac -ar 44100 clip.flv"));
    let mut flv = folder.read("clip.flv");
    // Tags: kind, 3 bytes of size, 3 of time in milliseconds and 1 above them (Adobe's FLV specification, E.4.1).
    let (mut at, mut strays) = (13, 0);
    while at + 11 < flv.len() {
        let of = |bytes: &[u8]| bytes.iter().fold(0, |value, &byte| value << 8 | usize::from(byte));
        let (size, ms) = (of(&flv[at + 1..at + 4]), of(&flv[at + 4..at + 7]));
        if flv[at] == 9 && ms >= 14_000 && strays == 0 {
            flv[at + 4..at + 7].copy_from_slice(&[0, 0, 40]);
            strays += 1;
        }
        at += 11 + size + 4;
    }
    assert_eq!(strays, 1, "one frame is at 14 s");
    folder.write("in.flv", flv);
    folder.upscale("in.flv out.mkv --model none --report out.json");
    let (before, after) = (folder.probe("clip.flv"), folder.probe("out.mkv"));
    for stream in [0, 1] {
        let apart = largest_difference(&seconds(&before, stream), &seconds(&after, stream));
        assert!(apart < 0.05, "stream {stream} is off by {apart} s");
    }
    assert_eq!(report(&folder, "out.json")["clock_jumps"], 1);
}

#[test]
fn a_doubled_timestamp_moves_one_frame_by_a_tick() {
    let folder = Folder::new();
    folder.ffmpeg(&format!(
        "{SMALL} -frames:v 50 -vf setpts='if(eq(N\\,10)\\,9\\,N)/25/TB' -fps_mode passthrough -c:v ffv1 in.mkv"
    ));
    folder.upscale("in.mkv out.mkv --model none --encoder ffv1 --report out.json");
    let (mut expected, found) = (folder.probe("in.mkv").video_pts(), folder.probe("out.mkv").video_pts());
    let mut doubled = 0;
    for i in 1..expected.len() {
        if expected[i] == expected[i - 1] {
            expected[i] += 1;
            doubled += 1;
        }
    }
    assert!(doubled > 0, "the clip has a doubled timestamp");
    assert_eq!(found, expected);
    assert_eq!(report(&folder, "out.json")["frames"]["timestamps_repaired"], doubled);
}

#[test]
fn ten_minutes_of_variable_frame_rate_stay_in_sync() {
    let folder = Folder::new();
    let uneven = "-vf select='not(mod(n\\,5))+not(mod(n\\,7))' -fps_mode vfr";
    folder.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=16x16:r=24 {SINE} -t 600 {uneven} -c:v libx264 -preset ultrafast -bf 1 -c:a aac -b:a 32k in.mkv"
    ));
    let before = folder.probe("in.mkv");
    let length = *seconds(&before, 0).last().unwrap();
    assert!(length > 599.0, "{length}");
    let options = "--model none --encoder-opt preset=ultrafast --encoder-opt bf=1";
    for (out, audio) in [("out.mkv", "copy"), ("out.mp4", "copy"), ("out.ts", "ac3")] {
        folder.upscale(&format!("in.mkv {out} {options} --audio {audio}"));
        let after = folder.probe(out);
        let frames = largest_difference(&seconds(&before, 0), &seconds(&after, 0));
        assert!(frames < 0.002, "{out}: a frame is off by {frames} s");
        let (old, new) = (seconds(&before, 1), seconds(&after, 1));
        // Encoded again, it begins and ends with packets of another duration.
        let near = if audio == "copy" { 0.002 } else { 0.06 };
        let (begin, end) = ((old[0] - new[0]).abs(), (old[old.len() - 1] - new[new.len() - 1]).abs());
        assert!(begin < near && end < near, "{out}: audio is off by {begin} and {end} s");
    }
}

#[test]
fn timestamps_past_the_end_of_every_counter_are_kept() {
    let folder = Folder::new();
    // Milliseconds past 2^40; ticks past 2^32; transport streams that cross 2^32 and 2^33, where their clock wraps, and one
    // that FFmpeg takes to begin below 0, for it wraps just after its start.
    for (name, offset, audio) in [
        ("huge.mkv", 1_200_000_000, "aac"),
        ("large.mp4", 400_000, "aac"),
        ("half.ts", 47_720, "mp2"),
        ("wrap.ts", 95_441, "mp2"),
        ("below.ts", 95_442, "mp2"),
    ] {
        let codecs = format!("-c:v libx264 -bf 2 -c:a {audio} -output_ts_offset {offset}");
        folder.ffmpeg(&format!("{SMALL} {SINE} -t 2.4 {codecs} {name}"));
        for out in ["out.mkv", "out.mp4", &format!("out-{name}")] {
            let ran =
                folder.upscale(&format!("{name} {out} -y --model none --report out.json --progress json"));
            let last: serde_json::Value = serde_json::from_str(ran.text().lines().last().unwrap()).unwrap();
            let expected = last["frames_expected"].as_f64().unwrap();
            assert!((expected - 60.0).abs() < 3.0, "{name}: {expected} frames are expected, not 60");
            assert_eq!(folder.frames(out).len(), 60, "{name} to {out}: frames are hidden");
            let (before, after) = (folder.probe(name), folder.probe(out));
            for stream in [0, 1] {
                let apart = largest_difference(&seconds(&before, stream), &seconds(&after, stream));
                assert!(apart < 0.002, "{name} to {out}: stream {stream} is off by {apart} s");
            }
            assert_eq!(report(&folder, "out.json")["clock_jumps"], 0, "{name} to {out}");
        }
    }
}

#[test]
fn frames_without_timestamps_get_the_frame_rate_of_their_stream() {
    let folder = Folder::new();
    for (name, encoder) in
        [("in.h264", "libx264 -bf 2"), ("in.hevc", "libx265 -x265-params log-level=error:bframes=2")]
    {
        folder
            .ffmpeg(&format!("-f lavfi -i testsrc2=s=32x32:r=30000/1001 -frames:v 50 -c:v {encoder} {name}"));
        assert!(
            folder.probe(name).packets.iter().all(|packet| packet.pts.is_none()),
            "{name} has no timestamps"
        );
        let ran = folder.upscale(&format!("{name} out.mkv -y --model none --report out.json"));
        assert_eq!(ran.stderr.matches("has no timestamp").count(), 1, "{name}: {}", ran.stderr);
        assert_eq!(report(&folder, "out.json")["frames"]["timestamps_repaired"], 50, "{name}");
        let even: Vec<f64> = (0..50).map(|i| f64::from(i) * 1.001 / 30.0).collect();
        let apart = largest_difference(&seconds(&folder.probe("out.mkv"), 0), &even);
        assert!(apart < 0.002, "{name}: a frame is off by {apart} s");
    }
}

#[test]
fn a_part_of_a_stream_whose_clock_jumps_is_frame_accurate() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} {SINE} -t 6 -c:v libx264 -g 25 -c:a aac -ar 44100 clip.flv"));
    let clip = folder.read("clip.flv");
    folder.write("in.flv", [&clip[..], &clip[13..]].concat());
    for (name, offset) in [("a.ts", 0), ("b.ts", 1000)] {
        let codecs = "-c:v libx264 -bf 2 -g 25 -c:a mp2";
        folder.ffmpeg(&format!("{SMALL} {SINE} -t 2 {codecs} -output_ts_offset {offset} {name}"));
    }
    folder.write("in.ts", [folder.read("a.ts"), folder.read("b.ts")].concat());
    for (name, from, to) in [("in.ts", 1, 3), ("in.flv", 2, 9)] {
        folder.upscale(&format!("{name} all.mkv -y --model none --encoder ffv1"));
        folder.upscale(&format!("{name} part.mkv -y --model none --encoder ffv1 --from {from} --to {to}"));
        let [all, part] = ["all.mkv", "part.mkv"].map(|name| folder.frame_hashes(name, "yuv420p"));
        assert_eq!(part, all[25 * from..25 * to], "{name}: a part around the jump");
        let probe = folder.probe("part.mkv");
        let (frames, audio) = (seconds(&probe, 0), seconds(&probe, 1));
        assert!((audio[0] - frames[0]).abs() < 0.06, "{name}: audio begins at {} s", audio[0]);
        let apart = audio.last().unwrap() - frames.last().unwrap();
        assert!(apart.abs() < 0.06, "{name}: audio ends {apart} s after the frames");
    }
}

#[test]
fn an_open_group_of_pictures_is_complete_and_trimmed_frame_accurately() {
    let folder = Folder::new();
    let frames = "-f lavfi -i testsrc2=s=64x64:r=25 -frames:v 60";
    let x265 = "log-level=error:open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0";
    for (name, encoder) in [
        ("h264.mkv", "libx264 -bf 3 -g 12 -x264-params open-gop=1:b-adapt=0:scenecut=0".to_owned()),
        ("hevc.mkv", format!("libx265 -x265-params {x265}")),
        ("mpeg2.ts", "mpeg2video -bf 2 -g 12 -q:v 2".to_owned()),
    ] {
        folder.ffmpeg(&format!("{frames} -c:v {encoder} {name}"));
        let probe = folder.probe(name);
        let packets = probe.packets_of(0);
        let key = packets.iter().skip(1).position(|packet| packet.is_key()).unwrap() + 1;
        assert!(packets[key + 1].pts < packets[key].pts, "{name}: frames are to lead a keyframe");
        folder.upscale(&format!("{name} all.mkv -y --model none --encoder ffv1 --scale 1"));
        let all = folder.frame_hashes("all.mkv", "yuv420p");
        assert_eq!(all, folder.frame_hashes(name, "yuv420p"), "{name}");
        for from in [0, 5, 10, 11, 12, 23, 34] {
            let seconds = from as f64 / 25.0;
            folder.upscale(&format!(
                "{name} part.mkv -y --model none --encoder ffv1 --scale 1 --from {seconds}"
            ));
            assert_eq!(folder.frame_hashes("part.mkv", "yuv420p"), all[from..], "{name} from {from}");
        }
    }
}

#[test]
fn what_an_edit_list_hides_is_not_played() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} {SINE} -t 3 -c:v libx264 -bf 2 -g 25 -c:a aac all.mp4"));
    folder.ffmpeg("-ss 1.5 -i all.mp4 -c copy in.mp4");
    let shown = folder.frames("in.mp4").len();
    for out in ["out.mkv", "out.mp4", "out.ts"] {
        folder.upscale(&format!("in.mp4 {out} --model none"));
        let probe = folder.probe(out);
        assert_eq!(folder.frames(out).len(), shown, "{out}");
        // MP4 hides it by an edit list again.
        let mut played = folder.probe(out);
        played.packets.retain(|packet| packet.stream_index != 1 || !packet.flags.contains('D'));
        let (frames, audio) = (seconds(&probe, 0), seconds(&played, 1));
        assert!(audio[0] > -0.06, "{out}: audio begins {} s before the frames", -audio[0]);
        let apart = audio.last().unwrap() - frames.last().unwrap();
        assert!(apart.abs() < 0.1, "{out}: audio ends {apart} s after the frames");
    }
}

/// Reading ends some time after `--to`, where the decoder has not got all frames.
#[test]
fn frames_are_repeated_where_a_container_only_counts_them() {
    let folder = Folder::new();
    // Gaps, frames that come too fast, and a first frame between the ticks of the frame rate.
    folder.ffmpeg(&format!(
        "{SMALL}:d=8 -vf select='lt(n,50)+eq(n,100)+eq(n,150)+gte(n,190)',setpts='PTS+0.013/TB+if(gt(N,55),N-55)' \
         -fps_mode vfr -c:v ffv1 in.mkv"
    ));
    folder.ffmpeg("-i in.mkv -vf fps=25:start_time=0.013 -c:v ffv1 even.mkv");
    let expected = folder.frame_hashes("even.mkv", "yuv420p");
    assert!(expected.len() > 195, "{}", expected.len());
    for (out, encoder) in [("out.y4m", ""), ("out.avi", "--encoder ffv1"), ("out.mxf", "--encoder prores_ks")]
    {
        folder.upscale(&format!("in.mkv {out} --model none --size 32x32 {encoder} --report out.json"));
        let probe = folder.probe(out);
        assert_eq!(probe.packets.len(), expected.len(), "{out}");
        if !encoder.contains("prores") {
            assert_eq!(folder.frame_hashes(out, "yuv420p"), expected, "{out}");
        }
        let frames = &report(&folder, "out.json")["frames"];
        assert_eq!(
            frames["duplicated"],
            expected.len() - frames["decoded"].as_u64().unwrap() as usize,
            "{out}"
        );
    }
}

#[test]
fn an_end_time_leaves_no_gap() {
    let folder = Folder::new();
    folder.ffmpeg(
        "-f lavfi -i testsrc2=s=32x32:r=25 -t 6 -c:v libx264 -preset ultrafast -bf 3 -b_strategy 0 v.mkv",
    );
    let ran = folder.upscale("--model none --threads 1 --progress none --to 2 v.mkv o.mkv");
    assert_eq!(ran.stderr, "");
    assert_eq!(folder.probe("o.mkv").video_pts().len(), 50);
}

#[test]
fn audio_that_starts_apart_stays_in_sync_where_tracks_start_together() {
    let folder = Folder::new();
    // A tone that begins 0.6 s after the first frame, in audio that starts later or earlier than the video.
    for (name, video_s, audio_s) in [("later.mkv", 0.0, 0.48), ("earlier.mkv", 0.48, 0.0)] {
        folder.ffmpeg(&format!(
            "-itsoffset {video_s} {SMALL}:d=1 -itsoffset {audio_s} -f lavfi -i \
             aevalsrc=if(gte(t\\,{})\\,0.5*sin(3000*t)\\,0):s=48000:d=1.2 -map 0 -map 1 -c:v ffv1 -c:a ac3 {name}",
            video_s + 0.6 - audio_s
        ));
        for out in ["out.avi", "out.mxf", "out.ogv"] {
            let ran = folder.upscale(&format!("{name} {out} -y --model none"));
            let samples = folder.ffmpeg(&format!("-i {out} -map 0:a -ac 1 -ar 48000 -f f32le -"));
            let samples: Vec<f32> =
                samples.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
            let tone_s = samples.iter().position(|sample| sample.abs() > 0.1).unwrap() as f64 / 48_000.0;
            // Tracks that start together: the first sample is played with the first frame.
            let probe = folder.probe(out);
            assert_eq!(
                probe.streams.iter().map(|stream| stream.start_pts).collect::<Vec<_>>(),
                [0, 0],
                "{out}"
            );
            assert!(
                (tone_s - 0.6).abs() < 0.04,
                "{name} to {out}: the tone begins at {tone_s} s\n{}",
                ran.stderr
            );
        }
    }
}

#[test]
fn a_part_of_a_transport_stream_begins_at_its_frame() {
    let folder = Folder::new();
    for codec in ["libx265 -preset ultrafast -x265-params log-level=none", "mpeg2video -bf 2 -g 12"] {
        folder.ffmpeg(&format!("-f lavfi -i testsrc2=s=64x64:r=24 -t 2 -c:v {codec} in.ts"));
        folder.upscale("in.ts all.mkv -y --model none --encoder ffv1");
        let all = folder.frame_hashes("all.mkv", "yuv420p");
        for frame in [2, 11, 30] {
            let from = (frame as f64 - 0.25) / 24.0;
            folder.upscale(&format!("in.ts part.mkv -y --model none --encoder ffv1 --from {from}"));
            assert!(
                folder.frame_hashes("part.mkv", "yuv420p") == all[frame..],
                "{codec}: from frame {frame} on, the frames are to be those of the complete run"
            );
        }
    }
}

#[test]
fn a_file_is_no_longer_than_its_packets_where_ogg_ends_within_one() {
    let folder = Folder::new();
    folder.ffmpeg(&format!(
        "{SMALL} -f lavfi -i aevalsrc=0.3*sin(1000*t)|0.3*sin(1300*t):s=32000 -t 0.5 -c:v libtheora -c:a libvorbis in.ogv"
    ));
    for out in ["out.webm", "out.mkv", "out.mp4"] {
        folder.upscale(&format!("in.ogv {out} --model none"));
        let seconds: f64 = folder.probe(out).format.duration.parse().unwrap();
        assert!((seconds - 0.5).abs() < 0.05, "{out} lasts {seconds} s");
    }
}

#[test]
fn a_part_begins_with_audio_that_can_be_decoded() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} {SINE} -t 1 -c:v ffv1 -c:a truehd -strict -2 in.mkv"));
    let is_key = |name: &str| folder.probe(name).packets_of(1)[0].is_key();
    assert!(folder.probe("in.mkv").packets_of(1).iter().any(|packet| !packet.is_key()));
    for from in [0.1, 0.3033, 0.6047] {
        folder.upscale(&format!("in.mkv out.mkv -y --model none --from {from}"));
        assert!(is_key("out.mkv"), "from {from}");
        folder.assert_decodes("out.mkv");
    }
}

#[test]
fn a_constant_rate_that_the_source_rounds_is_written_exactly() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=32x32:r=24000/1001 -frames:v 72 -c:v libx264 -bf 2 in.mkv");
    for out in ["out.mov", "out.mp4"] {
        folder.upscale(&format!("in.mkv {out} --model none --encoder-opt bf=2"));
        let probe = folder.probe(out);
        assert_eq!(probe.video().time_base, "1/24000", "{out}");
        let mut pts = probe.video_pts();
        pts.sort_unstable();
        assert_eq!(pts, (0..72).map(|n| n * 1001).collect::<Vec<_>>(), "{out}");
        assert!(probe.packets.iter().all(|packet| packet.duration == Some(1001)), "{out}");
    }
    // A part, and a gap between frames of the rate.
    folder.ffmpeg("-f lavfi -i testsrc2=s=32x32:r=24000/1001 -vf select=not(between(n\\,30\\,39)) -fps_mode vfr -frames:v 62 -c:v ffv1 gap.mkv");
    folder.upscale("gap.mkv gap.mov --model none --from 0.5");
    let mut pts = folder.probe("gap.mov").video_pts();
    pts.sort_unstable();
    let start = pts[0];
    assert_eq!(pts[17..19].iter().map(|pts| (pts - start) / 1001).collect::<Vec<_>>(), [17, 28]);
    assert!(pts.iter().all(|pts| (pts - start) % 1001 == 0), "{pts:?}");
}

#[test]
fn timecode_of_a_part_is_that_of_its_first_frame() {
    let folder = Folder::new();
    for (rate, timecode, expected) in
        [("30000/1001", "01:00:58;00", "01:01:00;02"), ("25", "01:00:58:00", "01:01:00:00")]
    {
        folder.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s=32x32:r={rate}:d=3 -c:v libx264 -timecode {timecode} -y in.mov"
        ));
        for out in ["out.mov", "out.mkv", "out.mp4"] {
            folder.upscale(&format!("in.mov {out} -y --model none --from 2"));
            let probe = folder.probe(out);
            let found = probe.video().tags.iter().find(|(key, _)| key.eq_ignore_ascii_case("timecode"));
            assert_eq!(found.map(|(_, value)| value.as_str()), Some(expected), "{out}");
        }
    }
}
