//! Watchdog: notices that a stage has work and makes no step.
//!
//! In: the counters of a relay. Out: the stage that hangs. Time is counted in ticks of its own, so that a process that was
//! stopped for a while, or a machine that was suspended, is no stage that hangs.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::stats::Stats;
use crate::error::{Error, ErrorKind};

/// Time from one look at the counters to the next.
const TICK: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(1) };
/// A stage may work on a frame for this many ticks, or for this many periods of the output if that is longer.
const TICKS_MAX: u32 = 30;
const PERIODS_MAX: u32 = 4;

/// Waits until a stage hangs, and returns the error; `None` once `end` is closed. `period` is the time from one frame of the
/// output to the next.
pub(super) fn watch(stats: &Stats, period: Duration, end: &Receiver<()>) -> Option<Error> {
    let ticks_max = TICKS_MAX.max((PERIODS_MAX * period).div_duration_f64(TICK) as u32);
    // Where the encode stage hangs, the upscale stage has work and makes no step either.
    let mut stages = ["encode", "upscale"].map(|name| Stage { name, steps: 0, idle_ticks: 0 });
    while end.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        let now = [
            (stats.has_work_for_encode.load(Relaxed), stats.encoded.load(Relaxed)),
            (stats.queue.length() > 0, stats.queue.steps()),
        ];
        for (stage, (has_work, steps)) in stages.iter_mut().zip(now) {
            stage.note(has_work, steps);
        }
        if let Some(stage) = stages.iter().find(|stage| stage.idle_ticks >= ticks_max) {
            let problem = format!("has made no step for {} s", (ticks_max * TICK).as_secs());
            let remedy = "the relay ends, so that it can be started again";
            let error = Error::new(format!("the {} stage", stage.name), problem, remedy);
            return Some(error.with_kind(ErrorKind::Device));
        }
    }
    None
}

struct Stage {
    name: &'static str,
    /// Count of its steps at the last tick.
    steps: u64,
    /// Ticks in a row at which it had work and had made no step.
    idle_ticks: u32,
}

impl Stage {
    fn note(&mut self, has_work: bool, steps: u64) {
        let is_idle = has_work && steps == self.steps;
        self.idle_ticks = if is_idle { self.idle_ticks + 1 } else { 0 };
        self.steps = steps;
    }
}
