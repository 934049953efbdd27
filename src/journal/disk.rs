//! Free space: a run pauses while the disk is full, logs it, and continues when there is space again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::error::{self, Error, Result};

/// Space for what a file system adds to the data.
const SPARE_BYTES: u64 = 256 << 10;
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// First and longest wait before a write is tried again: a quota or reserved blocks may refuse what the file system
/// reports as free.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// File system of a folder.
#[derive(Clone)]
pub struct Disk {
    folder: PathBuf,
    interrupt: Arc<AtomicBool>,
}

/// The waits of one write, until it succeeds.
pub(super) struct Stall {
    /// Wait before the next attempt; `None` before the first wait.
    backoff: Option<Duration>,
    backoff_max: Duration,
}

impl Disk {
    /// Returns the file system of `folder`. Setting `interrupt` ends a wait for space.
    pub fn new(folder: &Path, interrupt: Arc<AtomicBool>) -> Disk {
        Disk { folder: folder.to_owned(), interrupt }
    }

    /// Free space in bytes; `u64::MAX` where the system does not report it, as for a file system of 0 blocks.
    pub fn available(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.folder).ok().filter(|stat| stat.f_blocks > 0);
        stat.map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Calls `attempt`, which writes `bytes`, and calls it again when there is space after the disk was full.
    pub fn retry_when_full<T>(&self, bytes: u64, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mut stall = Stall::new(BACKOFF_MAX);
        loop {
            match attempt() {
                Err(error) if error.kind() == error::ErrorKind::DiskFull => stall.wait(self, bytes)?,
                done => {
                    if done.is_ok() {
                        stall.end(self);
                    }
                    return done;
                }
            }
        }
    }

    /// The same for a system call.
    pub(super) fn retry_call<T>(&self, bytes: u64, mut call: impl FnMut() -> io::Result<T>) -> Result<T> {
        self.retry_when_full(bytes, || call().map_err(|e| failed(&self.folder, e)))
    }
}

/// Whether the disk or a quota is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Stall {
    /// `backoff_max`: the longest wait before the next attempt where the file system reports enough free space.
    pub fn new(backoff_max: Duration) -> Stall {
        Stall { backoff: None, backoff_max }
    }

    /// Waits after a failed attempt until `bytes` and some spare space are free. Only the first wait is logged.
    pub fn wait(&mut self, disk: &Disk, bytes: u64) -> Result<()> {
        let (wanted, folder) = (bytes + SPARE_BYTES, disk.folder.display());
        let backoff = match self.backoff {
            Some(backoff) => (2 * backoff).min(self.backoff_max),
            None => {
                let until = match disk.available() >= wanted {
                    true => "a quota or the disk is full; waiting until there is space".to_owned(),
                    false => format!("the disk is full; waiting until {} are free", format_bytes(wanted)),
                };
                warn!("{folder}: {until} (Ctrl-C ends the run and keeps what is finished)");
                BACKOFF_MIN
            }
        };
        self.backoff = Some(backoff);
        let started = Instant::now();
        loop {
            thread::sleep(POLL_INTERVAL);
            if disk.interrupt.load(Ordering::Relaxed) {
                let problem = "the disk is full";
                let remedy = "free some space, then run the same command again to resume";
                let error = Error::new(disk.folder.to_string_lossy(), problem, remedy);
                return Err(error.with_kind(error::ErrorKind::Interrupted));
            }
            if started.elapsed() >= backoff && disk.available() >= wanted {
                return Ok(());
            }
        }
    }

    /// Logs the end of the waits, when an attempt has succeeded.
    pub fn end(self, disk: &Disk) {
        if self.backoff.is_some() {
            info!("{}: there is space again; continuing", disk.folder.display());
        }
    }
}

pub(super) fn failed(path: &Path, error: io::Error) -> Error {
    Error::io(path.to_string_lossy(), error, "check the folder and its disk, then run it again")
}

/// Returns a size in MB or GB.
pub(super) fn format_bytes(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn a_full_disk_is_waited_for_and_another_error_is_not() {
        let disk = Disk::new(Path::new("."), Arc::default());
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let mut attempts = 0;
            let written = disk.retry_call(0, || {
                attempts += 1;
                if attempts < 3 { Err(kind.into()) } else { Ok(attempts) }
            });
            assert_eq!(written.unwrap(), 3);
        }
        let failed = disk.retry_call(0, || Err::<(), _>(ErrorKind::PermissionDenied.into()));
        assert_eq!(failed.unwrap_err().kind(), error::ErrorKind::Io);
    }

    #[test]
    fn an_interrupt_ends_the_wait() {
        let disk = Disk::new(Path::new("."), Arc::new(true.into()));
        let started = Instant::now();
        let ended = disk.retry_call(0, || Err::<(), _>(ErrorKind::StorageFull.into()));
        assert_eq!(ended.unwrap_err().kind(), error::ErrorKind::Interrupted);
        assert!(started.elapsed() < BACKOFF_MIN, "{:?}", started.elapsed());
    }
}
