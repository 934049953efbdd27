//! `hasn upscale`: arguments become a job, which runs under a progress display.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing::info;

use super::progress::{self, Show};
use super::{
    EXIT_INTERRUPTED, EngineName, PrecisionName, engine_name, json, parse_size, precision_name, thread_count,
};
use crate::engine::{EngineSpec, Network, NetworkId};
use crate::error::{Error, Result};
use crate::media::{
    DecodeSpec, Decoder, Deinterlace, Encoder, EncoderSpec, FilterSpec, Input, Muxer, Output, Plan, Sound,
    Target, Trim, VideoInfo,
};
use crate::model::catalogue;
use crate::picture::Geometry;
use crate::pipeline::{self, Job, Progress, Report};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A file or address that FFmpeg opens, or - for y4m on standard input.
    input: String,
    /// A file, whose ending names the container, or - for y4m on standard output.
    output: String,
    /// A built-in model, a safetensors file, or none for the resampler alone [default:
    /// hasn-lite-x2-video, for stills hasn-lite-x2]
    #[arg(long, value_name = "NAME|FILE|none")]
    model: Option<String>,
    /// What runs the network.
    #[arg(long, value_enum, default_value = "auto")]
    engine: EngineName,
    /// What the CPU engine multiplies: bf16 where the CPU can and pictures have at most 10 bits, or as told.
    #[arg(long, value_enum, default_value = "auto")]
    precision: PrecisionName,
    /// Threads of the engine, and of decoder and encoder each [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// The exact size to make [default: the model's scale]
    #[arg(long, value_name = "WxH", value_parser = parse_size, conflicts_with = "scale")]
    size: Option<(usize, usize)>,
    /// How many times larger, fractions allowed.
    #[arg(long, value_name = "S", value_parser = parse_scale)]
    scale: Option<f64>,
    /// FFmpeg's name of an encoder [default: libx264 where the container holds it]
    #[arg(long, value_name = "NAME")]
    encoder: Option<String>,
    /// An option of the encoder, as often as needed.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_key_value)]
    encoder_opt: Vec<(String, String)>,
    /// FFmpeg's name of a pixel format [default: the input's, or the closest the encoder takes]
    #[arg(long, value_name = "FORMAT")]
    pix_fmt: Option<String>,
    /// Which streams, as FFmpeg's -map names them: 0:v, 0:a:1, -0:s, 0:m:language:fra? [default: all]
    #[arg(long, value_name = "SPEC", allow_hyphen_values = true)]
    map: Vec<String>,
    /// What becomes of sound: copy, none, or an encoder of FFmpeg's.
    #[arg(long, value_name = "copy|none|CODEC", default_value = "copy", value_parser = parse_sound)]
    audio: Sound,
    /// Fail where the container cannot hold a stream, rather than leave it out.
    #[arg(long)]
    strict: bool,
    /// Leave out what is before this time (seconds or [HH:]MM:SS).
    #[arg(long, value_name = "T", value_parser = parse_time)]
    from: Option<f64>,
    /// Leave out what is at or after this time.
    #[arg(long, value_name = "T", value_parser = parse_time)]
    to: Option<f64>,
    /// Make interlaced pictures whole: where they are found to be, always, or never.
    #[arg(long, value_enum, default_value = "auto")]
    deinterlace: DeinterlaceName,
    /// FFmpeg filters before the network, e.g. fieldmatch,decimate or crop=704:576.
    #[arg(long, value_name = "GRAPH")]
    filter: Option<String>,
    /// Make samples square: the width is the one that is shown.
    #[arg(long, conflicts_with = "size")]
    square: bool,
    /// Take so many damaged pictures and packets of the source for no failure.
    #[arg(long, value_name = "N", default_value_t = 0)]
    tolerate: u64,
    /// Overwrite what is there already.
    #[arg(short = 'y')]
    overwrite: bool,
    /// How to show progress.
    #[arg(long, value_enum, default_value = "auto")]
    progress: Show,
    /// Write what the run did as JSON.
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
}

/// What to do with interlaced pictures, as a user names it.
#[derive(Clone, Copy, clap::ValueEnum)]
enum DeinterlaceName {
    Auto,
    Bwdif,
    Off,
}

impl From<DeinterlaceName> for Deinterlace {
    fn from(name: DeinterlaceName) -> Deinterlace {
        match name {
            DeinterlaceName::Auto => Deinterlace::Auto,
            DeinterlaceName::Bwdif => Deinterlace::Bwdif,
            DeinterlaceName::Off => Deinterlace::Off,
        }
    }
}

/// What was made of the arguments, for the report.
#[derive(Serialize)]
struct Choice {
    input: String,
    output: String,
    model: String,
    engine: &'static str,
    precision: &'static str,
    encoder: String,
    pixel_format: &'static str,
    width: usize,
    height: usize,
}

#[derive(Serialize)]
struct FullReport<'a> {
    hasn: &'a str,
    #[serde(flatten)]
    choice: &'a Choice,
    #[serde(flatten)]
    run: &'a Report,
}

/// Encoders and players end far below it, and an engine's memory with them.
const SIDE_MAX: usize = 32768;

pub(super) fn run(args: Args) -> Result<ExitCode> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from >= to
    {
        return Err(Error::new("--to", "is not after --from", "choose a later time"));
    }
    if let Some(folder) = args.report.as_deref().and_then(Path::parent).filter(|path| *path != Path::new(""))
        && !folder.is_dir()
    {
        return Err(Error::new(
            folder.to_string_lossy(),
            "is no folder",
            "make it, or name another --report",
        ));
    }
    let interrupt = catch_signals()?;
    let (job, choice) = open(&args)?;
    let damage = job.input.damage();
    let progress = Arc::new(Progress::default());
    let expected = pictures_expected(&args, &job.input.video());
    let shown = progress::show(args.progress, progress.clone(), expected, args.output == "-");
    let result = pipeline::run(job, &progress, &interrupt);
    drop(shown);
    let (muxer, report) = match result {
        // The reader of a pipe was interrupted as well: that is no failure of its own.
        Err(_) if interrupt.load(Ordering::Relaxed) && args.output == "-" => {
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
        result => result?,
    };

    let damaged = damage.error().filter(|_| damage.count() > args.tolerate);
    let whole = !report.interrupted && damaged.is_none();
    let partial = if whole { muxer.publish().map(|()| None)? } else { muxer.keep_partial() };
    if report.interrupted {
        tell_how_to_go_on(&args, &report, partial.as_deref());
    }
    // The film is there by now, whatever becomes of the report.
    if let Some(path) = &args.report {
        let full = FullReport { hasn: env!("CARGO_PKG_VERSION"), choice: &choice, run: &report };
        write_report(path, &full)?;
    }
    if report.interrupted {
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    if let Some(error) = damaged {
        let pictures = report.pictures.encoded;
        return Err(match partial {
            Some(partial) => {
                error.keeping(&format!("{} has the {pictures} pictures there are", partial.display()))
            }
            None => error,
        });
    }
    if args.progress != Show::None {
        tell_summary(&choice, &report);
    }
    Ok(ExitCode::SUCCESS)
}

/// By the container's word; 0 where it has none.
fn pictures_expected(args: &Args, video: &VideoInfo) -> u64 {
    let rate = f64::from(video.frame_rate);
    let whole_s = video.pictures_expected as f64 / rate;
    let part_s = args.to.map_or(whole_s, |to| to.min(whole_s)) - args.from.unwrap_or(0.0);
    (part_s * rate).round().max(0.0) as u64
}

/// Opens every part, the output last: until then nothing is written.
fn open(args: &Args) -> Result<(Job, Choice)> {
    let threads = thread_count(args.threads.map(usize::from));
    let output = Output::new(&args.output, &args.input, args.overwrite)?;
    let default = if output.is_still() { catalogue::DEFAULT_CPU } else { catalogue::DEFAULT_FILM };
    let (network, model, model_scale) = match args.model.as_deref().unwrap_or(default) {
        "none" => (Network::Resample, "none".to_owned(), 2),
        name => {
            let model = catalogue::open(name)?;
            let (name, scale) = (model.name.clone(), model.sizes.scale);
            (Network::Hasn(Arc::new(model)), name, scale)
        }
    };
    let mut input = Input::open(&args.input)?;
    input.choose(&args.map)?;
    let plan = Plan::new(&input, &output, &args.audio)?;
    if args.strict {
        plan.check_complete(&output)?;
    }
    let trim = Trim::new(&input, args.from, args.to);
    let filter = FilterSpec { deinterlace: args.deinterlace.into(), graph: args.filter.clone() };
    let decoder = Decoder::open(&mut input, DecodeSpec { trim, threads, filter })?;
    let lr = decoder.geometry();
    let shape = if args.square { decoder.sample_aspect() } else { 1.0 };
    let size = output_size(args, &lr, model_scale, shape)?;
    let spec = EncoderSpec {
        name: args.encoder.clone(),
        options: args.encoder_opt.clone(),
        pixel_format: args.pix_fmt.clone(),
        threads,
    };
    let target = Target::choose(&spec, &output, &lr, size)?;
    let sr = target.geometry;
    let bits = if sr.format.float { 32 } else { sr.format.depth() };
    let engine_spec = |kind| EngineSpec { kind, threads, networks: vec![network.clone()], lr, sr };
    let engine = args.engine.choose(args.precision, bits, |kind| engine_spec(kind).check())?;
    let engine_spec = engine_spec(engine);
    engine_spec.check()?;
    let encoder = Encoder::open(target, &output, &input, &decoder)?;
    let choice = Choice {
        input: args.input.clone(),
        output: args.output.clone(),
        model,
        engine: engine_name(engine),
        precision: precision_name(engine),
        encoder: encoder.name().to_owned(),
        pixel_format: sr.format.name,
        width: sr.width,
        height: sr.height,
    };
    info!("{}x{} {} -> {}x{} {}", lr.width, lr.height, lr.format.name, sr.width, sr.height, sr.format.name);
    let muxer = Muxer::create(output, &input, &encoder, trim, &plan)?;
    let (engine, network, transcoders) = (engine_spec, NetworkId(0), plan.into_transcoders());
    Ok((Job { input, decoder, engine, network, encoder, transcoders, muxer }, choice))
}

/// An exact size is taken as it is; a scaled one is rounded to whole chroma samples. `shape` is how much wider than
/// high a sample is to be taken for.
fn output_size(args: &Args, lr: &Geometry, model_scale: usize, shape: f64) -> Result<(usize, usize)> {
    let scale = args.scale.unwrap_or(model_scale as f64);
    let scaled = |side: f64, log2_chroma: u8| {
        let step = f64::from(1u32 << log2_chroma);
        ((side * scale / step).round() * step).max(step) as usize
    };
    let (width, height) = args.size.unwrap_or_else(|| {
        (
            scaled(lr.width as f64 * shape, lr.format.log2_chroma_w),
            scaled(lr.height as f64, lr.format.log2_chroma_h),
        )
    });
    if width.max(height) > SIDE_MAX {
        let problem = format!("{width}x{height} is larger than {SIDE_MAX} on a side");
        return Err(Error::new("--size", problem, "choose a smaller one"));
    }
    Ok((width, height))
}

/// The first signal ends the run in order, the second at once.
fn catch_signals() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(EXIT_INTERRUPTED), flag.clone())
            .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
            .map_err(|e| {
                Error::new("signals", format!("cannot be caught: {e}"), "look at the system's limits")
            })?;
    }
    Ok(flag)
}

fn write_report(path: &Path, report: &FullReport) -> Result<()> {
    std::fs::write(path, json(report) + "\n").map_err(|e| {
        Error::new(path.to_string_lossy(), format!("cannot be written: {e}"), "check the folder")
    })
}

fn tell_how_to_go_on(args: &Args, report: &Report, partial: Option<&Path>) {
    let (pictures, reached_s) = (report.pictures.encoded, report.reached_s);
    match partial {
        None => eprintln!("hasn: interrupted after {pictures} pictures"),
        Some(partial) => eprintln!(
            "hasn: interrupted after {pictures} pictures, at {reached_s:.3} s; {} is playable up to there; \
             the rest, into a file of its own: {}",
            partial.display(),
            command_for_the_rest(std::env::args(), &args.output, reached_s)
        ),
    }
}

/// The command as it was typed, from where it got to, into another file.
fn command_for_the_rest(typed: impl Iterator<Item = String>, output: &str, reached_s: f64) -> String {
    let (stem, extension) = output.rsplit_once('.').unwrap_or((output, ""));
    let rest = format!("{stem}.rest.{extension}");
    let mut words: Vec<String> = Vec::new();
    let mut typed = typed;
    while let Some(word) = typed.next() {
        match word.as_str() {
            "--from" => drop(typed.next()),
            _ if word.starts_with("--from=") => {}
            _ if word == output => words.push(rest.clone()),
            _ => words.push(word),
        }
    }
    words.extend(["--from".to_owned(), format!("{reached_s:.6}")]);
    words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
}

fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn tell_summary(choice: &Choice, report: &Report) {
    let Choice { output, width, height, model, engine, .. } = choice;
    let Report { pictures, seconds, pictures_per_second, limited_by, peak_memory_bytes, .. } = report;
    eprintln!(
        "{output}: {} pictures of {width}x{height} by {model} ({engine}) in {seconds:.1} s, \
         {pictures_per_second:.1} per second, limited by {limited_by}, {} MB",
        pictures.encoded,
        peak_memory_bytes / 1_000_000
    );
}

fn parse_scale(text: &str) -> std::result::Result<f64, String> {
    let scale = text.parse().ok().filter(|scale: &f64| *scale > 0.0 && scale.is_finite());
    scale.ok_or_else(|| "write it like 2 or 1.5".to_owned())
}

fn parse_sound(text: &str) -> std::result::Result<Sound, String> {
    Ok(match text {
        "copy" => Sound::Copy,
        "none" => Sound::None,
        "" => return Err("write copy, none, or the name of an encoder".to_owned()),
        encoder => Sound::Encode(encoder.to_owned()),
    })
}

fn parse_key_value(text: &str) -> std::result::Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.into(), value.into())).ok_or_else(|| "write it like preset=slow".to_owned())
}

/// Seconds of `90`, `90.5`, `1:30` or `0:01:30.5`.
fn parse_time(text: &str) -> std::result::Result<f64, String> {
    let fields: Vec<&str> = text.split(':').collect();
    let seconds = fields.iter().try_fold(0.0, |sum, field| {
        let value = field.parse::<f64>().ok().filter(|v| *v >= 0.0 && v.is_finite())?;
        Some(sum * 60.0 + value)
    });
    seconds.filter(|_| fields.len() <= 3).ok_or_else(|| "write it like 90.5 or 0:01:30.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_the_same_command_from_there_on() {
        let typed = ["hasn", "upscale", "my film.mkv", "out.mkv", "--from", "1", "--model", "none"];
        assert_eq!(
            command_for_the_rest(typed.map(str::to_owned).into_iter(), "out.mkv", 1.042_708),
            "hasn upscale 'my film.mkv' out.rest.mkv --model none --from 1.042708"
        );
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let table = [("90", 90.0), ("90.5", 90.5), ("1:30", 90.0), ("0:01:30.5", 90.5), ("100:00", 6000.0)];
        for (text, seconds) in table {
            assert_eq!(parse_time(text), Ok(seconds), "{text}");
        }
        for text in ["", "a", "1:2:3:4", "-1", "1:", "nan", "inf"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_scales_and_options_are_read_or_refused() {
        assert_eq!(parse_size("3840x2160"), Ok((3840, 2160)));
        for text in ["3840", "0x100", "axb", "-1x5"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_scale("1.5"), Ok(1.5));
        for text in ["0", "-2", "nan", "inf", "x"] {
            assert!(parse_scale(text).is_err(), "{text}");
        }
        assert_eq!(parse_key_value("x264-params=a=1"), Ok(("x264-params".into(), "a=1".into())));
        assert!(parse_key_value("=1").is_err() && parse_key_value("preset").is_err());
    }
}
