//! What an hour of video costs, by `hasn bench --price-per-hour`.

use std::process::Stdio;
use std::time::Instant;

use serde::Deserialize;

use crate::common::program::{Folder, Ran, signal, wait_for};

#[derive(Deserialize)]
struct Prices {
    price_per_hour: f64,
    input: Option<String>,
    threads: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    models: Vec<String>,
    engine: String,
    precision: String,
    encoder: String,
    width: usize,
    height: usize,
    to_width: usize,
    to_height: usize,
    frames: u64,
    fps: f64,
    video_fps: f64,
    machine_hours: f64,
    price: f64,
}

impl Case {
    /// Checks the figures against each other, and against the time of the whole command.
    fn check(&self, video_fps: f64, price_per_hour: f64, elapsed_s: f64) {
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.01;
        assert!(near(self.video_fps, video_fps), "{} fps", self.video_fps);
        assert!(near(self.machine_hours, video_fps / self.fps), "{} h", self.machine_hours);
        assert!(near(self.price, self.machine_hours * price_per_hour), "{}", self.price);
        assert!(self.frames as f64 / self.fps < elapsed_s, "{} frames at {} fps", self.frames, self.fps);
    }
}

#[test]
fn an_hour_of_a_video_has_a_price_with_each_model() {
    let folder = Folder::new();
    folder.ffmpeg(
        "-f lavfi -i testsrc2=s=64x48:r=50 -f lavfi -i sine=r=48000 -t 4 -c:v libx264 -c:a aac in.mp4",
    );
    let line = "bench --price-per-hour 0.5 --input in.mp4 --threads 1 --engine cpu --precision f32";
    let start = Instant::now();
    let ran = folder.hasn(&format!("{line} --json"));
    ran.assert_done();
    let prices: Prices = serde_json::from_str(ran.text()).unwrap();
    assert_eq!((prices.price_per_hour, prices.input.as_deref(), prices.threads), (0.5, Some("in.mp4"), 1));
    let models: Vec<_> = prices.cases.iter().map(|case| case.models.join(" ")).collect();
    assert_eq!(models, ["hasn-lite-x2 hasn-lite-x2-video", "hasn-x2"]);
    for case in &prices.cases {
        case.check(50.0, 0.5, start.elapsed().as_secs_f64());
        let sizes = (case.width, case.height, case.to_width, case.to_height);
        assert_eq!(sizes, (64, 48, 128, 96));
        let ran_by = (case.engine.as_str(), case.precision.as_str(), case.encoder.as_str());
        assert_eq!(ran_by, ("cpu", "f32", "libx264"));
    }
    assert!(prices.cases[1].price > 1.5 * prices.cases[0].price, "the larger model costs more");
    assert_eq!(folder.names(), ["in.mp4"]);

    let ran = folder.hasn(&format!("{line} --model hasn-lite-x2"));
    ran.assert_done();
    let rows: Vec<_> = ran.text().lines().filter(|line| line.starts_with("64x48")).collect();
    let [row] = rows[..] else { panic!("{}", ran.text()) };
    assert!(row.contains("128x96") && row.contains("cpu f32") && row.ends_with("  hasn-lite-x2"), "{row}");
}

#[test]
fn videos_are_generated_where_none_is_given() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("tmp")).unwrap();
    let start = Instant::now();
    let mut command = folder.hasn_command("bench --price-per-hour 3 --model none --json");
    let ran = Ran::of(command.env("TMPDIR", folder.path("tmp")).output().unwrap());
    ran.assert_done();
    let prices: Prices = serde_json::from_str(ran.text()).unwrap();
    assert_eq!(prices.input, None);
    let sizes: Vec<_> = prices.cases.iter().map(|case| (case.width, case.height, case.to_width)).collect();
    assert_eq!(sizes, [(960, 540, 1920), (1920, 1080, 3840)]);
    prices.cases.iter().for_each(|case| case.check(25.0, 3.0, start.elapsed().as_secs_f64()));
    assert_eq!(std::fs::read_dir(folder.path("tmp")).unwrap().count(), 0);
}

#[test]
fn an_interrupt_leaves_nothing() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("tmp")).unwrap();
    let mut command = folder.hasn_command("bench --price-per-hour 1 --model hasn-x2");
    command.env("TMPDIR", folder.path("tmp")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let files = || std::fs::read_dir(folder.path("tmp")).unwrap();
    wait_for("the temporary folder", || files().next().map(drop));
    signal(&child, "-INT");
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert_eq!(files().count(), 0);
}

#[test]
fn what_cannot_be_priced_is_refused() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=64x48:r=25 -frames:v 3 in.mkv");
    for line in [
        "--price-per-hour 0",
        "--price-per-hour -1",
        "--price-per-hour nan",
        "--price-per-hour 1EUR",
        "--price-per-hour 1 --size 64x48",
        "--price-per-hour 1 --runs 3",
        "--input in.mkv",
    ] {
        let ran = folder.hasn(&format!("bench {line}"));
        assert_eq!(ran.code, Some(2), "{line}\n{}", ran.stderr);
    }
    for (line, said) in [
        ("--input -", "can be read only once"),
        ("--input .", ".: "),
        ("--input none.mkv", "none.mkv: "),
        ("--input in.mkv --model none.safetensors", "is neither a built-in model nor a file"),
    ] {
        folder.hasn(&format!("bench --price-per-hour 1 {line}")).assert_told(said, line);
    }
}
