//! `hasn upscale`: arguments become a job, which runs under a progress display.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing::info;

use super::progress::{self, Show};
use super::{EXIT_INTERRUPTED, EngineName, PrecisionName, json, parse_size, resume, sequence};
use crate::color::Transfer;
use crate::engine::{EngineChoice, EngineSpec, Network, NetworkId, SIDE_MAX, thread_count};
use crate::error::{Error, Result};
use crate::frame::FrameFormat;
use crate::media::{
    AudioMode, Begin, Damage, DecodeSpec, Decoder, Deinterlace, Encoder, EncoderSpec, FilterSpec, Input,
    Muxer, Output, Pattern, Plan, Target, Trim, VideoInfo,
};
use crate::model::catalogue;
use crate::pipeline::{Outcome, Progress, Report, Run, Sink};

#[derive(clap::Args)]
pub(super) struct Args {
    /// A file or address that FFmpeg opens, - for y4m on standard input, or frames like scan/%06d.dpx.
    pub input: String,
    /// A file, whose ending names the container, - for y4m on standard output, or frames like out/%06d.tif.
    pub output: String,
    /// A built-in model, a safetensors file, or none for the resampler alone [default:
    /// hasn-lite-x2-video, for stills hasn-lite-x2]
    #[arg(long, value_name = "NAME|FILE|none")]
    pub model: Option<String>,
    /// What runs the network.
    #[arg(long, value_enum, default_value = "auto")]
    pub engine: EngineName,
    /// What the CPU engine multiplies: bf16 or int16 where the CPU can and frames have at most 10 bits, or as told.
    #[arg(long, value_enum, default_value = "auto")]
    pub precision: PrecisionName,
    /// Threads of the engine, and of decoder and encoder each [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// The exact size to make [default: the model's scale]
    #[arg(long, value_name = "WxH", value_parser = parse_size, conflicts_with = "scale")]
    pub size: Option<(usize, usize)>,
    /// How many times larger, fractions allowed.
    #[arg(long, value_name = "S", value_parser = parse_scale)]
    pub scale: Option<f64>,
    /// A purpose, which chooses the encoder and its options; those that are given win.
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// FFmpeg's name of an encoder [default: libx264 where the container holds it]
    #[arg(long, value_name = "NAME")]
    pub encoder: Option<String>,
    /// An option of the encoder, as often as needed.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_key_value)]
    pub encoder_opt: Vec<(String, String)>,
    /// FFmpeg's name of a pixel format [default: the input's, or the closest the encoder takes]
    #[arg(long, value_name = "FORMAT")]
    pub pix_fmt: Option<String>,
    /// Which streams, as FFmpeg's -map names them: 0:v, 0:a:1, -0:s, 0:m:language:fra? [default: all]
    #[arg(long, value_name = "SPEC", allow_hyphen_values = true)]
    pub map: Vec<String>,
    /// Frames a second of an input like scan/%06d.dpx, as 24 or 24000/1001 [default: 25]
    #[arg(long, value_name = "R", value_parser = sequence::parse_rate)]
    pub frame_rate: Option<(i32, i32)>,
    /// The number of the first frame, where a video becomes frames like out/%06d.tif [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..1_000_000_000_000))]
    pub start_number: Option<u64>,
    /// What the numbers in EXR files are: linear, for light, or a transfer they are coded with, as bt709.
    #[arg(long, value_name = "linear|NAME", value_parser = sequence::parse_transfer)]
    pub exr_transfer: Option<(String, Transfer)>,
    /// What becomes of audio: copy, none, or an encoder of FFmpeg's.
    #[arg(long, value_name = "copy|none|CODEC", default_value = "copy", value_parser = parse_audio)]
    pub audio: AudioMode,
    /// Fail where the container cannot hold a stream, rather than leave it out.
    #[arg(long)]
    pub strict: bool,
    /// Leave out what is before this time (seconds or [HH:]MM:SS).
    #[arg(long, value_name = "T", value_parser = parse_time)]
    pub from: Option<f64>,
    /// Leave out what is at or after this time.
    #[arg(long, value_name = "T", value_parser = parse_time)]
    pub to: Option<f64>,
    /// Make interlaced frames whole: where they are found to be, always, or never.
    #[arg(long, value_enum, default_value = "auto")]
    pub deinterlace: DeinterlaceName,
    /// FFmpeg filters before the network, e.g. fieldmatch,decimate or crop=704:576.
    #[arg(long, value_name = "GRAPH")]
    pub filter: Option<String>,
    /// Make samples square: the width is the one that is shown.
    #[arg(long, conflicts_with = "size")]
    pub square: bool,
    /// Take so many damaged frames and packets of the source for no failure.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub tolerate: u64,
    /// Run the network even where a frame is as the one before.
    #[arg(long)]
    pub no_reuse: bool,
    /// Overwrite what is there already.
    #[arg(short = 'y')]
    pub overwrite: bool,
    /// Go on with the run that was cut off; without this or --restart a terminal is asked, and a script goes on.
    #[arg(long, conflicts_with = "restart")]
    pub resume: bool,
    /// Begin anew, and forget what a run that was cut off has done.
    #[arg(long)]
    pub restart: bool,
    /// How to show progress.
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: Show,
    /// Write what the run did as JSON.
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
}

/// What to do with interlaced frames, as a user names it.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum DeinterlaceName {
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

/// What a video is made for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Preset {
    /// FFV1 with checksums, 10 bit or more: to be kept, in .mkv
    Archive,
    /// ProRes 422 HQ or 4444: to be worked on, in .mov
    Master,
    /// x264, slow, 8 bit 4:2:0: to be shown, in .mp4
    Web,
}

impl Preset {
    fn encoder(self) -> EncoderSpec {
        let (name, options, pixel_format, depth_min): (_, &[(&str, &str)], _, _) = match self {
            // As archives ask for: each frame by itself, in slices that have checksums of their own.
            Preset::Archive => ("ffv1", &[("g", "1"), ("slices", "16"), ("context", "1")], None, 10),
            Preset::Master => ("prores_ks", &[("vendor", "apl0")], None, 10),
            Preset::Web => ("libx264", &[("preset", "slow"), ("crf", "20")], Some("yuv420p"), 8),
        };
        let options = options.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let (name, pixel_format) = (Some(name.to_owned()), pixel_format.map(str::to_owned));
        EncoderSpec { name, options, pixel_format, depth_min, threads: 0 }
    }
}

/// What the user asked for, over what the preset does.
fn encoder_spec(args: &Args, threads: usize) -> EncoderSpec {
    let of_preset = args.preset.map(Preset::encoder).unwrap_or_default();
    let own = |key: &String| args.encoder_opt.iter().any(|(k, _)| k == key);
    // Another encoder has other options.
    let kept = of_preset.options.into_iter().filter(|(key, _)| args.encoder.is_none() && !own(key));
    EncoderSpec {
        name: args.encoder.clone().or(of_preset.name),
        options: kept.chain(args.encoder_opt.iter().cloned()).collect(),
        pixel_format: args.pix_fmt.clone().or(of_preset.pixel_format),
        depth_min: of_preset.depth_min,
        threads,
    }
}

/// What was made of the arguments, for the report.
#[derive(Clone, Serialize)]
pub(super) struct Choice {
    pub input: String,
    pub output: String,
    pub model: String,
    pub engine: &'static str,
    pub precision: &'static str,
    pub encoder: String,
    pub pixel_format: &'static str,
    pub width: usize,
    pub height: usize,
}

#[derive(Serialize)]
struct FullReport<'a> {
    hasn: &'a str,
    #[serde(flatten)]
    choice: &'a Choice,
    #[serde(flatten)]
    run: &'a Report,
}

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
    let folder = resume::folder(&args)?;
    if let Some(folder) = &folder
        && resume::was_finished(&args, folder)?
    {
        return Ok(ExitCode::SUCCESS);
    }
    let opened = open(&args, folder.as_deref(), None)?;
    match folder {
        folder if opened.output.sequence().is_some() => {
            sequence::run(&args, opened, folder.as_deref(), &interrupt)
        }
        Some(folder) => resume::run(&args, opened, &folder, &interrupt),
        None => run_direct(&args, opened, &interrupt),
    }
}

/// Straight into the output.
fn run_direct(args: &Args, opened: Opened, interrupt: &Arc<AtomicBool>) -> Result<ExitCode> {
    let Opened { input, encoder, plan, output, trim, choice, .. } = &opened;
    let muxer = Box::new(Muxer::create(output.clone(), input, encoder, *trim, plan)?);
    let (choice, damage) = (choice.clone(), input.damage());
    let sink = |plan: Plan| Sink::Direct { muxer, transcoders: plan.into_transcoders() };
    let result = opened.run(args, sink, interrupt);
    let Outcome { report, muxer, .. } = match result {
        // The reader of a pipe was interrupted as well: that is no failure of its own.
        Err(_) if interrupt.load(Ordering::Relaxed) && args.output == "-" => {
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
        result => result?,
    };
    let muxer = muxer.expect("the sink has one");
    if report.interrupted {
        tell_how_to_go_on(&report, muxer.keep_partial().as_deref());
        write_report(args, &choice, &report)?;
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    publish(args, &choice, &report, muxer, &damage)
}

/// Gives a whole output its name, unless its input was too damaged.
pub(super) fn publish(
    args: &Args,
    choice: &Choice,
    report: &Report,
    muxer: Muxer,
    damage: &Damage,
) -> Result<ExitCode> {
    let damaged = damage.error().filter(|_| damage.count() > args.tolerate);
    let partial = match &damaged {
        None => muxer.publish().map(|()| None)?,
        Some(_) => muxer.keep_partial(),
    };
    conclude(args, choice, report, damaged, partial.map(|partial| partial.display().to_string()))
}

/// Tells the end of a run whose frames are where they belong. `place`: where they are if the input was too damaged.
pub(super) fn conclude(
    args: &Args,
    choice: &Choice,
    report: &Report,
    damaged: Option<Error>,
    place: Option<String>,
) -> Result<ExitCode> {
    // The video is there by now, whatever becomes of the report.
    write_report(args, choice, report)?;
    if let Some(error) = damaged {
        let frames = report.frames.encoded;
        return Err(match place {
            Some(place) => error.keeping(&format!("{place} has the {frames} frames there are")),
            None => error,
        });
    }
    if args.progress != Show::None {
        tell_summary(choice, report);
    }
    Ok(ExitCode::SUCCESS)
}

/// By the container's word; 0 where it has none.
pub(super) fn frames_expected(args: &Args, video: &VideoInfo) -> u64 {
    let rate = f64::from(video.frame_rate);
    let whole_s = video.frames_expected as f64 / rate;
    let part_s = args.to.map_or(whole_s, |to| to.min(whole_s)) - args.from.unwrap_or(0.0);
    (part_s * rate).round().max(0.0) as u64
}

/// All parts of a run but where its packets go.
pub(super) struct Opened {
    pub input: Input,
    pub decoder: Decoder,
    pub engine: EngineSpec,
    pub encoder: Encoder,
    pub plan: Plan,
    pub output: Output,
    pub trim: Trim,
    pub choice: Choice,
}

impl Opened {
    /// Runs it under a progress display.
    pub fn run(
        self,
        args: &Args,
        sink: impl FnOnce(Plan) -> Sink,
        interrupt: &AtomicBool,
    ) -> Result<Outcome> {
        let Opened { input, decoder, engine, encoder, plan, .. } = self;
        let progress = Arc::new(Progress::default());
        let expected = frames_expected(args, &input.video());
        let _shown = progress::show(args.progress, progress.clone(), expected, args.output == "-");
        let (network, reuse) = (NetworkId(0), !args.no_reuse);
        let run = Run { input, decoder, engine, network, reuse, encoder, sink: sink(plan) };
        run.execute(&progress, interrupt)
    }
}

/// Opens every part, and writes nothing. `journal`: a partial output beside it is its own. `begin`: where to, if not at
/// the first frame.
pub(super) fn open(args: &Args, journal: Option<&Path>, begin: Option<Begin>) -> Result<Opened> {
    let threads = thread_count(args.threads.map(usize::from));
    let mut output = Output::new(&args.output, &args.input)?;
    output.faststart = matches!(args.preset, Some(Preset::Web));
    if !args.overwrite {
        output.check_free(journal.is_some_and(Path::exists))?;
    }
    // Scans are not coded as videos are, and neither is a frame of a video.
    let makes_one = output.is_still() && output.sequence().is_none();
    let of_stills = makes_one || Pattern::parse(&args.input)?.is_some();
    let default = if of_stills { catalogue::DEFAULT_CPU } else { catalogue::DEFAULT_VIDEO };
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
    sequence::settle(args, &mut input, &output)?;
    let transfer = sequence::transfer(args, &input)?;
    let plan = Plan::new(&input, &output, &args.audio)?;
    if args.strict {
        plan.check_complete(&output)?;
    }
    let trim = input.trim(args.from, args.to);
    let filter = FilterSpec { deinterlace: args.deinterlace.into(), graph: args.filter.clone() };
    let decoder = Decoder::open(&mut input, DecodeSpec { trim, threads, filter, begin, transfer })?;
    let lr = decoder.format();
    let shape = if args.square { decoder.sample_aspect() } else { 1.0 };
    let size = output_size(args, &lr, model_scale, shape)?;
    let target = Target::choose(&encoder_spec(args, threads), &output, &lr, size)?;
    sequence::check_exr(args, &input, &lr, &target)?;
    let sr = target.format;
    let bits = if sr.pixel_format.float { 32 } else { sr.pixel_format.depth() };
    let in_flight = match frames_expected(args, &input.video()) {
        _ if makes_one => 1,
        0 => usize::MAX,
        known => known as usize,
    };
    let spec = |kind| EngineSpec { kind, threads, in_flight, networks: vec![network.clone()], lr, sr };
    let kind =
        EngineChoice::from(args.engine).resolve(args.precision.asked(), bits, |kind| spec(kind).check())?;
    let engine = spec(kind);
    engine.check()?;
    let encoder = Encoder::open(target, &output, &input, &decoder)?;
    let choice = Choice {
        input: args.input.clone(),
        output: args.output.clone(),
        model,
        engine: kind.name(),
        precision: kind.precision_name(),
        encoder: encoder.name().to_owned(),
        pixel_format: sr.pixel_format.name,
        width: sr.width,
        height: sr.height,
    };
    info!(
        "{}x{} {} -> {}x{} {}",
        lr.width, lr.height, lr.pixel_format.name, sr.width, sr.height, sr.pixel_format.name
    );
    Ok(Opened { input, decoder, engine, encoder, plan, output, trim, choice })
}

/// An exact size is taken as it is; a scaled one is rounded to whole chroma samples. `shape` is how much wider than
/// high a sample is to be taken for.
fn output_size(args: &Args, lr: &FrameFormat, model_scale: usize, shape: f64) -> Result<(usize, usize)> {
    let scale = args.scale.unwrap_or(model_scale as f64);
    let scaled = |side: f64, log2_chroma: u8| {
        let step = f64::from(1u32 << log2_chroma);
        ((side * scale / step).round() * step).max(step) as usize
    };
    let (width, height) = args.size.unwrap_or_else(|| {
        (
            scaled(lr.width as f64 * shape, lr.pixel_format.log2_chroma_w),
            scaled(lr.height as f64, lr.pixel_format.log2_chroma_h),
        )
    });
    if width.max(height) > SIDE_MAX {
        let problem = format!("{width}x{height} is larger than {SIDE_MAX} on a side");
        return Err(Error::new("--size", problem, "choose a smaller one"));
    }
    Ok((width, height))
}

/// The first signal ends the run in order, the second at once.
pub(super) fn catch_signals() -> Result<Arc<AtomicBool>> {
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

/// Where the user wants one.
pub(super) fn write_report(args: &Args, choice: &Choice, report: &Report) -> Result<()> {
    let Some(path) = &args.report else { return Ok(()) };
    let full = FullReport { hasn: env!("CARGO_PKG_VERSION"), choice, run: report };
    std::fs::write(path, json(&full) + "\n").map_err(|e| {
        Error::new(path.to_string_lossy(), format!("cannot be written: {e}"), "check the folder")
    })
}

fn tell_how_to_go_on(report: &Report, partial: Option<&Path>) {
    let (frames, reached_s) = (report.frames.encoded, report.reached_s);
    match partial {
        None => eprintln!("hasn: interrupted after {frames} frames"),
        Some(partial) => eprintln!(
            "hasn: interrupted after {frames} frames; {} is playable up to there; \
             --from {reached_s:.6} makes the rest, into a file of its own",
            partial.display(),
        ),
    }
}

fn tell_summary(choice: &Choice, report: &Report) {
    let Choice { output, width, height, model, engine, .. } = choice;
    let Report { frames, seconds, fps, limited_by, peak_memory_bytes, .. } = report;
    eprintln!(
        "{output}: {} frames of {width}x{height} by {model} ({engine}) in {seconds:.1} s, \
         {fps:.1} per second, limited by {limited_by}, {} MB",
        frames.encoded,
        peak_memory_bytes / 1_000_000
    );
}

fn parse_scale(text: &str) -> std::result::Result<f64, String> {
    let scale = text.parse().ok().filter(|scale: &f64| *scale > 0.0 && scale.is_finite());
    scale.ok_or_else(|| "write it like 2 or 1.5".to_owned())
}

pub(super) fn parse_audio(text: &str) -> std::result::Result<AudioMode, String> {
    Ok(match text {
        "copy" => AudioMode::Copy,
        "none" => AudioMode::None,
        "" => return Err("write copy, none, or the name of an encoder".to_owned()),
        encoder => AudioMode::Encode(encoder.to_owned()),
    })
}

pub(super) fn parse_key_value(text: &str) -> std::result::Result<(String, String), String> {
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
