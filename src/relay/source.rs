//! Source: read and decoded while it is there, and opened again whenever it is gone.
//!
//! In: an address. Out: frames and packets of audio, with times of the output and the moment of their arrival.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

use super::queue::{AudioQueue, LiveQueue, Waiting};
use super::{Clock, Stats};
use crate::error::{Error, Result};
use crate::frame::{Frame, FrameFormat};
use crate::media::{
    DecodeSpec, Decoder, Encoder, FilterSpec, Input, LiveAudio, LiveStreams, Output, Packet, Target, Watch,
};

/// Without a packet for so long, a connection is taken to be dead.
const SILENT_MAX: Duration = Duration::from_secs(3);
/// SRT says so itself after five seconds. Whoever hangs up before is not heard by a sender whose network is down, and it sends
/// on in vain when that is up again.
const SILENT_MAX_SRT: Duration = Duration::from_secs(6);
/// To connect, and to see the first frame.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// Waits between attempts, doubled each time. The last is short enough for a source that returns after hours.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1200));
/// A new connection's first frame is late by what it takes to be made larger; until then frames are made in its place.
const LEAD_US: i64 = 200_000;
/// Times further from the output's than this are those of another clock.
const JUMP_US: i64 = 5_000_000;
/// Who makes up for a stall does so at once. Who shows for so long what others were made in place of is behind for good.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// Where frames come from.
#[derive(Clone)]
pub struct SourceSpec {
    /// What FFmpeg opens.
    pub address: String,
    /// Wait for somebody to publish there.
    pub listen: bool,
    /// How frames become frames.
    pub filter: FilterSpec,
    /// How long it may be away.
    pub away_max: Option<Duration>,
    /// What happens when it is.
    pub ends_when_lost: bool,
}

/// A source that is there.
pub struct Session {
    watch: Watch,
    silent_max: Duration,
    pub(super) input: Input,
    pub(super) decoder: Decoder,
}

impl Session {
    /// Of its frames.
    pub fn format(&self) -> FrameFormat {
        self.decoder.format()
    }

    /// Of its frames, as far as is known.
    pub fn fps(&self) -> f64 {
        self.input.video().fps()
    }

    /// Where they come from.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// An encoder for what is made of its frames.
    pub fn open_encoder(&self, target: Target, output: &Output) -> Result<Encoder> {
        Encoder::open(target, output, &self.input, &self.decoder)
    }
}

impl SourceSpec {
    /// Waits for the source; `None` when the relay is to end first.
    pub fn connect(&self, stop: &Arc<AtomicBool>) -> Result<Option<Session>> {
        let (started, mut wait, mut told) = (Instant::now(), WAITS.0, false);
        while !stop.load(Relaxed) {
            let error = match self.open(stop) {
                Ok(session) => return Ok(Some(session)),
                Err(_) if stop.load(Relaxed) => break,
                Err(error) => error,
            };
            if !std::mem::replace(&mut told, true) {
                warn!("{error}; trying again");
            }
            if self.away_max.is_some_and(|max| started.elapsed() > max) {
                return Err(error);
            }
            let until = Instant::now() + jittered(wait);
            while Instant::now() < until && !stop.load(Relaxed) {
                thread::sleep(Duration::from_millis(20));
            }
            wait = (2 * wait).min(WAITS.1);
        }
        Ok(None)
    }

    fn open(&self, stop: &Arc<AtomicBool>) -> Result<Session> {
        let watch = Watch::new(stop.clone());
        // Whoever listens waits for as long as it takes.
        if !self.listen {
            watch.allow(OPEN_MAX);
        }
        let mut input = Input::open_live(&self.address, self.listen, &watch)?;
        if input.is_too_large() {
            let problem = "says that its frames are larger than 8K";
            return Err(Error::new(input.name(), problem, "look at what is sent there"));
        }
        watch.allow(OPEN_MAX);
        let (trim, filter) = (input.trim(None, None), self.filter.clone());
        // Frames decoded side by side would each come later.
        let decoder =
            Decoder::open(&mut input, DecodeSpec { trim, threads: 1, filter, start: None, transfer: None })?;
        let silent_max = if self.address.starts_with("srt:") { SILENT_MAX_SRT } else { SILENT_MAX };
        Ok(Session { watch, silent_max, input, decoder })
    }

    /// Whether it ends, rather than vanish.
    fn is_file(&self) -> bool {
        !self.address.ends_with(".m3u8") && Path::new(&self.address).is_file()
    }
}

/// Many relays that lost the same source do not come back at the same moment.
fn jittered(wait: Duration) -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    wait.mul_f64(0.75 + 0.5 * f64::from(nanos % 1000) / 1000.0)
}

/// Where a source's frames and audio go.
pub(super) struct SourceIo<'a> {
    pub frames: &'a LiveQueue,
    pub audio: &'a AudioQueue,
    pub streams: &'a LiveStreams,
    pub clock: &'a Clock,
    pub stats: &'a Stats,
    pub stop: &'a Arc<AtomicBool>,
}

/// Reads the source until it ends for good or `stop` is set.
pub(super) fn run(spec: &SourceSpec, first: Session, io: &SourceIo) -> Result<()> {
    let mut next = Some(first);
    while let Some(session) = next.take() {
        io.stats.connections.fetch_add(1, Relaxed);
        io.stats.on_air.store(true, Relaxed);
        let name = session.input.name().to_owned();
        let lost = Connection::new(session, io).and_then(Connection::run);
        io.stats.on_air.store(false, Relaxed);
        if io.stop.load(Relaxed) || spec.is_file() {
            return Ok(());
        }
        let why = lost.err().map_or("it ended".into(), |error| error.to_string());
        if spec.ends_when_lost {
            return Err(Error::new(name, format!("is gone: {why}"), "--on-loss hold goes on without it"));
        }
        warn!("{name}: is gone: {why}");
        next = spec.connect(io.stop)?;
        if next.is_some() {
            info!("{name}: is there again");
        }
    }
    Ok(())
}

/// From the source's appearance to its loss.
struct Connection<'a> {
    session: Session,
    io: &'a SourceIo<'a>,
    audio: Option<LiveAudio>,
    /// Added to the source's times.
    offset_us: i64,
    /// Jumps of the source's clock that are seen to.
    mended: u64,
    /// Since when all frames come after others that were made in their place.
    behind_since: Option<Instant>,
    /// Packets' times in the source -> when they came.
    arrivals: BTreeMap<i64, Instant>,
    /// What comes in pieces is taken packet by packet, each at its time.
    is_paced: bool,
    /// Since when, and which time it was then.
    pace: Option<(Instant, i64)>,
}

/// What the times of a packet and of its frame may be rounded by.
const ROUNDING_US: i64 = 1_000;
/// Frames that a decoder may still hold, in times of arrival.
const ARRIVALS_MAX: usize = 64;

impl<'a> Connection<'a> {
    fn new(session: Session, io: &'a SourceIo<'a>) -> Result<Connection<'a>> {
        let audio = io.streams.open_audio(&session.input)?;
        let is_paced = session.input.needs_pacing();
        let arrivals = BTreeMap::new();
        let (offset_us, mended, behind_since, pace) = (0, 0, None, None);
        Ok(Connection { session, io, audio, offset_us, mended, behind_since, arrivals, is_paced, pace })
    }

    fn run(mut self) -> Result<()> {
        let mut first = true;
        // A device does not ask whether it is to end.
        while !self.io.stop.load(Relaxed) {
            while let Some(frame) = self.decoded()? {
                if std::mem::take(&mut first) {
                    self.anchor(us_of(&frame));
                }
                self.give(frame);
            }
            self.session.watch.allow(self.session.silent_max);
            let Some(packet) = self.session.input.next_packet()? else { break };
            self.io.stats.bytes.fetch_add(packet.size() as u64, Relaxed);
            if self.is_paced {
                self.wait_for_time_of(&packet);
            }
            if self.session.input.is_video(&packet) {
                self.arrivals.insert(packet.pts_us(), Instant::now());
                while self.arrivals.len() > ARRIVALS_MAX {
                    self.arrivals.pop_first();
                }
                let begun = Instant::now();
                self.session.decoder.send(packet)?;
                self.io.stats.decode.note(begun.elapsed());
            } else if let Some(audio) = &mut self.audio {
                audio.convert(packet)?.into_iter().for_each(|packet| self.give_audio(packet));
            }
        }
        self.session.decoder.finish()?;
        while let Some(frame) = self.decoded()? {
            self.give(frame);
        }
        Ok(())
    }

    fn decoded(&mut self) -> Result<Option<Frame>> {
        let begun = Instant::now();
        let decoded = self.session.decoder.receive();
        self.io.stats.decode.note(begun.elapsed());
        decoded
    }

    fn wait_for_time_of(&mut self, packet: &Packet) {
        let us = packet.dts_us();
        let now = Instant::now();
        let (since, first_us) = *self.pace.get_or_insert((now, us));
        let due = since + Duration::from_micros(us.saturating_sub(first_us).max(0) as u64);
        let ahead = due.saturating_duration_since(now);
        if ahead.as_micros() as i64 > JUMP_US {
            self.pace = Some((now, us));
            return;
        }
        while Instant::now() < due && !self.io.stop.load(Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
        }
    }

    /// This time of the source is now.
    fn anchor(&mut self, us: i64) {
        let now_us = self.io.clock.now_us();
        self.offset_us = if now_us == 0 { -us } else { now_us + LEAD_US - us };
        (self.pace, self.behind_since) = (None, None);
    }

    /// Moves the time of a source that stood still, and has gone on from there.
    fn see_whether_behind(&mut self, us: i64) {
        if !self.io.clock.is_past(us + self.offset_us) {
            self.behind_since = None;
        } else if self.behind_since.get_or_insert_with(Instant::now).elapsed() > BEHIND_MAX {
            warn!("{}: has stood still; it is shown later from now on", self.session.input.name());
            self.anchor(us);
        }
    }

    fn give(&mut self, frame: Frame) {
        self.io.stats.decoded.fetch_add(1, Relaxed);
        let us = us_of(&frame);
        let now_us = self.io.clock.now_us();
        // A jump that was mended on the way leads on from the last packet, and the output went on meanwhile.
        let mended = self.session.input.clock_jumps();
        let has_jumped = (us + self.offset_us - now_us).abs() > JUMP_US;
        if now_us > 0 && (has_jumped || mended > self.mended) {
            self.io.stats.clock_jumps.fetch_add(1, Relaxed);
            warn!("{}: its time jumps; the output's goes on", self.session.input.name());
            self.anchor(us);
            self.mended = mended;
        }
        self.see_whether_behind(us);
        let near = self.arrivals.range(us - ROUNDING_US..=us + ROUNDING_US).next().map(|(&us, _)| us);
        let arrived = near.and_then(|us| self.arrivals.remove(&us)).unwrap_or_else(Instant::now);
        let waiting = Waiting { lr: frame, time_us: us + self.offset_us, arrived };
        self.io.stats.waiting.came();
        if !self.io.frames.push(waiting) {
            self.io.stats.waiting.is_thrown();
            self.io.stats.dropped_full.fetch_add(1, Relaxed);
        }
    }

    fn give_audio(&self, packet: Packet) {
        let packet = packet.shifted_by_us(self.offset_us);
        if packet.dts_us() >= 0 {
            self.io.audio.push(packet);
        }
    }
}

fn us_of(frame: &Frame) -> i64 {
    let base = frame.time.time_base;
    let us = i128::from(frame.time.pts) * 1_000_000 * i128::from(base.num) / i128::from(base.den);
    us as i64
}
