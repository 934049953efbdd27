//! Pipes: standard input and named pipes, read and written so that waiting for the other end can be stopped.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use ffmpeg_next as ffmpeg;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::media::watch::Watch;

/// Interval at which an end that waits asks its watch.
const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Whether a path is a named pipe.
pub(crate) fn is_named_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
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
    pub fn of_one_writer(path: &Path, watch: &Watch) -> Result<PipeReader, ffmpeg::Error> {
        PipeReader::open(path, File::options().read(true), watch)
    }

    /// Reads a named pipe that does not end: it is opened for writing as well, so that one writer may follow another.
    pub fn of_many_writers(path: &Path, watch: &Watch) -> Result<PipeReader, ffmpeg::Error> {
        PipeReader::open(path, File::options().read(true).write(true), watch)
    }

    fn open(path: &Path, options: &mut fs::OpenOptions, watch: &Watch) -> Result<PipeReader, ffmpeg::Error> {
        let file = options.custom_flags(OFlags::NONBLOCK.bits() as i32).open(path).map_err(errno)?;
        Ok(PipeReader { file, watch: watch.clone() })
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A pipe that never had a writer is not ready; one whose writer is gone is.
        let read = when_ready(&mut self.file, PollFlags::IN, &self.watch, |file| file.read(buffer))?;
        self.watch.restart_silence();
        Ok(read)
    }
}

/// The writing end of a named pipe.
pub(crate) struct PipeWriter {
    file: File,
    watch: Watch,
}

impl PipeWriter {
    /// Opens a named pipe; fails at once where it has no reader.
    pub fn open(path: &Path, watch: &Watch) -> Result<PipeWriter, ffmpeg::Error> {
        let mut options = File::options();
        let file =
            options.write(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path).map_err(errno)?;
        Ok(PipeWriter { file, watch: watch.clone() })
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        when_ready(&mut self.file, PollFlags::OUT, &self.watch, |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until the file is ready for `call`, or until the watch is over.
fn when_ready(
    file: &mut File,
    ready_for: PollFlags,
    watch: &Watch,
    mut call: impl FnMut(&mut File) -> io::Result<usize>,
) -> io::Result<usize> {
    while !watch.is_over() {
        let is_ready = match poll(&mut [PollFd::new(&*file, ready_for)], Some(&POLL_INTERVAL)) {
            Ok(ready) => ready > 0,
            Err(Errno::INTR) => false,
            Err(e) => return Err(e.into()),
        };
        if !is_ready {
            continue;
        }
        match call(file) {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            done => return done,
        }
    }
    // Not `Interrupted`, after which FFmpeg's side would call again.
    Err(Errno::TIMEDOUT.into())
}

fn errno(error: io::Error) -> ffmpeg::Error {
    ffmpeg::Error::Other { errno: error.raw_os_error().unwrap_or(ffmpeg::error::EIO) }
}
