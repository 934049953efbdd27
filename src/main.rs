//! The command line program, which only calls `cli` of the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    hasn::cli::run()
}
