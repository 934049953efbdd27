//! Free space: a run pauses while the disk is full, logs it, and continues when there is space again.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use super::folder::failed;
use crate::error::{self, Error, Result};

/// Space for what a file system adds to the data.
const SPARE_BYTES: u64 = 256 << 10;
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// File system of a folder.
pub struct Disk {
    folder: PathBuf,
    interrupt: Arc<AtomicBool>,
}

impl Disk {
    /// Returns the file system of `folder`. Setting `interrupt` ends a wait for space.
    pub fn new(folder: &Path, interrupt: Arc<AtomicBool>) -> Disk {
        Disk { folder: folder.to_owned(), interrupt }
    }

    /// Free space in bytes; `u64::MAX` where the system does not report it.
    pub fn available(&self) -> u64 {
        rustix::fs::statvfs(&self.folder).map_or(u64::MAX, |stat| stat.f_bavail * stat.f_frsize)
    }

    /// Calls `write`, which writes `bytes`, and calls it again when there is space after the disk was full.
    pub(super) fn retry_when_full<T>(
        &self,
        bytes: u64,
        mut write: impl FnMut() -> io::Result<T>,
    ) -> Result<T> {
        loop {
            match write() {
                Err(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                    self.wait_for(bytes)?
                }
                done => return done.map_err(|e| failed(&self.folder, e)),
            }
        }
    }

    /// Waits until `bytes` and some spare space are free.
    pub(super) fn wait_for(&self, bytes: u64) -> Result<()> {
        let wanted = bytes + SPARE_BYTES;
        let folder = self.folder.display();
        warn!(
            "{folder}: the disk is full; waiting until {} are free (Ctrl-C ends the run and keeps what is finished)",
            format_bytes(wanted)
        );
        loop {
            thread::sleep(POLL_INTERVAL);
            if self.interrupt.load(Ordering::Relaxed) {
                let problem = "the disk is full";
                let remedy = "free some space, then run the same command again to resume";
                let error = Error::new(self.folder.to_string_lossy(), problem, remedy);
                return Err(error.with_kind(error::ErrorKind::Interrupted));
            }
            if self.available() >= wanted {
                info!("{folder}: there is space again; continuing");
                return Ok(());
            }
        }
    }
}

/// Returns a size in MB or GB.
pub(super) fn format_bytes(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
