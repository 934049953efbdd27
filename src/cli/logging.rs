//! Logging: which lines go to standard error, and which to a file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, ValueEnum};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterFn, LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry};

use super::console::{self, CONSOLE, write_field};
use crate::error::Result;

/// Options of all commands.
#[derive(clap::Args, Clone, Default)]
pub(super) struct Logging {
    /// Log decisions and their reasons; twice, log everything.
    #[arg(short, long, action = ArgAction::Count, global = true, help_heading = "Logging")]
    pub verbose: u8,
    /// Print errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Logging")]
    pub quiet: bool,
    /// Append all messages, those of -v included, to this file, each with its time.
    #[arg(long, value_name = "FILE", global = true, help_heading = "Logging")]
    pub log_file: Option<PathBuf>,
    /// Form of the log file; json is one object per line.
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "text",
        requires = "log_file",
        global = true,
        help_heading = "Logging"
    )]
    pub log_format: LogFormat,
}

/// Form of the log file.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Logging {
    /// Starts to log, before anything else is done.
    pub fn start(&self) -> Result<()> {
        let level = match self.verbose {
            _ if self.quiet => Level::ERROR,
            0 => Level::WARN,
            1 => Level::INFO,
            _ => Level::DEBUG,
        };
        let fields = || debug_fn(|to, field, value| write_field(to, field.name(), value));
        let for_people = layer()
            .with_writer(|| console::Stderr)
            .with_ansi(console::is_terminal())
            .fmt_fields(fields())
            .without_time()
            .with_target(false)
            .log_internal_errors(false)
            .with_filter(to_stderr(level));
        let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![Box::new(for_people)];
        let opened = self.log_file.as_deref().map_or(Ok(()), |path| {
            let level = LevelFilter::from_level(level.max(Level::INFO));
            let in_file = layer().with_writer(|| console::LogFile).with_ansi(false).with_target(false);
            layers.push(match self.log_format {
                LogFormat::Text => Box::new(in_file.fmt_fields(fields()).with_filter(level)),
                LogFormat::Json => Box::new(in_file.json().flatten_event(true).with_filter(level)),
            });
            console::open_log(path)
        });
        tracing_subscriber::registry().with(layers).init();
        opened
    }

    /// The words that give another process the same options.
    pub fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = (0..self.verbose).map(|_| "-v".into()).collect();
        words.extend(self.quiet.then(|| "-q".into()));
        if let Some(file) = &self.log_file {
            let format = if self.log_format == LogFormat::Json { "json" } else { "text" };
            words.extend(["--log-file".into(), file.into(), "--log-format".into(), format.into()]);
        }
        words
    }
}

/// What the log has on standard error; other lines there are printed, and logged into the file only.
fn to_stderr(max: Level) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    filter_fn(move |metadata| metadata.target() != CONSOLE && *metadata.level() <= max)
        .with_max_level_hint(max)
}
