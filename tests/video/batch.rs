//! Many videos: folders are mirrored, finished videos stay, and one that fails stops no other.

use std::process::{Child, Stdio};
use std::time::SystemTime;

use crate::common::program::{Folder, Ran, signal, wait_for};
use serde_json::Value;

const OPTIONS: &str = "--model none --progress none --threads 2";

fn video(folder: &Folder, frames: u32, name: &str) {
    if let Some(parent) = folder.path(name).parent() {
        std::fs::create_dir_all(parent).unwrap();
    }
    folder.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=64x48:r=25 -frames:v {frames} -c:v libx264 -preset ultrafast {name}"
    ));
}

fn batch(folder: &Folder, line: &str) -> Ran {
    folder.hasn(&format!("batch {line} {OPTIONS} --report report.json"))
}

fn report(folder: &Folder) -> Value {
    serde_json::from_slice(&folder.read("report.json")).unwrap()
}

/// Of every video, by its output.
fn outcomes(folder: &Folder) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let videos = report(folder)["videos"].as_array().unwrap().clone();
    videos.iter().map(|video| (word(&video["output"]), word(&video["outcome"]))).collect()
}

fn changed(folder: &Folder, name: &str) -> SystemTime {
    std::fs::metadata(folder.path(name)).unwrap().modified().unwrap()
}

fn assert_outcomes(folder: &Folder, ran: &Ran, code: i32, wanted: &[(&str, &str)]) {
    assert_eq!(ran.code, Some(code), "{}", ran.stderr);
    let found = outcomes(folder);
    let found: Vec<_> = found.iter().map(|(output, outcome)| (output.as_str(), outcome.as_str())).collect();
    assert_eq!(found, wanted, "{}", ran.stderr);
}

#[test]
fn folders_are_mirrored_and_finished_videos_are_skipped() {
    let folder = Folder::new();
    for name in
        ["in/a/b.mkv", "in/c.mp4", "in/.hidden.mkv", "in/d.partial.mkv", "in/e.mkv.hasn/f.mkv", "one.avi"]
    {
        video(&folder, 5, name);
    }
    folder.ffmpeg("-i in/c.mp4 -frames:v 1 in/a/cover.jpg");
    folder.write("in/a/about.nfo", "a video\n");
    folder.write("in/notes.txt", "notes\n");
    let line = "in one.avi --into in/out";
    let outputs = ["in/out/a/b.mkv", "in/out/c.mp4", "in/out/one.avi"];
    let all = |outcome: &'static str| outputs.map(|name| (name, outcome));
    let ran = batch(&folder, line);
    assert_outcomes(&folder, &ran, 0, &all("done"));
    for name in outputs {
        assert_eq!(folder.frames(name).len(), 5, "{name}");
    }
    let left_out =
        serde_json::json!(["in/a/about.nfo", "in/a/cover.jpg", "in/d.partial.mkv", "in/notes.txt"]);
    assert_eq!(report(&folder)["left_out"], left_out);
    let unfinished = "in/d.partial.mkv: left out, it has the name of an unfinished output";
    assert!(ran.stderr.contains(unfinished), "{}", ran.stderr);
    for name in ["in/out/a", "in/out"] {
        let hidden = std::fs::read_dir(folder.path(name)).unwrap().map(|entry| entry.unwrap().file_name());
        let hidden = hidden.filter(|name| name.to_string_lossy().starts_with('.'));
        let is_record = |name: std::ffi::OsString| name.to_string_lossy().ends_with(".hasn-batch");
        assert!(hidden.into_iter().all(is_record), "{name}: only records stay");
    }
    assert_eq!(report(&folder)["totals"]["frames"], 15);
    assert!(ran.stderr.contains("3 videos: 3 done, 0 skipped, 0 failed; 15 frames"), "{}", ran.stderr);

    let times = outputs.map(|name| changed(&folder, name));
    assert_outcomes(&folder, &batch(&folder, line), 0, &all("skipped"));
    assert_outcomes(&folder, &batch(&folder, &format!("{line} -y")), 0, &all("skipped"));
    assert_eq!(outputs.map(|name| changed(&folder, name)), times);
    assert_eq!(report(&folder)["videos"][0]["report"]["frames"]["encoded"], 5);

    let other = format!("{line} --scale 3");
    let ran = batch(&folder, &other);
    assert_outcomes(&folder, &ran, 1, &all("failed"));
    assert!(ran.stderr.contains("was encoded with --scale not given, now 3; -y"), "{}", ran.stderr);
    assert_outcomes(&folder, &batch(&folder, &format!("{other} -y")), 0, &all("done"));
    assert_eq!(folder.frames("in/out/c.mp4")[0].width, 192);

    // An input that has changed, an output without a record, and an output that was removed.
    video(&folder, 6, "in/c.mp4");
    std::fs::remove_file(folder.path("in/out/a/.b.mkv.hasn-batch")).unwrap();
    std::fs::remove_file(folder.path("in/out/one.avi")).unwrap();
    let ran = batch(&folder, &other);
    assert_outcomes(
        &folder,
        &ran,
        1,
        &[(outputs[0], "failed"), (outputs[1], "failed"), (outputs[2], "done")],
    );
    let errors = ["b.mkv: already exists, and no record says", "c.mp4: was encoded with input "];
    errors.iter().for_each(|error| assert!(ran.stderr.contains(error), "{error}\n{}", ran.stderr));
}

#[test]
fn one_that_fails_stops_no_other() {
    let folder = Folder::new();
    video(&folder, 300, "in/a.mkv");
    let bytes = folder.read("in/a.mkv");
    folder.write("in/a.mkv", &bytes[..bytes.len() / 2]);
    folder.write("in/b.mkv", "no video at all");
    video(&folder, 5, "in/c.mkv");
    let ran = batch(&folder, "in --into out");
    let rows = [("out/a.mkv", "failed"), ("out/b.mkv", "failed"), ("out/c.mkv", "done")];
    assert_outcomes(&folder, &ran, 1, &rows);
    let error = |at: usize| report(&folder)["videos"][at]["error"].as_str().unwrap().to_owned();
    assert!(error(0).contains("out/a.partial.mkv has the"), "{}", error(0));
    assert!(error(1).contains("it is not a media file"), "{}", error(1));
    assert!(!folder.path("out/a.mkv").exists() && !folder.path("out/.a.mkv.hasn-batch").exists());
    // Printed when it happens, and in the table.
    assert_eq!(ran.stderr.matches(&error(1)).count(), 2, "{}", ran.stderr);
}

#[test]
fn two_videos_with_one_output_are_refused_before_anything_starts() {
    let folder = Folder::new();
    for name in ["in/a.mkv", "in/a.mp4", "more/a.mkv"] {
        video(&folder, 5, name);
    }
    for line in ["in --into out --extension mov", "in more --into out"] {
        let ran = folder.hasn(&format!("batch {line}"));
        ran.assert_told("would be written from in/a.mkv and from", line);
    }
    for (line, said) in [
        ("in", "--into: is missing"),
        ("in --into in", "is --into as well"),
        ("nowhere --into out", "nowhere: cannot be read"),
        ("in --into out --extension mov --size 64x48 --jobs nothing.toml", "nothing.toml: cannot be read"),
    ] {
        folder.hasn(&format!("batch {line}")).assert_told(said, line);
    }
    assert_eq!(folder.names(), ["in", "more"]);
}

#[test]
fn a_job_file_lists_videos_and_options() {
    let folder = Folder::new();
    video(&folder, 5, "jobs/in/a.mkv");
    let write = |text: &str| folder.write("jobs/night.toml", text);
    let head = "[defaults]\nencoder-opt = [\"crf=20\", \"preset=ultrafast\"]\nscale = 3\n";
    write(&format!(
        "{head}\n[[job]]\ninput = \"in/a.mkv\"\noutput = \"out/a.mkv\"\n\n[[job]]\ninput = \"in/a.mkv\"\n\
         output = \"out/b.mp4\"\nscale = false\nsize = \"64x48\"\nstrict = true\nfrom = 0.04\n"
    ));
    let ran = batch(&folder, "--jobs jobs/night.toml");
    assert_outcomes(&folder, &ran, 0, &[("jobs/out/a.mkv", "done"), ("jobs/out/b.mp4", "done")]);
    let widths = ["jobs/out/a.mkv", "jobs/out/b.mp4"].map(|name| folder.probe(name).video().width);
    assert_eq!(widths, [192, 64]);
    assert_eq!(folder.frames("jobs/out/b.mp4").len(), 4);
    let job = "[[job]]\ninput = \"in/a.mkv\"\noutput = \"out/c.mkv\"\n";
    for (text, said) in [
        (format!("{head}scael = 2\n"), "night.toml:4: there is no option 'scael' here"),
        (format!("{job}report = \"r.json\"\n"), "night.toml:4: there is no option 'report' here"),
        (format!("[default]\nscale = 2\n{job}"), "night.toml:1: unknown field"),
        (format!("{job}scale = \n"), "night.toml:4: "),
        (format!("{job}scale = 1979-05-27\n"), "night.toml:4: 'scale' is neither text"),
        (format!("{job}scale = \"large\"\n"), "night.toml, job 1: invalid value 'large' for '--scale"),
        (format!("{head}{job}size = \"64x48\"\n"), "night.toml, job 1: the argument '--"),
        ("[[job]]\ninput = \"in/a.mkv\"\n".to_owned(), "night.toml, job 1: has no output"),
    ] {
        write(&text);
        batch(&folder, "--jobs jobs/night.toml").assert_told(said, &text);
    }
}

fn start(folder: &Folder, line: &str) -> Child {
    let line = format!("batch {line} {OPTIONS} --report report.json");
    folder.hasn_command(&line).stderr(Stdio::piped()).spawn().unwrap()
}

fn segments(folder: &Folder) -> usize {
    let entries = std::fs::read_dir(folder.path("out/a.mkv.hasn")).into_iter().flatten();
    entries.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "segment")).count()
}

/// Waits until the first video has one segment more.
fn start_and_wait(folder: &Folder) -> Child {
    let before = segments(folder);
    let child = start(folder, "in --into out");
    wait_for("a segment", || (segments(folder) > before).then_some(()));
    child
}

fn upscale_process(batch: &Child) -> String {
    let children = format!("/proc/{0}/task/{0}/children", batch.id());
    let video = std::fs::read_to_string(children).unwrap().trim().to_owned();
    assert!(video.parse::<u32>().is_ok(), "'{video}' is one process");
    video
}

#[test]
fn an_interrupted_batch_resumes() {
    let folder = Folder::new();
    video(&folder, 3000, "in/a.mkv");
    video(&folder, 5, "in/b.mkv");
    let child = start_and_wait(&folder);
    signal(&child, "-INT");
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_outcomes(&folder, &ran, 130, &[("out/a.mkv", "interrupted"), ("out/b.mkv", "pending")]);
    assert!(ran.stderr.contains("interrupted; out/a.mkv.hasn keeps the first"), "{}", ran.stderr);

    // A batch that is killed interrupts its video.
    let mut child = start_and_wait(&folder);
    let video = upscale_process(&child);
    child.kill().unwrap();
    child.wait().unwrap();
    // A process without a parent that waits for it stays in the list, without memory.
    let status = || std::fs::read_to_string(format!("/proc/{video}/status")).unwrap_or_default();
    wait_for("the video's end", || (!status().contains("VmRSS:")).then_some(()));

    // A video that is killed does not end the batch.
    let child = start_and_wait(&folder);
    let kill = format!("kill -KILL {}", upscale_process(&child));
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_outcomes(&folder, &ran, 1, &[("out/a.mkv", "failed"), ("out/b.mkv", "done")]);
    assert!(ran.stderr.contains("out/a.mkv: its run was ended by signal 9"), "{}", ran.stderr);

    let ran = batch(&folder, "in --into out");
    assert_outcomes(&folder, &ran, 0, &[("out/a.mkv", "done"), ("out/b.mkv", "skipped")]);
    assert!(ran.stderr.contains("out/a.mkv.hasn: resuming after"), "{}", ran.stderr);
    assert_eq!(folder.frames("out/a.mkv").len(), 3000);
}
