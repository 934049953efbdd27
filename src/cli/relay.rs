//! `hasn relay`: a stream that comes in goes out larger, until it is ended.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use super::args::{EngineName, parse_audio, parse_key_value, parse_size};
use super::output::{json, print};
use super::settings::{Hangups, Settings};
use super::signals;
use crate::engine::{EngineChoice, EngineSpec, Network, SIDE_MAX, thread_count};
use crate::error::{Error, Result};
use crate::frame::FrameFormat;
use crate::media::{
    AudioMode, Deinterlace, EncoderSpec, FilterSpec, LiveOutput, LiveStreams, Output, Target, redacted,
};
use crate::model::catalogue;
use crate::relay::{self, Control, Mark, OnLoss, Relay, Server, Session, Snapshot, SourceSpec};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Where the stream comes from: rtmp, srt, udp, rtp, rtsp, an HLS list, a pipe, a file.
    pub source: String,
    /// Where it goes: rtmp, srt, udp, an HLS list, a file.
    #[arg(required = true)]
    pub sinks: Vec<String>,
    /// Wait for somebody to publish at the source's address (rtmp, rtsp; srt has ?mode=listener).
    #[arg(long)]
    pub listen: bool,
    /// From the arrival of a frame to its coded one, at the most.
    #[arg(long, value_name = "T", default_value = "2s", value_parser = parse_duration)]
    pub latency_max: Duration,
    /// Networks, best first, of which each frame takes the best that is fast enough; none is the plain resampler.
    #[arg(long, value_name = "auto|MODEL,...", default_value = "auto")]
    pub ladder: String,
    /// What runs the networks.
    #[arg(long, value_enum, default_value = "auto")]
    pub engine: EngineName,
    /// Threads of engine and encoder each [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// The size to make [default: twice the source's]
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    pub size: Option<(usize, usize)>,
    /// FFmpeg's name of an encoder.
    #[arg(long, value_name = "NAME", default_value = "libx264")]
    pub encoder: String,
    /// An option of the encoder, as often as needed.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub encoder_opt: Vec<(String, String)>,
    /// Bits a second of the frames, e.g. 6M [default: a tenth of a bit a sample]
    #[arg(long, value_name = "B", value_parser = parse_bit_rate)]
    pub bitrate: Option<u64>,
    /// FFmpeg's name of a pixel format.
    #[arg(long, value_name = "FORMAT", default_value = "yuv420p")]
    pub pix_fmt: String,
    /// What becomes of audio: copied, or AAC where a sink does not take it; left out; converted by FFmpeg's encoder.
    #[arg(long, value_name = "copy|none|CODEC", default_value = "copy", value_parser = parse_audio)]
    pub audio: AudioMode,
    /// Make interlaced frames whole.
    #[arg(long)]
    pub deinterlace: bool,
    /// What goes out while the source is gone.
    #[arg(long, value_enum, default_value = "hold")]
    pub on_loss: OnLossName,
    /// End when the source was gone for so long [default: never]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub reconnect_max: Option<Duration>,
    /// A file with `ladder = "..."` and `bitrate = "..."`, in place of the options; read again at SIGHUP.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ladder", "bitrate"])]
    pub settings: Option<PathBuf>,
    /// Where metrics, health and a page about the stream are served: a port of this machine alone, or ADDRESS:PORT.
    #[arg(long, value_name = "PORT", value_parser = parse_address)]
    pub metrics: Option<SocketAddr>,
    /// Overwrite files that are there already.
    #[arg(short = 'y')]
    pub overwrite: bool,
    /// A JSON line a second on standard output, or a line for people on standard error.
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: ShowName,
}

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq, Debug)]
pub(super) enum OnLossName {
    /// The last frame goes on.
    Hold,
    Black,
    /// The relay ends, with an error.
    Stop,
}

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq, Debug)]
pub(super) enum ShowName {
    /// A line for people every ten seconds.
    Auto,
    Json,
    None,
}

pub(super) fn run(mut args: Args) -> Result<ExitCode> {
    relay::check(&args.sinks, args.latency_max)?;
    let settings = Settings::of(&args)?;
    args.bitrate = settings.bit_rate;
    let networks = ladder(&settings.ladder)?;
    let server = args.metrics.map(Server::bind).transpose()?;
    let interrupt = signals::catch()?;
    let stop = interrupt.flag();
    let stats = relay::stats(&args.source, &args.sinks, args.latency_max);
    let control = Control::default();
    thread::scope(|scope| {
        let _ends_server = server.as_ref().map(Server::end);
        if let Some(server) = server {
            let stats = stats.clone();
            scope.spawn(move || server.run(stats).map_err(|error| warn!("{error}")));
        }
        let (args, control) = (&args, &control);
        let hangups = Hangups::caught()?;
        let _ends_hangups = hangups.end();
        scope.spawn(move || hangups.iter().fold(settings, |before, ()| before.read_again(args, control)));
        let deinterlace = if args.deinterlace { Deinterlace::Bwdif } else { Deinterlace::Off };
        let source = SourceSpec {
            address: args.source.clone(),
            listen: args.listen,
            filter: FilterSpec { deinterlace, graph: None },
            away_max: args.reconnect_max,
            ends_when_lost: args.on_loss == OnLossName::Stop,
        };
        let Some(first) = source.connect(&stop)? else { return Ok(()) };
        let relay = open(args, source, first, networks)?;
        let (ended, end) = mpsc::channel();
        let mut mark = Mark::default();
        let snapshot = || stats.snapshot(&mut mark);
        thread::scope(|scope| {
            scope.spawn(move || show(args.progress, snapshot, &end));
            let result = relay::run(relay, control, &stats, &stop);
            drop(ended);
            result
        })
    })
    .map(|()| ExitCode::SUCCESS)
}

/// Networks by their names, best first.
pub(super) fn ladder(asked: &str) -> Result<Vec<Network>> {
    let asked = match asked {
        "auto" => format!("{},none", catalogue::DEFAULT_VIDEO),
        list => list.to_owned(),
    };
    asked.split(',').map(Network::open).collect()
}

/// Opens all but the sinks, and looks whether these can take what they are to get.
fn open(args: &Args, source: SourceSpec, first: Session, networks: Vec<Network>) -> Result<Relay> {
    let threads = thread_count(args.threads.map(usize::from));
    let (lr, output) = (first.format(), Output::live());
    let size = args.size.unwrap_or((2 * lr.width, 2 * lr.height));
    if size.0.max(size.1) > SIDE_MAX {
        let problem = format!("{}x{} is larger than {SIDE_MAX} on a side", size.0, size.1);
        return Err(Error::new("--size", problem, "choose a smaller one"));
    }
    let target = Target::choose(&encoder_spec(args, &first, size, threads), &output, &lr, size)?;
    let sr = target.format;
    let spec = |kind| EngineSpec { kind, threads, in_flight: 1, networks: networks.clone(), lr, sr };
    let kind =
        EngineChoice::from(args.engine).resolve(None, sr.pixel_format.depth(), |kind| spec(kind).check())?;
    let engine = spec(kind);
    engine.check()?;
    let encoder = first.open_encoder(target, &output)?;
    let streams = LiveStreams::new(&encoder, first.input(), &args.audio, &args.sinks)?;
    for sink in &args.sinks {
        LiveOutput::check(sink, &streams, args.overwrite)?;
    }
    let shown = |of: &FrameFormat| format!("{}x{}", of.width, of.height);
    info!("{}: {} -> {} by {}", redacted(&args.source), shown(&lr), shown(&sr), kind.name());
    // Until it ends, one that stops holds on as well.
    let on_loss = if args.on_loss == OnLossName::Black { OnLoss::Black } else { OnLoss::Hold };
    let (sinks, latency_max) = (args.sinks.clone(), args.latency_max);
    Ok(Relay { source, first, engine, encoder, streams, sinks, latency_max, on_loss })
}

/// Whoever watches begins at a keyframe: there is one so often.
const KEYFRAME_S: f64 = 2.0;

/// Every frame comes out as soon as it is in, at an even rate of bits.
fn encoder_spec(
    args: &Args,
    first: &Session,
    (width, height): (usize, usize),
    threads: usize,
) -> EncoderSpec {
    let rate = first.fps();
    let bitrate = args.bitrate.map_or_else(|| 0.1 * (width * height) as f64 * rate, |bits| bits as f64);
    let bitrate = format!("{bitrate:.0}");
    let gop = format!("{:.0}", (KEYFRAME_S * rate).max(1.0));
    let own: &[(&str, &str)] = match args.encoder.as_str() {
        // An even rate of bits, and not of quality.
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
    };
    let all = [("b", bitrate.as_str()), ("maxrate", &bitrate), ("bufsize", &bitrate), ("g", &gop)];
    let given = |key: &str| args.encoder_opt.iter().any(|(k, _)| k == key);
    let ours = all.iter().chain(own).filter(|(key, _)| !given(key));
    let options = ours.map(|&(key, value)| (key.to_owned(), value.to_owned()));
    EncoderSpec {
        name: Some(args.encoder.clone()),
        options: options.chain(args.encoder_opt.iter().cloned()).collect(),
        pixel_format: Some(args.pix_fmt.clone()),
        depth_min: 0,
        threads,
    }
}

/// A line a second, or a shorter one now and then, until the relay has ended, and one more then.
fn show(how: ShowName, mut snapshot: impl FnMut() -> Snapshot, end: &mpsc::Receiver<()>) {
    let every = Duration::from_secs(if how == ShowName::Auto { 10 } else { 1 });
    loop {
        let timed_out = end.recv_timeout(every) == Err(RecvTimeoutError::Timeout);
        let now = snapshot();
        match how {
            // A reader that has gone does not stop the stream.
            ShowName::Json => drop(print(&(json(&now) + "\n"))),
            ShowName::Auto => eprintln!("{}", in_words(&now)),
            ShowName::None => {}
        }
        if !timed_out {
            return;
        }
    }
}

fn in_words(now: &Snapshot) -> String {
    let ladder: Vec<String> =
        now.ladder.iter().map(|rung| format!("{} {}", rung.frames, rung.model)).collect();
    let dropped = now.dropped_late + now.dropped_past + now.dropped_full;
    let connected = now.sinks.iter().filter(|sink| sink.connected).count();
    format!(
        "{}, {} frames out ({}, {} duplicated), {dropped} dropped, latency {} to {} ms, {connected} of {} sinks",
        if now.on_air { "on air" } else { "source gone" },
        now.encoded,
        ladder.join(", "),
        now.duplicated,
        now.latency_ms_p50,
        now.latency_ms_p99,
        now.sinks.len()
    )
}

/// `2s`, `500ms` or `1.5s`; seconds without a unit.
fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    let (number, unit_s) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.parse::<f64>().ok().map(|number| number * unit_s);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "write it like 2s or 500ms".to_owned())
}

/// `6M`, `800k`, or plain bits a second.
pub(super) fn parse_bit_rate(text: &str) -> std::result::Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['k', 'K', 'M']) {
        Some(number) => (number, if text.ends_with('M') { 1e6 } else { 1e3 }),
        None => (text, 1.0),
    };
    let bits = number.parse::<f64>().ok().map(|number| number * unit);
    bits.filter(|bits| (1e3..1e10).contains(bits))
        .map(|bits| bits as u64)
        .ok_or_else(|| "write it like 6M or 800k".to_owned())
}

/// A port of this machine, which nobody else reaches, or a whole address.
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
    fn rates_and_addresses_are_read_or_refused() {
        for (text, bits) in [("6M", 6_000_000), ("800k", 800_000), ("1.5M", 1_500_000), ("64000", 64_000)] {
            assert_eq!(parse_bit_rate(text), Ok(bits), "{text}");
        }
        for text in ["", "M", "-1M", "nan", "6 M", "6G", "5", "1e99"] {
            assert!(parse_bit_rate(text).is_err(), "{text}");
        }
        for (text, address) in
            [("9464", "127.0.0.1:9464"), (":9464", "127.0.0.1:9464"), ("[::]:80", "[::]:80")]
        {
            assert_eq!(parse_address(text).map(|found| found.to_string()), Ok(address.to_owned()), "{text}");
        }
        for text in ["", "localhost", "1.2.3.4", "70000", "example.com:80"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_or_refused() {
        for (text, ms) in [("2s", 2000), ("500ms", 500), ("1.5s", 1500), ("3", 3000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "nan", "inf", "2m"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
