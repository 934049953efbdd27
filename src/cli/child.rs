//! Child: one video of a batch in a process of its own, so that a crash ends that video alone, and its memory is freed.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde_json::Value;
use tracing::warn;

use super::logging::Logging;
use crate::error::{Error, Result};
use crate::job::Interrupt;

const POLL_EVERY: Duration = Duration::from_millis(20);

/// How the process of a video ended.
pub(super) struct Exited {
    /// `None`: a signal ended it.
    pub code: Option<i32>,
    /// Its report; null if it wrote none.
    pub report: Value,
    /// Its error line, or a line that says how it ended if it wrote none.
    pub error: String,
}

/// Interrupts this process when its parent is killed.
pub(super) fn follow_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::INT)).map_err(|e| failed("this process", e.into()))
}

/// What the process of a video writes for its parent, in hidden files beside the output: a folder for temporary files may
/// be cleaned up before the video ends.
struct Files {
    report: PathBuf,
    error: PathBuf,
}

impl Files {
    fn beside(output: &Path) -> Files {
        let path = |what: &str| {
            let mut name = OsString::from(".");
            name.push(output.file_name().unwrap_or_default());
            name.push(format!(".hasn-{what}"));
            output.with_file_name(name)
        };
        let files = Files { report: path("report"), error: path("error") };
        // A batch that was killed has left them.
        files.remove();
        files
    }

    fn remove(&self) {
        for path in [&self.report, &self.error] {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    warn!("{}: cannot be removed: {e}; it is no longer needed", path.display());
                }
                _ => {}
            }
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Runs a command of this program to its end, in a process group of its own, so that Ctrl-C reaches it once: from here.
pub(super) fn run(
    video: &OsStr,
    words: &[OsString],
    logging: &Logging,
    interrupt: &Interrupt,
) -> Result<Exited> {
    let files = Files::beside(Path::new(video));
    // The program that runs, even where another file has its name by now.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("hasn").args(logging.words()).arg("--error-file").arg(&files.error);
    command.arg(&words[0]).arg("--report").arg(&files.report).args(&words[1..]);
    let mut child =
        command.stdin(Stdio::null()).process_group(0).spawn().map_err(|e| failed("hasn upscale", e))?;
    let mut signalled = false;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| failed("hasn upscale", e))? {
            break status;
        }
        if interrupt.is_set() && !signalled {
            // It fails for a process that has ended by now.
            let _ = kill_process(Pid::from_child(&child), Signal::INT);
            signalled = true;
        }
        thread::sleep(POLL_EVERY);
    };
    let report = std::fs::read(&files.report).ok();
    let report = report.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let error = std::fs::read(&files.error)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_else(|_| {
            let how = match status.signal() {
                Some(signal) => format!("its run was ended by signal {signal}"),
                None => format!("its run ended with code {}", status.code().unwrap_or_default()),
            };
            Error::new(video.to_string_lossy(), how, "start the batch again: it resumes there").to_string()
        });
    Ok(Exited { code: status.code(), report, error })
}

/// Writes the error for the parent; it is printed as well.
pub(super) fn write_error(path: &Path, error: &Error) {
    let _ = std::fs::write(path, error.to_string());
}

fn failed(what: &str, error: std::io::Error) -> Error {
    Error::io(what, error, "look at the system's limits")
}
