//! The threads of an engine.

use crate::error::{Error, Result};

/// A fixed number of threads, on which passes over a frame share their rows.
#[derive(Debug)]
pub struct Pool(rayon::ThreadPool);

impl Pool {
    /// `threads` above 0.
    pub fn new(threads: usize) -> Result<Pool> {
        assert!(threads > 0, "a pool has threads");
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("hasn-cpu-{index}"))
            .build()
            .map(Pool)
            .map_err(|e| {
                Error::new(format!("{threads} threads"), e.to_string(), "ask for fewer with --threads")
            })
    }

    /// Runs `work` on the pool; what it does in parallel uses these threads only.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.install(work)
    }

    /// Runs `work` on the pool until it ends, even after the pool's drop.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.0.spawn(work);
    }

    /// What `work` gives on each of the threads, all at once.
    pub fn on_each<T: Send>(&self, work: impl Fn() -> T + Sync) -> Vec<T> {
        self.0.broadcast(|_| work())
    }
}
