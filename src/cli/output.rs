//! Printing to standard output, and the exit codes of runs that ended without an error.

use std::io::Write;
use std::process::ExitCode;

use super::console;
use crate::error::{Error, Result};

/// The exit code of an interrupted run, which is the one that shells report for SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// Writes to standard output. It is no error if the reader has closed it.
pub(super) fn print(text: &str) -> Result<()> {
    // On a terminal, what was logged before stands above.
    console::flush();
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("standard output", e, "look at where it goes"))
        }
        _ => Ok(()),
    }
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data is always JSON")
}

/// A count with its noun: `1 frame`, `2 frames`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// The exit code of a run that has ended without an error.
pub(super) fn exit_code(interrupted: bool) -> ExitCode {
    if interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS }
}
