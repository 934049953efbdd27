//! How long each stage works and waits, readable while it runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A stage of the pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Reads packets.
    Demux,
    /// Packets to frames.
    Decode,
    /// Frames to larger frames.
    Upscale,
    /// Frames to packets.
    Encode,
    /// Writes packets.
    Mux,
}

/// In the order of the flow.
pub const STAGES: [Stage; 5] = [Stage::Demux, Stage::Decode, Stage::Upscale, Stage::Encode, Stage::Mux];

impl Stage {
    /// For people and reports.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Demux => "demux",
            Stage::Decode => "decode",
            Stage::Upscale => "upscale",
            Stage::Encode => "encode",
            Stage::Mux => "mux",
        }
    }
}

/// Times and counts of a run, updated by its stages and read by whoever shows them.
#[derive(Default)]
pub struct Progress {
    times: [Times; STAGES.len()],
    frames: AtomicU64,
}

#[derive(Default)]
struct Times {
    worked_ns: AtomicU64,
    waited_for_input_ns: AtomicU64,
    waited_for_output_ns: AtomicU64,
}

impl Progress {
    /// Frames that are encoded.
    pub fn frames(&self) -> u64 {
        self.frames.load(Relaxed)
    }

    /// Counts from so many on: those that an earlier run has encoded.
    pub(super) fn begin_at(&self, frames: u64) {
        self.frames.store(frames, Relaxed);
    }

    /// Of one stage: worked, waited for input, waited for room in its output.
    pub fn times(&self, stage: Stage) -> [Duration; 3] {
        let Times { worked_ns, waited_for_input_ns, waited_for_output_ns } = &self.times[stage as usize];
        [worked_ns, waited_for_input_ns, waited_for_output_ns]
            .map(|ns| Duration::from_nanos(ns.load(Relaxed)))
    }

    /// The stage that worked longest: a faster one would make the run faster.
    pub fn bottleneck(&self) -> Stage {
        STAGES.into_iter().max_by_key(|&stage| self.times(stage)[0]).expect("there are stages")
    }

    pub(super) fn clock(&self, stage: Stage) -> Clock<'_> {
        Clock { times: &self.times[stage as usize], frames: &self.frames, last: Instant::now() }
    }
}

/// Measures one stage: all time is work but for what passes inside of [`Clock::input`] and [`Clock::output`].
pub(super) struct Clock<'a> {
    times: &'a Times,
    frames: &'a AtomicU64,
    last: Instant,
}

impl Clock<'_> {
    pub fn input<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        self.lap(&self.times.worked_ns);
        let value = wait();
        self.lap(&self.times.waited_for_input_ns);
        value
    }

    pub fn output<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        self.lap(&self.times.worked_ns);
        let value = wait();
        self.lap(&self.times.waited_for_output_ns);
        value
    }

    pub fn count_frame(&self) {
        self.frames.fetch_add(1, Relaxed);
    }

    fn lap(&mut self, counter: &AtomicU64) {
        let now = Instant::now();
        counter.fetch_add((now - self.last).as_nanos() as u64, Relaxed);
        self.last = now;
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        self.lap(&self.times.worked_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    #[test]
    fn waiting_is_not_working() {
        let progress = Progress::default();
        let mut clock = progress.clock(Stage::Encode);
        let long = Duration::from_millis(60);
        clock.input(|| sleep(long));
        clock.output(|| sleep(2 * long));
        drop(clock);
        let [worked, input, output] = progress.times(Stage::Encode);
        assert!(input >= long && output >= 2 * long && worked < long, "{worked:?} {input:?} {output:?}");
    }
}
