//! Options: what a user asks of a relay, and the defaults of what is left open.

use std::time::Duration;

use super::pacer::OnLoss;
use crate::engine::{EngineChoice, Network, SIDE_MAX};
use crate::error::{Error, Result};
use crate::frame::FrameFormat;
use crate::media::{AudioMode, Deinterlace, EncoderSpec, FilterSpec, LiveOutput, redacted};
use crate::model::catalogue;

/// Seconds between keyframes, at which a viewer can join.
const KEYFRAME_INTERVAL_S: f64 = 2.0;
/// Default bitrate in bits per luma sample of the output.
const BITS_PER_SAMPLE: f64 = 0.1;

/// What a relay does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Address of the stream: rtmp, srt, udp, rtp, rtsp, an HLS playlist, a pipe, a device or a file.
    pub source: String,
    /// Addresses that the stream is sent to: rtmp, srt, udp, HLS playlists or files, whose names may have codes of strftime.
    pub sinks: Vec<String>,
    /// Whether to wait for a publisher at the source's address.
    pub listen: bool,
    /// Whether the source may be a list of other files, such as a playlist, even if its extension does not say so.
    pub allow_playlist: bool,
    /// Ceiling on the time from the arrival of a frame's packet until a sink has taken the frame.
    pub latency_max: Duration,
    /// Names of networks, best first, `none` for the plain resampler; empty for the default.
    pub ladder: Vec<String>,
    /// Engine that runs the networks.
    pub engine: EngineChoice,
    /// Threads of engine and encoder each; one per core by default.
    pub threads: Option<usize>,
    /// Width and height of the output in luma samples; twice the source's by default.
    pub size: Option<(usize, usize)>,
    /// FFmpeg's name of the encoder.
    pub encoder: String,
    /// FFmpeg's options of the encoder, which replace the defaults.
    pub encoder_options: Vec<(String, String)>,
    /// Bits per second of the video; by default 0.1 per luma sample of the output.
    pub bit_rate: Option<u64>,
    /// FFmpeg's name of the pixel format.
    pub pixel_format: String,
    /// What happens to audio.
    pub audio: AudioMode,
    /// Whether frames are deinterlaced, all of them.
    pub deinterlace: bool,
    /// What is sent while the source is lost.
    pub on_loss: OnLoss,
    /// Time after which a relay without its source fails; never by default.
    pub reconnect_max: Option<Duration>,
    /// Whether files that exist are overwritten.
    pub overwrite: bool,
}

impl Options {
    /// The defaults of `hasn relay`, for one source and its sinks.
    pub fn new(source: impl Into<String>, sinks: Vec<String>) -> Options {
        Options {
            source: source.into(),
            sinks,
            listen: false,
            allow_playlist: false,
            latency_max: Duration::from_secs(2),
            ladder: Vec::new(),
            engine: EngineChoice::Auto,
            threads: None,
            size: None,
            encoder: "libx264".into(),
            encoder_options: Vec::new(),
            bit_rate: None,
            pixel_format: "yuv420p".into(),
            audio: AudioMode::Copy,
            deinterlace: false,
            on_loss: OnLoss::Hold,
            reconnect_max: None,
            overwrite: false,
        }
    }

    /// Checks what can be checked before the source is connected.
    pub(super) fn check(&self) -> Result<()> {
        if self.latency_max.is_zero() {
            return Err(Error::new("--latency-max", "is zero", "write it like 2s or 500ms"));
        }
        let sinks = &self.sinks;
        match sinks.iter().enumerate().find(|(i, sink)| sinks[..*i].contains(sink)) {
            Some((_, twice)) => Err(Error::new(redacted(twice), "is named twice", "name each sink once")),
            None => sinks.iter().try_for_each(|sink| LiveOutput::check_name(sink)),
        }
    }

    pub(super) fn filter(&self) -> FilterSpec {
        let deinterlace = if self.deinterlace { Deinterlace::Bwdif } else { Deinterlace::Off };
        FilterSpec { deinterlace, ..FilterSpec::default() }
    }

    /// Returns width and height of the output for frames of the source.
    pub(super) fn size_for(&self, lr: &FrameFormat) -> Result<(usize, usize)> {
        let (width, height) = self.size.unwrap_or((2 * lr.width, 2 * lr.height));
        if width.max(height) > SIDE_MAX {
            let problem = format!("{width}x{height} is larger than {SIDE_MAX} on a side");
            return Err(Error::new("--size", problem, "choose a smaller one"));
        }
        Ok((width, height))
    }

    /// Returns an encoder without delay and with a constant bitrate.
    pub(super) fn encoder_spec(
        &self,
        fps: f64,
        (width, height): (usize, usize),
        threads: usize,
    ) -> EncoderSpec {
        let default = || BITS_PER_SAMPLE * (width * height) as f64 * fps;
        let bit_rate = format!("{:.0}", self.bit_rate.map_or_else(default, |bits| bits as f64));
        let gop = format!("{:.0}", (KEYFRAME_INTERVAL_S * fps).max(1.0));
        let common = [("b", bit_rate.as_str()), ("maxrate", &bit_rate), ("bufsize", &bit_rate), ("g", &gop)];
        let defaults = common.iter().chain(low_delay_options(&self.encoder));
        let is_replaced = |key: &str| self.encoder_options.iter().any(|(k, _)| k == key);
        let defaults = defaults
            .filter(|(key, _)| !is_replaced(key))
            .map(|&(key, value)| (key.to_owned(), value.to_owned()));
        EncoderSpec {
            name: Some(self.encoder.clone()),
            options: defaults.chain(self.encoder_options.iter().cloned()).collect(),
            pixel_format: Some(self.pixel_format.clone()),
            threads,
            ..EncoderSpec::default()
        }
    }
}

/// Options with which an encoder returns each frame at once, at a constant bitrate rather than a constant quality.
fn low_delay_options(encoder: &str) -> &'static [(&'static str, &'static str)] {
    match encoder {
        "libx264" => &[("preset", "veryfast"), ("tune", "zerolatency"), ("crf", "-1")],
        "libx265" => &[
            ("preset", "ultrafast"),
            ("tune", "zerolatency"),
            ("crf", "-1"),
            ("x265-params", "log-level=error"),
        ],
        "h264_nvenc" | "hevc_nvenc" | "av1_nvenc" => {
            &[("preset", "p3"), ("tune", "ull"), ("rc", "cbr"), ("bf", "0")]
        }
        _ => &[],
    }
}

/// Opens the networks of a ladder; without names the default ladder.
pub(super) fn open_networks(names: &[String]) -> Result<Vec<Network>> {
    match names {
        [] => [catalogue::DEFAULT_VIDEO, "none"].into_iter().map(Network::open).collect(),
        names => names.iter().map(|name| Network::open(name)).collect(),
    }
}
