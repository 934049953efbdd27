//! A job: opened from options, run to its report.

use std::path::{Path, PathBuf};

use super::end::now;
use super::interrupt::Interrupt;
use super::options::{Options, Resume};
use super::parts::{OpenAt, Parts};
use super::progress::Progress;
use super::publish::publish;
use super::report::{
    Kept, Report, Summary, check_report, check_report_writable, conclude_failed, conclude_unopened,
};
use super::{fingerprint, pipe, resume, sequence};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Journal, SequenceJournal};
use crate::media::{self, Muxer, Plan};
use crate::pipeline::{Outcome, Sink};

/// An opened job. Nothing is written until it [runs](Job::run).
pub struct Job {
    pub(super) options: Options,
    pub(super) interrupt: Interrupt,
    pub(super) parts: Parts,
    pub(super) route: Route,
}

/// How packets reach the output.
pub(super) enum Route {
    /// Directly, as they are encoded.
    Direct,
    /// Through a journal in this folder.
    Journal(PathBuf),
    /// Through a journal in this folder, from an input that cannot be read twice.
    Pipe(PathBuf),
    /// As one file each, with a journal in this folder where the input can be read twice.
    Sequence(Option<PathBuf>),
    /// Not at all: an earlier run has completed the output and only left its journal behind, in this folder.
    Complete(PathBuf),
}

/// Opens and checks all parts of a job, and writes nothing but the report of a failure. Setting `interrupt` ends this as well
/// as the [run](Job::run).
pub fn open(options: &Options, interrupt: &Interrupt) -> Result<Job> {
    media::start();
    let started = now();
    let opened = open_unreported(options, interrupt);
    let mut job = opened.map_err(|error| conclude_unopened(options, started, error, interrupt))?;
    if let Some(report) = &options.report {
        check_report(report, job.parts.paths(options))?;
    }
    job.parts.summary.started = started;
    Ok(job)
}

fn open_unreported(options: &Options, interrupt: &Interrupt) -> Result<Job> {
    if let (Some(from_s), Some(to_s)) = (options.from_s, options.to_s)
        && from_s >= to_s
    {
        return Err(Error::new("--to", "is not after --from", "choose a later time"));
    }
    let report_folder = options.report.as_deref().and_then(Path::parent);
    if let Some(folder) = report_folder.filter(|path| *path != Path::new("") && !path.is_dir()) {
        let remedy = "create it, or choose another --report";
        let error = Error::new(folder.to_string_lossy(), "is not a folder", remedy);
        return Err(error.with_kind(ErrorKind::NotFound));
    }
    let folder = resume::journal_folder(options)?;
    let is_read_twice = options.is_read_twice()?;
    let is_complete = match &folder {
        Some(folder) if options.resume != Resume::Restart && is_read_twice => {
            resume::is_published(options, folder)?
        }
        _ => false,
    };
    // With -y a run from a pipe discards what an earlier one has left.
    let is_discarded = options.resume == Resume::Restart || (!is_read_twice && options.overwrite);
    let kept = folder.as_deref().filter(|_| !is_complete && !is_discarded);
    let at = OpenAt {
        overwrite: options.overwrite || is_complete,
        owns_partial: folder.as_deref().is_some_and(Journal::owns_partial),
        start: None,
        engine: kept.map_or(Ok(None), |folder| fingerprint::recorded_engine(options, folder))?,
    };
    let parts = Parts::open(options, at, interrupt)?;
    let route = match folder {
        Some(folder) if is_complete => Route::Complete(folder),
        folder if parts.output.sequence().is_some() => Route::Sequence(folder),
        Some(folder) if is_read_twice => Route::Journal(folder),
        Some(folder) => Route::Pipe(folder),
        None => Route::Direct,
    };
    Ok(Job { options: options.clone(), interrupt: interrupt.clone(), parts, route })
}

impl Job {
    /// What the job is going to do.
    pub fn summary(&self) -> &Summary {
        &self.parts.summary
    }

    /// The journal of an earlier run that was interrupted, if there is one. [`run`](Job::run) resumes or discards it, by
    /// [`Options::resume`].
    pub fn journal(&self) -> Option<&Path> {
        match &self.route {
            Route::Journal(folder) | Route::Sequence(Some(folder)) if folder.exists() => Some(folder),
            _ => None,
        }
    }

    /// Number of frames whose work that run has left.
    pub(crate) fn kept_frames(&self) -> u64 {
        match &self.route {
            Route::Journal(folder) => Journal::kept_frames_in(folder),
            Route::Sequence(Some(folder)) => SequenceJournal::frames_in(folder),
            _ => 0,
        }
    }

    /// Runs the job to its end, or until its interrupt is set. An interrupted run keeps what it has finished and says so
    /// in its report.
    pub fn run(self, progress: &Progress) -> Result<Report> {
        let Job { options, interrupt, parts, route } = self;
        if let Some(report) = &options.report {
            check_report_writable(report, &interrupt)?;
        }
        let summary = parts.summary.clone();
        let result = match route {
            Route::Direct => run_direct(&options, parts, progress, &interrupt),
            Route::Journal(folder) => resume::run(&options, parts, &folder, progress, &interrupt),
            Route::Pipe(folder) => pipe::run(&options, parts, &folder, progress, &interrupt),
            Route::Sequence(folder) => {
                sequence::run(&options, parts, folder.as_deref(), progress, &interrupt)
            }
            Route::Complete(folder) => {
                let report = Report::already_complete(parts.summary, &folder);
                resume::remove_finished(&folder, &parts.output);
                Ok(report)
            }
        };
        match result {
            Ok(report) => report.conclude(&options, &interrupt),
            Err(error) => Err(conclude_failed(&options, &summary, error, &interrupt)),
        }
    }

    /// Ends a job that is not to run. Returns `why`, which its report has.
    pub(crate) fn refuse(&self, why: Error) -> Error {
        conclude_failed(&self.options, &self.parts.summary, why, &self.interrupt)
    }
}

/// Writes packets straight into the output.
fn run_direct(options: &Options, parts: Parts, progress: &Progress, interrupt: &Interrupt) -> Result<Report> {
    let Parts { input, encoder, plan, output, trim, summary, .. } = &parts;
    let muxer = Box::new(Muxer::create(output.clone(), input, encoder, *trim, plan)?);
    let (summary, damage) = (summary.clone(), input.damage());
    let part = *trim;
    let sink = |mut plan: Plan| Sink::Direct { muxer, transcoders: plan.take_transcoders(part) };
    let Outcome { report: run, muxer, .. } = parts.run(options, sink, progress, interrupt)?;
    let (mut report, muxer) = (Report::new(summary, run), muxer.expect("a direct sink has a muxer"));
    if report.is_interrupted() {
        report.kept = muxer.keep_partial().map(|path| Kept::Partial { path });
        return Ok(report);
    }
    publish(options, report, &muxer, &damage, interrupt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Event, STAGES};
    use crate::media::SEGMENT_FRAMES;

    /// A y4m of 16x16 with `frames` frames that differ.
    fn video(path: &Path, frames: u64) {
        let frame = |index: u64| [b"FRAME\n".as_slice(), &[index as u8; 16 * 16 * 3 / 2]].concat();
        let header = b"YUV4MPEG2 W16 H16 F25:1 C420jpeg\n".to_vec();
        std::fs::write(path, (0..frames).map(frame).fold(header, |all, frame| [all, frame].concat()))
            .unwrap();
    }

    #[test]
    fn the_join_is_interrupted_and_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        video(Path::new(&path("in.y4m")), 300);
        let mut options = Options::new(path("in.y4m"), path("out.mkv"));
        (options.model, options.threads) = (Some("none".into()), Some(1));
        let interrupt = Interrupt::default();
        let job = open(&options, &interrupt).unwrap();
        let progress = Progress::with_observer(move |_, event| {
            if matches!(event, Event::Stopped) {
                interrupt.set();
            }
        });
        let error = job.run(&progress).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
        assert!(error.to_string().contains("keeps the first 300 frames"), "{error}");
        assert!(!Path::new(&path("out.mkv")).exists() && !Path::new(&path("out.partial.mkv")).exists());
        let report = open(&options, &Interrupt::default()).unwrap().run(&Progress::default()).unwrap();
        assert_eq!(report.run.frames.encoded, 300);
    }

    #[test]
    fn what_is_finished_outlives_a_panic_in_any_stage() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        // More than all queues and the encoder hold.
        let frames = 2 * SEGMENT_FRAMES + 100;
        video(Path::new(&path("in.y4m")), frames);
        for stage in STAGES {
            let mut options = Options::new(path("in.y4m"), path(&format!("{}.mkv", stage.name())));
            (options.model, options.threads) = (Some("none".into()), Some(1));
            options.encoder_options.push(("preset".into(), "ultrafast".into()));
            let run = |progress: &Progress| open(&options, &Interrupt::default()).unwrap().run(progress);
            let error = run(&Progress::panicking(stage, SEGMENT_FRAMES + 60)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
            let expected = format!("the {} stage: panicked: as the test asks; ", stage.name());
            assert!(error.to_string().starts_with(&expected), "{error}");
            assert!(error.to_string().contains("keeps the first 240 frames"), "{error}");
            let report = run(&Progress::default()).unwrap();
            assert_eq!(report.run.frames.encoded, frames, "{stage:?}");
        }
    }
}
