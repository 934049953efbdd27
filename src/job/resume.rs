//! Runs of `hasn upscale` that are kept in a journal: how one is begun, gone on with, and joined to a video.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::EXIT_INTERRUPTED;
use super::upscale::{Args, Opened, frames_expected, publish, write_report};
use crate::engine::cpu::level;
use crate::engine::{EngineKind, cuda, thread_count};
use crate::error::{Error, Result};
use crate::journal::{JobFingerprint, JoinOutput, Journal, checksum, join};
use crate::media::{self, AudioMode, Encoder, Input, Muxer, Output, Pattern, Plan, SEGMENT_FRAMES, Trim};
use crate::model::catalogue;
use crate::pipeline::{Outcome, Sink};

/// Where the run's journal is to lie; `None` for what cannot be joined from segments, or not be read twice.
pub(super) fn folder(args: &Args) -> Result<Option<PathBuf>> {
    let output = Output::new(&args.output, &args.input)?;
    let is_kept = output.is_segmented() || output.sequence().is_some();
    let is_read_twice = Path::new(&args.input).is_file() || Pattern::parse(&args.input)?.is_some();
    let kept = output.path().filter(|_| is_kept && is_read_twice);
    let folder = kept.map(Journal::folder_of);
    match &folder {
        None if args.resume => {
            let problem = "only a video that goes from file to file can be gone on with";
            Err(Error::new("--resume", problem, "leave it out"))
        }
        Some(folder) if !folder.exists() && args.resume => {
            let problem = format!("there is no {}", folder.display());
            Err(Error::new("--resume", problem, "leave it out to begin"))
        }
        _ => Ok(folder),
    }
}

/// Whether the run was at its end when it was cut off.
pub(super) fn was_finished(args: &Args, folder: &Path) -> Result<bool> {
    let finished = !args.restart && Journal::clear_finished(folder, Path::new(&args.output))?;
    if finished {
        eprintln!("{}: is whole already", args.output);
    }
    Ok(finished)
}

/// Makes what is missing of the video, then the video.
pub(super) fn run(
    args: &Args,
    opened: Opened,
    folder: &Path,
    interrupt: &Arc<AtomicBool>,
) -> Result<ExitCode> {
    if folder.exists() && !is_gone_on_with(args, folder)? {
        Journal::discard(folder)?;
    }
    let mut journal = Journal::open(folder, &facts(args, &opened)?)?;
    if journal.frames() > 0 {
        let (folder, frames, reached_s) = (folder.display(), journal.frames(), journal.reached_s());
        eprintln!("{folder}: going on after {frames} frames, at {reached_s:.3} s");
    }
    let result = make(args, opened, &mut journal, interrupt);
    if let Ok(code) = result
        && code == ExitCode::SUCCESS
    {
        return journal.remove().map(|()| code);
    }
    if journal.scan().is_err() {
        // The first error is the one to tell.
        return result;
    }
    let frames = journal.frames();
    if frames == 0 {
        if result.is_ok() {
            eprintln!(
                "hasn: interrupted before the first {SEGMENT_FRAMES} frames were whole; nothing is kept"
            );
        }
        return journal.remove().and(result);
    }
    let left =
        format!("{} keeps the first {frames} frames: the same command goes on from there", folder.display());
    match result {
        Err(error) if interrupt.load(Ordering::Relaxed) => eprintln!("hasn: {}", error.keeping(&left)),
        Err(error) => return Err(error.keeping(&left)),
        Ok(_) => eprintln!("hasn: interrupted; {left}"),
    }
    Ok(ExitCode::from(EXIT_INTERRUPTED))
}

fn make(args: &Args, opened: Opened, journal: &mut Journal, interrupt: &Arc<AtomicBool>) -> Result<ExitCode> {
    let (output, trim, choice) = (opened.output.clone(), opened.trim, opened.choice.clone());
    let damage = opened.input.damage();
    let source = opened.input.open_again(trim)?;
    // Whether the container takes all this is found out now rather than after days.
    drop(Muxer::create(output.clone(), &opened.input, &opened.encoder, trim, &opened.plan)?);
    let expected = frames_expected(args, &opened.input.video());
    let (lr, sr) = (&opened.engine.lr, &opened.engine.sr);
    let growth = (sr.width * sr.height) as f64 / (lr.width * lr.height) as f64;
    let store = journal.store(expected, interrupt.clone());
    journal.log_space_needed(expected, opened.encoder.bytes_per_frame(&opened.input, growth), &store)?;
    let mut planned = None;
    let sink = |plan: Plan| {
        planned = Some(plan);
        Sink::Segments { store: Box::new(store), resume_state: journal.resume_state() }
    };
    let Outcome { mut report, encoder, .. } = opened.run(args, sink, interrupt)?;
    journal.scan()?;
    if report.interrupted {
        report.reached_s = journal.reached_s();
        write_report(args, &choice, &report)?;
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    let parts = Parts { source, encoder, plan: planned, output, trim };
    let muxer = parts.join(journal, &args.audio, interrupt)?;
    report.add_output(&muxer)?;
    if let Some(partial) = muxer.keep_partial() {
        journal.mark_joined(&partial)?;
    }
    let result = publish(args, &choice, &report, muxer, &damage);
    if damage.count() > args.tolerate {
        // All there is, is in the partial file.
        journal.remove_segments()?;
    }
    result
}

/// What a video is joined from, beside its segments.
pub(super) struct Parts {
    pub source: Input,
    pub encoder: Encoder,
    /// `None`: it is made anew.
    pub plan: Option<Plan>,
    pub output: Output,
    pub trim: Trim,
}

impl Parts {
    /// The video, whole, under its partial name.
    pub fn join(self, journal: &Journal, audio: &AudioMode, interrupt: &Arc<AtomicBool>) -> Result<Muxer> {
        let Parts { source, encoder, mut plan, output, trim } = self;
        join(journal, encoder.header_checksum(), interrupt, || {
            let input = source.open_again(trim)?;
            let plan = plan.take().map_or_else(|| Plan::new(&input, &output, audio), Ok)?;
            let muxer = Muxer::create(output.clone(), &input, &encoder, trim, &plan)?;
            Ok(JoinOutput { input, transcoders: plan.into_transcoders(), muxer })
        })
    }
}

/// What packets depend on, by the names a user knows.
pub(super) fn facts(args: &Args, opened: &Opened) -> Result<JobFingerprint> {
    let mut facts = match opened.input.numbers() {
        Some(_) => JobFingerprint::of_files(&args.input, &opened.input.paths())?,
        None => JobFingerprint::of_input(&args.input)?,
    };
    let choice = &opened.choice;
    // A file may have any name inside, that of a built-in model too.
    let weights = weights(args.model.as_deref().unwrap_or(&choice.model))?;
    let engine = match opened.engine.kind {
        EngineKind::Cpu(precision) => format!("cpu {} {}", level::detect()?.name(), precision.name()),
        EngineKind::Reference => "reference".into(),
        EngineKind::Cuda => format!("cuda {}", cuda::probe()?),
    };
    let options = |pairs: &[(String, String)]| {
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    for (name, value) in [
        ("hasn", env!("CARGO_PKG_VERSION").to_owned()),
        ("FFmpeg", media::info().version),
        ("the model", format!("{} {weights}", choice.model)),
        ("the engine", engine),
        ("--size", format!("{}x{}", choice.width, choice.height)),
        ("--preset", args.preset.map_or("none".into(), |preset| format!("{preset:?}"))),
        ("--encoder", choice.encoder.clone()),
        ("--encoder-opt", options(&args.encoder_opt)),
        ("--pix-fmt", choice.pixel_format.to_owned()),
        ("--threads", thread_count(args.threads.map(usize::from)).to_string()),
        ("--from", args.from.map_or("the beginning".into(), |from_s| format!("{from_s} s"))),
        ("--to", args.to.map_or("the end".into(), |to_s| format!("{to_s} s"))),
        ("--frame-rate", args.frame_rate.map_or("none".into(), |(num, den)| format!("{num}/{den}"))),
        ("--start-number", args.start_number.map_or("none".into(), |number| number.to_string())),
        ("--exr-transfer", args.exr_transfer.as_ref().map_or("none".into(), |(name, _)| name.clone())),
        ("--deinterlace", format!("{:?}", args.deinterlace)),
        ("--filter", args.filter.clone().unwrap_or_default()),
        ("the video stream", opened.input.video_index().to_string()),
        ("the container", opened.output.container().to_owned()),
    ] {
        facts.add(name, value);
    }
    Ok(facts)
}

/// Tells a model's weights from others.
pub(super) fn weights(model: &str) -> Result<String> {
    Ok(match catalogue::find(model) {
        Some(built_in) => checksum(built_in.bytes),
        None if model == "none" => String::new(),
        None => checksum(
            &std::fs::read(model)
                .map_err(|e| Error::new(model, e.to_string(), "check that it can be read"))?,
        ),
    })
}

/// A journal that is there is gone on with, unless the user wants it otherwise.
pub(super) fn is_gone_on_with(args: &Args, folder: &Path) -> Result<bool> {
    if args.restart || args.resume || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(!args.restart);
    }
    eprint!("hasn: {} is of a run that was cut off. Go on with it? [Y/n] ", folder.display());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|e| Error::new("standard input", e.to_string(), "say --resume or --restart"))?;
    match answer.trim() {
        "" | "y" | "Y" | "yes" => Ok(true),
        _ => Err(Error::new(folder.to_string_lossy(), "is left as it is", "--restart begins anew")),
    }
}
