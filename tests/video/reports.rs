//! Reports, progress and logs for programs: `docs/report.schema.json` describes them, whatever the end of a run.

use std::process::{Child, Stdio};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::common::program::{Folder, Ran, project_file, signal, wait_for};

/// Frames arrive at 100 fps.
const PACED: &str = "--model none --encoder-opt preset=ultrafast --filter realtime=speed=4";

fn folder_with_video(frames: u32) -> Folder {
    let folder = Folder::new();
    folder.ffmpeg(&format!("-f lavfi -i testsrc2=s=64x48:r=25 -frames:v {frames} -c:v ffv1 video.mkv"));
    folder
}

/// Asserts that a value is what the schema says of its kind: `report`, `batch`, `progress` or `end`.
fn assert_described(value: &Value, kind: &str) {
    let schema: Value =
        serde_json::from_slice(&std::fs::read(project_file("docs/report.schema.json")).unwrap()).unwrap();
    assert!(jsonschema::is_valid(&schema, value), "{kind}: {value}");
    let of_kind = json!({ "$ref": format!("#/$defs/{kind}"), "$defs": schema["$defs"] });
    let validator: Validator = jsonschema::validator_for(&of_kind).expect("the schema is one");
    let errors: Vec<_> =
        validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{kind}: {errors:#?}\n{value:#}");
}

fn report(folder: &Folder, kind: &str) -> Value {
    let report = serde_json::from_slice(&folder.read("report.json")).unwrap();
    assert_described(&report, kind);
    report
}

/// Asserts what a report says of the end of its run.
fn assert_ended(report: &Value, ran: &Ran, status: &str, file: Option<&str>, folder: &Folder) {
    let bytes = file.map(|file| folder.read(file).len());
    let ended = json!([report["status"], report["exit_code"], report["output_path"], report["output_bytes"]]);
    assert_eq!(ended, json!([status, ran.code, file, bytes]), "{}", ran.stderr);
    assert!(report["started"].as_str() <= report["ended"].as_str(), "{report}");
    let line = ran.stderr.lines().find_map(|line| line.strip_prefix("hasn: "));
    match report["error"]["message"].as_str() {
        Some(message) => assert_eq!(Some(message), line),
        None => assert!(ran.code != Some(1), "{}", ran.stderr),
    }
}

/// The lines of progress; the last one is about the end.
fn progress(ran: &Ran) -> (Vec<Value>, Value) {
    let mut lines: Vec<Value> = ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.pop().expect("a line at the end at least");
    assert_described(&last, "end");
    lines.iter().for_each(|line| assert_described(line, "progress"));
    (lines, last)
}

/// Starts a run, and interrupts it once a segment is complete.
fn interrupted(folder: &Folder, line: &str) -> Ran {
    let mut hasn = folder.hasn_command(line);
    let mut child: Child = hasn.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a segment", || {
        assert!(child.try_wait().unwrap().is_none(), "the run is over already");
        folder.path("out.mkv.hasn/000000.segment").exists().then_some(())
    });
    signal(&child, "-INT");
    Ran::of(child.wait_with_output().unwrap())
}

const JSON: &str = "--progress json --report report.json";

#[test]
fn a_complete_output_is_reported_with_its_formats() {
    let folder = folder_with_video(30);
    let ran = folder.upscale(&format!("video.mkv out.mkv --model none {JSON}"));
    let report = report(&folder, "report");
    assert_ended(&report, &ran, "ok", Some("out.mkv"), &folder);
    let keys =
        ["input_width", "input_height", "width", "height", "input_fps", "output_fps", "frames_expected"];
    assert_eq!(keys.map(|key| report[key].as_f64().unwrap()), [64.0, 48.0, 128.0, 96.0, 25.0, 25.0, 30.0]);
    assert!(report["encoder_options"].as_array().unwrap().contains(&json!("crf=18")), "{report}");
    let (lines, last) = progress(&ran);
    assert_ended(&last, &ran, "ok", Some("out.mkv"), &folder);
    assert_eq!((&last["frames"], &last["media_s"]), (&json!(30), &json!(1.2)));
    assert!(lines.iter().all(|line| line["input"] == "video.mkv" && line["output"] == "out.mkv"));
}

#[test]
fn a_run_that_fails_before_its_first_frame_is_reported() {
    let folder = folder_with_video(5);
    folder.write("taken.mkv", "another");
    for (line, kind) in [
        ("missing.mkv out.mkv", "not_found"),
        ("video.mkv out.mkv --encoder unknown", "not_found"),
        ("video.mkv out.mkv --model none --from 9 --to 8", "invalid_input"),
        ("video.mkv taken.mkv", "exists"),
    ] {
        let ran = folder.hasn(&format!("upscale {line} {JSON}"));
        let report = report(&folder, "report");
        assert_ended(&report, &ran, "failed", None, &folder);
        assert_eq!((&report["error"]["kind"], report.get("frames")), (&json!(kind), None), "{line}");
        let (lines, last) = progress(&ran);
        assert!(lines.is_empty() && last["frames"] == 0, "{line}: {}", ran.text());
        assert_ended(&last, &ran, "failed", None, &folder);
    }
    // What is no report is not replaced by one.
    for path in ["video.mkv", "taken.mkv"] {
        let before = folder.read(path);
        assert_eq!(folder.hasn(&format!("upscale video.mkv taken.mkv --report {path}")).code, Some(1));
        assert_eq!(folder.hasn(&format!("upscale missing.mkv out.mkv --report {path}")).code, Some(1));
        assert!(folder.read(path) == before, "{path}");
    }
}

#[test]
fn the_partial_file_of_a_damaged_input_is_reported() {
    let folder = folder_with_video(60);
    let whole = folder.read("video.mkv");
    folder.write("cut.mkv", &whole[..whole.len() / 2]);
    let ran = folder.hasn(&format!("upscale cut.mkv out.mkv --model none {JSON}"));
    let report = report(&folder, "report");
    assert_ended(&report, &ran, "damaged", Some("out.partial.mkv"), &folder);
    assert!(
        report["damaged"].as_u64() > Some(0) && report["frames"]["encoded"].as_u64() > Some(0),
        "{report}"
    );
    assert_eq!(report["journal"], "out.mkv.hasn");
    assert_ended(&progress(&ran).1, &ran, "damaged", Some("out.partial.mkv"), &folder);
}

/// The frames of the interrupted run are no work of the one that resumes it.
#[test]
fn an_interrupted_and_a_resumed_run_are_reported_with_their_own_speed() {
    let folder = folder_with_video(500);
    let line = format!("upscale video.mkv out.mkv {PACED} {JSON}");
    let ran = interrupted(&folder, &line);
    let of_interrupted = report(&folder, "report");
    assert_ended(&of_interrupted, &ran, "interrupted", None, &folder);
    assert_eq!(of_interrupted["journal"], "out.mkv.hasn");
    assert_ended(&progress(&ran).1, &ran, "interrupted", None, &folder);

    let ran = folder.hasn(&line);
    assert_ended(&report(&folder, "report"), &ran, "ok", Some("out.mkv"), &folder);
    let (lines, last) = progress(&ran);
    let speeds: Vec<_> = lines.iter().map(|line| line["fps"].as_f64().unwrap()).collect();
    assert!(speeds.iter().all(|&fps| fps < 130.0) && lines[0]["frames"] == 240, "{speeds:?} {}", lines[0]);
    assert_eq!(last["frames"], 500);
}

#[test]
fn a_batch_is_reported_and_silent_where_it_is_to_be() {
    let folder = folder_with_video(60);
    let whole = folder.read("video.mkv");
    folder.write("cut.mkv", &whole[..whole.len() / 2]);
    let line = "batch video.mkv cut.mkv --into out --model none --progress json --report report.json -y";
    let ran = folder.hasn(line);
    let report = report(&folder, "batch");
    assert_eq!(json!([report["status"], report["exit_code"], ran.code]), json!(["failed", 1, 1]));
    let of = |at: usize| &report["videos"][at]["report"];
    assert_eq!((&of(0)["status"], &of(0)["output_path"]), (&json!("ok"), &json!("out/video.mkv")));
    assert_eq!((&of(1)["status"], &of(1)["output_path"]), (&json!("damaged"), &json!("out/cut.partial.mkv")));
    let ends = ran.text().lines().filter(|line| line.contains("\"event\":\"end\"")).count();
    assert!(ends == 2 && ran.stderr.contains("2 videos: 1 done, 0 skipped, 1 failed"), "{}", ran.stderr);

    let ran = folder.hasn("batch video.mkv --into quiet --model none -q");
    assert_eq!((ran.code, &*ran.stderr, ran.text()), (Some(0), "", ""));
}

#[test]
fn a_log_file_has_messages_with_their_times() {
    let folder = folder_with_video(5);
    let line = "upscale video.mkv out.mkv --model none";
    folder.hasn(&format!("{line} --log-file log.txt -q")).assert_done();
    let failed = folder.hasn(&format!("{line} --log-file log.txt"));
    let text = String::from_utf8(folder.read("log.txt")).unwrap();
    let is_dated = |line: &str| line.len() > 27 && line.as_bytes()[10] == b'T' && line.as_bytes()[26] == b'Z';
    assert!(text.lines().all(is_dated) && text.contains("INFO 64x48 yuv420p -> 128x96"), "{text}");
    let error = failed.stderr.lines().last().unwrap();
    assert!(text.lines().last().unwrap().ends_with(&format!("ERROR {error}")), "{text}\n{error}");

    folder.hasn(&format!("{line} --log-file log.jsonl --log-format json"));
    let ran = folder.hasn(&format!("{line} --log-format json"));
    assert!(ran.code == Some(2) && ran.stderr.contains("--log-file <FILE>"), "{}", ran.stderr);
    let text = String::from_utf8(folder.read("log.jsonl")).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(json!([last["level"], last["message"]]), json!(["ERROR", error]));
    let refused = format!("{line} --log-file no/log.txt");
    folder.hasn(&refused).assert_told("no/log.txt", &refused);
}
