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
    /// Time without a byte after which a call has to end.
    silence_max: Option<Duration>,
}

/// The deadline of a watch whose calls have to end for good.
const ENDED: u64 = 0;

impl Watch {
    /// A watch without a deadline. `stop` ends at once what it watches.
    pub fn new(stop: Arc<AtomicBool>) -> Watch {
        let deadline_ms = Arc::new(AtomicU64::new(u64::MAX));
        Watch { stop, start: Instant::now(), deadline_ms, silence_max: None }
    }

    /// The same, which also ends calls in which nothing arrives for this long.
    pub fn with_silence_max(self, silence_max: Option<Duration>) -> Watch {
        Watch { silence_max, ..self }
    }

    /// Sets the deadline `time` after now.
    pub fn allow(&self, time: Duration) {
        self.deadline_ms.store(self.in_ms(time), Ordering::Relaxed);
    }

    /// Ends at once, and for good, what it watches.
    pub fn end(&self) {
        self.deadline_ms.store(ENDED, Ordering::Relaxed);
    }

    /// Counts silence from now on: something has arrived, or is asked for.
    pub(crate) fn restart_silence(&self) {
        let Some(silence_max) = self.silence_max else { return };
        let deadline_ms = self.in_ms(silence_max);
        // An error means that another thread has ended it.
        let _ = self.deadline_ms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            (before != ENDED).then_some(deadline_ms)
        });
    }

    /// The time `time` after now, in milliseconds after `start`.
    fn in_ms(&self, time: Duration) -> u64 {
        let ms = (self.start.elapsed() + time).as_millis();
        u64::try_from(ms).unwrap_or(u64::MAX).max(ENDED + 1)
    }

    /// Whether a call that waits has to end.
    pub(crate) fn is_over(&self) -> bool {
        let (now_ms, deadline_ms) =
            (self.start.elapsed().as_millis() as u64, self.deadline_ms.load(Ordering::Relaxed));
        self.is_stopped() || deadline_ms == ENDED || now_ms > deadline_ms
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
        match self.silence_max {
            _ if self.is_stopped() => {
                Error::new(name, "reading it was interrupted", "run the same command again")
                    .with_kind(ErrorKind::Interrupted)
            }
            Some(silence_max) => Error::new(
                name,
                format!("nothing arrived for {} s", silence_max.as_secs_f64()),
                "check the sender and the connection, or give a longer --timeout",
            )
            .with_kind(ErrorKind::Io),
            None => Error::new(name, "nothing arrived in time", "check that the source is publishing")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_the_last_arrival() {
        let silence_max = Duration::from_millis(60);
        let watch = Watch::default().with_silence_max(Some(silence_max));
        watch.restart_silence();
        std::thread::sleep(silence_max / 2);
        watch.restart_silence();
        let restarted = Instant::now();
        while !watch.is_over() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(restarted.elapsed() >= silence_max);
        let error = watch.error("in.mkv").to_string();
        assert!(error.starts_with("in.mkv: nothing arrived for 0.06 s; "), "{error}");
        watch.restart_silence();
        assert!(!watch.is_over());
        watch.end();
        watch.restart_silence();
        assert!(watch.is_over(), "another stage has failed");
    }
}
