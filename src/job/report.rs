//! What a job is going to do, and what it did: the keys of the JSON report, with those of `pipeline::Report`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tracing::warn;

use super::end::{End, files_of, may_be_report};
use super::interrupt::Interrupt;
use super::options::Options;
use crate::error::{Error, Result};
use crate::journal::{Disk, Journal, check_writable, replace};
use crate::media::{folder_of, same_file};
use crate::pipeline;

/// A job as it was opened: what its options and the input came to.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Input as in the options.
    #[serde(skip)]
    pub input: String,
    /// Output as in the options.
    #[serde(skip)]
    pub output: String,
    /// Name of the model; `none` for the resampler.
    pub model: String,
    /// Name of the engine: `cpu`, `cuda` or `reference`.
    pub engine: &'static str,
    /// Name of the number format that the engine multiplies.
    pub precision: &'static str,
    /// FFmpeg's name of the encoder.
    pub encoder: String,
    /// FFmpeg's name of the output's pixel format.
    pub pixel_format: &'static str,
    /// Width of the output in luma samples.
    pub width: usize,
    /// Height of the output in luma samples.
    pub height: usize,
    /// When the job was opened, as the time since the Unix epoch.
    #[serde(skip)]
    pub(crate) started: Duration,
    /// Memory of the whole process that the run is expected to take at most, in bytes; what the decoder and the encoder take
    /// of it is an estimate.
    pub memory_expected_bytes: u64,
    /// Width of the input in luma samples.
    pub input_width: usize,
    /// Height of the input in luma samples.
    pub input_height: usize,
    /// FFmpeg's name of the input's pixel format.
    pub input_pixel_format: &'static str,
    /// Average frames per second of the input.
    pub input_fps: f64,
    /// The same of the output.
    #[serde(rename = "output_fps")]
    pub fps: f64,
    /// Options of the encoder, those that hasn sets by default included.
    pub encoder_options: Vec<String>,
    /// Number of frames to expect, by the container; 0 where it does not state one.
    pub frames_expected: u64,
    /// Estimated size of the encoded video in bytes, where the encoder and the input allow one.
    pub bytes_expected: Option<u64>,
}

/// What a job did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// How it ended, once it has.
    #[serde(flatten)]
    pub(crate) end: Option<End>,
    /// The job as it was opened.
    #[serde(flatten)]
    pub summary: Summary,
    /// Counts and times of the run.
    #[serde(flatten)]
    pub run: pipeline::Report,
    /// Whether an earlier run had completed the output, so that nothing was left to do.
    #[serde(skip)]
    pub already_complete: bool,
    /// What an interrupted run has left on the disk.
    #[serde(skip)]
    pub kept: Option<Kept>,
    /// The error of a run that has written all frames of an input with more damage than the options tolerate.
    #[serde(skip)]
    pub(super) failure: Option<Error>,
    /// The report of the run that has completed the output, if that was an earlier one.
    #[serde(skip)]
    pub(super) earlier: Option<String>,
}

/// The report of a run that failed.
#[derive(Serialize)]
struct FailureReport<'a> {
    #[serde(flatten)]
    end: End,
    /// `None` where the job could not be opened.
    #[serde(flatten)]
    summary: Option<&'a Summary>,
}

/// What an interrupted run leaves on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// A playable file with the first frames.
    Partial {
        /// Path of the file.
        path: PathBuf,
    },
    /// A journal, from which the same options resume.
    Journal {
        /// Path of the journal's folder.
        folder: PathBuf,
        /// Number of frames in it.
        frames: u64,
    },
    /// The first files of an image sequence.
    Sequence {
        /// Number of files.
        frames: u64,
        /// Whether the same options resume from there.
        resumable: bool,
    },
    /// Nothing: no segment or image was complete yet.
    Nothing {
        /// Whether the output is written in segments of many frames.
        segmented: bool,
    },
}

impl Report {
    pub(super) fn new(summary: Summary, run: pipeline::Report) -> Report {
        let (already_complete, kept) = (false, None);
        Report { end: None, summary, run, already_complete, kept, failure: None, earlier: None }
    }

    /// The report where an earlier run had completed the output and left `journal`.
    pub(super) fn already_complete(summary: Summary, journal: &Path) -> Report {
        let earlier = Journal::joined_report(journal);
        Report { already_complete: true, earlier, ..Report::new(summary, pipeline::Report::default()) }
    }

    /// Whether the run was interrupted before the end of the input.
    pub fn is_interrupted(&self) -> bool {
        self.run.interrupted
    }

    /// The report as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data is always JSON")
    }

    /// Ends it as that of a complete output. `path`: the file, if it still lacks its name.
    pub(super) fn complete(&mut self, options: &Options, path: Option<&Path>) {
        self.end = Some(End::complete(options, self.summary.started, path));
    }

    /// Ends a run that has not failed on the way, writes the report and returns it, or the error of an input that is too
    /// damaged.
    pub(super) fn conclude(mut self, options: &Options, interrupt: &Interrupt) -> Result<Report> {
        let (started, failure) = (self.summary.started, self.failure.take());
        match &failure {
            Some(error) => self.end = Some(End::failed(options, started, error)),
            None if self.is_interrupted() => self.end = Some(End::interrupted(options, started)),
            None => self.complete(options, None),
        }
        let json = || self.earlier.clone().unwrap_or_else(|| self.to_json());
        write_or_warn(options, json, interrupt);
        failure.map_or(Ok(self), Err)
    }
}

/// Writes the report to the file that the options name, if they do. A failure is no error of the run, whose frames are
/// written.
fn write_or_warn(options: &Options, json: impl FnOnce() -> String, interrupt: &Interrupt) {
    let Some(path) = &options.report else { return };
    if let Err(error) = write_report(path, &json(), interrupt) {
        warn!("{error}");
    }
}

/// Writes the report of a job that failed. Returns its error.
pub(super) fn conclude_failed(
    options: &Options,
    summary: &Summary,
    error: Error,
    interrupt: &Interrupt,
) -> Error {
    let end = End::failed(options, summary.started, &error);
    write_or_warn(options, || to_json(&FailureReport { end, summary: Some(summary) }), interrupt);
    error
}

/// Writes the report of a job that could not be opened. Returns its error.
pub(super) fn conclude_unopened(
    options: &Options,
    started: Duration,
    error: Error,
    interrupt: &Interrupt,
) -> Error {
    let used = || files_of(&options.input, &options.output, options.model.as_deref());
    // The report was not compared with all files of the input, which may not be known.
    let is_free = |path: &PathBuf| {
        folder_of(path).is_dir() && may_be_report(path) && check_report(path, used()).is_ok()
    };
    if options.report.as_ref().is_some_and(is_free) {
        let end = End::failed(options, started, &error);
        write_or_warn(options, || to_json(&FailureReport { end, summary: None }), interrupt);
    }
    error
}

fn to_json(report: &FailureReport) -> String {
    serde_json::to_string(report).expect("plain data is always JSON")
}

/// Fails if the report would overwrite one of the files that a run reads or writes.
pub(crate) fn check_report(report: &Path, used: impl IntoIterator<Item = PathBuf>) -> Result<()> {
    match used.into_iter().find(|path| same_place(report, path)) {
        None => Ok(()),
        Some(path) => {
            let problem = format!("is {} itself, which the run reads or writes", path.display());
            Err(Error::new(report.to_string_lossy(), problem, "give the report another name"))
        }
    }
}

/// Fails now rather than after days if the report cannot be written.
pub(crate) fn check_report_writable(report: &Path, interrupt: &Interrupt) -> Result<()> {
    disk_of(report, interrupt)
        .retry_when_full(0, || check_writable(report).map_err(|e| not_written(report, e)))
}

/// Writes a report, completely or not at all.
pub(crate) fn write_report(report: &Path, json: &str, interrupt: &Interrupt) -> Result<()> {
    let text = format!("{json}\n");
    let write = || replace(report, text.as_bytes()).map_err(|e| not_written(report, e));
    disk_of(report, interrupt).retry_when_full(text.len() as u64, write)
}

fn disk_of(report: &Path, interrupt: &Interrupt) -> Disk {
    Disk::new(folder_of(report), interrupt.flag().clone())
}

fn not_written(report: &Path, error: io::Error) -> Error {
    let problem = format!("cannot be written: {error}");
    Error::new(report.to_string_lossy(), problem, "check the folder").caused_by(error)
}

/// Whether two names are one file, or would be if they existed.
fn same_place(a: &Path, b: &Path) -> bool {
    let place = |path: &Path| Some((fs::canonicalize(folder_of(path)).ok()?, path.file_name()?.to_owned()));
    same_file(a, b) || place(a).is_some_and(|place_a| Some(place_a) == place(b))
}
