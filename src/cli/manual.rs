//! Completions of shells and manual pages, made from the arguments.

use std::path::Path;
use std::process::ExitCode;

use clap::Command;

use super::console;
use crate::error::{Error, Result};

pub(super) fn print_completions(shell: clap_complete::Shell, mut command: Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "hasn", &mut script);
    console::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a page for the program and one for each command.
pub(super) fn write_pages(folder: &Path, command: Command) -> Result<ExitCode> {
    clap_mangen::generate_to(command, folder)
        .map_err(|e| Error::io(folder.to_string_lossy(), e, "name a folder that exists"))?;
    Ok(ExitCode::SUCCESS)
}
