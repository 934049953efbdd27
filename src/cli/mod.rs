//! One file a command: arguments as typed become a job that can run. The only place that prints.

#[path = "../job/batch.rs"]
mod batch;
mod bench;
mod child;
mod compare;
mod info;
#[path = "../job/collect.rs"]
mod jobs;
mod model;
#[path = "../job/farm.rs"]
mod plan;
mod progress;
mod relay;
#[path = "../job/resume.rs"]
mod resume;
#[path = "../job/sequence.rs"]
mod sequence;
mod settings;
#[path = "../job/run.rs"]
mod upscale;
mod words;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

use crate::engine::EngineChoice;
use crate::engine::cpu::Precision;
use crate::error::{Error, Result};
use crate::media;

/// Enlarges video with HASN, a light super-resolution network. Every stream, timestamp and tag comes along.
#[derive(Parser)]
#[command(name = "hasn", version, max_term_width = 110)]
struct Cli {
    /// Say what is chosen and why; twice, say everything.
    #[arg(short, action = ArgAction::Count, global = true)]
    verbose: u8,
    /// Of a video of a batch: where its error is to be written, beside standard error.
    #[arg(long, hide = true)]
    error_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a video or a frame larger.
    Upscale(Box<upscale::Args>),
    /// Make a live stream larger, with a ceiling on its latency.
    Relay(Box<relay::Args>),
    /// Make many videos larger, one after the other.
    Batch(batch::Args),
    /// Prepare a video to be made by many processes; arguments as for upscale.
    Plan(Box<upscale::Args>),
    /// Make one segment of a plan.
    Segment(plan::SegmentArgs),
    /// Join a plan's segments to the video.
    Join(plan::JoinArgs),
    /// Measure a video or frame against a reference: PSNR-Y and SSIM.
    Compare(compare::Args),
    /// List the built-in models, or show one.
    Model(model::Args),
    /// Measure how fast the network alone is, and what of the processor it uses.
    Bench(bench::Args),
    /// What this program can use on this machine, and why not the rest.
    Info,
}

/// A user's interrupt ends with what the shell knows as SIGINT's code.
const EXIT_INTERRUPTED: u8 = 130;

/// Parses the arguments and runs the command. Usage errors end the process with code 2.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let level =
        [tracing::Level::WARN, tracing::Level::INFO, tracing::Level::DEBUG][usize::from(cli.verbose.min(2))];
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    // FFmpeg tells addresses with their secrets.
    let is_relay = matches!(cli.command, Command::Relay(_));
    media::init(if is_relay { 0 } else { cli.verbose });
    let followed = cli.error_file.as_ref().map_or(Ok(()), |_| child::follow_parent());
    let result = followed.and_then(|()| run_command(cli.command, cli.verbose));
    result.unwrap_or_else(|error| {
        eprintln!("hasn: {error}");
        if let Some(path) = &cli.error_file {
            child::write_error(path, &error);
        }
        ExitCode::FAILURE
    })
}

fn run_command(command: Command, verbose: u8) -> Result<ExitCode> {
    match command {
        Command::Upscale(args) => upscale::run(*args),
        Command::Relay(args) => relay::run(*args),
        Command::Batch(args) => batch::run(args, verbose),
        Command::Plan(args) => plan::plan(*args),
        Command::Segment(args) => plan::segment(args),
        Command::Join(args) => plan::join_segments(args),
        Command::Compare(args) => compare::run(args),
        Command::Model(args) => model::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Info => info::run(),
    }
}

/// Writes to standard output, where a reader that has gone is no error worth a line.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new("standard output", e.to_string(), "look at where it goes"))
        }
        _ => Ok(()),
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data is always JSON")
}

/// Engines as a user names them.
#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq, Debug)]
enum EngineName {
    Auto,
    Cuda,
    Cpu,
    Reference,
}

/// Precisions as a user names them.
#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq, Debug)]
enum PrecisionName {
    Auto,
    F32,
    Bf16,
    Int16,
}

impl PrecisionName {
    fn asked(self) -> Option<Precision> {
        match self {
            PrecisionName::Auto => None,
            PrecisionName::F32 => Some(Precision::F32),
            PrecisionName::Bf16 => Some(Precision::Bf16),
            PrecisionName::Int16 => Some(Precision::Int16),
        }
    }
}

/// `WxH`.
fn parse_size(text: &str) -> std::result::Result<(usize, usize), String> {
    let sides = text.split_once(['x', 'X']).and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides.filter(|&(w, h)| w > 0 && h > 0).ok_or_else(|| "write it like 3840x2160".to_owned())
}

impl From<EngineName> for EngineChoice {
    fn from(name: EngineName) -> EngineChoice {
        match name {
            EngineName::Auto => EngineChoice::Auto,
            EngineName::Cuda => EngineChoice::Cuda,
            EngineName::Cpu => EngineChoice::Cpu,
            EngineName::Reference => EngineChoice::Reference,
        }
    }
}
