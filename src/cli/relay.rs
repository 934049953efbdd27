//! `hasn relay`: arguments become [`relay::Options`](crate::relay::Options), and the relay runs until it is stopped.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tracing::warn;

use super::args::{EngineName, parse_audio, parse_duration, parse_key_value, parse_size};
use super::output::json;
use super::settings::{Hangups, Settings, ladder_names, parse_bit_rate};
use super::{console, signals};
use crate::error::Result;
use crate::media::AudioMode;
use crate::relay::{LatencyMark, OnLoss, Options, Relay, Server, Snapshot, Stats};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Address of the source: rtmp, srt, udp, rtp, rtsp, an HLS playlist, a pipe, a camera (v4l2:) or a file.
    pub source: String,
    /// Addresses of the sinks: rtmp, srt, udp, HLS playlists, files, or files by time (archive-%Y%m%d-%H.ts).
    #[arg(required = true)]
    pub sinks: Vec<String>,
    /// Wait for a publisher at the source's address (rtmp, rtsp; srt has ?mode=listener).
    #[arg(long)]
    pub listen: bool,
    /// Open the source even if it lists other files, such as a playlist, and its extension does not say so.
    #[arg(long)]
    pub allow_playlist: bool,
    /// Ceiling on the time from the arrival of a frame's packet until a sink has taken the frame.
    #[arg(long, value_name = "T", default_value = "2s", value_parser = parse_duration)]
    pub latency_max: Duration,
    /// Networks, best first; each frame is upscaled by the best one that is fast enough. none is the plain resampler.
    #[arg(long, value_name = "auto|MODEL,...", default_value = "auto")]
    pub ladder: String,
    /// Engine that runs the networks.
    #[arg(long, value_enum, default_value = "auto")]
    pub engine: EngineName,
    /// Number of threads of the engine and the encoder each [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Size of the output [default: twice the source's]
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    pub size: Option<(usize, usize)>,
    /// FFmpeg's name of the encoder.
    #[arg(long, value_name = "NAME", default_value = "libx264")]
    pub encoder: String,
    /// Option of the encoder; can be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub encoder_opt: Vec<(String, String)>,
    /// Bits per second of the video, e.g. 6M [default: 0.1 bits per sample]
    #[arg(long, value_name = "B", value_parser = parse_bit_rate)]
    pub bitrate: Option<u64>,
    /// FFmpeg's name of the pixel format.
    #[arg(long, value_name = "FORMAT", default_value = "yuv420p")]
    pub pix_fmt: String,
    /// Audio: copy (converted where a sink does not take its codec), none, or the FFmpeg encoder to convert it with.
    #[arg(long, value_name = "copy|none|ENCODER", default_value = "copy", value_parser = parse_audio)]
    pub audio: AudioMode,
    /// Deinterlace every frame, with FFmpeg's bwdif.
    #[arg(long)]
    pub deinterlace: bool,
    /// What is sent while the source is lost.
    #[arg(long, value_enum, default_value = "hold")]
    pub on_loss: OnLossName,
    /// Fail when the source has been lost for this long [default: never]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub reconnect_max: Option<Duration>,
    /// File with `ladder = "..."` and `bitrate = "..."` in place of the options; SIGHUP reloads it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ladder", "bitrate"])]
    pub settings: Option<PathBuf>,
    /// Serve metrics, health checks and a status page at this port of the loopback interface, or at ADDRESS:PORT.
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = parse_address)]
    pub metrics: Option<SocketAddr>,
    /// Overwrite existing files.
    #[arg(short = 'y', long)]
    pub overwrite: bool,
    /// Progress: a line every ten seconds on standard error (auto), or a JSON line per second on standard output.
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: ProgressName,
}

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq, Debug)]
pub(super) enum OnLossName {
    /// The last frame, repeated
    Hold,
    /// Black frames
    Black,
    /// Nothing: the relay ends with an error
    Stop,
}

impl From<OnLossName> for OnLoss {
    fn from(name: OnLossName) -> OnLoss {
        match name {
            OnLossName::Hold => OnLoss::Hold,
            OnLossName::Black => OnLoss::Black,
            OnLossName::Stop => OnLoss::Stop,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq, Debug)]
pub(super) enum ProgressName {
    Auto,
    Json,
    None,
}

pub(super) fn run(mut args: Args, is_quiet: bool) -> Result<ExitCode> {
    if is_quiet {
        args.progress = ProgressName::None;
    }
    let settings = match &args.settings {
        Some(path) => Settings::read(path)?,
        None => Settings { ladder: ladder_names(&args.ladder), bit_rate: args.bitrate },
    };
    let relay = &Relay::new(options(&args, &settings))?;
    let server = args.metrics.map(Server::bind).transpose()?;
    let interrupt = signals::catch()?;
    let stop = interrupt.flag();
    thread::scope(|scope| {
        let _server_guard = server.as_ref().map(Server::guard);
        if let Some(server) = server {
            scope.spawn(move || server.run(relay.stats().clone()).map_err(|error| warn!("{error}")));
        }
        let hangups = Hangups::catch()?;
        let _hangups_guard = hangups.guard();
        let path = args.settings.as_deref();
        scope.spawn(move || hangups.iter().fold(settings, |before, ()| before.reload(path, relay.control())));
        let Some(opened) = relay.open(stop)? else { return Ok(()) };
        let (ended, end) = mpsc::channel();
        let mut mark = LatencyMark::default();
        let snapshot = move || relay.stats().snapshot(&mut mark);
        scope.spawn(move || show(args.progress, snapshot, &end));
        let (_running, run_end) = mpsc::channel();
        scope.spawn(move || end_if_abandoned(relay.stats(), &run_end));
        let result = opened.run(stop);
        drop(ended);
        result
    })
    .map(|()| ExitCode::SUCCESS)
}

fn options(args: &Args, settings: &Settings) -> Options {
    let mut options = Options::new(args.source.clone(), args.sinks.clone());
    options.listen = args.listen;
    options.allow_playlist = args.allow_playlist;
    options.latency_max = args.latency_max;
    options.ladder = settings.ladder.clone();
    options.engine = args.engine.into();
    options.threads = args.threads.map(usize::from);
    options.size = args.size;
    options.encoder = args.encoder.clone();
    options.encoder_options = args.encoder_opt.clone();
    options.bit_rate = settings.bit_rate;
    options.pixel_format = args.pix_fmt.clone();
    options.audio = args.audio.clone();
    options.deinterlace = args.deinterlace;
    options.on_loss = args.on_loss.into();
    options.reconnect_max = args.reconnect_max;
    options.overwrite = args.overwrite;
    options
}

/// Ends the process where a stage of the relay hangs, for which everything else waits.
fn end_if_abandoned(stats: &Stats, end: &mpsc::Receiver<()>) {
    while end.recv_timeout(Duration::from_millis(200)) == Err(RecvTimeoutError::Timeout) {
        if let Some(error) = stats.abandoned() {
            console::error_line(format_args!("hasn: {error}"));
            signals::exit_now(1);
        }
    }
}

/// Shows counters at intervals until the relay has ended, and once more then.
fn show(how: ProgressName, mut snapshot: impl FnMut() -> Snapshot, end: &mpsc::Receiver<()>) {
    let interval = Duration::from_secs(if how == ProgressName::Auto { 10 } else { 1 });
    loop {
        let timed_out = end.recv_timeout(interval) == Err(RecvTimeoutError::Timeout);
        let now = snapshot();
        match how {
            ProgressName::Json => console::progress_line(json(&now)),
            ProgressName::Auto => console::log_line(readable(&now)),
            ProgressName::None => {}
        }
        if !timed_out {
            return;
        }
    }
}

fn readable(now: &Snapshot) -> String {
    let ladder: Vec<String> =
        now.ladder.iter().map(|rung| format!("{} {}", rung.frames, rung.model)).collect();
    let dropped = now.dropped_late + now.dropped_superseded + now.dropped_overflow;
    let connected = now.sinks.iter().filter(|sink| sink.connected).count();
    format!(
        "source {}, {} frames encoded ({}, {} duplicated), {dropped} dropped, latency {} to {} ms, \
         {connected} of {} sinks connected",
        if now.source_connected { "connected" } else { "lost" },
        now.encoded,
        ladder.join(", "),
        now.duplicated,
        now.latency_ms_p50,
        now.latency_ms_p99,
        now.sinks.len()
    )
}

/// Parses a port, which is bound at the loopback interface, or an address with a port.
fn parse_address(text: &str) -> std::result::Result<SocketAddr, String> {
    match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        Err(_) => text.parse().map_err(|_| "write it like 9464 or 0.0.0.0:9464".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_or_refused() {
        for (text, address) in
            [("9464", "127.0.0.1:9464"), (":9464", "127.0.0.1:9464"), ("[::]:80", "[::]:80")]
        {
            assert_eq!(parse_address(text).map(|found| found.to_string()), Ok(address.to_owned()), "{text}");
        }
        for text in ["", "localhost", "1.2.3.4", "70000", "example.com:80"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }
}
