//! Budget: the part of the latency ceiling that the networks may use.
//!
//! In: the latency ceiling, and how long frames take from a network to their packet. Out: each frame's deadline, which leaves
//! the sinks a share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Part of the ceiling in which sinks take a packet.
const SINKS_SHARE: u32 = 16;

/// The latency ceiling, and the encoder's share of it.
pub(super) struct LatencyBudget {
    latency_max: Duration,
    encode_us: AtomicU64,
}

impl LatencyBudget {
    pub fn new(latency_max: Duration) -> LatencyBudget {
        LatencyBudget { latency_max, encode_us: AtomicU64::new(0) }
    }

    /// Returns when the network has to be done with a frame that arrived at `arrived_at`.
    pub fn deadline(&self, arrived_at: Instant) -> Instant {
        let encode = Duration::from_micros(self.encode_us.load(Relaxed));
        arrived_at + (self.latency_max - self.latency_max / SINKS_SHARE).saturating_sub(encode)
    }

    /// Notes the time that one frame took from the network to its packet. A peak fades over some tens of frames.
    pub fn note_encode(&self, time: Duration) {
        let kept_us = self.encode_us.load(Relaxed) * 49 / 50;
        self.encode_us.store(kept_us.max(time.as_micros() as u64 * 5 / 4), Relaxed);
    }
}
