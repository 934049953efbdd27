//! `hasn upscale`: arguments become the options of a job, which runs under a progress display.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::args::{EngineName, PrecisionName, parse_audio, parse_duration, parse_key_value, parse_size};
use super::files::Files;
use super::logging::Logging;
use super::output::{counted, exit_code};
use super::progress::{self, Show};
use super::{console, dry_run, signals};
use crate::error::{Error, ErrorKind, Result};
use crate::job::{self, AudioMode, Deinterlace, Interrupt, Job, Kept, Options, Preset, Report, Resume, Size};
use crate::media::{SEGMENT_FRAMES, transfer_by_name};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub files: Files,
    /// Model: a built-in name, a safetensors file, or none for the resampler alone [default:
    /// hasn-lite-x2-video, hasn-lite-x2 for images]
    #[arg(long, value_name = "NAME|FILE|none", help_heading = "Network")]
    pub model: Option<String>,
    /// Engine that runs the network.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Network")]
    pub engine: EngineName,
    /// Number format of the CPU engine. auto takes the one that is measured fastest on this machine for up to 10 bits, f32
    /// above.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Network")]
    pub precision: PrecisionName,
    /// Number of threads of the engine, the decoder and the encoder each [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Network")]
    pub threads: Option<u16>,
    /// Exact size of the output [default: the input's, times the model's scale]
    #[arg(long, value_name = "WxH", value_parser = parse_size, conflicts_with = "scale", help_heading = "Video")]
    pub size: Option<(usize, usize)>,
    /// Scale factor of width and height, such as 2, 2x or 1.5.
    #[arg(long, value_name = "S", value_parser = parse_scale, help_heading = "Video")]
    pub scale: Option<f64>,
    /// Encoder settings for a purpose, by a name of hasn preset list; explicit options override them.
    #[arg(long, value_enum, help_heading = "Video")]
    pub preset: Option<PresetName>,
    /// FFmpeg encoder [default: libx264 where the container holds H.264]
    #[arg(long, value_name = "NAME", help_heading = "Video")]
    pub encoder: Option<String>,
    /// Option of the encoder; can be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_key_value, help_heading = "Video")]
    pub encoder_opt: Vec<(String, String)>,
    /// Constant quality of x264, x265, SVT-AV1, VP9 and NVENC: less is better.
    #[arg(long, value_name = "N", value_parser = parse_crf, help_heading = "Video")]
    pub crf: Option<String>,
    /// Speed of the encoder by its own names, such as slow for x264 and x265, 6 for SVT-AV1, p5 for NVENC.
    #[arg(long, value_name = "NAME", help_heading = "Video")]
    pub encoder_preset: Option<String>,
    /// FFmpeg pixel format of the output [default: the input's, or the closest that the encoder takes]
    #[arg(long, value_name = "FORMAT", help_heading = "Video")]
    pub pix_fmt: Option<String>,
    /// Open the input even if it lists other files, such as a playlist, and its extension does not say so (.m3u8, .mpd,
    /// .ffconcat, .xml, .idx, .mlv, .sdp). What a file lists is opened by FFmpeg's protocols file, crypto and data (.sdp:
    /// rtp, srtp, udp), what a web address lists by http, https, crypto and data.
    #[arg(long, help_heading = "Input")]
    pub allow_playlist: bool,
    /// Fail when no byte of the input arrives for this long; 0 is no limit [default: 60s for an address, 0 for files and
    /// pipes]
    #[arg(long, value_name = "T", value_parser = parse_duration, help_heading = "Input")]
    pub timeout: Option<Duration>,
    /// Streams to keep, as FFmpeg's -map: 0:v, 0:a:1, -0:s, 0:m:language:fra?; can be repeated [default: all]
    #[arg(long, value_name = "SPEC", allow_hyphen_values = true, help_heading = "Audio and streams")]
    pub map: Vec<String>,
    /// Frame rate of an input image sequence, such as 24, 23.976 or 24000/1001 [default: 25]
    #[arg(long, value_name = "R", value_parser = parse_rate, help_heading = "Input")]
    pub frame_rate: Option<(i32, i32)>,
    /// Number of the first file when a video is written as an image sequence [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..1_000_000_000_000), help_heading = "Output")]
    pub start_number: Option<u64>,
    /// Transfer of the values in EXR files: linear, or the transfer that encodes them, such as bt709.
    #[arg(long, value_name = "linear|NAME", value_parser = parse_transfer, help_heading = "Input")]
    pub exr_transfer: Option<String>,
    /// Audio: copy (converted where the container cannot hold its codec), none, or the FFmpeg encoder to convert it with.
    #[arg(long, value_name = "copy|none|ENCODER", default_value = "copy", value_parser = parse_audio, help_heading = "Audio and streams")]
    pub audio: AudioMode,
    /// Fail if the output cannot hold a stream, side data or alpha, instead of leaving it out.
    #[arg(long, help_heading = "Output")]
    pub strict: bool,
    /// Start at this time, in seconds or [HH:]MM:SS.
    #[arg(long, value_name = "T", value_parser = parse_time, help_heading = "Input")]
    pub from: Option<f64>,
    /// End before this time, written like that of --from.
    #[arg(long, value_name = "T", value_parser = parse_time, help_heading = "Input")]
    pub to: Option<f64>,
    /// Which frames are deinterlaced.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Video")]
    pub deinterlace: DeinterlaceName,
    /// FFmpeg filter graph to run before the network, such as fieldmatch,decimate or crop=704:576.
    #[arg(long, value_name = "GRAPH", help_heading = "Video")]
    pub filter: Option<String>,
    /// Make pixels square: the width of the output follows the display aspect ratio of the input.
    #[arg(long, conflicts_with = "size", help_heading = "Video")]
    pub square: bool,
    /// Number of damaged frames and packets up to which the run succeeds.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Input")]
    pub tolerate: u64,
    /// Run the network on every frame, even on one that equals the previous frame.
    #[arg(long, help_heading = "Network")]
    pub no_reuse: bool,
    /// Overwrite existing files.
    #[arg(short = 'y', long, help_heading = "Output")]
    pub overwrite: bool,
    /// Resume an interrupted run without a question [default: ask on a terminal, else resume]
    #[arg(long, conflicts_with = "restart", help_heading = "Resume")]
    pub resume: bool,
    /// Discard what an interrupted run has finished, and start over.
    #[arg(long, help_heading = "Resume")]
    pub restart: bool,
    /// Print what a run would do with each stream, and an estimate of time, disk and memory, measured on frames of the input.
    /// Nothing is written but --report.
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,
    /// Progress display.
    #[arg(long, value_enum, default_value = "auto", help_heading = "Logging")]
    pub progress: Show,
    /// Write a JSON report of the run.
    #[arg(long, value_name = "FILE.json", help_heading = "Logging")]
    pub report: Option<PathBuf>,
}

/// Deinterlacing as a user names it.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum DeinterlaceName {
    /// Frames that are detected as interlaced
    Auto,
    /// All frames, with FFmpeg's bwdif
    Bwdif,
    /// No frame
    Off,
}

/// Presets as a user names them.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum PresetName {
    /// Preservation: FFV1 with checksums, 10-bit or deeper, in .mkv
    Archive,
    /// Editing: ProRes 422 HQ or 4444, in .mov
    Master,
    /// Delivery: x264, slow, 8-bit 4:2:0, in .mp4
    Web,
    /// Delivery in a hurry: x264, veryfast, 8-bit 4:2:0, in .mp4
    WebFast,
    /// Smaller files: x265, slow, 10-bit or deeper, in .mkv or .mp4
    Hevc,
    /// The smallest files: SVT-AV1, 10-bit, in .mkv, .mp4 or .webm
    Av1,
}

impl PresetName {
    pub fn preset(self) -> Preset {
        match self {
            PresetName::Archive => Preset::Archive,
            PresetName::Master => Preset::Master,
            PresetName::Web => Preset::Web,
            PresetName::WebFast => Preset::WebFast,
            PresetName::Hevc => Preset::Hevc,
            PresetName::Av1 => Preset::Av1,
        }
    }
}

impl Args {
    pub fn options(&self) -> Options {
        let mut options = Options::new(&self.files.input, &self.files.output);
        options.model = self.model.clone();
        options.engine = self.engine.into();
        options.precision = self.precision.precision();
        options.threads = self.threads.map(usize::from);
        options.size = match (self.size, self.scale) {
            (Some((width, height)), _) => Size::Exact { width, height },
            (None, Some(scale)) => Size::Scale(scale),
            (None, None) => Size::Model,
        };
        options.square = self.square;
        options.preset = self.preset.map(PresetName::preset);
        options.encoder = self.encoder.clone();
        options.encoder_options = self.encoder_opt.clone();
        options.crf = self.crf.clone();
        options.encoder_preset = self.encoder_preset.clone();
        options.pixel_format = self.pix_fmt.clone();
        options.allow_playlist = self.allow_playlist;
        options.timeout = self.timeout;
        options.map = self.map.clone();
        options.frame_rate = self.frame_rate;
        options.start_number = self.start_number;
        options.exr_transfer = self.exr_transfer.clone();
        options.audio = self.audio.clone();
        options.strict = self.strict;
        (options.from_s, options.to_s) = (self.from, self.to);
        options.deinterlace = match self.deinterlace {
            DeinterlaceName::Auto => Deinterlace::Auto,
            DeinterlaceName::Bwdif => Deinterlace::Bwdif,
            DeinterlaceName::Off => Deinterlace::Off,
        };
        options.filter = self.filter.clone();
        options.tolerate = self.tolerate;
        options.reuse = !self.no_reuse;
        options.overwrite = self.overwrite;
        options.resume = match (self.resume, self.restart) {
            (true, _) => Resume::Always,
            (false, true) => Resume::Restart,
            (false, false) => Resume::Auto,
        };
        options.report = self.report.clone();
        options
    }
}

pub(super) fn run(mut args: Args, is_quiet: bool) -> Result<ExitCode> {
    if is_quiet {
        args.progress = Show::None;
    }
    let (interrupt, started) = (signals::catch()?, job::now());
    let is_piped = args.files.output == "-";
    if is_piped {
        signals::end_soon_after(&interrupt)?;
    }
    let (options, progress) = (args.options(), progress::shown(args.progress, is_piped));
    if args.dry_run {
        let job = job::open(&options, &interrupt)?;
        return dry_run::run(job, args.progress, args.report.as_deref(), &interrupt);
    }
    let result = open(&args, &options, &interrupt).and_then(|job| job.run(&progress));
    if args.progress == Show::Json {
        progress::write_last_line(&progress, &options, started, &result, is_piped);
    }
    let report = match result {
        // The reader of the pipe was interrupted by the same signal and has reported it.
        Err(error) if error.kind() == ErrorKind::Interrupted && is_piped => return Ok(exit_code(true)),
        result => result?,
    };
    if report.is_interrupted() {
        print_what_is_kept(&report);
    } else if report.already_complete {
        console::log_line(format_args!("{}: is already complete", args.files.output.display()));
    } else if args.progress != Show::None {
        print_summary(&report);
    }
    Ok(exit_code(report.is_interrupted()))
}

/// Opens the job, and asks whether to resume an earlier run of it.
fn open(args: &Args, options: &Options, interrupt: &Interrupt) -> Result<Job> {
    let job = job::open(options, interrupt)?;
    match ask_whether_to_resume(args, &job, interrupt) {
        Ok(()) => Ok(job),
        Err(error) => Err(job.refuse(error)),
    }
}

/// Interval at which the prompt looks for an interrupt.
const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Asks on a terminal whether to resume, where neither --resume nor --restart is given.
fn ask_whether_to_resume(args: &Args, job: &Job, interrupt: &Interrupt) -> Result<()> {
    let Some(folder) = job.journal() else { return Ok(()) };
    let is_answered = args.resume || args.restart;
    if is_answered || !io::stdin().is_terminal() || !console::is_terminal() {
        return Ok(());
    }
    let (folder, state) = (folder.display(), reached(job.kept_frames(), job.summary().frames_expected));
    console::prompt(format_args!("hasn: {folder} is from an interrupted run ({state}). Resume it? [Y/n] "));
    let answer = read_line(interrupt);
    let answer = answer.map_err(|e| Error::io("standard input", e, "give --resume or --restart"))?;
    let left = Error::new(folder.to_string(), "is left as it is", "--restart starts over");
    match answer.as_deref().map(str::trim) {
        Some("" | "y" | "Y" | "yes") => Ok(()),
        Some(_) => Err(left.with_kind(ErrorKind::Exists)),
        None => {
            console::stderr_line("");
            let kind = if interrupt.is_set() { ErrorKind::Interrupted } else { ErrorKind::Exists };
            Err(left.with_kind(kind))
        }
    }
}

/// How far a run is: `240 of 2000 frames, 12 %`.
fn reached(frames: u64, expected: u64) -> String {
    match expected {
        0 => counted(frames, "frame"),
        _ => format!("{frames} of {}, {} %", counted(expected, "frame"), (100 * frames / expected).min(100)),
    }
}

/// Reads a line from the terminal; `None` once `interrupt` is set, and at the end of the input.
fn read_line(interrupt: &Interrupt) -> io::Result<Option<String>> {
    let (stdin, mut line) = (io::stdin(), String::new());
    while !interrupt.is_set() {
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&POLL_INTERVAL)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => {
                let read = stdin.read_line(&mut line)?;
                return Ok((read > 0 && !interrupt.is_set()).then_some(line));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(None)
}

fn print_what_is_kept(report: &Report) {
    let output = &report.summary.output;
    let encoded = counted(report.run.frames.encoded, "frame");
    let line = match &report.kept {
        Some(Kept::Partial { path }) => format!(
            "interrupted after {encoded}; {} is playable up to there; \
             --from {:.6} upscales the rest, into another file",
            path.display(),
            report.run.reached_s
        ),
        Some(Kept::Journal { folder, frames }) => {
            let folder = folder.display();
            let frames = counted(*frames, "frame");
            format!("interrupted; {folder} keeps the first {frames}: the same command resumes there")
        }
        Some(Kept::Sequence { frames, resumable }) => {
            let how = if *resumable { ": the same command resumes there" } else { "" };
            format!("interrupted; {output} has {}{how}", counted(*frames, "frame"))
        }
        Some(Kept::Nothing { segmented: true }) => {
            format!("interrupted before the first {SEGMENT_FRAMES} frames were complete; nothing is kept")
        }
        Some(Kept::Nothing { segmented: false }) => {
            "interrupted before the first frame was complete; nothing is kept".to_owned()
        }
        None => format!("interrupted after {encoded}"),
    };
    console::log_line(format_args!("hasn: {line}"));
}

fn print_summary(report: &Report) {
    let (summary, run) = (&report.summary, &report.run);
    console::log_line(format_args!(
        "{}: {}, {}x{}, {} ({}), {:.1} s, {:.1} fps, limited by {}, {} MB",
        summary.output,
        counted(run.frames.encoded, "frame"),
        summary.width,
        summary.height,
        summary.model,
        summary.engine,
        run.seconds,
        run.fps,
        run.limited_by,
        run.peak_memory_bytes / 1_000_000
    ));
}

/// Parses the words after `hasn` of a command line, as a plan and a batch keep them.
pub(super) fn parse_words(
    words: impl IntoIterator<Item = impl Into<OsString>>,
) -> std::result::Result<Args, clap::Error> {
    /// `hasn upscale` alone.
    #[derive(Parser)]
    #[command(name = "hasn")]
    struct Line {
        #[command(flatten)]
        logging: Logging,
        #[command(subcommand)]
        command: Command,
    }
    #[derive(Subcommand)]
    enum Command {
        Upscale(Box<Args>),
    }
    let words = std::iter::once("hasn".into()).chain(words.into_iter().map(Into::<OsString>::into));
    let Line { command: Command::Upscale(args), .. } = Line::try_parse_from(words)?;
    Ok(*args)
}

/// Parses the words of a plan.
pub(super) fn parse_plan(folder: &Path, words: &[String]) -> Result<Args> {
    let words = std::iter::once("upscale".to_owned()).chain(words.iter().cloned());
    parse_words(words).map_err(|_| {
        let problem = "has a command that hasn upscale does not take";
        Error::new(folder.to_string_lossy(), problem, "plan it again").with_kind(ErrorKind::Damaged)
    })
}

fn parse_scale(text: &str) -> std::result::Result<f64, String> {
    let number = text.strip_suffix(['x', 'X']).unwrap_or(text);
    let scale = number.parse().ok().filter(|scale: &f64| *scale > 0.0 && scale.is_finite());
    scale.ok_or_else(|| "write it like 2 or 1.5".to_owned())
}

fn parse_crf(text: &str) -> std::result::Result<String, String> {
    let crf = text.parse().ok().filter(|crf: &f64| (0.0..=63.0).contains(crf));
    crf.map(|_| text.to_owned()).ok_or_else(|| "write a number from 0 to 63".to_owned())
}

/// Parses `90`, `90.5`, `1:30` or `0:01:30.5` to seconds.
pub(super) fn parse_time(text: &str) -> std::result::Result<f64, String> {
    let fields: Vec<&str> = text.split(':').collect();
    let seconds = fields.iter().try_fold(0.0, |sum, field| {
        let value = field.parse::<f64>().ok().filter(|v| *v >= 0.0 && v.is_finite())?;
        Some(sum * 60.0 + value)
    });
    seconds.filter(|_| fields.len() <= 3).ok_or_else(|| "write it like 90.5 or 0:01:30.5".to_owned())
}

/// Checks that FFmpeg knows a transfer of this name.
fn parse_transfer(name: &str) -> std::result::Result<String, String> {
    transfer_by_name(name).map(|_| name.to_owned()).ok_or_else(|| {
        "write linear, or a transfer as FFmpeg names it: bt709, iec61966-2-1, smpte2084".into()
    })
}

/// Parses a frame rate to a fraction; one like 23.976 is NTSC's, a whole rate by 1.001.
fn parse_rate(text: &str) -> std::result::Result<(i32, i32), String> {
    let fraction = match text.split_once('/') {
        Some((num, den)) => num.parse().ok().zip(den.parse().ok()),
        None => text.parse::<f64>().ok().filter(|rate| (0.001..1e6).contains(rate)).map(|rate| {
            let (whole, thousandths) = ((rate * 1.001).round(), (rate * 1000.0).round());
            match rate.fract() == 0.0 || (whole / 1.001 - rate).abs() > 0.006 {
                true => (thousandths as i32, 1000),
                false => (whole as i32 * 1000, 1001),
            }
        }),
    };
    let fraction = fraction.filter(|&(num, den): &(i32, i32)| num > 0 && den > 0);
    fraction.map(reduced).ok_or_else(|| "write it like 24, 23.976 or 24000/1001".to_owned())
}

fn reduced((num, den): (i32, i32)) -> (i32, i32) {
    let (mut a, mut b) = (num, den);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    (num / a, den / a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_scales_and_rates_are_read_or_refused() {
        let table = [("90", 90.0), ("90.5", 90.5), ("1:30", 90.0), ("0:01:30.5", 90.5), ("100:00", 6000.0)];
        for (text, seconds) in table {
            assert_eq!(parse_time(text), Ok(seconds), "{text}");
        }
        for text in ["", "a", "1:2:3:4", "-1", "1:", "nan", "inf"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        assert_eq!(parse_scale("1.5"), Ok(1.5));
        assert_eq!(parse_scale("2x"), Ok(2.0));
        assert_eq!(parse_crf("18.5"), Ok("18.5".to_owned()));
        assert!(parse_crf("high").is_err() && parse_crf("-1").is_err());
        for text in ["0", "-2", "nan", "inf", "x"] {
            assert!(parse_scale(text).is_err(), "{text}");
        }
        assert_eq!(parse_rate("24"), Ok((24, 1)));
        assert_eq!(parse_rate("24000/1001"), Ok((24000, 1001)));
        for (text, rate) in [
            ("23.976", (24000, 1001)),
            ("23.98", (24000, 1001)),
            ("29.97", (30000, 1001)),
            ("59.94", (60000, 1001)),
            ("119.88", (120_000, 1001)),
            ("12.5", (25, 2)),
            ("25.000", (25, 1)),
            ("50/2", (25, 1)),
        ] {
            assert_eq!(parse_rate(text), Ok(rate), "{text}");
        }
        for text in ["", "0", "24/0", "-24", "24000/1001/2", "x", "nan", "1e9"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert_eq!(parse_transfer("smpte2084"), Ok("smpte2084".to_owned()));
        assert!(parse_transfer("light").is_err());
    }
}
