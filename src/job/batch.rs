//! Batch: many inputs, upscaled one after the other. One that fails does not stop the rest, and a second start upscales
//! only what is missing.
//!
//! This module does not know whether a video is upscaled in this process or in another: the caller's [`Runner`] does.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::end::{SCHEMA, Status, now, rfc3339};
use super::fingerprint::of_weights;
use super::interrupt::Interrupt;
use super::resume::remove_finished;
use crate::error::{Error, Result};
use crate::journal::{BatchRecord, JobFingerprint, Journal, OutputState};
use crate::media::{self, Output};
use crate::model::catalogue;

/// An input of a batch, a video or an image, and its output.
pub(crate) struct Video {
    /// Path of the input.
    pub input: OsString,
    /// Path of the output.
    pub output: OsString,
    /// The model; `None` for the default.
    pub model: Option<String>,
    /// Whether an existing output is overwritten.
    pub overwrite: bool,
    /// Names and values of all options that the output depends on.
    pub options: Vec<(String, String)>,
}

/// Upscales videos for a batch.
pub(crate) trait Runner {
    /// Upscales the video at this index of the batch.
    fn run(&mut self, index: usize) -> Result<Ended>;
    /// Reports an error that the run itself has not reported.
    fn report_error(&mut self, error: &Error);
}

/// How the run of a video ended.
pub(crate) enum Ended {
    /// The output is complete. With the report of the run, null if there is none.
    Done(Value),
    /// The user interrupted it. With the report of the run and its error line.
    Interrupted(Value, String),
    /// It failed. With the report of the run and its error line.
    Failed(Value, String),
    /// A signal ended its process, perhaps after the output was complete. With a line that says so.
    Killed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Done,
    /// An earlier batch has written it from the same input and options.
    Skipped,
    Failed,
    /// The user interrupted the batch while this video was upscaled.
    Interrupted,
    /// The user interrupted the batch before this video was started.
    Pending,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Skipped => "skipped",
            Outcome::Failed => "failed",
            Outcome::Interrupted => "interrupted",
            Outcome::Pending => "pending",
        }
    }
}

/// A video of a batch and its outcome.
#[derive(Serialize)]
pub(crate) struct Row {
    pub input: String,
    pub output: String,
    pub outcome: Outcome,
    pub error: Option<String>,
    /// The report of the run, that of an earlier batch where it was skipped.
    pub report: Value,
}

impl Row {
    fn figure(&self, pointer: &str) -> f64 {
        self.report.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0)
    }

    pub fn frames(&self) -> f64 {
        self.figure("/frames/encoded")
    }

    pub fn seconds(&self) -> f64 {
        self.figure("/seconds")
    }

    pub fn fps(&self) -> f64 {
        self.figure("/fps")
    }
}

/// Counts of a batch; frames and seconds are those of the videos that this batch has upscaled.
#[derive(Serialize)]
pub(crate) struct Totals {
    pub videos: usize,
    pub done: usize,
    pub skipped: usize,
    pub failed: usize,
    pub frames: u64,
    pub seconds: f64,
    pub interrupted: bool,
}

/// The report of a batch.
#[derive(Serialize)]
pub(crate) struct BatchReport {
    schema: u32,
    hasn: &'static str,
    ffmpeg: String,
    pub status: Status,
    exit_code: u8,
    started: String,
    ended: String,
    pub videos: Vec<Row>,
    pub left_out: Vec<String>,
    pub totals: Totals,
}

/// Upscales those of `videos` whose output is missing. `left_out`: files that are not videos, for the report.
pub(crate) fn run(
    videos: Vec<Video>,
    left_out: Vec<String>,
    runner: &mut dyn Runner,
    interrupt: &Interrupt,
) -> BatchReport {
    let (started, mut rows) = (now(), Vec::new());
    for (index, video) in videos.into_iter().enumerate() {
        let (outcome, error, report) = match interrupt.is_set() {
            true => (Outcome::Pending, None, Value::Null),
            false => upscale(&video, index, runner, interrupt).unwrap_or_else(|error| {
                runner.report_error(&error);
                (Outcome::Failed, Some(error.to_string()), Value::Null)
            }),
        };
        rows.push(Row {
            input: media::redacted(&video.input),
            output: video.output.to_string_lossy().into_owned(),
            outcome,
            error,
            report,
        });
    }
    BatchReport::new(started, rows, left_out)
}

impl BatchReport {
    fn new(started: Duration, videos: Vec<Row>, left_out: Vec<String>) -> BatchReport {
        let totals = Totals::of(&videos);
        let status = match &totals {
            Totals { interrupted: true, .. } => Status::Interrupted,
            Totals { failed: 0, .. } => Status::Ok,
            _ => Status::Failed,
        };
        BatchReport {
            schema: SCHEMA,
            hasn: env!("CARGO_PKG_VERSION"),
            ffmpeg: media::info().version,
            status,
            exit_code: status.exit_code(),
            started: rfc3339(started),
            ended: rfc3339(now()),
            videos,
            left_out,
            totals,
        }
    }
}

impl Totals {
    fn of(rows: &[Row]) -> Totals {
        let count = |outcome: Outcome| rows.iter().filter(|row| row.outcome == outcome).count();
        let done = || rows.iter().filter(|row| row.outcome == Outcome::Done);
        Totals {
            videos: rows.len(),
            done: count(Outcome::Done),
            skipped: count(Outcome::Skipped),
            failed: count(Outcome::Failed),
            frames: done().map(Row::frames).sum::<f64>() as u64,
            seconds: (done().map(Row::seconds).fold(0.0, std::ops::Add::add) * 1e3).round() / 1e3,
            interrupted: count(Outcome::Interrupted) + count(Outcome::Pending) > 0,
        }
    }
}

/// Upscales a video, unless its output exists and was written from the same input with the same options.
fn upscale(
    video: &Video,
    index: usize,
    runner: &mut dyn Runner,
    interrupt: &Interrupt,
) -> Result<(Outcome, Option<String>, Value)> {
    let output = Path::new(&video.output);
    let fingerprint = fingerprint(video)?;
    match OutputState::of(output, &fingerprint)? {
        OutputState::UpToDate(report) => {
            let journal = Journal::folder_of(output);
            if Journal::is_finished(&journal, output) {
                remove_finished(&journal, &Output::new(&video.output, &video.input)?);
            }
            return Ok((Outcome::Skipped, None, report));
        }
        OutputState::Conflict(error) if !video.overwrite => return Err(error),
        _ => {}
    }
    let record = BatchRecord::start(output, fingerprint, interrupt.flag())?;
    match runner.run(index)? {
        Ended::Done(report) => {
            record.finish(report.clone())?;
            Ok((Outcome::Done, None, report))
        }
        Ended::Interrupted(report, error) => {
            record.restore()?;
            match interrupt.is_set() {
                true => Ok((Outcome::Interrupted, None, report)),
                false => Ok((Outcome::Failed, Some(error), report)),
            }
        }
        Ended::Failed(report, error) => {
            record.restore()?;
            Ok((Outcome::Failed, Some(error), report))
        }
        // The record stays: the output may be complete.
        Ended::Killed(error) => Ok((Outcome::Failed, Some(error), Value::Null)),
    }
}

/// What an output depends on, as far as that is known without opening the input, so that a second start is quick.
fn fingerprint(video: &Video) -> Result<JobFingerprint> {
    let mut fingerprint = JobFingerprint::of_input(&video.input)?;
    let is_image = Output::new(&video.output, &video.input)?.is_still();
    let default = if is_image { catalogue::DEFAULT_IMAGE } else { catalogue::DEFAULT_VIDEO };
    let model = video.model.as_deref().unwrap_or(default);
    fingerprint.add("hasn", env!("CARGO_PKG_VERSION"));
    fingerprint.add("FFmpeg", media::info().version);
    fingerprint.add("model", format!("{model} {}", of_weights(model)?));
    video.options.iter().for_each(|(name, value)| fingerprint.add(name, value));
    Ok(fingerprint)
}
