//! What the stages of a run share: the wish to stop, copied packets, the first error.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::media::{Packet, PacketQueue};
use crate::sync::lock;

/// The user's wish to end, and whether it came before the end came by itself.
pub(super) struct Stop<'a> {
    pub asked: &'a AtomicBool,
    pub stopped: AtomicBool,
}

impl Stop<'_> {
    /// Whether a stage that has more to do is to stop.
    pub fn now(&self) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        if asked {
            self.stopped.store(true, Ordering::Relaxed);
        }
        asked
    }

    pub fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// Packets that go by the frames, counted in bytes from the moment they are read.
#[derive(Default)]
pub(super) struct Copies(Mutex<PacketQueue>);

impl Copies {
    pub fn push(&self, packet: Packet) -> Result<()> {
        lock(&self.0).push(packet)
    }

    pub fn pop_before(&self, next: Option<&Packet>) -> Result<Option<Packet>> {
        lock(&self.0).pop_before(next)
    }
}

/// The first error of any stage: later ones are its consequences.
#[derive(Default)]
pub(super) struct Failure(pub Mutex<Option<Error>>);

impl Failure {
    pub fn note<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|error| lock(&self.0).get_or_insert(error).clone()).ok()
    }
}
