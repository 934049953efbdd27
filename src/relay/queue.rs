//! Queues of a live stream: a full one drops its oldest entry, and a push never waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::frame::Frame;
use crate::media::Packet;
use crate::sync::lock;

/// Decoded frames that may wait for the network. At usual frame rates they miss their deadlines long before there are that
/// many: the bound limits memory.
pub(super) const FRAMES_MAX: usize = 48;
/// Audio packets that may wait for their frames: a minute of the shortest packets.
const AUDIO_PACKETS_MAX: usize = 6000;

/// A decoded frame on its way to the network.
pub(super) struct PendingFrame {
    pub lr: Frame,
    /// Presentation time in the output's clock.
    pub time_us: i64,
    /// Arrival of the frame's packet.
    pub arrived_at: Instant,
}

/// Frames between decoder and network.
#[derive(Default)]
pub(super) struct FrameQueue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    frames: VecDeque<PendingFrame>,
    is_closed: bool,
}

impl FrameQueue {
    /// Appends a frame. Returns false if that dropped the oldest one.
    pub fn push(&self, frame: PendingFrame) -> bool {
        let mut state = lock(&self.state);
        let has_room = state.frames.len() < FRAMES_MAX;
        if !has_room {
            state.frames.pop_front();
        }
        state.frames.push_back(frame);
        self.changed.notify_one();
        has_room
    }

    /// Waits for the oldest frame; `None` once the queue is closed and empty.
    pub fn pop(&self) -> Option<PendingFrame> {
        let state = lock(&self.state);
        let is_idle = |state: &mut State| state.frames.is_empty() && !state.is_closed;
        let mut state = self.changed.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner);
        state.frames.pop_front()
    }

    /// Declares that no frame follows.
    pub fn close(&self) {
        lock(&self.state).is_closed = true;
        self.changed.notify_all();
    }
}

/// Packets of audio that wait for the frames they belong to.
#[derive(Default)]
pub(super) struct AudioQueue(Mutex<VecDeque<Packet>>);

impl AudioQueue {
    pub fn push(&self, packet: Packet) {
        let mut packets = lock(&self.0);
        if packets.len() == AUDIO_PACKETS_MAX {
            packets.pop_front();
        }
        packets.push_back(packet);
    }

    /// Returns the next packet if it is due at `time_us`.
    pub fn pop_until(&self, time_us: i64) -> Option<Packet> {
        let mut packets = lock(&self.0);
        let is_due = packets.front().is_some_and(|packet| packet.dts_us() <= time_us);
        is_due.then(|| packets.pop_front()).flatten()
    }
}
