//! Memory: it does not grow with the length of a video, is known before the run, and where it cannot be had the run is
//! refused or ends in one line.

use std::process::Command;

use crate::common::program::{Folder, Ran};
use crate::common::sweep;

/// The encoder's look-ahead is full after 60 frames; the rest is the allocator's fragmentation.
const GROWTH_MAX_BYTES: u64 = 8 << 20;

#[test]
fn five_times_the_frames_take_no_more_memory() {
    let folder = Folder::new();
    let peak_bytes = |frames: u64| {
        let audio = "-f lavfi -i sine=r=48000 -c:a pcm_s16le -shortest";
        folder.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s=160x120:r=25 {audio} -frames:v {frames} -c:v libx264 -preset ultrafast in.mkv"
        ));
        folder.upscale("in.mkv out.mkv -y --threads 2 --progress none --report report.json");
        let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
        assert_eq!(report["frames"]["encoded"], frames);
        report["peak_memory_bytes"].as_u64().filter(|&bytes| bytes > 0).expect("this system reports the peak")
    };
    let (short, long) = (peak_bytes(60), peak_bytes(300));
    assert!(long < short + GROWTH_MAX_BYTES, "{short} bytes for 60 frames, {long} for 300");
}

/// What a run takes beside what it expects, and the part of the expected that it takes at least: encoders are estimated for
/// their longest look-ahead.
const UNEXPECTED_MAX_BYTES: u64 = 48 << 20;
const PART_MIN: u64 = 3;

#[test]
fn the_expected_memory_is_close_to_the_peak() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=640x360:r=25 -frames:v 40 -c:v mpeg4 in.mkv");
    folder.ffmpeg("-f lavfi -i testsrc2=s=2400x1600 -frames:v 1 -pix_fmt rgb24 in.png");
    for line in ["in.mkv out.mkv --encoder mpeg4", "in.mkv out.mkv", "in.png out.png"] {
        folder.upscale(&format!("{line} -y --model none --threads 2 --report report.json"));
        let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
        let bytes = |key: &str| report[key].as_u64().expect("a count of bytes");
        let (expected, peak) = (bytes("memory_expected_bytes"), bytes("peak_memory_bytes"));
        println!("{line}: {expected} bytes expected, {peak} taken");
        assert!(peak < expected + UNEXPECTED_MAX_BYTES, "{line}: {peak} bytes of {expected}");
        assert!(peak > expected / PART_MIN, "{line}: {peak} bytes of {expected}");
    }
}

/// Runs `hasn` in an address space of this size.
fn limited(folder: &Folder, mb: u64, line: &str) -> Ran {
    let limit = format!("ulimit -v {} && exec \"$0\" \"$@\"", 1000 * mb);
    let mut command = Command::new("sh");
    command
        .args(["-c", &limit, env!("CARGO_BIN_EXE_hasn")])
        .args(line.split(' '))
        .current_dir(folder.path(""));
    Ran::of(command.output().expect("a shell"))
}

#[test]
fn a_still_that_does_not_fit_is_refused_with_what_it_takes_and_what_can_be_had() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i color=gray:s=8000x8000 -frames:v 1 -pix_fmt gray in.png");
    let ran = limited(&folder, 1500, "upscale in.png out.png");
    ran.assert_told("8000x8000 to 16000x16000 takes 1.", "ulimit -v");
    ran.assert_told(
        "GB can be had by ulimit -v; raise the limit, choose a smaller size, or use a machine",
        "ulimit -v",
    );
    assert!(!folder.path("out.png").exists());
}

/// Limits in MB.
const LIMITS: [u64; 12] = [250, 300, 350, 400, 500, 600, 700, 800, 1000, 1200, 1500, 2000];

#[test]
fn no_limit_aborts_a_run_sweep() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=320x180:r=25 -frames:v 10 -c:v mpeg4 in.mkv");
    folder.ffmpeg("-f lavfi -i testsrc2=s=1600x1200 -frames:v 1 -pix_fmt rgb24 in.png");
    let lines = ["in.mkv out.mkv", "in.png out.png"];
    let all: Vec<_> = LIMITS.into_iter().flat_map(|mb| lines.map(|line| (mb, line))).collect();
    for (mb, line) in sweep::sample("memory sweep", all, 4) {
        let ran =
            limited(&folder, mb, &format!("upscale {line} -y --model none --threads 2 --progress none"));
        println!("{mb} MB, {line}: {:?} {}", ran.code, ran.stderr.trim());
        // Where the libraries do not fit, the program does not start.
        if !matches!(ran.code, Some(0 | 127)) {
            ran.assert_told("", &format!("{mb} MB, {line}"));
        }
    }
}
