//! Control: changes of a relay while it runs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::options::open_networks;
use crate::engine::Network;
use crate::error::Result;
use crate::sync::lock;

/// Changes that were requested and are not made yet.
#[derive(Default)]
pub struct Control {
    networks: Mutex<Option<Vec<Network>>>,
    /// Bits per second; 0 if no change was requested.
    bit_rate: AtomicU64,
}

impl Control {
    /// Opens the networks of a new ladder, named as in [`Options::ladder`](super::Options::ladder). They are used once they
    /// have been timed while the stream continues.
    pub fn set_ladder(&self, names: &[String]) -> Result<()> {
        let networks = open_networks(names)?;
        *lock(&self.networks) = Some(networks);
        Ok(())
    }

    /// Changes the encoder's bitrate, in bits per second, from the next frame on.
    pub fn set_bit_rate(&self, bit_rate: u64) {
        self.bit_rate.store(bit_rate, Relaxed);
    }

    pub(super) fn take_networks(&self) -> Option<Vec<Network>> {
        lock(&self.networks).take()
    }

    pub(super) fn take_bit_rate(&self) -> Option<u64> {
        Some(self.bit_rate.swap(0, Relaxed)).filter(|&bit_rate| bit_rate > 0)
    }
}
