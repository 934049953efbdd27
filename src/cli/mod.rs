//! The program: one file per command. Arguments become options of a job or a relay. Only `console` prints.

mod args;
mod batch;
mod bench;
mod child;
mod compare;
mod console;
mod farm;
mod info;
mod jobs;
mod model;
mod output;
mod progress;
mod relay;
mod settings;
mod signals;
mod upscale;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use tracing_subscriber::fmt::format::debug_fn;

use crate::error::{ErrorKind, Result, printable};
use crate::media;
use output::exit_code;

/// Upscale video with HASN, a light super-resolution network. Streams, timestamps and tags are kept.
#[derive(Parser)]
#[command(name = "hasn", version, max_term_width = 110)]
struct Cli {
    /// Log decisions and their reasons; twice, log everything.
    #[arg(short, action = ArgAction::Count, global = true)]
    verbose: u8,
    /// File for the error line, besides standard error; set by hasn batch.
    #[arg(long, hide = true)]
    error_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Upscale a video, an image or an image sequence.
    Upscale(Box<upscale::Args>),
    /// Upscale a live stream within a latency limit.
    Relay(Box<relay::Args>),
    /// Upscale many videos, one after the other.
    Batch(batch::Args),
    /// Plan the segments of a video for many processes; takes the arguments of upscale.
    Plan(Box<upscale::Args>),
    /// Encode one segment of a plan.
    Segment(farm::SegmentArgs),
    /// Join the segments of a plan into the video.
    Join(farm::JoinArgs),
    /// Compare a video or image with a reference: PSNR-Y and SSIM-Y.
    Compare(compare::Args),
    /// List the built-in models, or show one.
    Model(model::Args),
    /// Measure the throughput of the network, its share of the processor's peak, or the price of an hour of video.
    Bench(bench::Args),
    /// Show the engines, models and encoders on this machine, and why an engine is missing.
    Info,
}

/// Parses the arguments and runs the command. Usage errors end the process with code 2.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    let _flush = console::Flush;
    console::start();
    let level =
        [tracing::Level::WARN, tracing::Level::INFO, tracing::Level::DEBUG][usize::from(cli.verbose.min(2))];
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| console::Stderr)
        .with_ansi(console::is_terminal())
        .fmt_fields(debug_fn(|to, field, value| console::write_field(to, field.name(), value)))
        .without_time()
        .with_target(false)
        .log_internal_errors(false)
        .init();
    // FFmpeg's own log lines contain addresses with their secrets.
    let is_quiet = match &cli.command {
        Command::Relay(_) => true,
        Command::Upscale(args) | Command::Plan(args) => args.input.to_string_lossy().contains("://"),
        _ => false,
    };
    media::init(if is_quiet { 0 } else { cli.verbose });
    let followed = cli.error_file.as_ref().map_or(Ok(()), |_| child::follow_parent());
    let result = followed.and_then(|()| run_command(cli.command, cli.verbose));
    result.unwrap_or_else(|error| {
        console::log_line(format_args!("hasn: {error}"));
        if error.kind() == ErrorKind::Interrupted {
            return exit_code(true);
        }
        if let Some(path) = &cli.error_file {
            child::write_error(path, &error);
        }
        ExitCode::FAILURE
    })
}

/// Prints a usage error, or the help. `clap` itself prints an argument as it is.
fn usage_error(error: &clap::Error) -> ExitCode {
    let is_harmless = |argument: OsString| {
        let text = argument.to_string_lossy();
        printable(&text) == text
    };
    if std::env::args_os().all(is_harmless) {
        error.exit();
    }
    error.render().to_string().lines().for_each(console::log_line);
    console::flush();
    ExitCode::from(2)
}

fn run_command(command: Command, verbose: u8) -> Result<ExitCode> {
    match command {
        Command::Upscale(args) => upscale::run(*args),
        Command::Relay(args) => relay::run(*args),
        Command::Batch(args) => batch::run(args, verbose),
        Command::Plan(args) => farm::plan(*args),
        Command::Segment(args) => farm::segment(args),
        Command::Join(args) => farm::join(args),
        Command::Compare(args) => compare::run(args),
        Command::Model(args) => model::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Info => info::run(),
    }
}
