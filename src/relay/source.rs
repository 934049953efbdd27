//! Source: read and decoded while it is connected, and reconnected when it is lost.
//!
//! In: an address. Out: frames and packets of audio, with times of the output and their arrival times.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

use super::pace::Pace;
use super::pacer::OutputClock;
use super::queue::{AudioQueue, FrameQueue, PendingFrame};
use super::stats::Stats;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Frame, FrameFormat};
use crate::media::{
    DecodeSpec, Decoder, Encoder, FilterSpec, Input, LiveAudio, LiveStreams, Output, Packet, Place,
    Playlists, Target, Watch,
};

/// Time without a packet after which a connection counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// SRT reports a loss itself after five seconds. Closing earlier goes unnoticed by a sender whose network is down, which
/// then sends in vain once it is up again.
const SILENCE_MAX_SRT: Duration = Duration::from_secs(6);
/// Time to connect, and then to the first frame.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait between attempts, doubled each time. The longest is short enough for a source that returns after hours.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_millis(1200);
/// A connection that was lost earlier counts as one that failed.
const LASTED_MIN: Duration = Duration::from_secs(10);
/// Lead of a new connection's first frame over the output's time: frames are duplicated while it is upscaled.
const LEAD_US: i64 = 200_000;
/// Distance from the output's time beyond which timestamps belong to another clock.
const JUMP_US: i64 = 5_000_000;
/// A source that catches up after a stall does so at once. One whose frames are all superseded for this long stays behind.
const BEHIND_MAX: Duration = Duration::from_secs(1);
/// Rounding of the timestamps of a packet and of its frame.
const ROUNDING_US: i64 = 1_000;
/// Arrival times to keep: more than the frames that a decoder holds.
const ARRIVALS_MAX: usize = 64;

/// How to reach and decode a source.
#[derive(Clone)]
pub(super) struct SourceSpec {
    pub address: String,
    /// Whether to wait for a publisher.
    pub listen: bool,
    /// Whether it may be a list of other files.
    pub playlists: Playlists,
    /// Filters before the network.
    pub filter: FilterSpec,
    /// Time after which to give up on a source that is not there.
    pub reconnect_max: Option<Duration>,
    /// Whether a loss is an error, rather than a reason to reconnect.
    pub stop_on_loss: bool,
}

/// A connected source.
pub(super) struct Session {
    watch: Watch,
    silence_max: Duration,
    /// Whether the source is a file: its end is not a loss.
    is_file: bool,
    pub input: Input,
    decoder: Decoder,
}

impl Session {
    /// Format of the decoded frames.
    pub fn format(&self) -> FrameFormat {
        self.decoder.format()
    }

    /// Frame rate, measured or assumed.
    pub fn fps(&self) -> f64 {
        self.input.video().fps()
    }

    /// Opens an encoder for the upscaled frames.
    pub fn open_encoder(&self, target: Target, output: &Output) -> Result<Encoder> {
        Encoder::open(target, output, &self.input, &self.decoder)
    }
}

/// The wait between attempts, over all connections of a source.
pub(super) struct Backoff {
    /// When the last connection that lasted was lost.
    since: Instant,
    wait: Duration,
    /// Connections in a row that did not last.
    short: u32,
}

impl Backoff {
    pub fn new() -> Backoff {
        Backoff { since: Instant::now(), wait: BACKOFF_MIN, short: 0 }
    }

    /// Notes a connection that was lost. Returns whether it counts as one that failed.
    fn note_lost(&mut self, lasted: Duration) -> bool {
        let is_short = lasted < LASTED_MIN;
        *self = if is_short { Backoff { short: self.short + 1, ..*self } } else { Backoff::new() };
        is_short
    }

    /// Whether connections are reported: of many short ones the first, the tenth, the hundredth.
    fn is_reported(&self) -> bool {
        self.short == 0 || 10u32.pow(self.short.ilog10()) == self.short
    }

    fn wait(&mut self, stop: &AtomicBool) {
        let until = Instant::now() + jittered(self.wait);
        while Instant::now() < until && !stop.load(Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
        self.wait = (2 * self.wait).min(BACKOFF_MAX);
    }
}

impl SourceSpec {
    /// Waits for the source; `None` when `stop` is set first.
    pub fn connect(&self, backoff: &mut Backoff, stop: &Arc<AtomicBool>) -> Result<Option<Session>> {
        let mut is_reported = !backoff.is_reported();
        while !stop.load(Relaxed) {
            let error = match self.open(stop) {
                Ok(session) => return Ok(Some(session)),
                Err(_) if stop.load(Relaxed) => break,
                Err(error) => error,
            };
            if !std::mem::replace(&mut is_reported, true) {
                warn!("{error}; retrying");
            }
            if self.reconnect_max.is_some_and(|max| backoff.since.elapsed() > max) {
                return Err(error);
            }
            backoff.wait(stop);
        }
        Ok(None)
    }

    fn open(&self, stop: &Arc<AtomicBool>) -> Result<Session> {
        let watch = Watch::new(stop.clone());
        // A publisher may come at any time.
        if !self.listen {
            watch.allow(OPEN_TIMEOUT);
        }
        let mut input = Input::open_live(&self.address, self.listen, self.playlists, &watch)?;
        if input.is_too_large() {
            let problem = "declares frames larger than 8K";
            return Err(Error::new(input.name(), problem, "check what is sent there")
                .with_kind(ErrorKind::Unsupported));
        }
        watch.allow(OPEN_TIMEOUT);
        // Frame threads would delay each frame.
        let spec = DecodeSpec {
            trim: input.trim(None, None),
            threads: 1,
            filter: self.filter.clone(),
            start: None,
            transfer: None,
            holds_display_matrix: false,
        };
        let decoder = Decoder::open(&mut input, spec)?;
        let silence_max = if self.address.starts_with("srt:") { SILENCE_MAX_SRT } else { SILENCE_MAX };
        let is_file =
            !self.address.ends_with(".m3u8") && Place::of(&self.address).path().is_some_and(Path::is_file);
        Ok(Session { watch, silence_max, is_file, input, decoder })
    }
}

/// Spreads the attempts of relays that lost the same peer.
pub(super) fn jittered(wait: Duration) -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    wait.mul_f64(0.75 + 0.5 * f64::from(nanos % 1000) / 1000.0)
}

/// Where a source's frames and audio go.
pub(super) struct SourceIo<'a> {
    pub frames: &'a FrameQueue,
    pub audio: &'a AudioQueue,
    pub streams: &'a LiveStreams,
    pub clock: &'a OutputClock,
    pub stats: &'a Stats,
    pub stop: &'a Arc<AtomicBool>,
}

/// Reads the source until it ends for good or `stop` is set.
pub(super) fn run(spec: &SourceSpec, first: Session, io: &SourceIo) -> Result<()> {
    let (mut next, mut backoff) = (Some(first), Backoff::new());
    while let Some(session) = next.take() {
        let connected_at = Instant::now();
        io.stats.source_connections.fetch_add(1, Relaxed);
        io.stats.set_source_connected(true);
        let (name, is_file) = (session.input.name().to_owned(), session.is_file);
        let result = Connection::new(session, io).and_then(Connection::run);
        io.stats.set_source_connected(false);
        if io.stop.load(Relaxed) {
            return Ok(());
        }
        if is_file {
            return result;
        }
        let cause = result.as_ref().err().map_or("end of stream".into(), Error::to_string);
        if spec.stop_on_loss {
            let lost = Error::new(
                name,
                format!("connection lost: {cause}"),
                "use --on-loss hold to continue without it",
            );
            return Err(match result {
                Ok(()) => lost.with_kind(ErrorKind::Io),
                Err(error) => lost.with_kind(error.kind()).with_source(error),
            });
        }
        let is_short = backoff.note_lost(connected_at.elapsed());
        let is_reported = backoff.is_reported();
        if is_reported {
            let often =
                if backoff.short > 1 { format!(", {} times in a row", backoff.short) } else { "".into() };
            warn!("{name}: connection lost{often}: {cause}");
        }
        if is_short {
            backoff.wait(io.stop);
        }
        next = spec.connect(&mut backoff, io.stop)?;
        if next.is_some() && is_reported {
            info!("{name}: reconnected");
        }
    }
    Ok(())
}

/// One connection, from its first packet to its loss.
struct Connection<'a> {
    session: Session,
    io: &'a SourceIo<'a>,
    audio: Option<LiveAudio>,
    /// Added to the source's timestamps.
    offset_us: i64,
    /// Clock jumps of the source that were compensated.
    clock_jumps: u64,
    /// The moment since which every frame is superseded by a duplicate.
    behind_since: Option<Instant>,
    /// Arrival times by packet timestamp.
    arrivals: BTreeMap<i64, Instant>,
    /// Of packets that are available before their time, and have to be held back.
    pace: Option<Pace>,
    /// The pace has slipped: the next frame is mapped to the output's time again.
    has_slipped: bool,
    opened_at: Instant,
}

impl<'a> Connection<'a> {
    fn new(session: Session, io: &'a SourceIo<'a>) -> Result<Connection<'a>> {
        Ok(Connection {
            audio: io.streams.open_audio(&session.input)?,
            pace: session.input.needs_pacing().then(Pace::default),
            session,
            io,
            offset_us: 0,
            clock_jumps: 0,
            behind_since: None,
            arrivals: BTreeMap::new(),
            has_slipped: false,
            opened_at: Instant::now(),
        })
    }

    fn run(mut self) -> Result<()> {
        let (mut is_first, mut ended) = (true, Ok(()));
        // A device does not ask the watch whether to stop.
        while !self.io.stop.load(Relaxed) {
            while let Some(frame) = self.decoded()? {
                if std::mem::take(&mut is_first) {
                    self.anchor(time_us(&frame));
                }
                self.push(frame);
            }
            self.session.watch.allow(self.session.silence_max);
            let packet = match self.session.input.next_packet() {
                Ok(Some(packet)) => packet,
                // The decoder may still hold frames.
                last => {
                    ended = last.map(drop);
                    break;
                }
            };
            self.io.stats.source_bytes.fetch_add(packet.size() as u64, Relaxed);
            self.hold_back(&packet);
            if self.session.input.is_video(&packet) {
                self.decode(packet)?;
            } else if let Some(audio) = &mut self.audio {
                audio.convert(packet)?.into_iter().for_each(|packet| self.push_audio(packet));
            }
        }
        self.session.decoder.finish()?;
        while let Some(frame) = self.decoded()? {
            self.push(frame);
        }
        ended
    }

    fn decode(&mut self, packet: Packet) -> Result<()> {
        self.arrivals.insert(packet.pts_us(), Instant::now());
        while self.arrivals.len() > ARRIVALS_MAX {
            self.arrivals.pop_first();
        }
        let start = Instant::now();
        self.session.decoder.send(packet)?;
        self.io.stats.decode.note(start.elapsed());
        Ok(())
    }

    fn decoded(&mut self) -> Result<Option<Frame>> {
        let start = Instant::now();
        let decoded = self.session.decoder.receive();
        self.io.stats.decode.note(start.elapsed());
        decoded
    }

    /// Waits until a packet is due.
    fn hold_back(&mut self, packet: &Packet) {
        let Some(pace) = &mut self.pace else { return };
        let now = Instant::now();
        let hold = pace.hold((now - self.opened_at).as_micros() as i64, packet.dts_us());
        if hold.has_slipped {
            warn!("{}: stalled; its frames are delayed from now on", self.session.input.name());
            self.has_slipped = true;
        }
        let due = now + Duration::from_micros(hold.wait_us as u64);
        while Instant::now() < due && !self.io.stop.load(Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
        }
    }

    /// Maps a timestamp of the source to the current time of the output.
    fn anchor(&mut self, time_us: i64) {
        let now_us = self.io.clock.now_us();
        self.offset_us = if now_us == 0 { -time_us } else { now_us + LEAD_US - time_us };
        (self.behind_since, self.has_slipped) = (None, false);
    }

    /// Delays the frames of a source that stalled and resumed where it was.
    fn anchor_if_behind(&mut self, time_us: i64) {
        if !self.io.clock.is_past(time_us + self.offset_us) {
            self.behind_since = None;
        } else if self.behind_since.get_or_insert_with(Instant::now).elapsed() > BEHIND_MAX {
            warn!("{}: stalled; its frames are delayed from now on", self.session.input.name());
            self.anchor(time_us);
        }
    }

    fn push(&mut self, frame: Frame) {
        self.io.stats.decoded.fetch_add(1, Relaxed);
        let time_us = time_us(&frame);
        let now_us = self.io.clock.now_us();
        // After a jump that the demuxer compensated, timestamps continue from the last packet, but the output advanced
        // meanwhile.
        let clock_jumps = self.session.input.clock_jumps();
        let has_jumped = (time_us + self.offset_us - now_us).abs() > JUMP_US;
        if now_us > 0 && (has_jumped || clock_jumps > self.clock_jumps) {
            self.io.stats.source_clock_jumps.fetch_add(1, Relaxed);
            warn!("{}: timestamps jump; the output's continue", self.session.input.name());
            self.anchor(time_us);
            self.clock_jumps = clock_jumps;
        }
        if self.has_slipped {
            self.anchor(time_us);
        }
        self.anchor_if_behind(time_us);
        let near =
            self.arrivals.range(time_us - ROUNDING_US..=time_us + ROUNDING_US).next().map(|(&us, _)| us);
        let arrived_at = near.and_then(|us| self.arrivals.remove(&us)).unwrap_or_else(Instant::now);
        let pending = PendingFrame { lr: frame, time_us: time_us + self.offset_us, arrived_at };
        self.io.stats.queue.enter();
        if !self.io.frames.push(pending) {
            self.io.stats.queue.discard();
            self.io.stats.dropped_overflow.fetch_add(1, Relaxed);
        }
    }

    fn push_audio(&self, packet: Packet) {
        let packet = packet.shifted_by_us(self.offset_us);
        if packet.dts_us() >= 0 {
            self.io.audio.push(packet);
        }
    }
}

fn time_us(frame: &Frame) -> i64 {
    let base = frame.time.time_base;
    let us = i128::from(frame.time.pts) * 1_000_000 * i128::from(base.num) / i128::from(base.den);
    us as i64
}
