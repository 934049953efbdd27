//! Runs that keep their segments in a journal: how one is started, resumed, and joined into a video.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::fingerprint;
use super::options::{Options, Resume};
use super::parts::{OpenAt, Parts, growth};
use super::progress::{Event, Interrupt, Progress};
use super::publish::publish;
use super::report::{Kept, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{JobFingerprint, JoinOutput, Journal, join};
use crate::media::{
    AudioMode, CHECK_DEVICE, Damage, Encoder, Input, Muxer, Output, Pattern, Plan, StreamTallies, Trim,
};
use crate::pipeline::{Outcome, Sink};

/// The folder of the job's journal; `None` for outputs that cannot be joined from segments, and for inputs that cannot
/// be read twice.
pub(super) fn journal_folder(options: &Options) -> Result<Option<PathBuf>> {
    let output = Output::new(&options.output, &options.input)?;
    let is_kept = output.is_segmented() || output.sequence().is_some();
    let is_read_twice = Path::new(&options.input).is_file() || Pattern::parse(&options.input)?.is_some();
    let kept = output.path().filter(|_| is_kept && is_read_twice);
    let folder = kept.map(Journal::folder_of);
    match &folder {
        None if options.resume == Resume::Always => {
            let problem = "only a video that goes from file to file can be resumed";
            Err(Error::new("--resume", problem, "leave it out").with_kind(ErrorKind::Unsupported))
        }
        Some(folder) if !folder.exists() && options.resume == Resume::Always => {
            let problem = format!("there is no {}", folder.display());
            Err(Error::new("--resume", problem, "leave it out to start").with_kind(ErrorKind::NotFound))
        }
        _ => Ok(folder),
    }
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
        Journal::discard(folder)?;
    }
    let fingerprint = fingerprint::of_job(options, &parts)?;
    let mut journal = Journal::open(folder, &fingerprint)?;
    if journal.frames() > 0 {
        let (frames, reached_s) = (journal.frames(), Some(journal.reached_s()));
        progress.notify(Event::Resumed { from: folder.to_owned(), frames, reached_s });
    }
    let result = encode_and_join(options, parts, &mut journal, &fingerprint, progress, interrupt);
    if result.as_ref().is_ok_and(|report| !report.is_interrupted()) {
        return journal.remove().and(result);
    }
    if let Err(error) = journal.scan() {
        // The first error is the one to report.
        return result.and(Err(error));
    }
    let frames = journal.frames();
    if frames == 0 {
        let kept = Some(Kept::Nothing { segmented: true });
        return journal.remove().and(result).map(|report| Report { kept, ..report });
    }
    match result {
        Err(error) => {
            let place = folder.display();
            let kept = match error.kind() {
                ErrorKind::Damaged => format!("{place} keeps {frames} frames for a run with --tolerate"),
                _ => format!("{place} keeps the first {frames} frames: the same command resumes there"),
            };
            Err(error.keeping(&kept))
        }
        Ok(mut report) => {
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
        let damage = parts.input.damage();
        let encoded = encode(options, parts, journal, progress, interrupt)?;
        let differing = &encoded.outcome.differing;
        if differing.is_empty() {
            return join_and_publish(options, encoded, &damage, journal, fingerprint, interrupt);
        }
        if let Some(segment) = differing.iter().find(|&&segment| !encoded_again.insert(segment)) {
            let problem = format!("the frames of segment {segment} are read differently each time");
            return Err(Error::new(&options.input, problem, CHECK_DEVICE).with_kind(ErrorKind::Io));
        }
        journal.remove_unfit(differing, "its frames are read differently now")?;
        let at = OpenAt { overwrite: options.overwrite, has_journal: true, start: None };
        parts = Parts::open(options, at, interrupt)?;
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
    // Fails now rather than after days if the container cannot hold the streams.
    drop(Muxer::create(output.clone(), &parts.input, &parts.encoder, trim, &parts.plan)?);
    let expected = summary.frames_expected;
    let bytes_per_frame = parts.encoder.bytes_per_frame(&parts.input, growth(&parts.engine));
    let store = journal.store(expected, interrupt.flag().clone());
    journal.log_space_needed(expected, bytes_per_frame, &store)?;
    let mut planned = None;
    let sink = |plan: Plan| {
        planned = Some(plan);
        let (store, resume_state) = (Box::new(store), journal.resume_state());
        Sink::Segments { store, transcoders: None, resume_state }
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
        report.write(options)?;
        return Ok(report);
    }
    let tallies = input.tallies().clone();
    let to_join = ToJoin { source: input, encoder, plan, output, trim, tallies, fingerprint };
    let muxer = to_join.join(journal, &options.audio, interrupt)?;
    report.run.add_output(&muxer)?;
    if let Some(partial) = muxer.keep_partial() {
        journal.mark_joined(&partial)?;
    }
    publish(options, report, muxer, damage)
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
    pub fn join(self, journal: &Journal, audio: &AudioMode, interrupt: &Interrupt) -> Result<Muxer> {
        let ToJoin { source, encoder, mut plan, output, trim, tallies, fingerprint } = self;
        join(journal, encoder.header_checksum(), &tallies, interrupt.flag(), || {
            let input = source.reopen(trim)?;
            fingerprint.check_input(&fingerprint::of_source(&input)?, input.name())?;
            let plan = plan.take().map_or_else(|| Plan::new(&input, &output, audio), Ok)?;
            let muxer = Muxer::create(output.clone(), &input, &encoder, trim, &plan)?;
            Ok(JoinOutput { input, transcoders: plan.into_transcoders(), muxer })
        })
    }
}
