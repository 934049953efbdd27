//! Disk: a full one pauses a run, with a line that says so, and the run goes on when there is room.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use super::folder::failed;
use crate::error::{Error, Result};

/// Room for whatever else a file system puts beside what is written.
const SPARE_BYTES: u64 = 256 << 10;
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The file system that a folder is on.
pub struct Disk {
    folder: PathBuf,
    interrupt: Arc<AtomicBool>,
}

impl Disk {
    /// Waiting for room ends when `interrupt` is set.
    pub fn new(folder: &Path, interrupt: Arc<AtomicBool>) -> Disk {
        Disk { folder: folder.to_owned(), interrupt }
    }

    /// Bytes that may still be written; without an answer as many as one likes.
    pub fn available(&self) -> u64 {
        rustix::fs::statvfs(&self.folder).map_or(u64::MAX, |stat| stat.f_bavail * stat.f_frsize)
    }

    /// Whether nothing more fits.
    pub(super) fn is_full(&self) -> bool {
        self.available() < SPARE_BYTES
    }

    /// Does something that needs so many bytes, as soon as they are there.
    pub(super) fn whenever_there_is_room<T>(
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

    /// Waits until so many bytes and some more are free.
    pub(super) fn wait_for(&self, bytes: u64) -> Result<()> {
        let wanted = bytes + SPARE_BYTES;
        let folder = self.folder.display();
        warn!(
            "{folder}: the disk is full; waiting until {} are free there (Ctrl-C ends the run, what is done stays)",
            in_words(wanted)
        );
        loop {
            thread::sleep(LOOK_EVERY);
            if self.interrupt.load(Ordering::Relaxed) {
                let problem = "the disk is full";
                let remedy =
                    "free some space there, then run the same command again: it goes on where it was";
                return Err(Error::new(self.folder.to_string_lossy(), problem, remedy));
            }
            if self.available() >= wanted {
                info!("{folder}: there is room again; going on");
                return Ok(());
            }
        }
    }
}

/// As people say it.
pub(super) fn in_words(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
