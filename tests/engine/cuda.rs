//! The program with stand-ins for NVIDIA's driver: no GPU is needed, and an installed one is not used.

use std::process::Command;

use crate::common::program::{Folder, Ran, project_file};

const CLIP: &str = "-f lavfi -i testsrc2=s=64x48:r=25 -frames:v 5 -c:v ffv1 in.mkv";
const UPSCALE: &str = "upscale in.mkv out.mkv --encoder ffv1 --engine cuda --model";

/// A stand-in for NVIDIA's driver, and a folder with a clip.
struct Machine {
    folder: Folder,
    driver: Folder,
}

impl Machine {
    /// Compiles the stand-in with `flags`.
    fn new(flags: &[&str]) -> Machine {
        let (folder, driver) = (Folder::new(), Folder::new());
        folder.ffmpeg(CLIP);
        let source = project_file("tests/common/libcuda.c");
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", "-o"]).arg(driver.path("libcuda.so")).arg(source).args(flags);
        assert!(gcc.status().expect("gcc is installed").success());
        Machine { folder, driver }
    }

    /// Runs `hasn` with a driver that has the fault `wrong`.
    fn hasn(&self, wrong: &str, line: &str) -> Ran {
        let mut hasn = self.folder.hasn_command(line);
        hasn.env("LD_LIBRARY_PATH", self.driver.path("")).env("STAND_IN", wrong);
        Ran::of(hasn.output().expect("hasn starts"))
    }

    /// The line of `hasn info` about CUDA.
    fn info(&self, wrong: &str) -> String {
        let info = self.hasn(wrong, "info");
        assert_eq!(info.code, Some(0), "{wrong}\n{}", info.stderr);
        let lines = info.text().lines().filter_map(|line| line.strip_prefix("cuda "));
        lines.map(str::trim).collect::<Vec<_>>().join("\n")
    }

    fn assert_told(&self, wrong: &str, model: &str, expected: &str) {
        let before = self.folder.names();
        let line = format!("{UPSCALE} {model}");
        self.hasn(wrong, &line).assert_told(expected, &format!("{wrong}: {line}"));
        assert_eq!(self.folder.names(), before, "{wrong}: {line} leaves files behind");
    }
}

#[test]
fn a_machine_without_cuda_reports_what_is_missing() {
    let machine = Machine::new(&[]);
    let lacking = Machine::new(&["-DLACKING"]);
    for (machine, wrong, why) in [
        (&machine, "no-device", "CUDA: the driver finds no GPU; look at nvidia-smi"),
        (&machine, "none-visible", "CUDA: the driver finds no GPU; look at nvidia-smi"),
        (&machine, "old", "CUDA: the driver is too old: it supports CUDA 11.4; install NVIDIA's driver 525"),
        (&lacking, "old", "CUDA: the driver is too old: it supports CUDA 11.4; install NVIDIA's driver 525"),
        (
            &machine,
            "stub",
            "CUDA: starting the driver failed: an error of the stand-in; look for NVRM in dmesg",
        ),
        (&lacking, "stub", "CUDA: the driver lacks cuCtxGetCurrent; install NVIDIA's driver 525"),
        (&lacking, "", "CUDA: the driver lacks cuCtxGetCurrent; install NVIDIA's driver 525"),
        (&machine, "pascal", "Stand-in (sm_61): there are no kernels for it, only for sm_75"),
    ] {
        machine.assert_told(wrong, "none", why);
        let info = machine.info(wrong);
        assert!(info.starts_with(&format!("no: {why}")), "{wrong}: {info}");

        let auto = machine.hasn(wrong, "-v upscale in.mkv -y auto.mkv --engine auto --model none");
        assert_eq!(auto.code, Some(0), "{wrong}\n{}", auto.stderr);
        assert_eq!(auto.stderr.matches(&format!("engine cpu: {why}")).count(), 1, "{wrong}\n{}", auto.stderr);
    }
}

#[test]
fn a_machine_without_a_driver_reports_it() {
    let folder = Folder::new();
    folder.ffmpeg(CLIP);
    let info = folder.hasn("info");
    if info.text().contains("no: CUDA: there is no NVIDIA driver; install") {
        folder.hasn(&format!("{UPSCALE} none")).assert_told("there is no NVIDIA driver; install", UPSCALE);
    } else {
        crate::common::program::say_skipped("there is a driver");
    }
}

#[test]
fn a_failing_gpu_is_reported_in_one_line() {
    let machine = Machine::new(&[]);
    for (wrong, model, expected) in [
        ("little-memory", "none", "MB of its memory are needed and 64 of 4000 MB are free"),
        (
            "fragmented",
            "none",
            "Stand-in (sm_86): allocating 1 MB of its memory failed where 4000 MB are free; close",
        ),
        (
            "launch-fails",
            "hasn-lite-x2",
            "Stand-in (sm_86): launching ingest failed: unspecified launch failure; ",
        ),
        (
            "work-fails",
            "hasn-lite-x2",
            "Stand-in (sm_86): running a frame failed: unspecified launch failure",
        ),
    ] {
        machine.assert_told(wrong, model, expected);
    }
    let auto = machine.hasn("little-memory", "-v upscale in.mkv auto.mkv --engine auto --model none");
    assert_eq!(auto.code, Some(0), "{}", auto.stderr);
    assert_eq!(auto.stderr.matches("engine cpu: Stand-in (sm_86): ").count(), 1, "{}", auto.stderr);
}

#[test]
fn a_gpu_is_measured_and_a_missing_one_is_reported() {
    let machine = Machine::new(&[]);
    machine
        .hasn("no-device", "bench --engine cuda")
        .assert_told("CUDA: the driver finds no GPU; look", "bench");

    let ran = machine.hasn("", "bench --engine cuda --size 64x48 --runs 1 --json");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let figures: serde_json::Value = serde_json::from_str(ran.text()).unwrap();
    assert_eq!(figures["device"], "Stand-in (sm_86)");
    assert!(figures["first_frame_ms"].as_f64() < figures["first_frame_with_driver_ms"].as_f64(), "{figures}");
    let size = &figures["sizes"][0];
    assert_eq!([&size["width"], &size["to_height"]], [64, 96]);
    let number = |key: &str| size[key].as_f64().expect(key);
    assert!((number("frame_ms_median") * number("fps") - 1000.0).abs() < 1e-6);
    assert_eq!(number("streams"), (number("fps") / 30.0).floor());
    let stages = size["stages"].as_array().unwrap();
    // The stand-in's clock advances by an eighth of a millisecond per event.
    for stage in stages {
        assert_eq!(
            stage["ms"].as_f64(),
            stage["launches"].as_f64().map(|launches| launches / 8.0),
            "{stage}"
        );
    }
    let shares: f64 = stages.iter().map(|stage| stage["share_percent"].as_f64().unwrap()).sum();
    assert!((shares - 100.0).abs() < 1e-6, "{shares}");

    let table = machine.hasn("", "bench --engine cuda --runs 1");
    assert_eq!(table.code, Some(0), "{}", table.stderr);
    for expected in
        ["960x540 to 1920x1080: ", "1280x720 to 2560x1440: ", "1920x1080 to 3840x2160: ", "streams at 30"]
    {
        assert!(table.text().contains(expected), "{}", table.text());
    }
}

#[test]
fn a_run_frees_everything_it_takes_from_the_driver() {
    let machine = Machine::new(&[]);
    for (gpu, name) in [("", "sm_86"), ("turing", "sm_75"), ("to-come", "sm_130")] {
        assert_eq!(machine.info(gpu), format!("yes: Stand-in ({name}); the engine that auto takes"));
        for model in ["none", "hasn-lite-x2", "hasn-x2"] {
            let ran = machine.hasn(gpu, &format!("{UPSCALE} {model} -y"));
            assert_eq!(ran.code, Some(0), "{name} {model}\n{}", ran.stderr);
            // Kernels do nothing: every sample keeps its initial value.
            let hashes = machine.folder.frame_hashes("out.mkv", "yuv420p");
            assert_eq!(hashes.len(), 5);
            assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{name} {model}: {hashes:?}");
        }
    }
}
