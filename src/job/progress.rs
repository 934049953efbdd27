//! The progress of a running job, which its caller shares.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::report::Summary;
use crate::pipeline;
use crate::pipeline::{Stage, StageTimes};

/// Counters of a running job, and an observer of its phases. Clones share them.
#[derive(Clone, Default)]
pub struct Progress {
    counters: Arc<pipeline::Progress>,
    observer: Option<Arc<Observer>>,
}

type Observer = dyn Fn(&Progress, Event) + Send + Sync;

/// A change in the phase of a job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The job continues an earlier run.
    Resumed {
        /// The journal of that run, or the image sequence that it has started.
        from: PathBuf,
        /// Number of frames that it has finished.
        frames: u64,
        /// Time of the input up to which it got, in seconds; `None` for image sequences.
        reached_s: Option<f64>,
    },
    /// The stages start to decode, upscale and encode frames.
    Started {
        /// The job as it was opened.
        summary: Box<Summary>,
    },
    /// The last frame is encoded, or the stages have stopped.
    Stopped,
}

impl Progress {
    /// Counters whose job calls `observer` at each [`Event`], from the thread that runs the job.
    pub fn with_observer(observer: impl Fn(&Progress, Event) + Send + Sync + 'static) -> Progress {
        Progress { counters: Arc::default(), observer: Some(Arc::new(observer)) }
    }

    /// Counters of a job whose `stage` panics once `frames` are encoded.
    #[cfg(test)]
    pub(super) fn panicking(stage: Stage, frames: u64) -> Progress {
        Progress { counters: Arc::new(pipeline::Progress::panicking(stage, frames)), observer: None }
    }

    /// Number of encoded frames, with those of an earlier run that is resumed.
    pub fn frames(&self) -> u64 {
        self.counters.frames()
    }

    /// Number of frames of earlier runs, which this one does not upscale.
    pub(crate) fn earlier_frames(&self) -> u64 {
        self.counters.earlier_frames()
    }

    /// End of the last frame that this run has encoded, in seconds of the input.
    pub(crate) fn reached_s(&self) -> Option<f64> {
        self.counters.reached_s()
    }

    /// Bytes of the frames that this run has encoded.
    pub fn bytes(&self) -> u64 {
        self.counters.bytes()
    }

    /// The stage that has worked longest and so limits the throughput.
    pub fn bottleneck(&self) -> Stage {
        self.counters.bottleneck()
    }

    /// Times of a stage.
    pub fn times(&self, stage: Stage) -> StageTimes {
        self.counters.times(stage)
    }

    pub(super) fn counters(&self) -> &pipeline::Progress {
        &self.counters
    }

    pub(super) fn notify(&self, event: Event) {
        if let Some(observer) = &self.observer {
            observer(self, event);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("frames", &self.frames()).finish_non_exhaustive()
    }
}
