//! `--dry-run`: what a run would do and take, without doing it.

use crate::common::program::Folder;

const CLIP: &str = "-f lavfi -i testsrc2=s=96x64:r=25 -f lavfi -i sine=r=48000 -t 4";
const CODECS: &str = "-c:v libx264 -preset ultrafast -c:a pcm_s16le";

fn facts(folder: &Folder, line: &str) -> serde_json::Value {
    let ran = folder.hasn(&format!("upscale --dry-run --progress json --model none {line}"));
    ran.assert_done();
    serde_json::from_slice(&ran.stdout).unwrap_or_else(|e| panic!("{line}: {e}\n{}", ran.text()))
}

#[test]
fn a_dry_run_lists_streams_and_estimates_size_and_writes_nothing() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} {CODECS} -metadata:s:a language=fra in.mkv"));
    let before = folder.names();
    let found = facts(&folder, "in.mkv out.mp4");
    assert_eq!(folder.names(), before);
    let actions: Vec<_> = found["streams"].as_array().unwrap().iter().map(|s| &s["action"]).collect();
    assert_eq!(actions, ["upscaled", "converted"]);
    assert_eq!(found["streams"][1]["detail"], "aac");
    assert_eq!(found["streams"][1]["language"], "fra");
    assert_eq!((&found["width"], &found["dry_run"]), (&192.into(), &true.into()));
    let estimate = &found["estimate"];
    assert_eq!(estimate["frames"], 100);
    assert!(estimate["measured_frames"].as_u64().unwrap() < 60, "{estimate}");
    assert!(estimate["seconds"].as_f64().unwrap() > 0.0 && estimate["fps"].as_f64().unwrap() > 0.0);
    assert!(found["memory_expected_bytes"].as_u64().unwrap() > 1_000_000);
    // A container that holds the audio as it is has another size.
    let found = facts(&folder, "in.mkv out.mkv");
    assert_eq!(found["streams"][1]["action"], "copied");
    folder.upscale("in.mkv out.mkv --model none");
    let (real, guess) = (folder.read("out.mkv").len() as f64, found["estimate"]["output_bytes"].as_f64());
    let ratio = guess.unwrap() / real;
    assert!((0.6..1.4).contains(&ratio), "{found}\n{real} bytes");
    assert!(found["disk_bytes"].as_f64().unwrap() > guess.unwrap());
}

#[test]
fn what_is_left_out_has_its_reason() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} -t 0.4 {CODECS} in.mkv"));
    let reason = |line: &str| {
        let stream = facts(&folder, line)["streams"][1].clone();
        (stream["action"].as_str().unwrap().to_owned(), stream["detail"].as_str().unwrap().to_owned())
    };
    for (line, expected) in [
        ("in.mkv out.mkv --map -0:a", "by --map"),
        ("in.mkv out.mkv --audio none", "by --audio none"),
        ("in.mkv out.gif", "gif cannot hold it"),
    ] {
        assert_eq!(reason(line), ("left out".to_owned(), expected.to_owned()), "{line}");
    }
}

/// The refusals of a dry run are those of the run.
#[test]
fn a_dry_run_fails_where_the_run_would() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} -t 0.4 {CODECS} in.mkv"));
    folder.write("there.mkv", "something");
    for line in [
        "in.mkv nodir/out.mkv",
        "in.mkv there.mkv",
        "missing.mkv out.mkv",
        "in.mkv out.mkv --encoder libx266",
        "in.mkv out.mkv --encoder-opt nonsense=1",
        "in.mkv out.webm --encoder libx264",
        "in.mkv out.mkv --pix-fmt nonsense",
        "in.mkv out.mkv --resume",
        "in.mkv out.mkv --report nodir/report.json",
        "in.mkv out.mp4 --strict --map 0 --audio flac --encoder ffv1",
    ] {
        let dry = folder.hasn(&format!("upscale --dry-run --model none {line}"));
        let real = folder.hasn(&format!("upscale --model none {line}"));
        assert_eq!((dry.code, &dry.stderr), (real.code, &real.stderr), "{line}");
        assert_eq!(real.code, Some(1), "{line}");
    }
}

#[test]
fn a_report_has_the_facts_of_a_dry_run_and_a_pipe_is_measured_at_its_beginning() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} -t 0.4 {CODECS} in.mkv"));
    folder.upscale("in.mkv out.mkv --model none --dry-run --report facts.json");
    let facts: serde_json::Value = serde_json::from_slice(&folder.read("facts.json")).unwrap();
    assert_eq!(facts["estimate"]["measured_frames"], 10);
    assert_eq!(folder.names(), ["facts.json", "in.mkv"]);
    let y4m = folder.ffmpeg("-i in.mkv -f yuv4mpegpipe -pix_fmt yuv420p -");
    folder.write("in.y4m", y4m);
    let stdin = std::fs::File::open(folder.path("in.y4m")).unwrap();
    let mut command = folder.hasn_command("upscale --dry-run --model none - out.mkv");
    let ran = crate::common::program::Ran::of(command.stdin(stdin).output().unwrap());
    ran.assert_done();
    assert!(ran.text().contains("measured on 10 frames"), "{}", ran.text());
    assert!(!folder.path("out.mkv").exists() && !folder.path("out.mkv.hasn").exists());
    folder.hasn("plan in.mkv out.mkv --dry-run").assert_told("a plan encodes nothing", "plan --dry-run");
}
