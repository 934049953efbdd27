//! Ring: the packets that wait for one sink.
//!
//! In: the packets of the encode stage. Out: the same, as fast as the sink takes them. What has waited past the latency
//! ceiling, or needs too much memory, is dropped up to the newest keyframe: a slow sink has gaps and no delay.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::stats::SinkStats;
use crate::media::Packet;
use crate::sync::lock;

/// Memory of the packets that may wait, in bytes: half a minute of 8 Mbit/s.
const BYTES_MAX: usize = 32 << 20;
/// Time between two lines about one sink that is too slow.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// A packet for all sinks.
pub(super) struct SharedPacket {
    pub packet: Packet,
    pub is_audio: bool,
    /// Arrival of the frame's packet, or the moment at which it was duplicated; of audio, that of the frame before it.
    pub arrived_at: Instant,
    /// Whether it is a frame of the source: duplicates have no latency.
    pub is_of_source: bool,
}

impl SharedPacket {
    /// Whether a sink can start with it.
    pub fn is_keyframe(&self) -> bool {
        !self.is_audio && self.packet.is_key()
    }

    /// Its memory, in bytes.
    fn bytes(&self) -> usize {
        /// FFmpeg's packet with its buffer, and the allocator's share.
        const OVERHEAD_BYTES: usize = 512;
        self.packet.size() + OVERHEAD_BYTES
    }
}

/// The packets that wait for a sink, between the encode stage and the sink's thread.
pub(super) struct Ring {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// `None` for files, which no viewer waits for.
    age_max: Option<Duration>,
}

/// What waits, without a clock.
#[derive(Default)]
pub(super) struct Waiting {
    packets: VecDeque<Arc<SharedPacket>>,
    bytes: usize,
    /// Arrival of the packet that the sink is writing.
    in_work: Option<Instant>,
    /// Packets were dropped: the next one has to be a keyframe.
    needs_keyframe: bool,
    is_closed: bool,
    warned_at: Option<Instant>,
}

impl Ring {
    pub fn new(age_max: Option<Duration>) -> Ring {
        Ring { waiting: Mutex::default(), changed: Condvar::new(), age_max }
    }

    /// Appends a packet, and drops what is too old; never waits.
    pub fn push(&self, shared: &Arc<SharedPacket>, stats: &SinkStats) {
        let mut waiting = lock(&self.waiting);
        let now = Instant::now();
        let mut dropped = waiting.push(shared);
        dropped += waiting.trim(now, self.age_max);
        waiting.note(dropped, now, stats);
        self.changed.notify_one();
    }

    /// Waits for the next packet; `None` once the ring is closed and empty.
    pub fn pop(&self, stats: &SinkStats) -> Option<Arc<SharedPacket>> {
        let mut waiting = lock(&self.waiting);
        waiting.in_work = None;
        waiting.note(0, Instant::now(), stats);
        loop {
            let is_idle = |waiting: &mut Waiting| waiting.packets.is_empty() && !waiting.is_closed;
            waiting = self.changed.wait_while(waiting, is_idle).unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let dropped = waiting.trim(now, self.age_max);
            let next = waiting.pop();
            waiting.in_work = next.as_ref().map(|shared| shared.arrived_at);
            waiting.note(dropped, now, stats);
            if next.is_some() || waiting.is_closed {
                return next;
            }
        }
    }

    /// Declares that no packet follows.
    pub fn close(&self) {
        lock(&self.waiting).is_closed = true;
        self.changed.notify_all();
    }
}

impl Waiting {
    /// Appends a packet. Returns how many are dropped.
    pub fn push(&mut self, shared: &Arc<SharedPacket>) -> u64 {
        if self.needs_keyframe && !shared.is_keyframe() {
            return 1;
        }
        self.needs_keyframe = false;
        self.bytes += shared.bytes();
        self.packets.push_back(shared.clone());
        0
    }

    /// Number of packets.
    pub fn count(&self) -> usize {
        self.packets.len()
    }

    /// Removes the first packet.
    pub fn pop(&mut self) -> Option<Arc<SharedPacket>> {
        let next = self.packets.pop_front();
        self.bytes -= next.as_ref().map_or(0, |shared| shared.bytes());
        next
    }

    /// Drops packets up to the newest keyframe where the first one is too old or all are too large; all of them where that
    /// keyframe is as well. Returns their number.
    pub fn trim(&mut self, now: Instant, age_max: Option<Duration>) -> u64 {
        let is_old = |shared: &Arc<SharedPacket>| {
            age_max.is_some_and(|max| now.saturating_duration_since(shared.arrived_at) > max)
        };
        if self.bytes <= BYTES_MAX && !self.packets.front().is_some_and(is_old) {
            return 0;
        }
        let newest = self.packets.iter().rposition(|shared| shared.is_keyframe());
        let kept_from = newest.filter(|&at| at > 0 && !is_old(&self.packets[at]));
        self.needs_keyframe = kept_from.is_none();
        let dropped = self.packets.drain(..kept_from.unwrap_or(self.packets.len()));
        let count = dropped.len() as u64;
        self.bytes -= dropped.map(|shared| shared.bytes()).sum::<usize>();
        count
    }

    /// Updates the counters.
    fn note(&mut self, dropped: u64, now: Instant, stats: &SinkStats) {
        stats.dropped.fetch_add(dropped, Relaxed);
        let oldest = self.in_work.or(self.packets.front().map(|shared| shared.arrived_at));
        stats.queue.set(self.count() + usize::from(self.in_work.is_some()), oldest);
        let was_reported = self.warned_at.is_some_and(|at| now - at < WARN_EVERY);
        if dropped > 1 && !was_reported {
            self.warned_at = Some(now);
            warn!(
                "{}: is slower than the stream: packets are dropped up to the newest keyframe; lower --bitrate, or \
                 check the connection",
                stats.name
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(40);
    const KEY_EVERY: u32 = 50;

    fn shared(number: u32, start: Instant) -> Arc<SharedPacket> {
        let is_key = number.is_multiple_of(KEY_EVERY);
        let packet = Packet::of_test(i64::from(number) * 40_000, 1000, is_key);
        Arc::new(SharedPacket {
            packet,
            is_audio: false,
            arrived_at: start + STEP * number,
            is_of_source: true,
        })
    }

    #[test]
    fn a_sink_that_is_a_little_slow_is_never_late() {
        // Two hours of 25 fps; the sink takes 99.9 % of them.
        let (start, max) = (Instant::now(), Duration::from_secs(2));
        let (mut waiting, mut taken, mut dropped, mut last) = (Waiting::default(), 0.0, 0, None);
        let mut oldest = Duration::ZERO;
        for number in 0..180_000 {
            let now = start + STEP * number;
            dropped += waiting.push(&shared(number, start)) + waiting.trim(now, Some(max));
            taken += 0.999;
            while taken >= 1.0
                && let Some(next) = waiting.pop()
            {
                taken -= 1.0;
                oldest = oldest.max(now - next.arrived_at);
                let at = next.packet.dts_us() / 40_000;
                let follows = last.is_none_or(|last| at == last + 1) || next.is_keyframe();
                assert!(follows, "{at} after {last:?}, without a keyframe");
                last = Some(at);
            }
            taken = f64::min(taken, 1.0);
        }
        assert!(oldest <= max, "{oldest:?}");
        // A thousandth does not fit, less what waits at the end; with each gap goes the rest of a group of frames.
        assert!((130..400).contains(&dropped), "{dropped}");
    }

    #[test]
    fn what_a_sink_that_stops_leaves_is_dropped() {
        let (start, max) = (Instant::now(), Duration::from_secs(1));
        let mut waiting = Waiting::default();
        for number in 0..30 {
            waiting.push(&shared(number, start));
        }
        // The only keyframe is too old: nothing is left, and the next packet has to be one.
        assert_eq!(waiting.trim(start + 30 * STEP, Some(max)), 30);
        assert_eq!((waiting.bytes, waiting.packets.len()), (0, 0));
        assert_eq!((waiting.push(&shared(31, start)), waiting.push(&shared(50, start))), (1, 0));
        // A file has no viewer, and a bound in memory.
        let mut file = Waiting::default();
        let fits = BYTES_MAX / shared(0, start).bytes();
        for number in 0..fits as u32 {
            file.push(&shared(number, start));
            assert_eq!(file.trim(start + Duration::from_secs(3600), None), 0);
        }
        file.push(&shared(fits as u32, start));
        let dropped = file.trim(start, None) as usize;
        assert_eq!(dropped, fits / KEY_EVERY as usize * KEY_EVERY as usize);
    }
}
