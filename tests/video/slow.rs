//! A run so slow that a segment takes minutes loses seconds of work when it is killed.

use std::process::Child;

use serde_json::Value;

use crate::common::program::{Folder, Ran, wait_for};

/// FFmpeg's filter holds frames back: 5 fps, at which a segment takes 48 s.
const SLOW: &str = "--model none --threads 1 --filter realtime=speed=0.2 --encoder ffv1 --report report.json";

fn start(folder: &Folder, line: &str) -> Child {
    folder.hasn_command(line).stderr(std::process::Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_killed_slow_run_keeps_the_frames_between_its_cuts() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=64x48:r=25 -frames:v 150 -c:v ffv1 video.mkv");
    let line = |out: &str| format!("upscale video.mkv {out} {SLOW}");
    let whole = start(&folder, &line("whole.mkv").replace("report.json", "whole.json"));
    let mut child = start(&folder, &line("out.mkv"));
    // A frame of 128x96 in 4:2:0, and what precedes it.
    let bytes_of_frame = 128 * 96 * 3 / 2 + 44;
    let frames = || {
        std::fs::metadata(folder.path("out.mkv.hasn/000000.frames")).map(|data| data.len() / bytes_of_frame)
    };
    wait_for("some frames", || frames().ok().filter(|&frames| frames >= 10));
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = frames().unwrap();
    // The last one is cut off, as by a power cut.
    let path = folder.path("out.mkv.hasn/000000.frames");
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len((kept - 1) * bytes_of_frame + 100).unwrap();

    let ran = folder.hasn(&line("out.mkv"));
    ran.assert_done();
    let told = format!("out.mkv.hasn: resuming after {} frames", kept - 1);
    assert!(ran.stderr.contains(&told), "{}\nexpected: {told}", ran.stderr);
    let report: Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    let upscaled = report["fps"].as_f64().unwrap() * report["seconds"].as_f64().unwrap();
    assert!((upscaled - (151 - kept) as f64).abs() < 1.0, "{upscaled} frames after {kept} were kept");
    Ran::of(whole.wait_with_output().unwrap()).assert_done();
    assert!(folder.read("out.mkv") == folder.read("whole.mkv"));
}
