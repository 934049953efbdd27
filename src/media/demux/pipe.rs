//! Pipes: standard input and named pipes, read so that waiting for their writers can be ended.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use ffmpeg_next as ffmpeg;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use crate::media::watch::Watch;

/// Interval at which a reader that waits asks its watch.
const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Whether a source is a named pipe.
pub(crate) fn is_named_pipe(source: &str) -> bool {
    fs::metadata(source).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// The reading end of a pipe, or whatever standard input is.
pub(crate) struct PipeReader {
    file: File,
    watch: Watch,
}

impl PipeReader {
    /// Reads standard input.
    pub fn of_stdin(watch: &Watch) -> Result<PipeReader, ffmpeg::Error> {
        let file = io::stdin().as_fd().try_clone_to_owned().map_err(errno)?.into();
        Ok(PipeReader { file, watch: watch.clone() })
    }

    /// Reads a named pipe, which ends when its writer closes it. Opening does not wait for a writer; reading does.
    pub fn of_one_writer(path: &str, watch: &Watch) -> Result<PipeReader, ffmpeg::Error> {
        PipeReader::open(path, File::options().read(true), watch)
    }

    /// Reads a named pipe that does not end: it is opened for writing as well, so that one writer may follow another.
    pub fn of_many_writers(path: &str, watch: &Watch) -> Result<PipeReader, ffmpeg::Error> {
        PipeReader::open(path, File::options().read(true).write(true), watch)
    }

    fn open(path: &str, options: &mut fs::OpenOptions, watch: &Watch) -> Result<PipeReader, ffmpeg::Error> {
        let file = options.custom_flags(OFlags::NONBLOCK.bits() as i32).open(path).map_err(errno)?;
        Ok(PipeReader { file, watch: watch.clone() })
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.watch.is_over() {
            // A pipe that never had a writer is not ready; one whose writer is gone is.
            let mut pipe = [PollFd::new(&self.file, PollFlags::IN)];
            let is_ready = match poll(&mut pipe, Some(&POLL_INTERVAL)) {
                Ok(ready) => ready > 0,
                Err(rustix::io::Errno::INTR) => false,
                Err(e) => return Err(e.into()),
            };
            if !is_ready {
                continue;
            }
            match self.file.read(buffer) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                read => return read,
            }
        }
        // Not `Interrupted`, after which the caller would read again.
        Err(io::ErrorKind::TimedOut.into())
    }
}

fn errno(error: io::Error) -> ffmpeg::Error {
    ffmpeg::Error::Other { errno: error.raw_os_error().unwrap_or(ffmpeg::error::EIO) }
}
