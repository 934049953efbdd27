//! Sinks: one stream of packets to several outputs, each on a thread of its own.
//!
//! An output that is slow or gone loses packets up to the next keyframe, and hurts no other. It is opened again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::stats::SinkStats;
use crate::error::{Error, Result};
use crate::media::{LiveOutput, LiveStreams, Packet, Watch};

/// Packets that wait for an output: some seconds of frames and audio.
const PACKETS_MAX: usize = 512;
/// To connect, and to take one packet.
const PATIENCE: Duration = Duration::from_secs(5);
/// Waits between attempts, doubled each time.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A packet for all outputs.
pub(super) struct Shared {
    pub packet: Packet,
    pub is_audio: bool,
    /// When it was coded.
    pub made: Instant,
}

impl Shared {
    /// Whether an output can begin here.
    fn begins(&self) -> bool {
        !self.is_audio && self.packet.is_key()
    }
}

/// The way to one output.
pub(super) struct Lane {
    sender: SyncSender<Arc<Shared>>,
    /// Nothing but a keyframe is of use.
    skips: bool,
}

impl Lane {
    pub fn new() -> (Lane, Receiver<Arc<Shared>>) {
        let (sender, receiver) = sync_channel(PACKETS_MAX);
        (Lane { sender, skips: false }, receiver)
    }

    /// Never waits.
    pub fn send(&mut self, shared: &Arc<Shared>, stats: &SinkStats) {
        if self.skips && !shared.begins() {
            stats.dropped.fetch_add(1, Relaxed);
            return;
        }
        stats.waiting.came();
        self.skips = match self.sender.try_send(shared.clone()) {
            Ok(()) => false,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                stats.waiting.is_thrown();
                stats.dropped.fetch_add(1, Relaxed);
                true
            }
        };
    }
}

/// Writes to one output until no packet follows. An error is of a file that is not whole.
pub(super) fn run(
    sink: &str,
    streams: &LiveStreams,
    packets: &Receiver<Arc<Shared>>,
    stats: &SinkStats,
) -> Result<()> {
    let (wait, now) = (WAITS.0, Instant::now());
    let mut output =
        Retried { sink, streams, stats, open: None, since: now, failed: None, wait, not_before: now };
    for shared in packets {
        stats.waiting.begins(shared.made);
        output.write(&shared);
        stats.waiting.ends();
    }
    output.finish()
}

/// An output that is opened again when it fails.
struct Retried<'a> {
    sink: &'a str,
    streams: &'a LiveStreams,
    stats: &'a SinkStats,
    open: Option<(LiveOutput, Watch)>,
    /// When it was opened last.
    since: Instant,
    /// Why it is not open.
    failed: Option<Error>,
    wait: Duration,
    not_before: Instant,
}

impl Retried<'_> {
    fn write(&mut self, shared: &Shared) {
        if self.open.is_none() && shared.begins() && self.may_open() {
            self.connect();
        }
        let Some((output, watch)) = &mut self.open else {
            self.stats.dropped.fetch_add(1, Relaxed);
            return;
        };
        watch.allow(PATIENCE);
        let size = shared.packet.size() as u64;
        match output.write(shared.packet.share(), shared.is_audio) {
            Ok(()) => {
                self.stats.packets.fetch_add(1, Relaxed);
                self.stats.bytes.fetch_add(size, Relaxed);
            }
            Err(error) => {
                self.stats.dropped.fetch_add(1, Relaxed);
                self.lose(error);
            }
        }
    }

    /// A file is opened once: a second time, what is in it would be lost.
    fn may_open(&self) -> bool {
        let is_first = self.stats.connections.load(Relaxed) == 0;
        (is_first || !LiveOutput::is_one_file(self.sink)) && Instant::now() >= self.not_before
    }

    fn connect(&mut self) {
        let watch = Watch::new(Arc::default());
        watch.allow(PATIENCE);
        match LiveOutput::open(self.sink, self.streams, &watch) {
            Ok(output) => {
                info!("{}: takes the stream", self.stats.name);
                (self.open, self.since) = (Some((output, watch)), Instant::now());
                self.stats.connected.store(true, Relaxed);
                self.stats.connections.fetch_add(1, Relaxed);
            }
            Err(error) => self.lose(error),
        }
    }

    fn lose(&mut self, error: Error) {
        if self.open.is_some() && self.since.elapsed() > WAITS.1 {
            self.wait = WAITS.0;
        }
        // The first of a row of failures is told.
        if self.wait == WAITS.0 {
            let is_file = LiveOutput::is_one_file(self.sink);
            let next = if is_file { "what is in it stays under its partial name" } else { "trying again" };
            warn!("{error}; {next}");
        }
        (self.open, self.failed) = (None, Some(error));
        self.stats.connected.store(false, Relaxed);
        self.not_before = Instant::now() + self.wait;
        self.wait = (2 * self.wait).min(WAITS.1);
    }

    fn finish(self) -> Result<()> {
        let is_file = LiveOutput::is_one_file(self.sink);
        self.stats.connected.store(false, Relaxed);
        match (self.open, self.failed) {
            (Some((output, watch)), _) => {
                watch.allow(PATIENCE);
                match output.finish() {
                    // Whoever took it may have gone at the same moment.
                    Err(error) if !is_file => warn!("{error}"),
                    ended => return ended,
                }
                Ok(())
            }
            (None, Some(error)) if is_file => Err(error),
            (None, _) => Ok(()),
        }
    }
}
