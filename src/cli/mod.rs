//! The program: one file per command. Arguments become options of a job or a relay. Only `console` prints.

mod args;
mod batch;
mod bench;
mod child;
mod compare;
mod console;
mod dry_run;
mod examples;
mod farm;
mod files;
mod frames;
mod hints;
mod info;
mod jobs;
mod logging;
mod manual;
mod model;
mod option_file;
mod output;
mod presets;
mod preview;
mod progress;
mod relay;
mod settings;
mod signals;
mod upscale;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::{ErrorKind, Result, printable};
use crate::media;
use logging::Logging;
use output::exit_code;

/// Upscale video with HASN, a light super-resolution network. Streams, timestamps and tags are kept.
#[derive(Parser)]
#[command(name = "hasn", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    logging: Logging,
    /// File for the error line, besides standard error; set by hasn batch.
    #[arg(long, hide = true)]
    error_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Upscale a video, an image or an image sequence.
    #[command(after_help = examples::UPSCALE)]
    Upscale(Box<upscale::Args>),
    /// Upscale a live stream within a latency limit.
    #[command(after_help = examples::RELAY)]
    Relay(Box<relay::Args>),
    /// Upscale many videos, one after the other.
    #[command(after_help = examples::BATCH)]
    Batch(batch::Args),
    /// Plan the segments of a video for many processes; takes the arguments of upscale.
    #[command(after_help = examples::PLAN)]
    Plan(Box<upscale::Args>),
    /// Encode one segment of a plan.
    Segment(farm::SegmentArgs),
    /// Join the segments of a plan into the video.
    Join(farm::JoinArgs),
    /// Show some frames by several models and by bicubic on a web page, with an estimate for the whole input.
    #[command(after_help = examples::PREVIEW)]
    Preview(Box<preview::Args>),
    /// Compare a video or image with a reference: PSNR-Y and SSIM-Y.
    #[command(after_help = examples::COMPARE)]
    Compare(compare::Args),
    /// Show the presets.
    #[command(subcommand)]
    Preset(presets::Args),
    /// List the built-in models, or show one.
    Model(model::Args),
    /// Measure the throughput of the network, its share of the processor's peak, or the price of an hour of video.
    Bench(bench::Args),
    /// Show the engines, models and encoders on this machine, and why an engine is missing.
    Info(info::Args),
    /// Print the completions of a shell.
    Completions { shell: clap_complete::Shell },
    /// Write the manual pages into a folder.
    Man {
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

/// Parses the arguments and runs the command. Usage errors end the process with code 2.
pub fn run() -> ExitCode {
    let _flush = console::Flush;
    console::start();
    let line = match presets::expand_line(std::env::args_os().collect(), Cli::command()) {
        Ok(line) => line,
        Err(error) => {
            console::log_line(format_args!("hasn: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let cli = match Cli::try_parse_from(&line) {
        Ok(cli) => cli,
        Err(error) => return usage_error(error),
    };
    let started = cli.logging.start();
    // FFmpeg's own log lines contain parts of addresses, such as stream keys.
    let is_quiet = matches!(cli.command, Command::Relay(_))
        || line.iter().any(|word| word.to_string_lossy().contains("://"));
    media::init(if is_quiet { 0 } else { cli.logging.verbose });
    let followed = cli.error_file.as_ref().map_or(Ok(()), |_| child::follow_parent());
    let result = started.and(followed).and_then(|()| run_command(cli.command, line, &cli.logging));
    result.unwrap_or_else(|error| {
        console::error_line(format_args!("hasn: {error}"));
        if error.kind() == ErrorKind::Interrupted {
            return exit_code(true);
        }
        if let Some(path) = &cli.error_file {
            child::write_error(path, &error);
        }
        ExitCode::FAILURE
    })
}

/// Prints a usage error, or the help. `clap` itself prints an argument as it is, with the secrets of an address.
fn usage_error(error: clap::Error) -> ExitCode {
    let mut error = error.with_cmd(&Cli::command());
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    hints::add(&mut error, &words.collect::<Vec<_>>());
    let is_harmless = |argument: OsString| {
        let text = argument.to_string_lossy();
        printable(&text) == text && !text.contains("://")
    };
    if !error.use_stderr() || std::env::args_os().all(is_harmless) {
        error.exit();
    }
    let text = error.render().to_string();
    text.lines().for_each(|line| console::log_line(media::redacted_text(line)));
    console::flush();
    ExitCode::from(2)
}

fn run_command(command: Command, line: Vec<OsString>, logging: &Logging) -> Result<ExitCode> {
    let is_quiet = logging.quiet;
    match command {
        Command::Upscale(args) => upscale::run(*args, is_quiet),
        Command::Relay(args) => relay::run(*args, is_quiet),
        Command::Batch(args) => batch::run(args, logging),
        Command::Plan(args) => farm::plan(*args, line),
        Command::Segment(args) => farm::segment(args),
        Command::Join(args) => farm::join(args),
        Command::Preview(args) => preview::run(*args),
        Command::Compare(args) => compare::run(args, is_quiet),
        Command::Preset(args) => presets::run(&args),
        Command::Model(args) => model::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Info(args) => info::run(&args),
        Command::Completions { shell } => manual::print_completions(shell, Cli::command()),
        Command::Man { folder } => manual::write_pages(&folder, Cli::command()),
    }
}
