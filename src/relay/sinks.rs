//! Sinks: one stream of packets to several outputs, each on a thread of its own.
//!
//! An output that is slow or not connected loses packets up to a keyframe and affects no other. It is reconnected with
//! backoff.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::ring::{Ring, SharedPacket};
use super::source::jittered;
use super::stats::{SinkStats, Stats};
use crate::error::{Error, Result};
use crate::media::{LiveOutput, LiveStreams, Watch};

/// Time to connect, and to write one packet; of a packet for viewers, the latency ceiling where it is lower.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A shorter pause of the network is no loss.
const WRITE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Wait between attempts, doubled each time.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A sink, what is sent to it, and its counters.
pub(super) struct SinkIo<'a> {
    pub sink: &'a str,
    /// Whether another file of its name is replaced.
    pub overwrite: bool,
    pub streams: &'a LiveStreams,
    pub stats: &'a SinkStats,
    /// Of the whole relay.
    pub relay: &'a Stats,
    /// Whether the relay ends: an output that is lost is not opened again.
    pub stop: &'a AtomicBool,
}

/// Writes to one output until no packet follows. Only a file that is incomplete is an error, or that cannot get its name:
/// without `overwrite`, another file of that name stays.
pub(super) fn run(io: SinkIo, ring: &Ring) -> Result<()> {
    let (backoff, now, stats) = (BACKOFF_MIN, Instant::now(), io.stats);
    let mut output = Reconnecting { io, open: None, opened_at: now, failure: None, backoff, not_before: now };
    while let Some(shared) = ring.pop(stats) {
        output.write(&shared);
    }
    output.finish()
}

/// An output that is opened again after it failed.
struct Reconnecting<'a> {
    io: SinkIo<'a>,
    open: Option<(LiveOutput, Watch)>,
    opened_at: Instant,
    /// Why it is not open.
    failure: Option<Error>,
    backoff: Duration,
    not_before: Instant,
}

impl Reconnecting<'_> {
    fn write(&mut self, shared: &SharedPacket) {
        if self.open.is_none() && shared.is_keyframe() && self.may_open() {
            self.connect();
        }
        let Some((output, watch)) = &mut self.open else {
            self.io.stats.dropped.fetch_add(1, Relaxed);
            return;
        };
        watch.allow(match LiveOutput::is_one_file(self.io.sink) {
            true => WRITE_TIMEOUT,
            false => self.io.relay.latency_max.clamp(WRITE_TIMEOUT_MIN, WRITE_TIMEOUT),
        });
        let size = shared.packet.size() as u64;
        match output.write(shared.packet.share(), shared.is_audio) {
            Ok(()) => {
                self.io.stats.packets.fetch_add(1, Relaxed);
                self.io.stats.bytes.fetch_add(size, Relaxed);
                if shared.is_of_source {
                    self.io.relay.note_latency(self.io.stats, shared.arrived_at.elapsed());
                }
            }
            Err(error) => {
                self.io.stats.dropped.fetch_add(1, Relaxed);
                self.disconnect(error);
            }
        }
    }

    /// A file is opened once: to open it again would truncate it.
    fn may_open(&self) -> bool {
        let is_first = self.io.stats.connections.load(Relaxed) == 0;
        let may_retry = !LiveOutput::is_one_file(self.io.sink) && !self.io.stop.load(Relaxed);
        (is_first || may_retry) && Instant::now() >= self.not_before
    }

    fn connect(&mut self) {
        let watch = Watch::new(Arc::default());
        watch.allow(WRITE_TIMEOUT);
        match LiveOutput::open(self.io.sink, self.io.streams, &watch) {
            Ok(output) => {
                info!("{}: connected", self.io.stats.name);
                (self.open, self.opened_at) = (Some((output, watch)), Instant::now());
                self.io.stats.connected.store(true, Relaxed);
                self.io.stats.connections.fetch_add(1, Relaxed);
            }
            Err(error) => self.disconnect(error),
        }
    }

    fn disconnect(&mut self, error: Error) {
        if self.open.is_some() && self.opened_at.elapsed() > BACKOFF_MAX {
            self.backoff = BACKOFF_MIN;
        }
        // Only the first of consecutive failures is logged.
        if self.backoff == BACKOFF_MIN {
            let is_file = LiveOutput::is_one_file(self.io.sink);
            let next = if is_file { "what was written stays under its partial name" } else { "retrying" };
            warn!("{error}; {next}");
        }
        (self.open, self.failure) = (None, Some(error));
        self.io.stats.connected.store(false, Relaxed);
        self.not_before = Instant::now() + jittered(self.backoff);
        self.backoff = (2 * self.backoff).min(BACKOFF_MAX);
    }

    fn finish(self) -> Result<()> {
        let is_file = LiveOutput::is_one_file(self.io.sink);
        self.io.stats.connected.store(false, Relaxed);
        match (self.open, self.failure) {
            (Some((output, watch)), _) => {
                watch.allow(WRITE_TIMEOUT);
                match output.finish(self.io.overwrite) {
                    // The peer may have disconnected at the same moment.
                    Err(error) if !is_file => warn!("{error}"),
                    finished => return finished,
                }
                Ok(())
            }
            (None, Some(error)) if is_file => Err(error),
            (None, _) => Ok(()),
        }
    }
}
