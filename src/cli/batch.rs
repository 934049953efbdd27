//! `hasn batch`: many videos one after the other, each in a process of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use super::jobs::{self, BatchItem};
use super::logging::Logging;
use super::output::{counted, json};
use super::words::Words;
use super::{child, console, signals};
use crate::error::{Error, Result};
use crate::job::Interrupt;
use crate::job::batch::{self, BatchReport, Ended, Runner, Totals, Video};
use crate::job::collect::{Found, LeftOut, Pair, check_distinct, collect};
use crate::job::{INTERRUPTED, check_report, check_report_writable, files_of, write_report};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Videos, and folders to search for videos.
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Folder for the outputs, which mirror the folders of the inputs.
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,
    /// File extension of the outputs, which selects the container [default: the input's where FFmpeg writes it, else mkv]
    #[arg(long, value_name = "mkv|mp4|...")]
    pub extension: Option<String>,
    /// TOML file of videos and options.
    #[arg(long, value_name = "FILE.toml")]
    pub jobs: Option<PathBuf>,
    /// Write a JSON report of all videos.
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Options of hasn upscale, for all videos")]
    pub words: Words,
}

pub(super) fn run(args: Args, logging: &Logging) -> Result<ExitCode> {
    let interrupt = signals::catch()?;
    let (items, left_out) = items(&args)?;
    if let Some(path) = &args.report {
        let used = items.iter().flat_map(|item| files_of(&item.input, &item.output, item.words.model()));
        check_report(path, used.chain(args.jobs.clone()))?;
        check_report_writable(path, &interrupt)?;
    }
    for LeftOut { name, reason } in left_out.iter().filter(|_| !logging.quiet) {
        console::log_line(format_args!("{name}: left out, {reason}"));
    }
    let left_out = left_out.into_iter().map(|file| file.name).collect();
    let videos = items.iter().map(|item| Video {
        input: item.input.clone(),
        output: item.output.clone(),
        model: item.words.model().map(str::to_owned),
        overwrite: item.words.overwrites(),
        options: item.words.fingerprint().collect(),
    });
    let videos = videos.collect();
    let mut children = Children { items: &items, logging, interrupt: &interrupt };
    let report = batch::run(videos, left_out, &mut children, &interrupt);
    if !logging.quiet {
        print_table(&report);
    }
    if let Some(path) = &args.report {
        write_report(path, &json(&report), &interrupt)?;
    }
    Ok(report.status.exit_code().into())
}

/// Returns all videos to upscale, before any is started, and the files that are not videos.
fn items(args: &Args) -> Result<(Vec<BatchItem>, Vec<LeftOut>)> {
    let mut found = Found::default();
    match (&args.into, args.inputs.is_empty()) {
        (Some(into), false) => {
            args.words.check("hasn batch")?;
            found = collect(&args.inputs, into, args.extension.as_deref())?;
        }
        (None, false) => return Err(Error::new("--into", "is missing", "name the folder for the outputs")),
        (Some(_), true) if args.jobs.is_none() => {
            return Err(Error::new("hasn batch", "has no input", "name files or folders, or --jobs"));
        }
        _ => {}
    }
    let item =
        |video: Pair| BatchItem { input: video.input, output: video.output, words: args.words.clone() };
    let mut items: Vec<BatchItem> = found.videos.into_iter().map(item).collect();
    if let Some(path) = &args.jobs {
        items.extend(jobs::read(path, &args.words)?);
    }
    if items.is_empty() {
        return Err(Error::new("hasn batch", "there is no video in its inputs", "name other files"));
    }
    check_distinct(items.iter().map(|item| (&*item.input, &*item.output)))?;
    Ok((items, found.left_out))
}

/// Runs each video in a child process.
struct Children<'a> {
    items: &'a [BatchItem],
    logging: &'a Logging,
    interrupt: &'a Interrupt,
}

impl Runner for Children<'_> {
    fn run(&mut self, index: usize) -> Result<Ended> {
        let BatchItem { input, output, words } = &self.items[index];
        let (number, count) = (index + 1, self.items.len());
        if !self.logging.quiet {
            console::log_line(format_args!("{number}/{count} {}", input.display()));
        }
        let exited = child::run(output, &words.command(input, output), self.logging, self.interrupt)?;
        Ok(match exited.code {
            Some(0) => Ended::Done(exited.report),
            Some(code) if code == i32::from(INTERRUPTED) => Ended::Interrupted(exited.report, exited.error),
            Some(_) => Ended::Failed(exited.report, exited.error),
            None => Ended::Killed(exited.error),
        })
    }

    fn report_error(&mut self, error: &Error) {
        console::log_line(format_args!("hasn: {error}"));
    }
}

fn print_table(report: &BatchReport) {
    let rows = &report.videos;
    let width = rows.iter().map(|row| row.output.chars().count()).max().unwrap_or(0);
    console::log_line(format_args!("{:width$}  outcome      frames    seconds       fps", "video"));
    for row in rows {
        let (frames, seconds) = (row.frames(), row.seconds());
        let error = row.error.as_deref().unwrap_or_default();
        let figures = match frames > 0.0 {
            true => format!("{frames:8}  {seconds:9.1}  {:10.1}", row.fps()),
            false => format!("{:31}", ""),
        };
        let line = format!("{:width$}  {:11}  {figures}  {error}", row.output, row.outcome.name());
        console::log_line(line.trim_end());
    }
    let Totals { videos, done, skipped, failed, frames, seconds, .. } = &report.totals;
    let (videos, frames) = (counted(*videos as u64, "video"), counted(*frames, "frame"));
    console::log_line(format_args!(
        "{videos}: {done} done, {skipped} skipped, {failed} failed; {frames} in {seconds:.1} s"
    ));
}
