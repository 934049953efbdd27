//! Sinks: one stream of packets to several outputs, each on a thread of its own.
//!
//! An output that is slow or not connected loses packets up to a keyframe and affects no other. It is reconnected with
//! backoff.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::ring::{Ring, SharedPacket};
use super::source::jittered;
use super::stats::{SinkStats, Stats};
use crate::error::{Error, ErrorKind, Result};
use crate::media::{LiveOutput, LiveStreams, Watch, resolve};

/// Time to connect, and to write one packet; of a packet for viewers, what its age leaves of the latency ceiling.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// After a pause of the network that was shorter than the ceiling, packets are almost too old: they are still written.
const WRITE_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// Media time after which an RTMP connection is opened again. FFmpeg writes FLV's timestamps with 31 bits, which are 24.8
/// days of milliseconds.
const FLV_TIME_MAX_US: i64 = 24 * 24 * 3600 * 1_000_000;
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
    let mut output = Reconnecting {
        io,
        open: None,
        opened_at: now,
        start_us: 0,
        failure: None,
        failed_path: None,
        backoff,
        not_before: now,
    };
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
    /// dts of the connection's first packet.
    start_us: i64,
    /// Why it is not open, or was not for a while.
    failure: Option<Error>,
    /// Path that a time pattern gave at the failure.
    failed_path: Option<PathBuf>,
    backoff: Duration,
    not_before: Instant,
}

impl Reconnecting<'_> {
    fn write(&mut self, shared: &SharedPacket) {
        let dts_us = shared.packet.dts_us();
        if shared.is_keyframe() && self.has_no_time_left(dts_us) {
            self.close();
        }
        if self.open.is_none() && shared.is_keyframe() && self.may_open() {
            self.connect();
            self.start_us = dts_us;
        }
        let Some((output, watch)) = &mut self.open else {
            self.io.stats.dropped.fetch_add(1, Relaxed);
            return;
        };
        watch.allow(match LiveOutput::is_one_file(self.io.sink) {
            true => WRITE_TIMEOUT,
            false => {
                let left = self.io.relay.latency_max.saturating_sub(shared.arrived_at.elapsed());
                left.clamp(WRITE_TIMEOUT_MIN, WRITE_TIMEOUT)
            }
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
                let is_late = watch.is_over();
                self.disconnect(if is_late { self.late("did not take a packet in time") } else { error });
            }
        }
    }

    /// Whether the timestamps of a connection would wrap soon.
    fn has_no_time_left(&self, dts_us: i64) -> bool {
        let is_flv = self.io.sink.starts_with("rtmp") || self.io.sink.ends_with(".flv");
        let is_connection = is_flv && !LiveOutput::is_one_file(self.io.sink);
        self.open.is_some() && is_connection && dts_us - self.start_us > FLV_TIME_MAX_US
    }

    /// Closes a connection that is opened again at once.
    fn close(&mut self) {
        let Some((output, watch)) = self.open.take() else { return };
        info!("{}: is reconnected, as the timestamps of FLV end", self.io.stats.name);
        self.io.stats.connected.store(false, Relaxed);
        watch.allow(WRITE_TIMEOUT);
        output.finish().unwrap_or_else(|error| warn!("{error}"));
    }

    /// The error of a peer that does not answer.
    fn late(&self, problem: &str) -> Error {
        let remedy = "check the receiver and the connection, or lower --bitrate";
        Error::new(&self.io.stats.name, problem, remedy).with_kind(ErrorKind::Io)
    }

    /// A file is opened once: to open it again would truncate it. A time pattern has further files.
    fn may_open(&self) -> bool {
        let is_first = self.io.stats.connections.load(Relaxed) == 0;
        let is_another =
            !LiveOutput::is_one_file(self.io.sink) || LiveOutput::path_now(self.io.sink) != self.failed_path;
        let may_retry = is_another && !self.io.stop.load(Relaxed);
        (is_first || may_retry) && Instant::now() >= self.not_before
    }

    fn connect(&mut self) {
        let watch = Watch::new(Arc::default());
        watch.allow(WRITE_TIMEOUT);
        let opened = resolve(self.io.sink, &watch).and_then(|()| {
            let opened = LiveOutput::open(self.io.sink, self.io.streams, self.io.overwrite, &watch);
            opened.map_err(
                |e| if watch.is_over() { self.late("cannot be opened: no answer in time") } else { e },
            )
        });
        match opened {
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
        self.failed_path = LiveOutput::path_now(self.io.sink);
        self.io.stats.connected.store(false, Relaxed);
        self.not_before = Instant::now() + jittered(self.backoff);
        self.backoff = (2 * self.backoff).min(BACKOFF_MAX);
    }

    fn finish(self) -> Result<()> {
        let is_file = LiveOutput::is_one_file(self.io.sink);
        self.io.stats.connected.store(false, Relaxed);
        let lost = self.failure.filter(|_| is_file).map_or(Ok(()), Err);
        let Some((output, watch)) = self.open else { return lost };
        watch.allow(WRITE_TIMEOUT);
        match output.finish() {
            // The peer may have disconnected at the same moment.
            Err(error) if !is_file => warn!("{error}"),
            finished => return finished.and(lost),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::process::Command;
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;
    use crate::media::Packet;

    /// Packets for one sink, which a thread writes.
    struct Sink {
        ring: Ring,
        stats: Stats,
        streams: LiveStreams,
        stop: AtomicBool,
    }

    impl Sink {
        fn new(latency_max: Duration) -> Sink {
            Sink {
                ring: Ring::new(Some(latency_max)),
                stats: Stats::new("source".into(), vec!["sink".into()], latency_max, None),
                streams: LiveStreams::of_test(),
                stop: AtomicBool::default(),
            }
        }

        /// Appends a keyframe that arrived this long ago.
        fn push(&self, time_us: i64, size: usize, age: Duration) {
            let packet = Packet::of_test(time_us, size, true);
            let shared = SharedPacket {
                packet,
                is_audio: false,
                arrived_at: Instant::now() - age,
                is_of_source: true,
            };
            self.ring.push(&Arc::new(shared), &self.stats.sinks[0]);
        }

        /// Runs `feed` while the sink's thread writes to a named pipe, and ends it.
        fn run(&self, pipe: &str, feed: impl FnOnce()) {
            let (ring, stats, stop, streams) = (&self.ring, &self.stats, &self.stop, self.streams.clone());
            thread::scope(|scope| {
                let ran = scope.spawn(move || {
                    let (sink_stats, streams) = (&stats.sinks[0], &streams);
                    run(
                        SinkIo {
                            sink: pipe,
                            overwrite: true,
                            streams,
                            stats: sink_stats,
                            relay: stats,
                            stop,
                        },
                        ring,
                    )
                });
                feed();
                self.ring.close();
                ran.join().unwrap().unwrap();
            });
        }

        fn count(&self, counter: impl Fn(&SinkStats) -> &AtomicU64) -> u64 {
            counter(&self.stats.sinks[0]).load(Relaxed)
        }
    }

    fn named_pipe(folder: &tempfile::TempDir) -> String {
        let path = folder.path().join("pipe.flv").to_string_lossy().into_owned();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    #[test]
    fn an_flv_connection_is_opened_again_before_its_timestamps_wrap() {
        let (folder, sink) = (tempfile::tempdir().unwrap(), Sink::new(Duration::from_secs(2)));
        let pipe = named_pipe(&folder);
        // Opened for both, it can be opened without a writer, and read after the last one.
        let mut reader = File::options().read(true).write(true).open(&pipe).unwrap();
        let day_us = 24 * 3600 * 1_000_000;
        sink.run(&pipe, || (0..=25).for_each(|day| sink.push(1_000_000 + day * day_us, 16, Duration::ZERO)));
        assert_eq!((sink.count(|sink| &sink.connections), sink.count(|sink| &sink.dropped)), (2, 0));
        let mut flv = vec![0; 1 << 16];
        let read = reader.read(&mut flv).unwrap();
        // Tags of video: type, 24 bits of size, 24 low and 8 high bits of milliseconds.
        let (mut at, mut times_ms) = (0, Vec::new());
        while at < read {
            if flv[at..].starts_with(b"FLV") {
                times_ms.push(None);
                at += 13;
                continue;
            }
            let number =
                |at: usize, bytes: usize| flv[at..at + bytes].iter().fold(0, |n, &b| n << 8 | i64::from(b));
            if flv[at] == 9 {
                times_ms.push(Some(number(at + 7, 1) << 24 | number(at + 4, 3)));
            }
            at += number(at + 1, 3) as usize + 15;
        }
        let day = |days: i64| Some(days * day_us / 1000);
        let first = std::iter::once(None).chain((0..=24).map(day));
        assert_eq!(times_ms, first.chain([None, day(0)]).collect::<Vec<_>>());
    }

    #[test]
    fn a_packet_that_a_sink_does_not_take_within_the_ceiling_is_lost_and_so_is_the_sink() {
        let max = Duration::from_millis(600);
        let (folder, sink) = (tempfile::tempdir().unwrap(), Sink::new(max));
        let pipe = named_pipe(&folder);
        let mut reader = File::options().read(true).write(true).open(&pipe).unwrap();
        let wait_until = |is_so: &dyn Fn() -> bool| {
            let started = Instant::now();
            while !is_so() {
                assert!(started.elapsed() < 2 * max, "in vain");
                thread::sleep(Duration::from_millis(1));
            }
            Instant::now()
        };
        sink.run(&pipe, || {
            // More than a pipe holds, read after half of the ceiling.
            sink.push(0, 100_000, Duration::ZERO);
            thread::sleep(max / 2);
            reader.read_exact(&mut vec![0; 100_000]).unwrap();
            wait_until(&|| sink.count(|sink| &sink.packets) == 1);
            assert_eq!(sink.count(|sink| &sink.dropped), 0);
            let (age, pushed) = (max / 2, Instant::now());
            sink.push(40_000, 200_000, age);
            let age = age + (wait_until(&|| sink.count(|sink| &sink.dropped) == 1) - pushed);
            // A pipe asks ten times a second whether its time is over.
            assert!(age >= max && age < max + max / 3, "{age:?}");
        });
        assert_eq!(sink.count(|sink| &sink.connections), 1);
        assert!(!sink.stats.sinks[0].connected.load(Relaxed));
        let max_ms = sink.stats.snapshot(&mut Default::default()).latency_ms_max;
        assert!((300..=600).contains(&max_ms), "{max_ms} ms");
    }
}
