//! Budget: the part of the latency ceiling that the networks may use.
//!
//! In: the latency ceiling, and how long frames take from a network to their packet. Out: each frame's deadline, which leaves
//! the sinks a share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Part of the ceiling in which sinks take a packet.
const SINKS_SHARE: u32 = 16;
/// The largest part of the ceiling that is left to the encoder. It is measured by frames that a network was in time for: if
/// nothing were left to the networks, as after a process was stopped in mid-frame, no frame would correct it.
const ENCODE_SHARE_MAX: u32 = 2;

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
        let encode =
            Duration::from_micros(self.encode_us.load(Relaxed)).min(self.latency_max / ENCODE_SHARE_MAX);
        arrived_at + (self.latency_max - self.latency_max / SINKS_SHARE).saturating_sub(encode)
    }

    /// Notes the time that one frame took from the network to its packet. A peak fades over some tens of frames.
    pub fn note_encode(&self, time: Duration) {
        let kept_us = self.encode_us.load(Relaxed) * 49 / 50;
        let time = time.min(self.latency_max);
        self.encode_us.store(kept_us.max(time.as_micros() as u64 * 5 / 4), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_was_stopped_in_the_encoder_leaves_time_for_the_next_ones() {
        let (max, now) = (Duration::from_secs(2), Instant::now());
        let budget = LatencyBudget::new(max);
        let left = |budget: &LatencyBudget| budget.deadline(now) - now;
        assert_eq!(left(&budget), Duration::from_millis(1875));
        budget.note_encode(Duration::from_millis(40));
        assert_eq!(left(&budget), Duration::from_millis(1825));
        budget.note_encode(Duration::from_secs(60));
        assert_eq!(left(&budget), Duration::from_millis(875));
        (0..300).for_each(|_| budget.note_encode(Duration::from_millis(40)));
        assert_eq!(left(&budget), Duration::from_millis(1825));
    }
}
