//! `hasn batch`: many films one after the other. One that fails does not stop the rest, and a second start makes what is
//! missing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::Value;

use super::jobs::{self, Film};
use super::upscale::catch_signals;
use super::words::Words;
use super::{EXIT_INTERRUPTED, child, json, resume};
use crate::error::{Error, Result};
use crate::journal::{Facts, Making, Standing};
use crate::media::{self, Output};
use crate::model::catalogue;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Films, and folders that are searched for films.
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Where what is made goes, in the order of the folders it comes from.
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,
    /// The container of what is made [default: the input's where FFmpeg writes it, else mkv]
    #[arg(long, value_name = "mkv|mp4|...")]
    pub ending: Option<String>,
    /// A file in TOML of films and options.
    #[arg(long, value_name = "FILE.toml")]
    pub jobs: Option<PathBuf>,
    /// Write what became of each film as JSON.
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Options of hasn upscale, for all films")]
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

/// What became of a film.
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

    fn pictures(&self) -> f64 {
        self.figure("/pictures/encoded")
    }

    fn seconds(&self) -> f64 {
        self.figure("/seconds")
    }
}

/// Pictures and seconds are of what was made this time.
#[derive(Serialize)]
struct Totals {
    films: usize,
    made: usize,
    skipped: usize,
    failed: usize,
    pictures: u64,
    seconds: f64,
    interrupted: bool,
}

#[derive(Serialize)]
struct BatchReport<'a> {
    hasn: &'a str,
    films: &'a [Row<'a>],
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
        eprintln!("{name}: left out, there is no film in it");
    }
    let mut rows = Vec::new();
    for film in &jobs.films {
        let (outcome, error, report) = match interrupt.load(Ordering::Relaxed) {
            true => (Outcome::Waiting, None, Value::Null),
            false => match make(film, verbose, &interrupt) {
                Ok((outcome, report)) => (outcome, None, report),
                Err(error) => (Outcome::Failed, Some(error), Value::Null),
            },
        };
        rows.push(Row { input: &film.input, output: &film.output, outcome, error, report });
    }
    let count = |outcome: Outcome| rows.iter().filter(|row| row.outcome == outcome).count();
    let made = || rows.iter().filter(|row| row.outcome == Outcome::Made);
    let totals = Totals {
        films: rows.len(),
        made: count(Outcome::Made),
        skipped: count(Outcome::Skipped),
        failed: count(Outcome::Failed),
        pictures: made().map(Row::pictures).sum::<f64>() as u64,
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
            &(json(&BatchReport { hasn, films: &rows, left_out: &jobs.left_out, totals }) + "\n"),
        )?;
    }
    Ok(code)
}

/// Makes a film, unless it was made from the same already. An error is the line that was told.
fn make(film: &Film, verbose: u8, interrupt: &AtomicBool) -> std::result::Result<(Outcome, Value), String> {
    let told = |error: Error| {
        eprintln!("hasn: {error}");
        error.to_string()
    };
    let output = Path::new(&film.output);
    let facts = facts(film).map_err(told)?;
    match Standing::of(output, &facts).map_err(told)? {
        Standing::Made(report) => return Ok((Outcome::Skipped, report)),
        Standing::InTheWay(error) if !film.words.overwrites() => return Err(told(error)),
        _ => {}
    }
    if let Some(folder) = output.parent() {
        std::fs::create_dir_all(folder).map_err(|e| {
            told(Error::new(folder.to_string_lossy(), format!("cannot be made: {e}"), "check its name"))
        })?;
    }
    let making = Making::begin(output, facts).map_err(told)?;
    let ended = child::run(&film.output, &film.words.command(&film.input, &film.output), verbose, interrupt);
    let ended = ended.map_err(told)?;
    match ended.code {
        Some(0) => {
            making.finish(ended.report.clone()).map_err(told)?;
            return Ok((Outcome::Made, ended.report));
        }
        Some(_) => making.give_up().map_err(told)?,
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

/// What a film depends on, as far as that is known without opening it: a second start is to be quick.
fn facts(film: &Film) -> Result<Facts> {
    let mut facts = Facts::of_input(&film.input)?;
    let still = Output::new(&film.output, &film.input)?.is_still();
    let default = if still { catalogue::DEFAULT_CPU } else { catalogue::DEFAULT_FILM };
    let model = film.words.model().unwrap_or(default);
    facts.add("hasn", env!("CARGO_PKG_VERSION"));
    facts.add("FFmpeg", media::info().version);
    facts.add("the model", format!("{model} {}", resume::weights(model)?));
    film.words.facts().for_each(|(name, value)| facts.add(&name, value));
    Ok(facts)
}

fn tell_table(rows: &[Row], totals: &Totals) {
    let width = rows.iter().map(|row| row.output.chars().count()).max().unwrap_or(0);
    eprintln!("{:width$}  outcome      pictures    seconds  pictures/s", "film");
    for row in rows {
        let (pictures, seconds) = (row.pictures(), row.seconds());
        let rate = row.figure("/pictures_per_second");
        let error = row.error.as_deref().unwrap_or_default();
        let figures = match pictures > 0.0 {
            true => format!("{pictures:8}  {seconds:9.1}  {rate:10.1}"),
            false => format!("{:31}", ""),
        };
        let line = format!("{:width$}  {:11}  {figures}  {error}", row.output, row.outcome.name());
        eprintln!("{}", line.trim_end());
    }
    let Totals { films, made, skipped, failed, pictures, seconds, .. } = totals;
    eprintln!(
        "{films} films: {made} made, {skipped} skipped, {failed} failed; {pictures} pictures in {seconds:.1} s"
    );
}

fn write_report(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| {
        Error::new(path.to_string_lossy(), format!("cannot be written: {e}"), "check the folder")
    })
}
