//! What a job is going to do, and what it did: the keys of the JSON report, with those of `pipeline::Report`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tracing::warn;

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
    pub input: String,
    /// Output as in the options.
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
    /// Memory of the whole process that the run is expected to take at most, in bytes; what the decoder and the encoder take
    /// of it is an estimate.
    pub memory_expected_bytes: u64,
    /// Width of the input in luma samples.
    #[serde(skip)]
    pub input_width: usize,
    /// Height of the input in luma samples.
    #[serde(skip)]
    pub input_height: usize,
    /// FFmpeg's name of the input's pixel format.
    #[serde(skip)]
    pub input_pixel_format: &'static str,
    /// Average frames per second of the input.
    #[serde(skip)]
    pub input_fps: f64,
    /// The same of the output.
    #[serde(skip)]
    pub fps: f64,
    /// Options of the encoder, those that hasn sets by default included.
    #[serde(skip)]
    pub encoder_options: Vec<String>,
    /// Number of frames to expect, by the container; 0 where it does not state one.
    #[serde(skip)]
    pub frames_expected: u64,
    /// Estimated size of the encoded video in bytes, where the encoder and the input allow one.
    #[serde(skip)]
    pub bytes_expected: Option<u64>,
}

/// What a job did.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Version of this crate.
    pub hasn: &'static str,
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
        Report { hasn: env!("CARGO_PKG_VERSION"), summary, run, already_complete: false, kept: None }
    }

    /// The report where an earlier run had completed the output.
    pub(super) fn already_complete(summary: Summary) -> Report {
        Report { already_complete: true, ..Report::new(summary, pipeline::Report::default()) }
    }

    /// Whether the run was interrupted before the end of the input.
    pub fn is_interrupted(&self) -> bool {
        self.run.interrupted
    }

    /// The report as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data is always JSON")
    }

    /// Writes it to the file that the options name, if they do. A failure is no error of the run, whose frames are written.
    pub(super) fn write(&self, options: &Options, interrupt: &Interrupt) {
        let Some(path) = &options.report else { return };
        if let Err(error) = write_report(path, &self.to_json(), interrupt) {
            warn!("{error}");
        }
    }
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

/// Writes the report of an earlier run, which has completed the output and was ended before it could.
pub(super) fn write_earlier_report(options: &Options, journal: &Path, interrupt: &Interrupt) {
    if let (Some(path), Some(json)) = (&options.report, Journal::joined_report(journal))
        && let Err(error) = write_report(path, &json, interrupt)
    {
        warn!("{error}");
    }
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
