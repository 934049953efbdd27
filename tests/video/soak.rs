//! Long runs take no more memory, handles or threads at their end than at their start.
//!
//! `HASN_SOAK_FRAMES` is the count of frames of each run; `make soak` upscales hours of video.

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::common::flat::{Sample, assert_flat, sample};
use crate::common::program::{Folder, Ran};

/// Gives two hundred samples on a fast machine, of which the start takes less than a tenth on a busy one.
const FRAMES: u64 = 12_000;
const RATE: u64 = 25;
const CLIP_FRAMES: u64 = 500;
/// Small, so that hours of video take minutes; what a frame or a segment leaks does not depend on the size.
const WIDTH: u64 = 32;
const HEIGHT: u64 = 18;
const SAMPLE_EVERY: Duration = Duration::from_millis(10);
const GROWTH_MAX: f64 = 1.05;
/// Each encoder that is opened fragments the allocator's memory, for some 5000 frames: a tenth of the run must be longer
/// than half of that. Shorter runs have a wider limit and find large leaks only.
const SETTLED: u64 = 20_000;
const GROWTH_MAX_UNSETTLED: f64 = 1.15;

fn frames() -> u64 {
    std::env::var("HASN_SOAK_FRAMES").map_or(FRAMES, |text| text.parse().expect("a number"))
}

fn growth_max() -> f64 {
    if frames() < SETTLED { GROWTH_MAX_UNSETTLED } else { GROWTH_MAX }
}

/// Writes a video of `frames` frames, which repeats one clip.
fn video(folder: &Folder, frames: u64) {
    folder.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s={WIDTH}x{HEIGHT}:r={RATE} -f lavfi -i sine=r=48000 -t {} -c:v libx264 \
         -preset ultrafast -g 50 -c:a pcm_s16le clip.mkv",
        CLIP_FRAMES / RATE
    ));
    let seconds = frames as f64 / RATE as f64;
    folder.ffmpeg(&format!("-stream_loop -1 -i clip.mkv -t {seconds} -c copy video.mkv"));
}

/// Samples a run until it ends, which must be without an error.
fn watch(mut child: Child) -> (Vec<Sample>, Ran) {
    let mut samples = Vec::new();
    while child.try_wait().unwrap().is_none() {
        samples.extend(sample(child.id()));
        std::thread::sleep(SAMPLE_EVERY);
    }
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.assert_done();
    (samples, ran)
}

#[test]
fn a_long_run_from_file_to_file_is_flat() {
    let (folder, frames) = (Folder::new(), frames());
    video(&folder, frames);
    let line = "upscale video.mkv out.mkv --threads 2 --progress none --report report.json \
                --encoder-opt preset=ultrafast";
    let (samples, _) = watch(folder.hasn_command(line).stderr(Stdio::piped()).spawn().unwrap());
    let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    assert_eq!(report["frames"]["encoded"], frames);
    assert_eq!(report["verification"]["streams"][1]["kind"], "audio");
    assert_flat(&format!("file to file, {frames} frames"), &samples, growth_max());
}

/// The video is joined from its segments and read again for verification.
#[test]
fn memory_does_not_grow_with_the_size_of_the_output() {
    let folder = Folder::new();
    folder
        .ffmpeg("-f lavfi -i testsrc2=s=640x480:r=25 -frames:v 500 -c:v libx264 -preset ultrafast video.mkv");
    let line =
        "upscale video.mkv out.mkv --model none --scale 1 --encoder rawvideo --threads 2 --progress none";
    let (samples, _) = watch(folder.hasn_command(line).stderr(Stdio::piped()).spawn().unwrap());
    let size = std::fs::metadata(folder.path("out.mkv")).unwrap().len();
    let most = samples.iter().map(|sample| sample.memory).max().unwrap();
    assert!(size > 200_000_000 && most < 150_000_000, "{most} bytes of memory for a video of {size}");
}

#[test]
fn a_long_run_from_pipe_to_pipe_is_flat() {
    let (folder, frames) = (Folder::new(), frames());
    video(&folder, CLIP_FRAMES);
    let mut source = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-stream_loop", "-1", "-i"])
        .arg(folder.path("clip.mkv"))
        .args(["-frames:v", &frames.to_string(), "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", "-"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the ffmpeg command is installed");
    let mut run = folder.hasn_command("upscale - - --threads 2 --progress none");
    run.stdin(source.stdout.take().unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = run.spawn().unwrap();
    // The command holds an end of the pipe, too.
    drop(run);
    let mut written = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let (mut bytes, mut buffer) = (0, vec![0; 1 << 16]);
        loop {
            match written.read(&mut buffer).unwrap() {
                0 => return bytes,
                read => bytes += read as u64,
            }
        }
    });
    let (samples, _) = watch(child);
    assert!(source.wait().unwrap().success());
    // A line, luma and, in 4:2:0, half as much chroma; the stream's header is one line more.
    let frame = 2 * WIDTH * 2 * HEIGHT * 3 / 2 + "FRAME\n".len() as u64;
    let bytes = reader.join().unwrap();
    assert_eq!(bytes / frame, frames, "{bytes} bytes");
    assert_flat(&format!("pipe to pipe, {frames} frames"), &samples, growth_max());
}
