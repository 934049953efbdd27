//! Encoders and containers that a user may choose, and pipes.

use std::process::Stdio;

use crate::common::program::{Folder, Probe};

const TEST_FRAMES: &str = "-f lavfi -i testsrc2=s=64x48:r=25";
const SINE: &str = "-f lavfi -i sine=r=48000";

#[test]
fn every_encoder_keeps_all_frames_and_timestamps() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} {SINE} -t 1.2 -c:v libx264 -c:a libmp3lame in.mkv"));
    folder.ffmpeg(&format!("{TEST_FRAMES} {SINE} -t 1.2 -c:v libx264 -c:a libopus opus.mkv"));
    for (encoder, out, codec) in [
        ("libx264", "x264.mp4", "h264"),
        ("libx264", "x264.mov", "h264"),
        ("libx264", "x264.ts", "h264"),
        ("libx264", "x264.flv", "h264"),
        ("libx264", "x264.nut", "h264"),
        ("libx265", "x265.mp4", "hevc"),
        ("libx265", "x265.mkv", "hevc"),
        ("libvpx-vp9", "vp9.webm", "vp9"),
        ("libsvtav1", "av1.mkv", "av1"),
        ("libsvtav1", "av1.mp4", "av1"),
        ("ffv1", "ffv1.mkv", "ffv1"),
        ("ffv1", "ffv1.nut", "ffv1"),
        ("prores_ks", "prores.mov", "prores"),
        ("mpeg4", "mpeg4.avi", "mpeg4"),
        ("mpeg4", "mpeg4.mp4", "mpeg4"),
        ("mpeg2video", "mpeg2.ts", "mpeg2video"),
        ("mpeg2video", "mpeg2.mkv", "mpeg2video"),
        ("mjpeg", "mjpeg.avi", "mjpeg"),
        ("mjpeg", "mjpeg.mov", "mjpeg"),
    ] {
        let input = if out.ends_with(".webm") { "opus.mkv" } else { "in.mkv" };
        folder.upscale(&format!("{input} {out} --model none --encoder {encoder}"));
        let (before, after) = (folder.probe(input), folder.probe(out));
        assert_eq!(after.video().codec_name, codec, "{out}");
        assert_timestamps(&before, &after, out);
        let (kept, all) = (after.packets_of(1), before.packets_of(1));
        assert_eq!(kept.len(), all.len(), "{out}: audio");
        assert!(kept.iter().zip(&all).all(|(new, old)| new.data_hash == old.data_hash), "{out}: audio");
        assert_eq!(folder.frames(out).len(), 30, "{out}");
        folder.assert_decodes(out);
    }
}

/// Memory that the allocator fills with a pattern does not reach the file.
#[test]
fn bytes_that_no_component_has_are_zero() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 3 -pix_fmt bgr0 -c:v rawvideo in.nut"));
    let mut command = folder.hasn_command("upscale in.nut out.nut --model none --encoder rawvideo");
    let output = command.env("MALLOC_PERTURB_", "90").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let video = folder.ffmpeg("-i out.nut -f rawvideo -c copy -");
    assert_eq!(video.len(), 3 * 128 * 96 * 4);
    assert!(video.iter().skip(3).step_by(4).all(|byte| *byte == 0));
}

#[test]
fn presets_choose_encoder_depth_and_options() {
    let folder = Folder::new();
    for (format, input) in [("yuv420p", "in8.mkv"), ("yuv444p12", "in12.mkv")] {
        folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 5 -pix_fmt {format} -c:v ffv1 {input}"));
    }
    for (preset, input, out, codec, format, more) in [
        ("archive", "in8.mkv", "a.mkv", "ffv1", "yuv420p10le", ""),
        ("archive", "in12.mkv", "b.mkv", "ffv1", "yuv444p12le", ""),
        ("archive", "in8.mkv", "c.mkv", "ffv1", "yuv420p", "--pix-fmt yuv420p"),
        ("master", "in8.mkv", "d.mov", "prores", "yuv422p10le", ""),
        ("master", "in12.mkv", "e.mov", "prores", "yuv444p12le", ""),
        ("web", "in12.mkv", "f.mp4", "h264", "yuv420p", ""),
        ("web", "in8.mkv", "g.mp4", "hevc", "yuv420p", "--encoder libx265"),
    ] {
        folder.upscale(&format!("{input} {out} --model none --preset {preset} {more}"));
        let probe = folder.probe(out);
        let video = probe.video();
        assert_eq!((video.codec_name.as_str(), video.pix_fmt.as_str()), (codec, format), "{preset} {out}");
        assert_eq!(folder.frames(out).len(), 5, "{preset} {out}");
    }
    let place = |bytes: &[u8], word: &[u8]| bytes.windows(4).position(|four| four == word).unwrap();
    let web = folder.read("f.mp4");
    assert!(place(&web, b"moov") < place(&web, b"mdat"), "a player finds the index at the start of the file");
}

/// Asserts equal timestamps, to the coarser tick of both containers. Where all are shifted, the audio is shifted alike.
fn assert_timestamps(before: &Probe, after: &Probe, out: &str) {
    // AVI has an order and a rate, no timestamps.
    if out.ends_with(".avi") {
        assert_eq!(after.packets_of(0).len(), 30, "{out}");
        return;
    }
    let tick = before.video().tick().max(after.video().tick());
    let (old, new) = (before.video_seconds(), after.video_seconds());
    assert_eq!(new.len(), 30, "{out}");
    // Matroska and WebM shift the frames by the delay of Opus if its first packet comes before them.
    let moves = [".ts", ".flv", ".nut", ".webm"].iter().any(|extension| out.ends_with(extension));
    let moved = if moves { new[0] - old[0] } else { 0.0 };
    for (old, new) in old.iter().zip(&new) {
        assert!(
            (new - old - moved).abs() <= tick,
            "{out}: {old} s became {new} s, and the first moved by {moved} s"
        );
    }
    let audio = |probe: &Probe| probe.packets_of(1)[0].pts.expect("a pts") as f64 * probe.streams[1].tick();
    let audio_moved = audio(after) - audio(before);
    // Opus is shifted by its delay of 6.5 ms, which FFmpeg's muxer does not add.
    assert!(
        (audio_moved - moved).abs() < 0.0075,
        "{out}: audio moved by {audio_moved} s, frames by {moved} s"
    );
}

#[test]
fn encoder_options_reach_the_encoder() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 30 -c:v libx264 in.mkv"));
    let size = |options: &str| {
        folder.upscale(&format!("in.mkv out.mkv -y --model none {options}"));
        folder.read("out.mkv").len()
    };
    let (coarse, usual) = (size("--encoder-opt crf=40"), size(""));
    assert!(coarse < usual, "{coarse} bytes at CRF 40, {usual} by default");
    size("--encoder-opt g=5 --encoder-opt bf=0 --pix_fmt yuv444p".replace("pix_fmt", "pix-fmt").as_str());
    let keys = folder.probe("out.mkv").packets.iter().filter(|packet| packet.is_key()).count();
    assert_eq!(keys, 6);
    assert_eq!(folder.probe("out.mkv").video().pix_fmt, "yuv444p");
}

#[test]
fn y4m_is_read_from_and_written_to_pipes() {
    let folder = Folder::new();
    for format in ["yuv420p", "yuv420p10le", "yuv422p", "yuv444p", "gray"] {
        folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 10 -pix_fmt {format} -strict -1 in.y4m"));
        let input = std::fs::File::open(folder.path("in.y4m")).unwrap();
        let output = std::fs::File::create(folder.path("out.y4m")).unwrap();
        let mut hasn = folder.hasn_command("upscale - - --model none --scale 1 --progress json");
        let ran = hasn.stdin(input).stdout(output).stderr(Stdio::piped()).output().unwrap();
        assert!(ran.status.success(), "{format}: {}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(folder.frame_hashes("out.y4m", format), folder.frame_hashes("in.y4m", format), "{format}");
    }
    let upscaled = folder.hasn("upscale in.y4m - --progress none").stdout;
    folder.write("upscaled.y4m", upscaled);
    assert_eq!(folder.probe("upscaled.y4m").video().width, 128);
    assert_eq!(folder.frames("upscaled.y4m").len(), 10);
}

#[test]
fn streams_that_y4m_cannot_hold_are_reported() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} {SINE} -t 1 -c:v libx264 -c:a aac audio.mkv"));
    let ran = folder.upscale("audio.mkv - --model none");
    assert!(
        ran.stderr.contains("stream 1 (audio, aac)") && ran.stderr.contains("left out"),
        "{}",
        ran.stderr
    );
}
