//! The thread pool of an engine.

use crate::error::{Error, Result};

/// A fixed number of threads, which share the rows of a frame.
#[derive(Debug)]
pub(crate) struct Pool(rayon::ThreadPool);

impl Pool {
    /// Starts `threads` threads; above 0.
    pub(crate) fn new(threads: usize) -> Result<Pool> {
        assert!(threads > 0, "a pool has threads");
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("hasn-cpu-{index}"))
            .build()
            .map(Pool)
            .map_err(|e| {
                Error::new(format!("{threads} threads"), e.to_string(), "use fewer with --threads")
                    .with_source(e)
            })
    }

    /// Runs `work` on the pool; its parallel loops use these threads only.
    pub(crate) fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.install(work)
    }

    /// Runs `work` on the pool to its end, even after the pool is dropped.
    pub(crate) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.0.spawn(work);
    }

    /// Runs `work` on all threads at once and returns their results.
    pub(crate) fn on_each<T: Send>(&self, work: impl Fn() -> T + Sync) -> Vec<T> {
        self.0.broadcast(|_| work())
    }
}
