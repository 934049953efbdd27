//! Failures: an error or a panic of any thread ends the relay.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::queue::FrameQueue;
use super::stats::Stats;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{catch_panic, lock};

/// The first error of all threads, and what ends them.
pub(super) struct Failures {
    first: Mutex<Option<Error>>,
    stop: Arc<AtomicBool>,
    frames: Arc<FrameQueue>,
    stats: Arc<Stats>,
}

impl Failures {
    pub fn new(stop: &Arc<AtomicBool>, frames: &Arc<FrameQueue>, stats: &Arc<Stats>) -> Arc<Failures> {
        let (stop, frames, stats) = (stop.clone(), frames.clone(), stats.clone());
        Arc::new(Failures { first: Mutex::default(), stop, frames, stats })
    }

    /// Runs what a thread does. Its error or its panic ends the relay.
    pub fn guard(&self, thread: &str, run: impl FnOnce() -> Result<()>) {
        if let Err(error) = self.catch(thread, run) {
            self.end(error);
        }
    }

    /// The same of a sink, whose errors end no other part; they are returned. Its panic ends the relay.
    pub fn guard_sink(&self, thread: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
        self.catch(thread, run).inspect_err(|error| {
            if error.kind() == ErrorKind::Internal {
                self.end(error.clone());
            }
        })
    }

    fn catch(&self, thread: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
        catch_panic(thread, || {
            #[cfg(test)]
            self.stats.panic_if_asked(thread);
            #[cfg(test)]
            self.stats.hang_if_asked(thread);
            run()
        })
    }

    /// Ends the relay.
    pub fn end(&self, error: Error) {
        if error.kind() == ErrorKind::Internal {
            self.stats.has_panicked.store(true, Relaxed);
        }
        lock(&self.first).get_or_insert(error);
        self.stop.store(true, Relaxed);
        self.frames.close();
    }

    /// The first error.
    pub fn first(&self) -> Option<Error> {
        lock(&self.first).clone()
    }
}
