//! Forms of what is printed, and the exit codes of runs that ended without an error.

use std::process::ExitCode;

pub(super) use crate::job::INTERRUPTED;

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
