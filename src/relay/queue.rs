//! Queues of a live stream: what is too much goes, oldest first, and nobody who fills one is held up.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::Instant;

use crate::media::Coded;
use crate::picture::Picture;

/// Decoded pictures that wait for the network. Their deadlines drop them long before at usual rates: this bounds memory.
const PICTURES_MAX: usize = 48;
/// Packets of sound that wait for their pictures: a minute of the shortest ones.
const SOUND_MAX: usize = 6000;

/// A picture on its way to the network.
pub(super) struct Waiting {
    pub lr: Picture,
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
    /// Whether there was room; else the oldest picture is gone.
    pub fn push(&self, waiting: Waiting) -> bool {
        let mut state = self.state.lock().expect("nobody panics with it");
        let has_room = state.waiting.len() < PICTURES_MAX;
        if !has_room {
            state.waiting.pop_front();
        }
        state.waiting.push_back(waiting);
        self.changed.notify_one();
        has_room
    }

    /// The oldest picture, when there is one; `None` when none will come.
    pub fn pop(&self) -> Option<Waiting> {
        let state = self.state.lock().expect("nobody panics with it");
        let idle = |state: &mut State| state.waiting.is_empty() && !state.closed;
        self.changed.wait_while(state, idle).expect("nobody panics with it").waiting.pop_front()
    }

    /// Says that no picture follows.
    pub fn close(&self) {
        self.state.lock().expect("nobody panics with it").closed = true;
        self.changed.notify_all();
    }
}

/// Sound that waits for the pictures it belongs to.
#[derive(Default)]
pub(super) struct SoundQueue(Mutex<VecDeque<Coded>>);

impl SoundQueue {
    pub fn push(&self, packet: Coded) {
        let mut packets = self.0.lock().expect("nobody panics with it");
        if packets.len() == SOUND_MAX {
            packets.pop_front();
        }
        packets.push_back(packet);
    }

    /// The next packet that is not later than this.
    pub fn pop_until(&self, time_us: i64) -> Option<Coded> {
        let mut packets = self.0.lock().expect("nobody panics with it");
        packets
            .front()
            .is_some_and(|packet| packet.dts_us() <= time_us)
            .then(|| packets.pop_front())
            .flatten()
    }
}
