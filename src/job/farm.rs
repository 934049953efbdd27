//! `hasn plan`, `hasn segment`, `hasn join`: one video made by many processes, for the scheduler that is there already.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use super::resume::{self, Parts};
use super::upscale::{self, Args, Opened, catch_signals};
use super::{Cli, Command, EXIT_INTERRUPTED, print};
use crate::engine::thread_count;
use crate::error::{Error, Result};
use crate::frame::Timestamp;
use crate::journal::{CutPoint, Journal, WorkPlan};
use crate::media::{Muxer, Output, SEGMENT_FRAMES};
use crate::pipeline::Sink;

#[derive(clap::Args)]
pub(super) struct SegmentArgs {
    /// The folder that hasn plan made.
    plan: PathBuf,
    /// Which segment, from 0 on.
    segment: u64,
}

#[derive(clap::Args)]
pub(super) struct JoinArgs {
    /// The folder that hasn plan made.
    plan: PathBuf,
}

/// Decodes the video once, and writes down where its segments begin.
pub(super) fn plan(args: Args) -> Result<ExitCode> {
    let is_video_file = Output::new(&args.output, &args.input)?.is_segmented();
    let folder = resume::folder(&args)?.filter(|_| is_video_file).ok_or_else(|| {
        Error::new(
            &args.output,
            "cannot be joined from segments",
            "plan a video from file to file, e.g. .mkv",
        )
    })?;
    if args.report.is_some() {
        return Err(Error::new("--report", "a plan runs nothing", "leave it out"));
    }
    let opened = upscale::open(&args, Some(&folder), None)?;
    if folder.exists() && args.restart {
        Journal::discard(&folder)?;
    }
    let facts = resume::facts(&args, &opened)?;
    let journal = Journal::open(&folder, &facts)?;
    drop(Muxer::create(opened.output.clone(), &opened.input, &opened.encoder, opened.trim, &opened.plan)?);
    let current = std::env::current_dir()
        .map_err(|e| Error::new("this folder", e.to_string(), "go to one that is there"))?;
    let mut command: Vec<String> = std::env::args().skip_while(|word| word != "plan").skip(1).collect();
    if args.threads.is_none() {
        // They change what some encoders write, and are to be the same everywhere.
        command.extend(["--threads".to_owned(), thread_count(None).to_string()]);
    }
    let plan = look_through(opened, args.tolerate, current, command)?;
    plan.write(journal.folder())?;
    let (segments, frames, folder) = (plan.cuts.len(), plan.frames, folder.display());
    print(&format!("{folder}: {frames} frames in segments 0 to {}\n", segments - 1))?;
    Ok(ExitCode::SUCCESS)
}

fn look_through(opened: Opened, tolerate: u64, folder: PathBuf, command: Vec<String>) -> Result<WorkPlan> {
    let Opened { mut input, mut decoder, mut encoder, .. } = opened;
    let (mut cuts, mut frames) = (Vec::new(), 0);
    let mut note = |time: Timestamp| {
        if time.index.is_multiple_of(SEGMENT_FRAMES) {
            cuts.push(CutPoint { pts: time.pts, state: encoder.state() });
        }
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
    let damage = input.damage();
    if let Some(error) = damage.error().filter(|_| damage.count() > tolerate) {
        return Err(error);
    }
    let random_access = decoder.can_begin_anywhere() && input.has_steady_clock();
    Ok(WorkPlan { folder, command, frames, random_access, cuts })
}

/// The plan of a folder, with the arguments it was made from. Paths lead from where it was made.
fn read(folder: &Path) -> Result<(PathBuf, WorkPlan, Args)> {
    let folder = std::path::absolute(folder)
        .map_err(|e| Error::new(folder.to_string_lossy(), e.to_string(), "name it otherwise"))?;
    let plan = WorkPlan::read(&folder)?;
    std::env::set_current_dir(&plan.folder).map_err(|e| {
        Error::new(
            plan.folder.to_string_lossy(),
            e.to_string(),
            "plans are for machines that share their files",
        )
    })?;
    let words = ["hasn".to_owned(), "upscale".to_owned()].into_iter().chain(plan.command.iter().cloned());
    match Cli::try_parse_from(words).map(|cli| cli.command) {
        Ok(Command::Upscale(args)) => Ok((folder, plan, *args)),
        _ => Err(Error::new(folder.to_string_lossy(), "has a command that is none", "plan it again")),
    }
}

/// Makes one segment. One that is there is left as it is.
pub(super) fn segment(args: SegmentArgs) -> Result<ExitCode> {
    let interrupt = catch_signals()?;
    let (folder, plan, upscale) = read(&args.plan)?;
    let segments = plan.cuts.len() as u64;
    if args.segment >= segments {
        let problem = format!("there is no segment {}", args.segment);
        return Err(Error::new(
            folder.to_string_lossy(),
            problem,
            format!("they go from 0 to {}", segments - 1),
        ));
    }
    let opened = upscale::open(&upscale, Some(&folder), plan.decode_start(args.segment))?;
    let journal = Journal::open_shared(&folder, &resume::facts(&upscale, &opened)?)?;
    if journal.has(args.segment) {
        return Ok(ExitCode::SUCCESS);
    }
    let (store, resume_state) =
        (Box::new(journal.store(plan.frames, interrupt.clone())), plan.resume_state(args.segment));
    let outcome = opened.run(&upscale, |_| Sink::Segments { store, resume_state }, &interrupt)?;
    Ok(if outcome.report.interrupted { ExitCode::from(EXIT_INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Joins the video, if every segment is there.
pub(super) fn join_segments(args: JoinArgs) -> Result<ExitCode> {
    let interrupt = catch_signals()?;
    let (folder, plan, upscale) = read(&args.plan)?;
    let opened = upscale::open(&upscale, Some(&folder), None)?;
    let journal = Journal::open(&folder, &resume::facts(&upscale, &opened)?)?;
    let missing: Vec<u64> = (0..plan.cuts.len() as u64).filter(|&segment| !journal.has(segment)).collect();
    if let Some(first) = missing.first() {
        let problem = format!("{} segments are missing, the first is {first}", missing.len());
        let remedy = format!("hasn segment {} {first}", args.plan.display());
        return Err(Error::new(args.plan.to_string_lossy(), problem, remedy));
    }
    if journal.frames() != plan.frames {
        let problem = format!("its segments have {} frames and not {}", journal.frames(), plan.frames);
        return Err(Error::new(args.plan.to_string_lossy(), problem, "plan it again with --restart"));
    }
    let Opened { input: source, encoder, plan: streams, output, trim, .. } = opened;
    let parts = Parts { source, encoder, plan: Some(streams), output, trim };
    let muxer = parts.join(&journal, &upscale.audio, &interrupt)?;
    muxer.verify()?;
    if let Some(partial) = muxer.keep_partial() {
        journal.mark_joined(&partial)?;
    }
    muxer.publish()?;
    journal.remove()?;
    print(&format!("{}: {} frames\n", upscale.output, plan.frames))?;
    Ok(ExitCode::SUCCESS)
}
