//! Runs whose output is an image sequence.

use std::path::Path;
use std::time::Instant;

use super::fingerprint;
use super::interrupt::Interrupt;
use super::options::{Options, Resume};
use super::parts::Parts;
use super::progress::{Event, Progress};
use super::publish::{too_damaged, with_damage};
use super::report::{Kept, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::SequenceJournal;
use crate::media::{Damage, Numbering, Pattern};
use crate::pipeline::{FinishedImages, Outcome, ResumeState, Sink, StreamReport, VerificationReport};

/// Number of the first image that is written from a video.
const START: u64 = 1;

/// Writes the images that are missing. `folder`: that of the journal; `None` where the input cannot be read twice.
pub(super) fn run(
    options: &Options,
    mut parts: Parts,
    folder: Option<&Path>,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Report> {
    let pattern = parts.output.sequence().expect("the output is a sequence").clone();
    let numbering = numbering(options, &parts);
    let fingerprint = |folder| fingerprint::of_job(options, &parts).map(|job| (folder, job));
    let kept = folder.map(fingerprint).transpose()?;
    match folder.filter(|folder| folder.exists()) {
        None if !options.overwrite => check_free(options, &parts, &pattern)?,
        Some(folder) if options.resume == Resume::Restart => SequenceJournal::discard(&pattern, folder)?,
        _ => {}
    }
    let journal = match &kept {
        Some((folder, fingerprint)) => {
            SequenceJournal::open(pattern, folder, fingerprint, options.overwrite, interrupt.flag())?
        }
        None => SequenceJournal::without_folder(pattern, options.overwrite)?,
    };
    let resume_state = resume_state(options, &mut parts, &journal, numbering, progress)?;
    let (summary, damage) = (parts.summary.clone(), parts.input.damage());
    let left_out = parts.plan.left_out().to_vec();
    let store = Box::new(journal.store(numbering, damage.clone(), interrupt.flag().clone())?);
    let sink = |_| Sink::Segments { store, transcoders: None, resume_state, cache: None };
    let result = parts.run(options, sink, progress, interrupt);
    let result = result.map(|Outcome { mut report, .. }| {
        report.left_out.splice(0..0, left_out);
        report.reached_s = journal.reached_s();
        Report::new(summary, report)
    });
    let (frames, resumable) = (journal.frames(), folder.is_some());
    match result {
        Ok(report) if !report.is_interrupted() => finish(options, report, journal, &damage),
        result if frames == 0 && !journal.has_unlisted() => {
            journal.remove();
            Ok(Report { kept: Some(Kept::Nothing { segmented: false }), ..result? })
        }
        Ok(mut report) => {
            report.kept = Some(Kept::Sequence { frames, resumable });
            Ok(report)
        }
        Err(error) => {
            let how = if resumable { ": the same command resumes there" } else { "" };
            Err(error.keeping(&format!("{} has {frames} frames{how}", options.output.display())))
        }
    }
}

fn numbering(options: &Options, parts: &Parts) -> Numbering {
    parts.decoder.numbering(options.start_number.unwrap_or(START))
}

/// Fails if an image would be overwritten.
pub(super) fn check_free(options: &Options, parts: &Parts, pattern: &Pattern) -> Result<()> {
    let wanted = match (numbering(options, parts), parts.input.numbers()) {
        (Numbering::ByTime(_), Some([first, .., last])) => *first..=*last,
        (Numbering::ByTime(first), _) | (Numbering::InOrder(first), _) => first..=u64::MAX,
    };
    match pattern.numbers()?.into_iter().find(|number| wanted.contains(number)) {
        None => Ok(()),
        Some(number) => {
            let (path, remedy) = (pattern.path(number), "-y overwrites it, or give another name");
            Err(Error::new(path.to_string_lossy(), "already exists", remedy).with_kind(ErrorKind::Exists))
        }
    }
}

/// Returns what is left to do. Only the missing images of an input sequence are read, unless a filter needs neighbouring
/// frames.
fn resume_state(
    options: &Options,
    parts: &mut Parts,
    journal: &SequenceJournal,
    numbering: Numbering,
    progress: &Progress,
) -> Result<ResumeState> {
    let ready = journal.finished();
    let finished_frames = ready.len() as u64;
    if ready.is_empty() {
        return Ok(ResumeState::default());
    }
    let from = options.output.clone().into();
    progress.notify(Event::Resumed { from, frames: finished_frames, reached_s: None });
    let Parts { input, decoder, .. } = parts;
    if input.numbers().is_none() || !decoder.can_start_anywhere() {
        return Ok(ResumeState {
            finished_frames,
            finished_images: Some(FinishedImages { numbering, numbers: ready }),
            ..ResumeState::default()
        });
    }
    decoder.skip_ready(input, &|number| ready.contains(&number));
    journal.restore_damage(numbering, &input.damage())?;
    Ok(ResumeState { finished_frames, skipped_frames: finished_frames, ..ResumeState::default() })
}

/// Checks every file, then removes the journal.
fn finish(
    options: &Options,
    mut report: Report,
    journal: SequenceJournal,
    damage: &Damage,
) -> Result<Report> {
    let started = Instant::now();
    let (found, encoded) = (journal.verify()?, report.run.frames.encoded);
    if found != encoded {
        let problem = format!("{found} files exist for {encoded} frames");
        return Err(Error::new(options.output.to_string_lossy(), problem, "run it again")
            .with_kind(ErrorKind::Damaged));
    }
    let video = StreamReport {
        kind: "video".into(),
        codec: report.summary.encoder.clone(),
        language: None,
        dispositions: Vec::new(),
        packets: found,
    };
    // Image files have no timestamps.
    report.run.verification = Some(VerificationReport {
        frames: found,
        duration_s: 0.0,
        first_pts_s: 0.0,
        last_pts_s: 0.0,
        streams: vec![video],
        seconds: (started.elapsed().as_secs_f64() * 1e3).round() / 1e3,
    });
    let damaged = too_damaged(options, damage);
    if damaged.is_none() {
        // Else the folder stays, so that a run with --tolerate has nothing to repeat.
        journal.remove();
    }
    Ok(with_damage(report, damaged, Some(options.output.display().to_string())))
}
