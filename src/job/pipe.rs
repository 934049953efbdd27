//! Runs from an input that cannot be read twice, a pipe or an address, into a video file.
//!
//! All streams go into the segments of a journal, which are joined however the run ends: at the end of the input, at an error
//! and at an interrupt. Those that a run has left because it was killed, the next one joins before it reads anything.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::fingerprint;
use super::interrupt::Interrupt;
use super::options::{Options, Resume};
use super::parts::Parts;
use super::progress::Progress;
use super::publish::{give_name, publish, too_damaged};
use super::report::{Kept, Report};
use super::resume::{is_joined, try_container};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{JoinOutput, Journal, join};
use crate::media::{Encoder, Input, Muxer, Output, Plan, Trim};
use crate::pipeline::{Outcome, ResumeState, Sink};

/// Encodes what the input gives, and joins it.
pub(super) fn run(
    options: &Options,
    parts: Parts,
    folder: &Path,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Report> {
    if folder.exists() && (options.overwrite || options.resume == Resume::Restart) {
        Journal::discard(folder, parts.output.partial())?;
    }
    let mut journal = Journal::open(folder, &fingerprint::of_job(options, &parts)?, interrupt.flag())?;
    let (output, trim, summary) = (parts.output.clone(), parts.trim, parts.summary.clone());
    if is_joined(&journal, &output) {
        give_name(&output, options.overwrite, interrupt)?;
        journal.remove();
        let (problem, remedy) = ("was completed by an earlier run", "look at it, or -y overwrites it");
        return Err(
            Error::new(options.output.to_string_lossy(), problem, remedy).with_kind(ErrorKind::Exists)
        );
    }
    if journal.frames() > 0 {
        let Parts { input, encoder, plan, .. } = &parts;
        return Err(join_earlier(options, &Joined { input, encoder, plan, output: &output, trim }, journal));
    }
    try_container(&journal, &parts)?;
    let (damage, store) = (parts.input.damage(), Box::new(journal.store(0)));
    let mut planned = None;
    let sink = |mut plan: Plan| {
        let transcoders = Some(plan.take_transcoders(trim));
        planned = Some(plan);
        Sink::Segments { store, transcoders, resume_state: ResumeState::default(), cache: None }
    };
    let outcome = parts.run(options, sink, progress, interrupt);
    if let Err(error) = journal.scan() {
        // The first error is the one to report.
        return Err(outcome?.failure.unwrap_or(error));
    }
    let frames = journal.frames();
    if frames == 0 {
        journal.remove();
        let Outcome { report, failure, .. } = outcome?;
        if let Some(error) = failure {
            return Err(error);
        }
        let kept = Some(Kept::Nothing { segmented: false });
        return Ok(Report { kept, ..Report::new(summary, report) });
    }
    let keeping = |error: Error| {
        let place = folder.display();
        error.keeping(&format!("{place} keeps the first {frames} frames: the same command joins them"))
    };
    let Outcome { report, input, encoder, failure, .. } = outcome.map_err(keeping)?;
    let mut report = Report::new(summary, report);
    let plan = planned.expect("the sink was opened");
    let joined = Joined { input: &input, encoder: &encoder, plan: &plan, output: &output, trim };
    if let Some(error) = failure {
        return Err(match joined.join(options, &journal, &Arc::default()) {
            Ok(muxer) => {
                journal.remove();
                let (partial, reached_s) = (muxer.partial_name(), muxer.reached_s());
                error.keeping(&format!("{partial} keeps the first {frames} frames, up to {reached_s:.3} s"))
            }
            // The first error is the one to report.
            Err(_) => keeping(error),
        });
    }
    if report.is_interrupted() {
        // The request that ended the run is not one to end the join.
        let muxer = joined.join(options, &journal, &Arc::default()).map_err(keeping)?;
        journal.remove();
        report.run.add_output(&muxer)?;
        report.kept = muxer.keep_partial().map(|path| Kept::Partial { path });
        return Ok(report);
    }
    let muxer = joined.join(options, &journal, interrupt.flag()).map_err(keeping)?;
    report.run.add_output(&muxer).map_err(keeping)?;
    if let (None, Some(partial)) = (too_damaged(options, &damage), muxer.keep_partial()) {
        report.complete(options, Some(&partial));
        journal.mark_joined(&partial, &report.to_json())?;
    }
    let published = publish(options, report, &muxer, &damage, interrupt);
    if published.is_ok() {
        // The partial file of a damaged input has all frames.
        journal.remove();
    }
    published
}

/// Joins what an earlier run has left that was killed. The error says where it is.
fn join_earlier(options: &Options, joined: &Joined, journal: Journal) -> Error {
    let (frames, reached_s, place) =
        (journal.frames(), journal.reached_s(), journal.folder().display().to_string());
    match joined.join(options, &journal, &Arc::default()) {
        Ok(muxer) => {
            journal.remove();
            let problem = format!("an earlier run ended after {frames} frames, at {reached_s:.3} s");
            let partial = muxer.partial_name();
            let remedy = format!("{partial} has them now: move it away and start again, or -y overwrites it");
            Error::new(place, problem, remedy).with_kind(ErrorKind::Exists)
        }
        Err(error) => error.keeping(&format!(
            "{place} keeps {frames} frames of an earlier run: the same command joins them"
        )),
    }
}

/// What the segments of a journal are joined with: they have the packets of all streams.
struct Joined<'a> {
    /// Input, for the description of its streams.
    input: &'a Input,
    encoder: &'a Encoder,
    plan: &'a Plan,
    output: &'a Output,
    trim: Trim,
}

impl Joined<'_> {
    /// Returns the video under its partial name.
    fn join(&self, options: &Options, journal: &Journal, interrupt: &Arc<AtomicBool>) -> Result<Muxer> {
        let Joined { input, encoder, plan, output, trim } = *self;
        let partial = output.partial().expect("a joined video is a file");
        let joined = join(journal, encoder.header_checksum(), interrupt, || {
            journal.claim_partial(partial, options.overwrite)?;
            let muxer = Muxer::create(output.clone(), input, encoder, trim, plan)?;
            Ok(JoinOutput { muxer, copied: None })
        });
        joined.inspect_err(|_| journal.release_partial(partial))
    }
}
