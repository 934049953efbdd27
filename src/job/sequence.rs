//! Runs of `hasn upscale` whose output is a file a frame, and what is asked of sequences and of EXR.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tracing::warn;

use super::EXIT_INTERRUPTED;
use super::resume::{facts, is_gone_on_with};
use super::upscale::{Args, Choice, Opened, conclude, write_report};
use crate::color::Transfer;
use crate::error::{Error, Result};
use crate::frame::FrameFormat;
use crate::journal::SequenceJournal;
use crate::media::{Damage, Input, Numbering, Output, Pattern, Target, transfer_by_name};
use crate::pipeline::{FinishedImages, Outcome, Report, ResumeState, Sink, StreamReport, VerificationReport};

/// Where the numbers of a video's frames begin.
const START: u64 = 1;

/// Tells the input how many frames it has a second, and refuses what has no meaning for it.
pub(super) fn settle(args: &Args, input: &mut Input, output: &Output) -> Result<()> {
    let from_sequence = input.numbers().is_some();
    match args.frame_rate {
        Some(rate) => input.set_frame_rate(rate)?,
        None if from_sequence && !output.is_still() => {
            warn!("{}: 25 fps are taken; --frame-rate says otherwise", args.input);
        }
        None => {}
    }
    let problem = match (args.start_number, from_sequence, output.sequence()) {
        (Some(_), true, _) => "the numbers are the input's",
        (Some(_), false, None) => "the output is no sequence",
        _ => return Ok(()),
    };
    Err(Error::new("--start-number", problem, "leave it out: it is for videos that become out/%06d.tif"))
}

/// What the input's samples are coded with, where only the user knows.
pub(super) fn transfer(args: &Args, input: &Input) -> Result<Option<Transfer>> {
    let transfer = args.exr_transfer.as_ref().map(|(_, transfer)| *transfer);
    if input.is_exr() && transfer.is_none() {
        let problem = "is EXR, which does not say whether its numbers are light";
        return Err(Error::new(
            input.name(),
            problem,
            "say --exr-transfer linear, or how they are coded, e.g. bt709",
        ));
    }
    Ok(transfer.filter(|_| input.is_exr()))
}

/// Nobody writes coded samples into an EXR by mistake: whoever opens it takes them for light.
pub(super) fn check_exr(args: &Args, input: &Input, lr: &FrameFormat, target: &Target) -> Result<()> {
    let to_exr = target.encoder_name() == "exr";
    let is_light = lr.pixel_format.float && lr.color.transfer == Transfer::LINEAR;
    let (problem, remedy) = match &args.exr_transfer {
        Some(_) if !to_exr && !input.is_exr() => ("neither the input nor the output is EXR", "leave it out"),
        None if to_exr && !is_light => (
            "an EXR is taken for light, and the frames are coded",
            "name the transfer they are coded with, e.g. bt709, to write them as they are",
        ),
        Some((_, Transfer::LINEAR)) if to_exr && !is_light => (
            "the frames are coded, and nothing makes light of them",
            "name the transfer they are coded with, or make light with --filter zscale=t=linear,format=gbrpf32le",
        ),
        _ => return Ok(()),
    };
    Err(Error::new("--exr-transfer", problem, remedy))
}

/// A transfer and the name it was given by.
pub(super) fn parse_transfer(name: &str) -> std::result::Result<(String, Transfer), String> {
    let transfer = transfer_by_name(name).map(|transfer| (name.to_owned(), transfer));
    transfer.ok_or_else(|| {
        "write linear, or a transfer as FFmpeg names it: bt709, iec61966-2-1, smpte2084".into()
    })
}

/// Frames a second, as a fraction.
pub(super) fn parse_rate(text: &str) -> std::result::Result<(i32, i32), String> {
    let (num, den) = text.split_once('/').unwrap_or((text, "1"));
    let rate = num.parse().ok().zip(den.parse().ok()).filter(|&(num, den): &(i32, i32)| num > 0 && den > 0);
    rate.ok_or_else(|| "write it like 24 or 24000/1001".to_owned())
}

/// Makes the frames that are missing. `folder`: where it is kept what was made; `None` where the input cannot be read
/// twice.
pub(super) fn run(
    args: &Args,
    mut opened: Opened,
    folder: Option<&Path>,
    interrupt: &Arc<AtomicBool>,
) -> Result<ExitCode> {
    let pattern = opened.output.sequence().expect("the output is a sequence").clone();
    let numbering = opened.decoder.numbering(args.start_number.unwrap_or(START));
    let kept = folder.map(|folder| facts(args, &opened).map(|facts| (folder, facts))).transpose()?;
    match folder.filter(|folder| folder.exists()) {
        None if !args.overwrite => check_free(&opened.input, &pattern, numbering)?,
        Some(folder) if !is_gone_on_with(args, folder)? => SequenceJournal::discard(&pattern, folder)?,
        _ => {}
    }
    let journal = SequenceJournal::open(pattern, kept)?;
    let resume_state = begin(args, &mut opened, &journal, numbering)?;
    let (choice, damage) = (opened.choice.clone(), opened.input.damage());
    let left_out = opened.plan.left_out().to_vec();
    let store = Box::new(journal.store(numbering, damage.clone(), interrupt.clone())?);
    let result = opened.run(args, |_| Sink::Segments { store, resume_state }, interrupt);
    let frames = journal.frames();
    let result = result.map(|outcome| {
        let Outcome { mut report, .. } = outcome;
        report.left_out.splice(0..0, left_out);
        report.reached_s = journal.reached_s();
        report
    });
    let left = match folder {
        Some(_) => format!("{} has {frames} frames: the same command goes on from there", args.output),
        None => format!("{} has {frames} frames", args.output),
    };
    match result {
        Ok(report) if !report.interrupted => return finish(args, &choice, report, journal, &damage),
        result if frames == 0 => {
            journal.remove()?;
            write_report(args, &choice, &result?)?;
            eprintln!("hasn: interrupted before the first frame was whole; nothing is kept");
        }
        Err(error) if interrupt.load(Ordering::Relaxed) => eprintln!("hasn: {}", error.keeping(&left)),
        Err(error) => return Err(error.keeping(&left)),
        Ok(report) => {
            write_report(args, &choice, &report)?;
            eprintln!("hasn: interrupted; {left}");
        }
    }
    Ok(ExitCode::from(EXIT_INTERRUPTED))
}

/// Nothing that is there is overwritten.
fn check_free(input: &Input, pattern: &Pattern, numbering: Numbering) -> Result<()> {
    let wanted = match (numbering, input.numbers()) {
        (Numbering::ByTime(_), Some([first, .., last])) => *first..=*last,
        (Numbering::ByTime(first), _) | (Numbering::InOrder(first), _) => first..=u64::MAX,
    };
    match pattern.numbers()?.into_iter().find(|number| wanted.contains(number)) {
        None => Ok(()),
        Some(number) => {
            let path = pattern.path(number);
            Err(Error::new(
                path.to_string_lossy(),
                "is there already",
                "-y overwrites it, or give another name",
            ))
        }
    }
}

/// What is left to do. Of a sequence only that is read, unless a filter looks at frames beside each other.
fn begin(
    args: &Args,
    opened: &mut Opened,
    journal: &SequenceJournal,
    numbering: Numbering,
) -> Result<ResumeState> {
    let ready = journal.ready();
    let finished_frames = ready.len() as u64;
    if ready.is_empty() {
        return Ok(ResumeState::default());
    }
    eprintln!("{}: going on after {finished_frames} frames", args.output);
    let Opened { input, decoder, .. } = opened;
    if input.numbers().is_none() || !decoder.can_begin_anywhere() {
        return Ok(ResumeState {
            finished_frames,
            finished_images: Some(FinishedImages { numbering, numbers: ready }),
            ..ResumeState::default()
        });
    }
    decoder.pass_over(input, &|number| ready.contains(&number));
    journal.restore_damage(numbering, &input.damage())?;
    Ok(ResumeState { finished_frames, skipped_frames: finished_frames, ..ResumeState::default() })
}

/// Every file is looked at before anybody is told that all is done.
fn finish(
    args: &Args,
    choice: &Choice,
    mut report: Report,
    journal: SequenceJournal,
    damage: &Damage,
) -> Result<ExitCode> {
    let started = Instant::now();
    let (found, encoded) = (journal.verify()?, report.frames.encoded);
    if found != encoded {
        let problem = format!("{found} files are there for {encoded} frames");
        return Err(Error::new(&args.output, problem, "run it again"));
    }
    let video = StreamReport {
        kind: "video".into(),
        codec: choice.encoder.clone(),
        language: None,
        dispositions: Vec::new(),
        packets: found,
    };
    // Files of frames have no times.
    report.verification = Some(VerificationReport {
        frames: found,
        duration_s: 0.0,
        first_pts_s: 0.0,
        last_pts_s: 0.0,
        streams: vec![video],
        seconds: (started.elapsed().as_secs_f64() * 1e3).round() / 1e3,
    });
    let damaged = damage.error().filter(|_| damage.count() > args.tolerate);
    if damaged.is_none() {
        // Else the folder stays, so that --tolerate has nothing to make again.
        journal.remove()?;
    }
    conclude(args, choice, &report, damaged, Some(args.output.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_fractions_and_transfers_have_names() {
        assert_eq!(parse_rate("24"), Ok((24, 1)));
        assert_eq!(parse_rate("24000/1001"), Ok((24000, 1001)));
        for text in ["", "0", "24/0", "-24", "23.976", "24000/1001/2", "x"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert_eq!(parse_transfer("linear").map(|(_, transfer)| transfer), Ok(Transfer::LINEAR));
        assert_eq!(parse_transfer("smpte2084").map(|(_, transfer)| transfer.0), Ok(16));
        for text in ["", "unknown", "reserved", "light"] {
            assert!(parse_transfer(text).is_err(), "{text}");
        }
    }
}
