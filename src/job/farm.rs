//! One video upscaled by many processes: the plan of its segments, the encoding of each segment, and the join.

use std::path::{Path, PathBuf};

use tracing::warn;

use super::fingerprint;
use super::interrupt::Interrupt;
use super::options::{Options, Resume};
use super::parts::{OpenAt, Parts};
use super::progress::Progress;
use super::publish::{give_name, too_damaged};
use super::report::Report;
use super::resume::{ToJoin, is_joined, is_published, journal_folder, remove_finished, try_container};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Timestamp;
use crate::journal::{CutPoint, Journal, WorkPlan};
use crate::media::{Output, Plan, SEGMENT_FRAMES, SeekPoint, SegmentSource};
use crate::pipeline::{FrameCache, Sink};

/// The result of planning.
pub(crate) struct Planned {
    /// The folder of the plan and the segments.
    pub folder: PathBuf,
    /// Number of frames of the video.
    pub frames: u64,
    /// Number of segments.
    pub segments: u64,
}

/// The command that other processes read the options from.
pub(crate) struct PlannedCommand {
    /// The folder that its paths are relative to.
    pub folder: PathBuf,
    /// Its words.
    pub words: Vec<String>,
}

/// Decodes the video once, and writes down where its segments begin.
pub(crate) fn plan(options: &Options, command: PlannedCommand, interrupt: &Interrupt) -> Result<Planned> {
    let is_joined = Output::new(&options.output, &options.input)?.is_segmented();
    let can_plan = is_joined && options.is_read_twice()?;
    let folder = journal_folder(options)?.filter(|_| can_plan).ok_or_else(|| {
        let remedy = "plan a video from file to file, e.g. .mkv";
        let error = Error::new(options.output.to_string_lossy(), "cannot be joined from segments", remedy);
        error.with_kind(ErrorKind::Unsupported)
    })?;
    if options.report.is_some() {
        return Err(Error::new("--report", "a plan runs nothing", "leave it out"));
    }
    let is_discarded = options.resume == Resume::Restart;
    let engine = if is_discarded { None } else { fingerprint::recorded_engine(options, &folder)? };
    let (overwrite, owns_partial) = (options.overwrite, Journal::owns_partial(&folder));
    let parts = Parts::open(options, OpenAt { overwrite, owns_partial, start: None, engine }, interrupt)?;
    if folder.exists() && is_discarded {
        Journal::discard(&folder, parts.output.partial())?;
    }
    let journal = Journal::open(&folder, &fingerprint::of_job(options, &parts)?, interrupt.flag())?;
    try_container(&journal, &parts)?;
    let plan = scan(options, parts, command)?;
    plan.write(&journal)?;
    Ok(Planned { folder, frames: plan.frames, segments: plan.cuts.len() as u64 })
}

/// Opens the parts of a plan's job, with the plan's engine.
fn open(options: &Options, folder: &Path, start: Option<SeekPoint>, interrupt: &Interrupt) -> Result<Parts> {
    let engine = fingerprint::recorded_engine(options, folder)?;
    let (overwrite, owns_partial) = (options.overwrite, Journal::owns_partial(folder));
    Parts::open(options, OpenAt { overwrite, owns_partial, start, engine }, interrupt)
}

/// Decodes every frame, and notes each at which a segment begins.
fn scan(options: &Options, parts: Parts, command: PlannedCommand) -> Result<WorkPlan> {
    let Parts { mut input, mut decoder, mut encoder, .. } = parts;
    let (mut cuts, mut frames) = (Vec::new(), 0);
    let mut note = |time: Timestamp| {
        if time.index.is_multiple_of(SEGMENT_FRAMES) {
            let source = SegmentSource::default();
            cuts.push(CutPoint { pts: time.pts, state: encoder.state(), source });
        }
        cuts.last_mut().expect("the first frame begins a segment").source.add(&time);
        encoder.skip(&time);
        frames += 1;
    };
    let mut at_end = false;
    loop {
        while let Some(frame) = decoder.receive()? {
            note(frame.time);
        }
        if at_end {
            break;
        }
        match input.next_packet()? {
            Some(packet) if input.is_video(&packet) => decoder.send(packet)?,
            Some(_) => {}
            None => {
                at_end = true;
                decoder.finish()?;
            }
        }
    }
    if let Some(error) = too_damaged(options, &input.damage()) {
        return Err(error);
    }
    let random_access = decoder.can_start_anywhere() && input.has_steady_clock();
    let PlannedCommand { folder, words: command } = command;
    let tallies = input.tallies();
    Ok(WorkPlan { folder, command, frames, random_access, cuts, tallies })
}

/// Encodes one segment of a plan. Returns `None` if the segment exists already.
pub(crate) fn segment(
    options: &Options,
    folder: &Path,
    segment: u64,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<Option<Report>> {
    let plan = WorkPlan::read(folder)?;
    let segments = plan.cuts.len() as u64;
    if segment >= segments {
        let problem = format!("there is no segment {segment}");
        let remedy = format!("they go from 0 to {}", segments - 1);
        return Err(Error::new(folder.to_string_lossy(), problem, remedy).with_kind(ErrorKind::NotFound));
    }
    let mut parts = open(options, folder, plan.decode_start(segment), interrupt)?;
    parts.summary.frames_expected = plan.cuts[segment as usize].source.frames;
    let journal = Journal::open_shared(folder, &fingerprint::of_job(options, &parts)?, interrupt.flag())?;
    if journal.source_of(segment).is_some() {
        return Ok(None);
    }
    let store = Box::new(journal.store(plan.frames));
    let (summary, resume_state) = (parts.summary.clone(), plan.resume_state(segment));
    let cache = Some(Box::new(journal.frame_cache()) as Box<dyn FrameCache>);
    let sink = |_| Sink::Segments { store, transcoders: None, resume_state, cache };
    let outcome = parts.run(options, sink, progress, interrupt)?;
    Ok(Some(Report::new(summary, outcome.report)))
}

/// Joins the video of a plan, if every segment exists, into the plan's output or `other`. Returns its number of frames.
/// `place`: the plan's folder as the user named it.
pub(crate) fn join(
    options: &Options,
    folder: &Path,
    place: &Path,
    other: Option<&Path>,
    interrupt: &Interrupt,
) -> Result<u64> {
    let plan = WorkPlan::read(folder)?;
    if is_published(options, folder)? {
        remove_finished(folder, &Output::new(&options.output, &options.input)?);
        return Ok(plan.frames);
    }
    let parts = open(options, folder, None, interrupt)?;
    let fingerprint = fingerprint::of_job(options, &parts)?;
    let mut journal = Journal::open(folder, &fingerprint, interrupt.flag())?;
    if is_joined(&journal, &parts.output) {
        give_name(&parts.output, options.overwrite, interrupt)?;
        journal.remove();
        return Ok(plan.frames);
    }
    let planned = || (0..).zip(plan.cuts.iter().map(|cut| &cut.source));
    let is_unfit = |&(segment, source): &(u64, &SegmentSource)| {
        journal.source_of(segment).is_some_and(|encoded| encoded != source)
    };
    let unfit: Vec<u64> = planned().filter(is_unfit).map(|(segment, _)| segment).collect();
    journal.remove_unfit(&unfit, "its frames are not those of the plan")?;
    let is_missing = |&(segment, _): &(u64, &SegmentSource)| journal.source_of(segment).is_none();
    let missing: Vec<u64> = planned().filter(is_missing).map(|(segment, _)| segment).collect();
    if let Some(first) = missing.first() {
        let problem = format!("{} segments are missing, the first is {first}", missing.len());
        let remedy = format!("hasn segment {} {first}", place.display());
        return Err(Error::new(place.to_string_lossy(), problem, remedy).with_kind(ErrorKind::NotFound));
    }
    let Parts { input: mut source, encoder, plan: mut streams, mut output, trim, .. } = parts;
    if let Some(name) = other {
        output = other_output(name, &output, options)?;
        streams = Plan::new(&mut source, &output, &options.audio, trim)?;
        if options.strict {
            streams.check_complete(&output)?;
        }
    }
    let damage = source.damage();
    let to_join = ToJoin {
        source,
        encoder,
        plan: Some(streams),
        output: output.clone(),
        trim,
        tallies: plan.tallies.clone(),
        fingerprint: &fingerprint,
    };
    let muxer = to_join.join(&journal, options, interrupt)?;
    muxer.verify()?;
    if let Some(error) = too_damaged(options, &damage) {
        let partial = muxer.keep_partial().expect("a plan has an output file");
        return Err(error.keeping(&format!("{} has all frames", partial.display())));
    }
    if let Some(partial) = muxer.keep_partial() {
        journal.mark_joined(&partial, "")?;
    }
    give_name(&output, options.overwrite, interrupt)?;
    journal.remove();
    Ok(plan.frames)
}

/// An output with another name than the plan's. Segments do not depend on its container, except for the place of the codec
/// header.
fn other_output(path: &Path, planned: &Output, options: &Options) -> Result<Output> {
    let mut other = Output::new(path, &options.input)?;
    other.faststart = planned.faststart;
    if !other.is_segmented() || other.wants_global_header() != planned.wants_global_header() {
        let problem = format!("cannot be joined from segments for {}", planned.container());
        let error = Error::new(other.name(), problem, "choose another container, e.g. .mkv");
        return Err(error.with_kind(ErrorKind::Unsupported));
    }
    if !options.overwrite {
        other.check_free(false)?;
    }
    Ok(other)
}

/// Removes a folder if it is what is left of a plan whose video is complete. Returns whether it is.
pub(crate) fn remove_left_over(folder: &Path) -> bool {
    let is_left_over = WorkPlan::is_left_over(folder);
    if is_left_over && let Err(error) = Journal::discard(folder, None) {
        warn!("{error}");
    }
    is_left_over
}

/// The command of a plan.
pub(crate) fn command(folder: &Path) -> Result<PlannedCommand> {
    let WorkPlan { folder, command: words, .. } = WorkPlan::read(folder)?;
    Ok(PlannedCommand { folder, words })
}
