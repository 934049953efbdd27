//! Gauges: how busy a stage was, and what waits for it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// Time that a stage was busy.
#[derive(Default)]
pub(super) struct Busy(AtomicU64);

impl Busy {
    pub fn note(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    pub fn seconds(&self) -> f64 {
        self.0.load(Relaxed) as f64 * 1e-9
    }
}

/// Length of a queue and age of its oldest entry, which stays in the queue while it is worked on.
#[derive(Default)]
pub(super) struct QueueGauge {
    length: AtomicU64,
    steps: AtomicU64,
    oldest: Mutex<Option<Instant>>,
}

impl QueueGauge {
    /// An entry is queued.
    pub fn enter(&self) {
        self.length.fetch_add(1, Relaxed);
    }

    /// Work on an entry starts.
    pub fn start(&self, entered_at: Instant) {
        *lock(&self.oldest) = Some(entered_at);
    }

    /// Work on an entry is finished.
    pub fn finish(&self) {
        self.length.fetch_sub(1, Relaxed);
        *lock(&self.oldest) = None;
        self.step();
    }

    /// A part of the work on an entry is finished.
    pub fn step(&self) {
        self.steps.fetch_add(1, Relaxed);
    }

    /// Count of the steps so far.
    pub fn steps(&self) -> u64 {
        self.steps.load(Relaxed)
    }

    /// Number of entries.
    pub fn length(&self) -> u64 {
        self.length.load(Relaxed)
    }

    /// An entry is dropped before work on it started.
    pub fn discard(&self) {
        self.length.fetch_sub(1, Relaxed);
    }

    /// Sets length and oldest entry of a queue that knows both.
    pub fn set(&self, length: usize, oldest: Option<Instant>) {
        self.length.store(length as u64, Relaxed);
        *lock(&self.oldest) = oldest;
    }

    /// Age of the oldest entry.
    pub fn age(&self) -> Duration {
        lock(&self.oldest).map_or(Duration::ZERO, |since| since.elapsed())
    }
}
