//! `hasn relay`: a stream that comes in goes out larger, until it is ended.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tracing::info;

use super::upscale::{SIDE_MAX, catch_signals, parse_key_value};
use super::{EngineName, PrecisionName, engine_name, json, parse_size, thread_count};
use crate::engine::{EngineSpec, Network};
use crate::error::{Error, Result};
use crate::media::{Deinterlace, EncoderSpec, FilterSpec, LiveOutput, LiveStreams, Output, Target, redacted};
use crate::model::catalogue;
use crate::picture::Geometry;
use crate::relay::{self, OnLoss, Relay, Session, Snapshot, SourceSpec};

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
    /// From the arrival of a picture to its coded one, at the most.
    #[arg(long, value_name = "T", default_value = "2s", value_parser = parse_duration)]
    pub latency_max: Duration,
    /// Networks, best first, of which each picture takes the best that is fast enough; none is the plain resampler.
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
    /// Bits a second of the pictures, e.g. 6M [default: a tenth of a bit a sample]
    #[arg(long, value_name = "B")]
    pub bitrate: Option<String>,
    /// FFmpeg's name of a pixel format.
    #[arg(long, value_name = "FORMAT", default_value = "yuv420p")]
    pub pix_fmt: String,
    /// What becomes of sound.
    #[arg(long, value_enum, default_value = "copy")]
    pub audio: Audio,
    /// Make interlaced pictures whole.
    #[arg(long)]
    pub deinterlace: bool,
    /// What goes out while the source is gone.
    #[arg(long, value_enum, default_value = "hold")]
    pub on_loss: OnLossName,
    /// End when the source was gone for so long [default: never]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub reconnect_max: Option<Duration>,
    /// Overwrite files that are there already.
    #[arg(short = 'y')]
    pub overwrite: bool,
    /// A JSON line a second on standard output, or a line for people on standard error.
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: ShowName,
}

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq, Debug)]
pub(super) enum Audio {
    Copy,
    None,
}

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq, Debug)]
pub(super) enum OnLossName {
    /// The last picture goes on.
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

pub(super) fn run(args: Args) -> Result<ExitCode> {
    relay::check(&args.sinks, args.latency_max)?;
    let (rungs, networks) = ladder(&args.ladder)?;
    let stop = catch_signals()?;
    let deinterlace = if args.deinterlace { Deinterlace::Bwdif } else { Deinterlace::Off };
    let source = SourceSpec {
        address: args.source.clone(),
        listen: args.listen,
        filter: FilterSpec { deinterlace, graph: None },
        away_max: args.reconnect_max,
        ends_when_lost: args.on_loss == OnLossName::Stop,
    };
    let Some(first) = source.connect(&stop)? else { return Ok(ExitCode::SUCCESS) };
    let relay = open(&args, source, first, networks)?;
    let stats = Relay::stats(&rungs, &args.sinks);
    let (ended, end) = mpsc::channel();
    let result = thread::scope(|scope| {
        let snapshot = || stats.snapshot();
        scope.spawn(move || show(args.progress, snapshot, &end));
        let result = relay::run(relay, &stats, &stop);
        drop(ended);
        result
    });
    result.map(|()| ExitCode::SUCCESS)
}

/// The ladder's names and networks.
fn ladder(asked: &str) -> Result<(Vec<String>, Vec<Network>)> {
    let asked = match asked {
        "auto" => format!("{},none", catalogue::DEFAULT_FILM),
        list => list.to_owned(),
    };
    let rung = |name: &str| match name {
        "none" => Ok(("none".to_owned(), Network::Resample)),
        name => catalogue::open(name).map(|model| (model.name.clone(), Network::Hasn(Arc::new(model)))),
    };
    asked.split(',').map(rung).collect::<Result<Vec<_>>>().map(|rungs| rungs.into_iter().unzip())
}

/// Opens all but the sinks, and looks whether these can take what they are to get.
fn open(args: &Args, source: SourceSpec, first: Session, networks: Vec<Network>) -> Result<Relay> {
    let threads = thread_count(args.threads.map(usize::from));
    let (lr, output) = (first.geometry(), Output::live());
    let size = args.size.unwrap_or((2 * lr.width, 2 * lr.height));
    if size.0.max(size.1) > SIDE_MAX {
        let problem = format!("{}x{} is larger than {SIDE_MAX} on a side", size.0, size.1);
        return Err(Error::new("--size", problem, "choose a smaller one"));
    }
    let target = Target::choose(&encoder_spec(args, &first, size, threads), &output, &lr, size)?;
    let sr = target.geometry;
    let spec = |kind| EngineSpec { kind, threads, networks: networks.clone(), lr, sr };
    let kind = args.engine.choose(PrecisionName::Auto, sr.format.depth(), |kind| spec(kind).check())?;
    let engine = spec(kind);
    engine.check()?;
    let (encoder, sound) = first.open_encoder(target, &output)?;
    let streams = LiveStreams::new(&encoder, first.input(), sound.filter(|_| args.audio == Audio::Copy));
    for sink in &args.sinks {
        LiveOutput::check(sink, &streams, args.overwrite)?;
    }
    let shown = |of: &Geometry| format!("{}x{}", of.width, of.height);
    info!("{}: {} -> {} by {}", redacted(&args.source), shown(&lr), shown(&sr), engine_name(kind));
    // Until it ends, one that stops holds on as well.
    let on_loss = if args.on_loss == OnLossName::Black { OnLoss::Black } else { OnLoss::Hold };
    let (sinks, latency_max) = (args.sinks.clone(), args.latency_max);
    Ok(Relay { source, first, engine, encoder, streams, sinks, latency_max, on_loss })
}

/// Whoever watches begins at a keyframe: there is one so often.
const KEYFRAME_S: f64 = 2.0;

/// Every picture comes out as soon as it is in, at an even rate of bits.
fn encoder_spec(
    args: &Args,
    first: &Session,
    (width, height): (usize, usize),
    threads: usize,
) -> EncoderSpec {
    let rate = first.pictures_per_second();
    let bitrate =
        args.bitrate.clone().unwrap_or_else(|| format!("{:.0}", 0.1 * (width * height) as f64 * rate));
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
fn show(how: ShowName, snapshot: impl Fn() -> Snapshot, end: &mpsc::Receiver<()>) {
    let every = Duration::from_secs(if how == ShowName::Auto { 10 } else { 1 });
    loop {
        let timed_out = end.recv_timeout(every) == Err(RecvTimeoutError::Timeout);
        let now = snapshot();
        match how {
            // A reader that has gone does not stop the stream.
            ShowName::Json => drop(super::print(&(json(&now) + "\n"))),
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
        now.ladder.iter().map(|rung| format!("{} {}", rung.pictures, rung.model)).collect();
    let dropped = now.dropped_late + now.dropped_past + now.dropped_full;
    let connected = now.sinks.iter().filter(|sink| sink.connected).count();
    format!(
        "{}, {} pictures out ({}, {} made), {dropped} dropped, latency {} to {} ms, {connected} of {} sinks",
        if now.on_air { "on air" } else { "source gone" },
        now.encoded,
        ladder.join(", "),
        now.made,
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

#[cfg(test)]
mod tests {
    use super::*;

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
