//! What a job is going to do, and what it did: the keys of the JSON report, with those of `pipeline::Report`.

use std::path::PathBuf;

use serde::Serialize;

use super::options::Options;
use crate::error::{Error, Result};
use crate::pipeline;

/// A job as it was opened: what its options and the input came to.
#[derive(Clone, Debug, Serialize)]
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
    /// Width of the input in luma samples.
    #[serde(skip)]
    pub input_width: usize,
    /// Height of the input in luma samples.
    #[serde(skip)]
    pub input_height: usize,
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

    /// Whether the run was interrupted before the end of the input.
    pub fn is_interrupted(&self) -> bool {
        self.run.interrupted
    }

    /// The report as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data is always JSON")
    }

    /// Writes it to the file that the options name, if they do.
    pub(super) fn write(&self, options: &Options) -> Result<()> {
        let Some(path) = &options.report else { return Ok(()) };
        std::fs::write(path, self.to_json() + "\n").map_err(|e| {
            let problem = format!("cannot be written: {e}");
            let error = Error::new(path.to_string_lossy(), problem, "check the folder");
            error.with_kind(e.kind().into()).with_source(e)
        })
    }
}
