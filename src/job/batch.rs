//! `hasn batch`: many videos one after the other. One that fails does not stop the rest, and a second start makes what is
//! missing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::Value;

use super::jobs::{self, BatchItem};
use super::upscale::catch_signals;
use super::words::Words;
use super::{EXIT_INTERRUPTED, child, json, resume};
use crate::error::{Error, Result};
use crate::journal::{BatchRecord, JobFingerprint, OutputState};
use crate::media::{self, Output};
use crate::model::catalogue;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Videos, and folders that are searched for videos.
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Where what is made goes, in the order of the folders it comes from.
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,
    /// The container of what is made [default: the input's where FFmpeg writes it, else mkv]
    #[arg(long, value_name = "mkv|mp4|...")]
    pub ending: Option<String>,
    /// A file in TOML of videos and options.
    #[arg(long, value_name = "FILE.toml")]
    pub jobs: Option<PathBuf>,
    /// Write what became of each video as JSON.
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Options of hasn upscale, for all videos")]
    pub words: Words,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Made,
    /// It was made by an earlier batch, from the same.
    Skipped,
    Failed,
    /// The user ended the batch within it.
    Interrupted,
    /// Or before it.
    Waiting,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Made => "made",
            Outcome::Skipped => "skipped",
            Outcome::Failed => "failed",
            Outcome::Interrupted => "interrupted",
            Outcome::Waiting => "waiting",
        }
    }
}

/// What became of a video.
#[derive(Serialize)]
struct Row<'a> {
    input: &'a str,
    output: &'a str,
    outcome: Outcome,
    error: Option<String>,
    /// Of the run that made it.
    report: Value,
}

impl Row<'_> {
    fn figure(&self, pointer: &str) -> f64 {
        self.report.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0)
    }

    fn frames(&self) -> f64 {
        self.figure("/frames/encoded")
    }

    fn seconds(&self) -> f64 {
        self.figure("/seconds")
    }
}

/// Frames and seconds are of what was made this time.
#[derive(Serialize)]
struct Totals {
    videos: usize,
    made: usize,
    skipped: usize,
    failed: usize,
    frames: u64,
    seconds: f64,
    interrupted: bool,
}

#[derive(Serialize)]
struct BatchReport<'a> {
    hasn: &'a str,
    videos: &'a [Row<'a>],
    left_out: &'a [String],
    totals: Totals,
}

pub(super) fn run(args: Args, verbose: u8) -> Result<ExitCode> {
    if let Some(path) = &args.report {
        // Whether it can be written is found out now rather than after days.
        write_report(path, "")?;
    }
    let interrupt = catch_signals()?;
    let jobs = jobs::collect(&args)?;
    for name in &jobs.left_out {
        eprintln!("{name}: left out, there is no video in it");
    }
    let mut rows = Vec::new();
    for video in &jobs.videos {
        let (outcome, error, report) = match interrupt.load(Ordering::Relaxed) {
            true => (Outcome::Waiting, None, Value::Null),
            false => match make(video, verbose, &interrupt) {
                Ok((outcome, report)) => (outcome, None, report),
                Err(error) => (Outcome::Failed, Some(error), Value::Null),
            },
        };
        rows.push(Row { input: &video.input, output: &video.output, outcome, error, report });
    }
    let count = |outcome: Outcome| rows.iter().filter(|row| row.outcome == outcome).count();
    let made = || rows.iter().filter(|row| row.outcome == Outcome::Made);
    let totals = Totals {
        videos: rows.len(),
        made: count(Outcome::Made),
        skipped: count(Outcome::Skipped),
        failed: count(Outcome::Failed),
        frames: made().map(Row::frames).sum::<f64>() as u64,
        seconds: (made().map(Row::seconds).sum::<f64>() * 1e3).round() / 1e3,
        interrupted: count(Outcome::Interrupted) + count(Outcome::Waiting) > 0,
    };
    tell_table(&rows, &totals);
    let code = match &totals {
        Totals { interrupted: true, .. } => ExitCode::from(EXIT_INTERRUPTED),
        Totals { failed: 0, .. } => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    };
    if let Some(path) = &args.report {
        let hasn = env!("CARGO_PKG_VERSION");
        write_report(
            path,
            &(json(&BatchReport { hasn, videos: &rows, left_out: &jobs.left_out, totals }) + "\n"),
        )?;
    }
    Ok(code)
}

/// Makes a video, unless it was made from the same already. An error is the line that was told.
fn make(
    video: &BatchItem,
    verbose: u8,
    interrupt: &AtomicBool,
) -> std::result::Result<(Outcome, Value), String> {
    let told = |error: Error| {
        eprintln!("hasn: {error}");
        error.to_string()
    };
    let output = Path::new(&video.output);
    let facts = facts(video).map_err(told)?;
    match OutputState::of(output, &facts).map_err(told)? {
        OutputState::UpToDate(report) => return Ok((Outcome::Skipped, report)),
        OutputState::Conflict(error) if !video.words.overwrites() => return Err(told(error)),
        _ => {}
    }
    if let Some(folder) = output.parent() {
        std::fs::create_dir_all(folder).map_err(|e| {
            told(Error::new(folder.to_string_lossy(), format!("cannot be made: {e}"), "check its name"))
        })?;
    }
    let making = BatchRecord::start(output, facts).map_err(told)?;
    let ended =
        child::run(&video.output, &video.words.command(&video.input, &video.output), verbose, interrupt);
    let ended = ended.map_err(told)?;
    match ended.code {
        Some(0) => {
            making.finish(ended.report.clone()).map_err(told)?;
            return Ok((Outcome::Made, ended.report));
        }
        Some(_) => making.restore().map_err(told)?,
        // It may have been at its very end.
        None => {}
    }
    match ended.code {
        Some(code) if code == i32::from(EXIT_INTERRUPTED) && interrupt.load(Ordering::Relaxed) => {
            Ok((Outcome::Interrupted, ended.report))
        }
        _ => Err(ended.error),
    }
}

/// What a video depends on, as far as that is known without opening it: a second start is to be quick.
fn facts(video: &BatchItem) -> Result<JobFingerprint> {
    let mut facts = JobFingerprint::of_input(&video.input)?;
    let still = Output::new(&video.output, &video.input)?.is_still();
    let default = if still { catalogue::DEFAULT_CPU } else { catalogue::DEFAULT_VIDEO };
    let model = video.words.model().unwrap_or(default);
    facts.add("hasn", env!("CARGO_PKG_VERSION"));
    facts.add("FFmpeg", media::info().version);
    facts.add("the model", format!("{model} {}", resume::weights(model)?));
    video.words.facts().for_each(|(name, value)| facts.add(&name, value));
    Ok(facts)
}

fn tell_table(rows: &[Row], totals: &Totals) {
    let width = rows.iter().map(|row| row.output.chars().count()).max().unwrap_or(0);
    eprintln!("{:width$}  outcome      frames    seconds  frames/s", "video");
    for row in rows {
        let (frames, seconds) = (row.frames(), row.seconds());
        let rate = row.figure("/fps");
        let error = row.error.as_deref().unwrap_or_default();
        let figures = match frames > 0.0 {
            true => format!("{frames:8}  {seconds:9.1}  {rate:10.1}"),
            false => format!("{:31}", ""),
        };
        let line = format!("{:width$}  {:11}  {figures}  {error}", row.output, row.outcome.name());
        eprintln!("{}", line.trim_end());
    }
    let Totals { videos, made, skipped, failed, frames, seconds, .. } = totals;
    eprintln!(
        "{videos} videos: {made} made, {skipped} skipped, {failed} failed; {frames} frames in {seconds:.1} s"
    );
}

fn write_report(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| {
        Error::new(path.to_string_lossy(), format!("cannot be written: {e}"), "check the folder")
    })
}
