//! Child: one video of a batch, made by a process of its own, which whatever is wrong with it ends alone and whose memory
//! goes with it.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde_json::Value;

use crate::error::{Error, Result};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How a video ended.
pub(super) struct Ended {
    /// `None`: a signal ended it.
    pub code: Option<i32>,
    /// Null where it wrote none.
    pub report: Value,
    /// The line that it told, or one that says how it ended without.
    pub error: String,
}

/// A parent that is killed ends its video in order.
pub(super) fn follow_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::INT)).map_err(|e| failed("this process", e.into()))
}

/// Runs a command of this program to its end. It is in a process group of its own, so that Ctrl-C reaches it once: from
/// here.
pub(super) fn run(video: &str, words: &[String], verbose: u8, interrupt: &AtomicBool) -> Result<Ended> {
    let folder = tempfile::tempdir().map_err(|e| failed("the folder for temporary files", e))?;
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    // The program that runs, even where another one has its name by now.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("hasn").args((0..verbose).map(|_| "-v")).arg("--error-file").arg(path("error"));
    command.arg(&words[0]).arg("--report").arg(path("report")).args(&words[1..]);
    let mut child =
        command.stdin(Stdio::null()).process_group(0).spawn().map_err(|e| failed("hasn upscale", e))?;
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| failed("hasn upscale", e))? {
            break status;
        }
        if interrupt.load(Ordering::Relaxed) && !told {
            // One that is over by now needs no telling.
            let _ = kill_process(Pid::from_child(&child), Signal::INT);
            told = true;
        }
        thread::sleep(LOOK_EVERY);
    };
    let read = |name: &str| std::fs::read(path(name)).ok();
    let report = read("report").and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let error =
        read("error").map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_else(|| {
            let how = match status.signal() {
                Some(signal) => format!("its run was ended by signal {signal}"),
                None => format!("its run ended with code {}", status.code().unwrap_or_default()),
            };
            Error::new(video, how, "start the batch again: it goes on where it was").to_string()
        });
    Ok(Ended { code: status.code(), report, error })
}

/// Where a parent asked for it.
pub(super) fn write_error(path: &Path, error: &Error) {
    // It was told on standard error as well.
    let _ = std::fs::write(path, error.to_string());
}

fn failed(what: &str, error: std::io::Error) -> Error {
    Error::new(what, error.to_string(), "look at the system's limits")
}
