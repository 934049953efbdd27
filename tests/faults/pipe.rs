//! A video from a pipe, which cannot be read again: what a run has encoded when it fails is playable at once or after the
//! next start, and goes with `-y` alone.

use std::time::Duration;

use crate::common::program::say_skipped;
use crate::mounts::Mounted;
use crate::preload;
use crate::scenarios::PIPE;
use crate::sweep::sweep_by;
use crate::trial::{Conditions, Trial, Undisturbed};

const SEGMENT_FRAMES: usize = 240;
/// Bytes that one read takes from the pipe at most.
const READ_MAX: usize = 1 << 15;
/// A frame of the y4m, with its line.
const FRAME: usize = 64 * 48 * 3 / 2 + 6;

/// Frames in the partial file, or else in the journal.
fn kept(trial: &Trial) -> Result<usize, String> {
    let partial =
        trial.frames("out.partial.mkv").map_err(|e| format!("out.partial.mkv is not playable: {e}"))?;
    let segments = trial.segments("out.mkv.hasn");
    // The last one may be short.
    Ok(partial.unwrap_or(0).max(SEGMENT_FRAMES * segments.saturating_sub(1) + segments.min(1)))
}

fn judge(trial: &Trial, undisturbed: &Undisturbed, conditions: &Conditions) -> Result<&'static str, String> {
    let ended = trial.run(PIPE.steps[0], conditions).remove(0);
    trial.check_ended(&ended, conditions)?;
    if ended.status.success() {
        trial.check_outputs(undisturbed, true).map_err(|wrong| format!("exit 0, but {wrong}"))?;
        let is_clean = trial.is_clean(undisturbed, true);
        return match (preload::has_failed(&trial.log()), is_clean || ended.stderr.contains("WARN")) {
            (_, false) => Err(format!("exit 0, but it leaves {}", trial.left(undisturbed))),
            (true, _) => Ok("succeeded all the same"),
            (false, _) => Ok("the fault did not happen"),
        };
    }
    let before = kept(trial)?;
    // What was read before a read that failed is kept to the frame.
    let words: Vec<_> = conditions.faults.split(' ').collect();
    if let ["upscale", "read", "in.y4m", nth, _, _] = words[..] {
        let read = nth.parse::<usize>().expect("a number").saturating_sub(1) * READ_MAX / FRAME;
        if before + 2 * READ_MAX / FRAME < read.min(undisturbed.frames()) {
            return Err(format!("{before} of {read} frames are kept: {}", ended.stderr));
        }
    }
    let again = trial.run(PIPE.steps[0], &Conditions::default()).remove(0);
    trial.check_ended(&again, &Conditions::default())?;
    let after = kept(trial)?;
    let is_complete = trial.check_outputs(undisturbed, true).is_ok();
    if after < before && !is_complete {
        return Err(format!("{before} frames were kept, and {after} after the next start: {}", again.stderr));
    }
    if before > 0 && !is_complete && trial.frames("out.partial.mkv")?.unwrap_or(0) < before {
        return Err(format!("{before} frames are not playable after the next start: {}", again.stderr));
    }
    let overwriting = trial.run(PIPE.steps[1], &Conditions::default()).remove(0);
    if !overwriting.status.success() {
        return Err(format!("with -y: {}", overwriting.stderr));
    }
    trial.check_outputs(undisturbed, true).map_err(|wrong| format!("with -y, {wrong}"))?;
    match (trial.is_clean(undisturbed, true), conditions.has_kill(), ended.has_waited) {
        (false, ..) => Err(format!("with -y, it leaves {}", trial.left(undisturbed))),
        (_, true, _) => Ok("killed, and kept what was encoded"),
        (_, _, true) => Ok("waited for space, ended at SIGTERM, and kept what was encoded"),
        _ => Ok("failed with a clear line, and kept what was encoded"),
    }
}

#[test]
fn a_pipe_survives_every_fault() {
    sweep_by(&PIPE, judge);
}

#[test]
fn a_pipe_into_a_full_disk_keeps_what_was_encoded() {
    let undisturbed = Undisturbed::of(&PIPE);
    let trial = undisturbed.trial(&PIPE);
    let Some(disk) = Mounted::new(&trial, "tmpfs") else {
        return say_skipped("a pipe into a full disk, for this user may not mount a small one");
    };
    trial.fill(undisturbed.inputs());
    // The input, and most of the segments.
    disk.resize("5500k");
    let conditions = Conditions { terminate_after: Some(Duration::from_secs(20)), ..Conditions::default() };
    let ended = trial.run(PIPE.steps[0], &conditions).remove(0);
    let before = kept(&trial).unwrap();
    assert!(before > SEGMENT_FRAMES, "{before} frames are kept: {}", ended.stderr);
    trial.check_ended(&ended, &conditions).unwrap();
    disk.resize("64m");
    let ended = trial.run(PIPE.steps[0], &Conditions::default()).remove(0);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let playable = trial.frames("out.partial.mkv").unwrap();
    assert!(playable >= Some(before), "{before} frames were kept: {}", ended.stderr);
}
