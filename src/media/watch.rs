//! Watch: ends what FFmpeg and our own readers and writers wait for, at a deadline or on request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ffmpeg_next as ffmpeg;
use ffmpeg_next::util::interrupt;

use crate::error::{Error, ErrorKind};
use crate::media::ffmpeg::error_kind;

/// A deadline and a stop flag, on which FFmpeg ends what it waits for.
#[derive(Clone)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    start: Instant,
    /// The deadline, in milliseconds after `start`.
    deadline_ms: Arc<AtomicU64>,
}

impl Watch {
    /// A watch without a deadline. `stop` ends at once what it watches.
    pub fn new(stop: Arc<AtomicBool>) -> Watch {
        Watch { stop, start: Instant::now(), deadline_ms: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Sets the deadline `time` after now.
    pub fn allow(&self, time: Duration) {
        let deadline = self.start.elapsed() + time;
        self.deadline_ms.store(deadline.as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether a call that waits has to end.
    pub(crate) fn is_over(&self) -> bool {
        let now_ms = self.start.elapsed().as_millis() as u64;
        self.is_stopped() || now_ms > self.deadline_ms.load(Ordering::Relaxed)
    }

    /// Whether the stop flag is set.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The kind of an error of a watched call. FFmpeg returns the same code for a deadline that passed and for `stop`.
    pub(crate) fn error_kind(&self, error: ffmpeg::Error) -> ErrorKind {
        match error_kind(error) {
            _ if self.is_stopped() => ErrorKind::Interrupted,
            ErrorKind::Interrupted => ErrorKind::Io,
            kind => kind,
        }
    }

    /// The error of a read of `name` that was ended.
    pub(crate) fn error(&self, name: &str) -> Error {
        match self.is_stopped() {
            true => Error::new(name, "reading it was interrupted", "run the same command again")
                .with_kind(ErrorKind::Interrupted),
            false => Error::new(name, "nothing arrived in time", "check that the source is publishing")
                .with_kind(ErrorKind::Io),
        }
    }

    pub(crate) fn interrupt(&self) -> interrupt::Interrupt {
        let watch = self.clone();
        interrupt::new(Box::new(move || watch.is_over()))
    }
}

/// A watch that ends nothing.
impl Default for Watch {
    fn default() -> Watch {
        Watch::new(Arc::default())
    }
}
