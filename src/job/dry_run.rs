//! A dry run: what a job would do and take. Its refusals are those of the run, and nothing is written but a trial of the
//! container in the folder for temporary files.

use std::path::Path;

use serde::Serialize;

use super::estimate::Estimate;
use super::fingerprint;
use super::options::{Options, Resume};
use super::parts::Parts;
use super::report::{Summary, check_report_writable};
use super::run::{Job, Route};
use super::sequence::check_free;
use crate::error::{Error, Result};
use crate::journal::{Disk, Journal};
use crate::media::{Muxer, PlannedStream, folder_of};

/// What a job would do and take.
#[derive(Debug, Serialize)]
pub(crate) struct DryRun {
    /// Version of this crate.
    pub hasn: &'static str,
    /// Always true: tells a dry run from a report.
    pub dry_run: bool,
    /// Input as in the options, without secrets.
    pub input: String,
    /// Output as in the options.
    pub output: String,
    /// The job as it was opened.
    #[serde(flatten)]
    pub summary: Summary,
    /// Every stream of the input.
    pub streams: Vec<PlannedStream>,
    /// Frames that an earlier run has finished, which this one would not encode again.
    pub finished_frames: u64,
    /// Whether an earlier run has completed the output, so that nothing is left to do.
    pub already_complete: bool,
    /// What the run is going to take; `None` where nothing could be measured.
    pub estimate: Option<Estimate>,
    /// Space that the run takes at most, with its journal, in bytes.
    pub disk_bytes: Option<u64>,
    /// Free space on the disk of the output, in bytes.
    pub disk_free_bytes: Option<u64>,
}

impl DryRun {
    /// Checks what [`Job::run`] would, and measures what it would take.
    pub fn of(job: Job) -> Result<DryRun> {
        let Job { options, interrupt, parts, route } = job;
        if let Some(report) = &options.report {
            check_report_writable(report, &interrupt)?;
        }
        let finished_frames = check(&options, &parts, &route)?;
        let (streams, summary) = (parts.plan.streams(&parts.input, &parts.output), parts.summary.clone());
        let folder = parts.output.path().map(|path| folder_of(path).to_owned());
        let free = folder.map(|folder| Disk::new(&folder, interrupt.flag().clone()).available());
        let already_complete = matches!(route, Route::Complete(_));
        let estimate = match already_complete {
            true => None,
            false => Some(Estimate::measure(&options, parts, &interrupt)?),
        };
        let sizes = estimate.as_ref().and_then(|estimate| estimate.output_bytes.zip(estimate.video_bytes));
        let disk_bytes = sizes.map(|(output, video)| match route {
            // Segments and output exist side by side until the output has its name.
            Route::Journal(_) => output + video,
            Route::Pipe(_) => 2 * output,
            Route::Direct | Route::Sequence(_) | Route::Complete(_) => output,
        });
        Ok(DryRun {
            hasn: env!("CARGO_PKG_VERSION"),
            dry_run: true,
            input: summary.input.clone(),
            output: summary.output.clone(),
            summary,
            streams,
            finished_frames,
            already_complete,
            estimate,
            disk_bytes: disk_bytes.filter(|_| free.is_some()),
            disk_free_bytes: free.filter(|&free| free < u64::MAX),
        })
    }
}

/// What a run would check before its first frame. Returns the number of frames that an earlier run has finished.
fn check(options: &Options, parts: &Parts, route: &Route) -> Result<u64> {
    let is_resumed = |folder: &Path| folder.exists() && options.resume != Resume::Restart;
    let finished = |folder: &Path| {
        let mut fingerprint = fingerprint::of_job(options, parts)?;
        if options.resume == Resume::Always {
            Journal::allow_other_ffmpeg(folder, &mut fingerprint)?;
        }
        Journal::finished_frames(folder, &fingerprint)
    };
    match route {
        Route::Complete(_) => Ok(0),
        Route::Sequence(Some(folder)) if is_resumed(folder) => finished(folder),
        Route::Sequence(_) if options.overwrite => Ok(0),
        Route::Sequence(_) => {
            let pattern = parts.output.sequence().expect("the output is a sequence");
            check_free(options, parts, pattern).map(|()| 0)
        }
        Route::Journal(folder) if is_resumed(folder) => {
            try_container(parts)?;
            finished(folder)
        }
        Route::Direct | Route::Journal(_) | Route::Pipe(_) => try_container(parts).map(|()| 0),
    }
}

/// Fails if the container cannot hold the streams.
fn try_container(parts: &Parts) -> Result<()> {
    let Parts { output, input, encoder, trim, plan, .. } = parts;
    if output.path().is_none() || output.is_still() {
        return Ok(());
    }
    let folder = tempfile::tempdir().map_err(|e| {
        Error::io("the folder for temporary files", e, "set TMPDIR to one that can be written")
    })?;
    Muxer::create(output.trial(folder.path()), input, encoder, *trim, plan).map(drop)
}
