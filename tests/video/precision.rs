//! A job keeps the precision with which it was started, whatever `--precision auto` would choose today.

use std::process::{Command, Stdio};

use hasn::engine::cpu::{Precision, level};
use serde_json::Value;

use crate::common::program::{Folder, Ran, say_skipped, signal, wait_for};

/// Speeds with which auto takes int16, and f32.
const INT16: &str = "f32=1,int16=9,bf16=1";
const F32: &str = "f32=9,int16=1,bf16=1";

const OPTIONS: &str = "--engine cpu --threads 2 --progress none --encoder-opt preset=ultrafast";

/// A video, upscaled as `whole.mkv` in int16; `None` where the CPU has no int16.
fn folder_with_videos() -> Option<Folder> {
    let level = level::detect().unwrap();
    if !level.precisions().any(|one| one == Precision::Int16) {
        say_skipped(&format!("another precision than f32, for the CPU level {} has none", level.name()));
        return None;
    }
    let folder = Folder::new();
    folder
        .ffmpeg("-f lavfi -i testsrc2=s=64x48:r=25 -frames:v 1000 -c:v libx264 -preset ultrafast video.mkv");
    hasn(&folder, &format!("upscale video.mkv whole.mkv {OPTIONS}"), INT16).assert_done();
    Some(folder)
}

fn command(folder: &Folder, line: &str, speeds: &str) -> Command {
    let mut command = folder.hasn_command(line);
    command.env("HASN_CPU_SPEEDS", speeds);
    command
}

fn hasn(folder: &Folder, line: &str, speeds: &str) -> Ran {
    Ran::of(command(folder, line, speeds).output().unwrap())
}

/// Runs it until the journal of `out` has a file whose name ends so, then interrupts it.
fn interrupt(folder: &Folder, mut command: Command, out: &str, name: &str) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let is_it = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(name))
    };
    wait_for("what is finished", || {
        assert!(child.try_wait().unwrap().is_none(), "the run is over already");
        std::fs::read_dir(folder.path(out)).into_iter().flatten().any(is_it).then_some(())
    });
    signal(&child, "-INT");
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
}

fn json(folder: &Folder, name: &str) -> Value {
    serde_json::from_slice(&folder.read(name)).unwrap()
}

/// The engine that a run in int16 records.
fn int16_engine() -> String {
    format!("cpu {} int16", level::detect().unwrap().name())
}

/// Runs it on a machine with the first CPU level alone, which lacks int16.
fn assert_refused_on_another_cpu(folder: &Folder, line: &str) {
    let mut command = folder.hasn_command(line);
    let ran = Ran::of(command.env("HASN_CPU_LEVEL", "plain").output().unwrap());
    let expected = format!(
        "was started with engine {}, and this machine has the CPU level plain; resume on a machine that has the first",
        int16_engine()
    );
    ran.assert_told(&expected, line);
}

#[test]
fn a_resumed_video_keeps_its_precision() {
    let Some(folder) = folder_with_videos() else { return };
    hasn(&folder, &format!("upscale video.mkv other.mkv {OPTIONS}"), F32).assert_done();
    let [other, whole] = ["other.mkv", "whole.mkv"].map(|name| folder.frame_hashes(name, "yuv420p"));
    assert_ne!(other, whole, "int16 and f32 give the same frames");
    let line = format!("upscale video.mkv out.mkv {OPTIONS}");
    interrupt(&folder, command(&folder, &line, INT16), "out.mkv.hasn", ".segment");
    assert_refused_on_another_cpu(&folder, &line);
    assert_refused_on_another_cpu(&folder, &format!("{line} --precision int16"));
    let explicit = format!("{line} --precision f32");
    let expected = format!("was started with engine {}, now cpu", int16_engine());
    hasn(&folder, &explicit, INT16).assert_told(&expected, &explicit);
    let auto = line.replace("--engine cpu", "");
    let (journal, gpu) = (folder.read("out.mkv.hasn/journal.json"), "cuda Another GPU");
    let on_gpu = String::from_utf8(journal.clone()).unwrap().replace(&int16_engine(), gpu);
    folder.write("out.mkv.hasn/journal.json", on_gpu);
    let expected = format!("was started with engine {gpu}, and this machine has ");
    hasn(&folder, &auto, INT16).assert_told(&expected, &auto);
    folder.write("out.mkv.hasn/journal.json", journal);
    let ran = hasn(&folder, &format!("-v {line}"), F32);
    ran.assert_done();
    assert!(ran.stderr.contains(&format!("continues with engine {}", int16_engine())), "{}", ran.stderr);
    assert!(folder.read("out.mkv") == folder.read("whole.mkv"));
    // What is discarded decides nothing.
    interrupt(&folder, command(&folder, &format!("{line} -y"), INT16), "out.mkv.hasn", ".segment");
    hasn(&folder, &format!("{line} -y --restart"), F32).assert_done();
    assert!(folder.read("out.mkv") == folder.read("other.mkv"));
}

#[test]
fn segments_of_a_plan_have_its_precision() {
    let Some(folder) = folder_with_videos() else { return };
    hasn(&folder, &format!("plan video.mkv out.mkv {OPTIONS} --restart"), INT16).assert_done();
    for segment in 0..5 {
        let line = format!("segment out.mkv.hasn {segment}");
        assert_refused_on_another_cpu(&folder, &line);
        hasn(&folder, &line, if segment == 1 { INT16 } else { F32 }).assert_done();
    }
    hasn(&folder, "join out.mkv.hasn", F32).assert_done();
    assert!(folder.read("out.mkv") == folder.read("whole.mkv"));
}

#[test]
fn a_resumed_batch_keeps_the_precision_of_its_video() {
    let Some(folder) = folder_with_videos() else { return };
    let line = format!("batch video.mkv --into out {OPTIONS} --report report.json");
    interrupt(&folder, command(&folder, &line, INT16), "out/video.mkv.hasn", ".segment");
    hasn(&folder, &line, F32).assert_done();
    assert_eq!(json(&folder, "report.json")["videos"][0]["report"]["precision"], "int16");
    assert!(folder.read("out/video.mkv") == folder.read("whole.mkv"));
    // The choice is no setting: a finished video stays.
    hasn(&folder, &line, F32).assert_done();
    assert_eq!(json(&folder, "report.json")["videos"][0]["outcome"], "skipped");
}

#[test]
fn a_resumed_image_sequence_keeps_its_precision() {
    let Some(folder) = folder_with_videos() else { return };
    let options = "--engine cpu --threads 2 --progress none --report report.json";
    let line = format!("upscale video.mkv out/%06d.png {options}");
    interrupt(&folder, command(&folder, &line, INT16), "out", ".png");
    hasn(&folder, &line, F32).assert_done();
    assert_eq!(json(&folder, "report.json")["precision"], "int16");
}

#[test]
fn what_a_killed_run_from_a_pipe_left_is_joined() {
    let Some(folder) = folder_with_videos() else { return };
    folder.ffmpeg("-i video.mkv video.y4m");
    let line = format!("upscale - out.mkv {OPTIONS}");
    let video = || std::fs::File::open(folder.path("video.y4m")).unwrap();
    let mut child = command(&folder, &line, INT16).stdin(video()).spawn().unwrap();
    wait_for("a segment", || folder.path("out.mkv.hasn/000000.segment").exists().then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    let ran = Ran::of(command(&folder, &line, F32).stdin(video()).output().unwrap());
    ran.assert_told("an earlier run ended after", &line);
}
