//! Queues of a live stream: what is too much goes, oldest first, and nobody who fills one is held up.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::Instant;

use crate::frame::Frame;
use crate::media::Packet;
use crate::sync::lock;

/// Decoded frames that wait for the network. Their deadlines drop them long before at usual rates: this bounds memory.
const FRAMES_MAX: usize = 48;
/// Packets of audio that wait for their frames: a minute of the shortest ones.
const AUDIO_MAX: usize = 6000;

/// A frame on its way to the network.
pub(super) struct Waiting {
    pub lr: Frame,
    /// When it is shown, in the output's time.
    pub time_us: i64,
    /// When the source sent it.
    pub arrived: Instant,
}

/// Between decoder and network.
#[derive(Default)]
pub(super) struct LiveQueue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    closed: bool,
}

impl LiveQueue {
    /// Whether there was room; else the oldest frame is gone.
    pub fn push(&self, waiting: Waiting) -> bool {
        let mut state = lock(&self.state);
        let has_room = state.waiting.len() < FRAMES_MAX;
        if !has_room {
            state.waiting.pop_front();
        }
        state.waiting.push_back(waiting);
        self.changed.notify_one();
        has_room
    }

    /// The oldest frame, when there is one; `None` when none will come.
    pub fn pop(&self) -> Option<Waiting> {
        let state = lock(&self.state);
        let idle = |state: &mut State| state.waiting.is_empty() && !state.closed;
        self.changed
            .wait_while(state, idle)
            .expect("no thread panics while it holds a lock")
            .waiting
            .pop_front()
    }

    /// Says that no frame follows.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }
}

/// Audio that waits for the frames it belongs to.
#[derive(Default)]
pub(super) struct AudioQueue(Mutex<VecDeque<Packet>>);

impl AudioQueue {
    pub fn push(&self, packet: Packet) {
        let mut packets = lock(&self.0);
        if packets.len() == AUDIO_MAX {
            packets.pop_front();
        }
        packets.push_back(packet);
    }

    /// The next packet that is not later than this.
    pub fn pop_until(&self, time_us: i64) -> Option<Packet> {
        let mut packets = lock(&self.0);
        packets
            .front()
            .is_some_and(|packet| packet.dts_us() <= time_us)
            .then(|| packets.pop_front())
            .flatten()
    }
}
