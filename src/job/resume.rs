//! Runs that keep their segments in a journal: how one is started, resumed, and joined into a video.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::fingerprint;
use super::interrupt::Interrupt;
use super::options::{Options, Resume};
use super::parts::{OpenAt, Parts, growth};
use super::progress::{Event, Progress};
use super::publish::{give_name, publish, too_damaged};
use super::report::{Kept, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{CopiedInput, JobFingerprint, JoinOutput, Journal, join};
use crate::media::{
    CHECK_DEVICE, Damage, Encoder, Input, Muxer, Output, Plan, StreamTallies, Trim, redacted,
};
use crate::pipeline::{FrameCache, Outcome, Sink};

/// The folder of the job's journal; `None` for outputs that cannot be joined from segments, and for images of an input that
/// cannot be read twice.
pub(super) fn journal_folder(options: &Options) -> Result<Option<PathBuf>> {
    let output = Output::new(&options.output, &options.input)?;
    let is_read_twice = options.is_read_twice()?;
    let is_kept = output.is_segmented() || (output.sequence().is_some() && is_read_twice);
    let folder = output.path().filter(|_| is_kept).map(Journal::folder_of);
    if let Some(folder) = &folder {
        Journal::check_own(folder)?;
    }
    if options.resume != Resume::Always {
        return Ok(folder);
    }
    match &folder {
        Some(found) if is_read_twice && found.exists() => Ok(folder),
        Some(missing) if is_read_twice => {
            let problem = format!("there is no {}", missing.display());
            Err(Error::new("--resume", problem, "leave it out to start").with_kind(ErrorKind::NotFound))
        }
        _ => {
            let problem = "only a video that goes from file to file can be resumed";
            Err(Error::new("--resume", problem, "leave it out").with_kind(ErrorKind::Unsupported))
        }
    }
}

/// Whether an earlier run has completed the output and only left its journal behind.
pub(super) fn is_published(options: &Options, folder: &Path) -> Result<bool> {
    let output = Output::new(&options.output, &options.input)?;
    Ok(output.path().is_some_and(|path| Journal::is_finished(folder, path)))
}

/// Removes what an earlier run has left beside its complete output: the journal, and a second name of the output.
pub(super) fn remove_finished(folder: &Path, output: &Output) {
    let partial = output.partial().filter(|partial| Journal::is_finished(folder, partial));
    if let Err(error) = Journal::discard(folder, partial) {
        warn!("{error}");
    }
}

/// Whether an earlier run has completed and verified the partial file, which only lacks its name.
pub(super) fn is_joined(journal: &Journal, output: &Output) -> bool {
    output.partial().is_some_and(|partial| Journal::is_finished(journal.folder(), partial))
}

/// Fails now rather than after days if the container cannot hold the streams.
pub(super) fn try_container(journal: &Journal, parts: &Parts) -> Result<()> {
    let Parts { output, input, encoder, trim, plan, .. } = parts;
    let create = || Muxer::create(output.trial(journal.folder()), input, encoder, *trim, plan);
    journal.disk().retry_when_full(0, create).map(drop)
}

/// Encodes the segments that are missing, then joins the video.
pub(super) fn run(
    options: &Options,
    parts: Parts,
    folder: &Path,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Report> {
    if folder.exists() && options.resume == Resume::Restart {
        Journal::discard(folder, parts.output.partial())?;
    }
    let mut fingerprint = fingerprint::of_job(options, &parts)?;
    if options.resume == Resume::Always {
        Journal::allow_other_ffmpeg(folder, &mut fingerprint)?;
    }
    let mut journal = Journal::open(folder, &fingerprint, interrupt.flag())?;
    let output = parts.output.clone();
    if is_joined(&journal, &output) {
        give_name(&output, options.overwrite, interrupt)?;
        let report = Report::already_complete(parts.summary, folder);
        journal.remove();
        return Ok(report);
    }
    let kept = journal.kept_frames();
    if kept > 0 {
        let (frames, reached_s) = (kept, Some(journal.reached_s()));
        progress.notify(Event::Resumed { from: folder.to_owned(), frames, reached_s });
    }
    let result = encode_and_join(options, parts, &mut journal, &fingerprint, progress, interrupt);
    if result.as_ref().is_ok_and(|report| !report.is_interrupted() && report.failure.is_none()) {
        journal.remove();
        return result;
    }
    if is_joined(&journal, &output) {
        return result;
    }
    if let Err(error) = journal.scan() {
        // The first error is the one to report.
        return result.and(Err(error));
    }
    let frames = journal.kept_frames();
    if frames == 0 {
        let kept = Some(Kept::Nothing { segmented: true });
        journal.remove();
        return result.map(|report| Report { kept, ..report });
    }
    match result {
        Err(error) => {
            let place = folder.display();
            let kept = format!("{place} keeps the first {frames} frames: the same command resumes there");
            Err(error.keeping(&kept))
        }
        Ok(mut report) => {
            let kept = format!("{} keeps {frames} frames for a run with --tolerate", folder.display());
            report.failure = report.failure.map(|error| error.keeping(&kept));
            report.kept = Some(Kept::Journal { folder: folder.to_owned(), frames });
            Ok(report)
        }
    }
}

/// A video whose segments are all encoded, or as many as there are after an interrupt.
struct Encoded {
    outcome: Outcome,
    plan: Option<Plan>,
    output: Output,
    trim: Trim,
    report: Report,
}

fn encode_and_join(
    options: &Options,
    mut parts: Parts,
    journal: &mut Journal,
    fingerprint: &JobFingerprint,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Report> {
    let mut encoded_again = BTreeSet::new();
    loop {
        let (damage, engine) = (parts.input.damage(), Some(parts.engine.kind));
        let started = parts.summary.started;
        let encoded = encode(options, parts, journal, progress, interrupt)?;
        let differing = &encoded.outcome.differing;
        if differing.is_empty() {
            return join_and_publish(options, encoded, &damage, journal, fingerprint, interrupt);
        }
        if let Some(segment) = differing.iter().find(|&&segment| !encoded_again.insert(segment)) {
            let problem = format!("the frames of segment {segment} are read differently each time");
            return Err(Error::new(redacted(&options.input), problem, CHECK_DEVICE).with_kind(ErrorKind::Io));
        }
        journal.remove_unfit(differing, "its frames are read differently now")?;
        let at = OpenAt {
            overwrite: options.overwrite,
            owns_partial: Journal::owns_partial(journal.folder()),
            start: None,
            engine,
        };
        parts = Parts::open(options, at, interrupt)?;
        parts.summary.started = started;
    }
}

/// Encodes the segments that are missing.
fn encode(
    options: &Options,
    parts: Parts,
    journal: &Journal,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Encoded> {
    let (output, trim, summary) = (parts.output.clone(), parts.trim, parts.summary.clone());
    try_container(journal, &parts)?;
    let expected = summary.frames_expected;
    let bytes_per_frame = parts.encoder.bytes_per_frame(&parts.input, growth(&parts.engine));
    let store = journal.store(expected);
    journal.log_space_needed(expected, bytes_per_frame, &store)?;
    let mut planned = None;
    let sink = |plan: Plan| {
        planned = Some(plan);
        let (store, resume_state) = (Box::new(store), journal.resume_state());
        let cache = Some(Box::new(journal.frame_cache()) as Box<dyn FrameCache>);
        Sink::Segments { store, transcoders: None, resume_state, cache }
    };
    let mut outcome = parts.run(options, sink, progress, interrupt)?;
    let report = Report::new(summary, std::mem::take(&mut outcome.report));
    Ok(Encoded { outcome, plan: planned, output, trim, report })
}

fn join_and_publish(
    options: &Options,
    encoded: Encoded,
    damage: &Damage,
    journal: &mut Journal,
    fingerprint: &JobFingerprint,
    interrupt: &Interrupt,
) -> Result<Report> {
    let Encoded { outcome: Outcome { input, encoder, .. }, plan, output, trim, mut report } = encoded;
    journal.scan()?;
    if report.is_interrupted() {
        report.run.reached_s = journal.reached_s();
        return Ok(report);
    }
    let tallies = input.tallies();
    let to_join = ToJoin { source: input, encoder, plan, output, trim, tallies, fingerprint };
    let muxer = to_join.join(journal, options, interrupt)?;
    report.run.count_damage(damage);
    report.run.add_output(&muxer)?;
    if let (None, Some(partial)) = (too_damaged(options, damage), muxer.keep_partial()) {
        report.complete(options, Some(&partial));
        journal.mark_joined(&partial, &report.to_json())?;
    }
    publish(options, report, &muxer, damage, interrupt)
}

/// What a video is joined from, besides its segments.
pub(super) struct ToJoin<'a> {
    pub source: Input,
    pub encoder: Encoder,
    /// `None` to plan the streams again.
    pub plan: Option<Plan>,
    pub output: Output,
    pub trim: Trim,
    /// What was read of the copied streams when the segments were encoded.
    pub tallies: StreamTallies,
    pub fingerprint: &'a JobFingerprint,
}

impl ToJoin<'_> {
    /// Returns the complete video under its partial name.
    pub fn join(self, journal: &Journal, options: &Options, interrupt: &Interrupt) -> Result<Muxer> {
        let ToJoin { source, encoder, mut plan, output, trim, tallies, fingerprint } = self;
        let partial = output.partial().expect("a joined video is a file").to_owned();
        let joined = join(journal, encoder.header_checksum(), interrupt.flag(), || {
            let mut input = source.reopen(trim)?;
            fingerprint.check_input(&fingerprint::of_source(options, &input)?, input.name())?;
            let mut plan =
                plan.take().map_or_else(|| Plan::new(&mut input, &output, &options.audio, trim), Ok)?;
            journal.claim_partial(&partial, options.overwrite)?;
            let muxer = Muxer::create(output.clone(), &input, &encoder, trim, &plan)?;
            let (transcoders, tallies) = (plan.take_transcoders(trim), tallies.clone());
            let copied = CopiedInput { input, transcoders, tallies, damage: source.damage() };
            Ok(JoinOutput { muxer, copied: Some(copied) })
        });
        joined.inspect_err(|_| journal.release_partial(&partial))
    }
}
