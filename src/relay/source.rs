//! Source: opened, with its decoder, as often as it takes.
//!
//! In: an address. Out: a connection that can be read.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tracing::warn;

use crate::error::{Error, ErrorKind, Result};
use crate::frame::FrameFormat;
use crate::media::{
    DecodeSpec, Decoder, Encoder, FilterSpec, Input, Output, Place, Playlists, Target, Watch,
};

/// Time without a packet after which a connection counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// SRT reports a loss itself after five seconds. Closing earlier goes unnoticed by a sender whose network is down, which
/// then sends in vain once it is up again.
const SILENCE_MAX_SRT: Duration = Duration::from_secs(6);
/// Packets that come before their time come in bursts, up to a segment of ten seconds apart.
const SILENCE_MAX_PACED: Duration = Duration::from_secs(15);
/// Time to connect, and then to the first frame.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait between attempts, doubled each time. The longest is short enough for a source that returns after hours.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_millis(1200);
/// A connection that was lost earlier counts as one that failed.
const LASTED_MIN: Duration = Duration::from_secs(10);
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
    pub(super) watch: Watch,
    pub(super) silence_max: Duration,
    /// Whether the source is a file: its end is not a loss.
    pub is_file: bool,
    pub input: Input,
    pub(super) decoder: Decoder,
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
    pub short: u32,
}

impl Backoff {
    pub fn new() -> Backoff {
        Backoff { since: Instant::now(), wait: BACKOFF_MIN, short: 0 }
    }

    /// Notes a connection that was lost. Returns whether it counts as one that failed.
    pub fn note_lost(&mut self, lasted: Duration) -> bool {
        let is_short = lasted < LASTED_MIN;
        *self = if is_short { Backoff { short: self.short + 1, ..*self } } else { Backoff::new() };
        is_short
    }

    /// Whether connections are reported: of many short ones the first, the tenth, the hundredth.
    pub fn is_reported(&self) -> bool {
        self.short == 0 || 10u32.pow(self.short.ilog10()) == self.short
    }

    pub fn wait(&mut self, stop: &AtomicBool) {
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
        let silence_max = match self.address.starts_with("srt:") {
            true => SILENCE_MAX_SRT,
            false if input.needs_pacing() => SILENCE_MAX_PACED,
            false => SILENCE_MAX,
        };
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
