//! Read ahead: a thread reads a source, so that what has arrived is known before it is due.
//!
//! In: a demuxer. Out: its packets with their arrival, as far ahead as a bound of time and of memory allows; past it the
//! source is not read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::media::{Input, Packet, Watch};
use crate::sync::{catch_panic, lock};

/// Memory of the packets that wait, in bytes: half a minute of 8 Mbit/s.
const BYTES_MAX: usize = 32 << 20;
/// Interval at which a reader that waits for a packet looks whether to stop.
const STOP_EVERY: Duration = Duration::from_millis(50);

/// A packet that was read.
pub(super) struct Arrival {
    pub packet: Packet,
    pub is_video: bool,
    /// Jumps of the clock that the demuxer has compensated so far.
    pub clock_jumps: u64,
    pub at: Instant,
}

/// The packets of one connection that wait for the decoder.
pub(super) struct ReadAhead {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Video that may wait.
    span_max_us: i64,
    /// Duration of a frame whose packet states none.
    frame_us: i64,
}

#[derive(Default)]
struct Waiting {
    arrivals: VecDeque<Arrival>,
    bytes: usize,
    /// Duration of the video in it.
    span_us: i64,
    /// How reading has ended.
    ended: Option<Result<()>>,
    is_cancelled: bool,
}

impl ReadAhead {
    pub fn new(span_max_us: i64, frame_us: i64) -> ReadAhead {
        ReadAhead { waiting: Mutex::default(), changed: Condvar::new(), span_max_us, frame_us }
    }

    /// Reads until the source ends, nothing arrives for `silence_max`, or it is cancelled.
    pub fn read(&self, mut input: Input, watch: &Watch, silence_max: Duration) {
        let result = catch_panic("the read thread", || {
            loop {
                watch.allow(silence_max);
                if lock(&self.waiting).is_cancelled {
                    return Ok(());
                }
                let Some(packet) = input.next_packet()? else { return Ok(()) };
                let (is_video, clock_jumps) = (input.is_video(&packet), input.clock_jumps());
                self.push(Arrival { packet, is_video, clock_jumps, at: Instant::now() });
            }
        });
        lock(&self.waiting).ended = Some(result);
        self.changed.notify_all();
    }

    /// Appends a packet; waits while there is no room.
    fn push(&self, arrival: Arrival) {
        let is_full = |waiting: &mut Waiting| {
            let is_full = waiting.span_us >= self.span_max_us || waiting.bytes >= BYTES_MAX;
            is_full && !waiting.arrivals.is_empty() && !waiting.is_cancelled
        };
        let waiting = lock(&self.waiting);
        let mut waiting = self.changed.wait_while(waiting, is_full).unwrap_or_else(PoisonError::into_inner);
        waiting.bytes += arrival.packet.size();
        waiting.span_us += self.span_us(&arrival);
        waiting.arrivals.push_back(arrival);
        self.changed.notify_all();
    }

    /// Waits for the next packet. Returns it with the duration of the video that waits behind it, in microseconds; the
    /// result of reading at its end, and where `stop` is set.
    pub fn pop(&self, stop: &AtomicBool) -> Result<Option<(Arrival, i64)>> {
        let mut waiting = lock(&self.waiting);
        while !stop.load(Relaxed) {
            if let Some(arrival) = waiting.arrivals.pop_front() {
                waiting.bytes -= arrival.packet.size();
                waiting.span_us -= self.span_us(&arrival);
                self.changed.notify_all();
                return Ok(Some((arrival, waiting.span_us)));
            }
            if let Some(ended) = waiting.ended.take() {
                return ended.map(|()| None);
            }
            let waited = self.changed.wait_timeout(waiting, STOP_EVERY);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(None)
    }

    /// Ends [`Self::read`].
    pub fn cancel(&self, watch: &Watch) {
        lock(&self.waiting).is_cancelled = true;
        watch.end();
        self.changed.notify_all();
    }

    fn span_us(&self, Arrival { packet, is_video, .. }: &Arrival) -> i64 {
        match packet.duration_us() {
            _ if !is_video => 0,
            0 => self.frame_us,
            us => us,
        }
    }
}
