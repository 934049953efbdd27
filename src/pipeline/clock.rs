//! Time that each stage works and waits, readable while it runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::frame::Timestamp;

/// A stage of the pipeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Reads packets.
    Demux,
    /// Decodes packets.
    Decode,
    /// Upscales frames.
    Upscale,
    /// Encodes frames.
    Encode,
    /// Writes packets.
    Mux,
}

/// All stages, in the order of the flow.
pub const STAGES: [Stage; 5] = [Stage::Demux, Stage::Decode, Stage::Upscale, Stage::Encode, Stage::Mux];

impl Stage {
    /// Name in reports and logs.
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

/// Times and counts of a run, updated by its stages and readable at any time.
#[derive(Default)]
pub struct Progress {
    counters: [Counters; STAGES.len()],
    frames: AtomicU64,
    /// Frames of finished segments, and restored ones.
    earlier_frames: AtomicU64,
    restored: AtomicU64,
    bytes: AtomicU64,
    /// End of the last encoded frame in microseconds of the input, plus 1; 0 before the first one.
    reached: AtomicU64,
    /// The stage that panics, and the number of encoded frames at which it does.
    #[cfg(test)]
    panics: Option<(Stage, u64)>,
}

/// Times of a stage.
#[derive(Clone, Copy, Debug)]
pub struct StageTimes {
    /// Time at work.
    pub worked: Duration,
    /// Time in which its input queue was empty.
    pub waited_for_input: Duration,
    /// Time in which its output queue was full.
    pub waited_for_output: Duration,
}

#[derive(Default)]
struct Counters {
    worked_ns: AtomicU64,
    waited_for_input_ns: AtomicU64,
    waited_for_output_ns: AtomicU64,
}

impl Progress {
    /// Count of encoded frames, those of earlier runs included.
    pub fn frames(&self) -> u64 {
        self.frames.load(Relaxed)
    }

    /// Count of frames that an earlier run had upscaled, and this one encodes.
    pub(super) fn restored(&self) -> u64 {
        self.restored.load(Relaxed)
    }

    /// Count of frames that earlier runs have upscaled.
    pub fn earlier_frames(&self) -> u64 {
        self.earlier_frames.load(Relaxed)
    }

    /// End of the last frame that this run has encoded, in seconds of the input.
    pub fn reached_s(&self) -> Option<f64> {
        self.reached.load(Relaxed).checked_sub(1).map(|us| us as f64 / 1e6)
    }

    /// Bytes of the frames that this run has encoded.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Sets the count to the frames that earlier runs have encoded.
    pub(super) fn start_at(&self, frames: u64) {
        self.frames.store(frames, Relaxed);
        self.earlier_frames.store(frames, Relaxed);
    }

    /// Times of one stage.
    pub fn times(&self, stage: Stage) -> StageTimes {
        let counters = &self.counters[stage as usize];
        let duration = |ns: &AtomicU64| Duration::from_nanos(ns.load(Relaxed));
        StageTimes {
            worked: duration(&counters.worked_ns),
            waited_for_input: duration(&counters.waited_for_input_ns),
            waited_for_output: duration(&counters.waited_for_output_ns),
        }
    }

    /// The stage that has worked longest and limits the throughput.
    pub fn bottleneck(&self) -> Stage {
        STAGES.into_iter().max_by_key(|&stage| self.times(stage).worked).expect("there are stages")
    }

    /// Counters of a run whose `stage` panics once `frames` are encoded.
    #[cfg(test)]
    pub fn panicking(stage: Stage, frames: u64) -> Progress {
        Progress { panics: Some((stage, frames)), ..Progress::default() }
    }

    pub(super) fn clock(&self, stage: Stage) -> Clock<'_> {
        Clock {
            counters: &self.counters[stage as usize],
            frames: &self.frames,
            earlier: [&self.earlier_frames, &self.restored],
            reached: &self.reached,
            bytes: &self.bytes,
            last: Instant::now(),
            #[cfg(test)]
            panics_after: self.panics.filter(|(of, _)| *of == stage).map(|(_, frames)| frames),
        }
    }
}

/// Measures one stage: all time is work except that inside [`Clock::input`] and [`Clock::output`].
pub(super) struct Clock<'a> {
    counters: &'a Counters,
    frames: &'a AtomicU64,
    earlier: [&'a AtomicU64; 2],
    reached: &'a AtomicU64,
    bytes: &'a AtomicU64,
    last: Instant,
    #[cfg(test)]
    panics_after: Option<u64>,
}

impl Clock<'_> {
    pub fn input<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        self.lap(&self.counters.worked_ns);
        let value = wait();
        self.lap(&self.counters.waited_for_input_ns);
        value
    }

    pub fn output<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        self.lap(&self.counters.worked_ns);
        let value = wait();
        self.lap(&self.counters.waited_for_output_ns);
        value
    }

    /// Counts a frame that an earlier run has upscaled.
    pub fn count_restored(&self) {
        for count in self.earlier {
            count.fetch_add(1, Relaxed);
        }
    }

    pub fn count_frame(&self, time: &Timestamp) {
        self.frames.fetch_add(1, Relaxed);
        let end_s = time.time_base.seconds(time.pts.saturating_add(time.duration));
        self.reached.fetch_max((end_s * 1e6) as u64 + 1, Relaxed);
    }

    pub fn count_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    fn lap(&mut self, counter: &AtomicU64) {
        let now = Instant::now();
        counter.fetch_add((now - self.last).as_nanos() as u64, Relaxed);
        self.last = now;
        #[cfg(test)]
        if self.panics_after.is_some_and(|after| self.frames.load(Relaxed) >= after)
            && !std::thread::panicking()
        {
            panic!("as the test asks");
        }
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        self.lap(&self.counters.worked_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    #[test]
    fn waiting_is_not_counted_as_work() {
        let progress = Progress::default();
        let mut clock = progress.clock(Stage::Encode);
        let wait = Duration::from_millis(60);
        clock.input(|| sleep(wait));
        clock.output(|| sleep(2 * wait));
        drop(clock);
        let times = progress.times(Stage::Encode);
        let StageTimes { worked, waited_for_input, waited_for_output } = times;
        assert!(waited_for_input >= wait && waited_for_output >= 2 * wait && worked < wait, "{times:?}");
    }
}
