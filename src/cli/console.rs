//! Console: all that the program prints. Standard error, and the progress on standard output, are written by threads of
//! their own. A reader that stalls or is gone holds up nothing else: lines that find the queue full are dropped.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;

use super::output::json;
use crate::error::{Error, Result, printable};

/// Lines that wait for their reader.
const LINES_MAX: usize = 1024;
/// Time without progress after which the end of the program waits for a reader no longer.
const STALL_MAX: Duration = Duration::from_secs(1);

static STDERR: OnceLock<Stream> = OnceLock::new();
static STDOUT: OnceLock<Stream> = OnceLock::new();
static LOG: OnceLock<Stream> = OnceLock::new();

/// Target of the lines in the log that are printed as well.
pub(super) const CONSOLE: &str = "console";

/// Writes a line to standard error and to the log file.
pub(super) fn log_line(line: impl Display) {
    tracing::info!(target: CONSOLE, "{line}");
    stderr_line(line);
}

/// The same for the line of an error.
pub(super) fn error_line(line: impl Display) {
    tracing::error!(target: CONSOLE, "{line}");
    stderr_line(line);
}

/// Writes a line to standard error.
pub(super) fn stderr_line(line: impl Display) {
    stderr().send(format!("{}\n", printable(&line.to_string())));
}

/// Writes to standard error without a line break.
pub(super) fn prompt(text: impl Display) {
    stderr().send(printable(&text.to_string()).into_owned());
}

/// Whether standard error is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Width of the terminal of standard error; 80 if that is none.
pub(super) fn columns() -> usize {
    terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| width.0.into())
}

/// Writes lines for people to standard output.
pub(super) fn print(text: &str) -> Result<()> {
    let printable = |line: &str| printable(line.trim_end_matches('\n')).into_owned() + "\n";
    write_stdout(&text.split_inclusive('\n').map(printable).collect::<String>())
}

/// Writes a line of JSON to standard output.
pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    write_stdout(&(json(value) + "\n"))
}

/// It is no error if the reader has closed standard output.
fn write_stdout(text: &str) -> Result<()> {
    // On a terminal, what was logged before stands above.
    flush();
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("standard output", e, "look at where it goes"))
        }
        _ => Ok(()),
    }
}

/// Writes a field of a line of `tracing`.
pub(super) fn write_field(to: &mut impl fmt::Write, name: &str, value: &dyn fmt::Debug) -> fmt::Result {
    let value = format!("{value:?}");
    match name {
        "message" => write!(to, "{}", printable(&value)),
        name => write!(to, " {name}={}", printable(&value)),
    }
}

/// Writes a line of progress to standard output.
pub(super) fn progress_line(line: impl Display) {
    let stdout = STDOUT.get_or_init(|| Stream::start(|bytes| write_all(io::stdout().as_fd(), bytes)));
    stdout.send(format!("{line}\n"));
}

/// Standard error for the lines of `tracing`.
pub(super) struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stderr().send(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens the log file, to which lines are added.
pub(super) fn open_log(path: &Path) -> Result<()> {
    let opened = File::options().create(true).append(true).open(path);
    let mut file = opened.map_err(|e| Error::io(path.to_string_lossy(), e, "choose another --log-file"))?;
    // What a full disk does not take is lost.
    LOG.get_or_init(|| Stream::start(move |line| drop(file.write_all(line))));
    Ok(())
}

/// The log file for the lines of `tracing`.
pub(super) struct LogFile;

impl io::Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(log) = LOG.get() {
            log.send(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the writer of standard error, and reports panics as lines, with a backtrace where `RUST_BACKTRACE` asks for one.
pub(super) fn start() {
    stderr();
    std::panic::set_hook(Box::new(|panic| {
        let (thread, trace) = (thread::current(), Backtrace::capture());
        let mut text = format!("thread '{}' {panic}", thread.name().unwrap_or("unnamed"));
        if trace.status() == BacktraceStatus::Captured {
            text += &format!("\n{trace}");
        }
        text.lines().for_each(log_line);
    }));
}

/// Waits until all lines are written, or until their readers have stalled.
pub(super) fn flush() {
    let streams: Vec<&Stream> = [&STDERR, &STDOUT, &LOG].into_iter().filter_map(OnceLock::get).collect();
    let left = || streams.iter().map(|stream| stream.left.load(Relaxed)).sum::<u64>();
    let (mut before, mut since) = (left(), Instant::now());
    while before > 0 && since.elapsed() < STALL_MAX {
        thread::sleep(Duration::from_millis(1));
        let now = left();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}

/// Flushes when it is dropped, also by a panic.
pub(super) struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        flush();
    }
}

fn stderr() -> &'static Stream {
    STDERR.get_or_init(|| Stream::start(|bytes| write_all(io::stderr().as_fd(), bytes)))
}

/// A queue of lines and the thread that writes them.
struct Stream {
    lines: SyncSender<Vec<u8>>,
    /// Lines that are not written yet.
    left: Arc<AtomicU64>,
}

impl Stream {
    fn start(mut write: impl FnMut(&[u8]) + Send + 'static) -> Stream {
        let (lines, queue) = sync_channel::<Vec<u8>>(LINES_MAX);
        let left = Arc::new(AtomicU64::new(0));
        let unwritten = left.clone();
        let writer = thread::Builder::new().name("console".into());
        // Without a thread there is no receiver, and lines are dropped.
        let _ = writer.spawn(move || {
            for line in queue {
                write(&line);
                unwritten.fetch_sub(1, Relaxed);
            }
        });
        Stream { lines, left }
    }

    fn send(&self, line: impl Into<Vec<u8>>) {
        self.left.fetch_add(1, Relaxed);
        if self.lines.try_send(line.into()).is_err() {
            self.left.fetch_sub(1, Relaxed);
        }
    }
}

/// Writes past the locks of the standard library, as a thread that waits for a reader must not hold them. What the reader
/// does not take is dropped.
fn write_all(to: BorrowedFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_stalled_reader_holds_nothing_up_and_gets_its_lines_later() {
        let (resume, resumed) = mpsc::channel::<()>();
        let (taken, lines) = mpsc::channel();
        let stream = Stream::start(move |line| {
            let _ = resumed.recv();
            taken.send(line.to_vec()).unwrap();
        });
        let start = Instant::now();
        (0..5000).for_each(|number| stream.send(format!("{number}")));
        assert!(start.elapsed() < STALL_MAX);
        drop(resume);
        let lines = (0..LINES_MAX).map(|_| lines.recv_timeout(STALL_MAX).unwrap()).collect::<Vec<_>>();
        assert_eq!(lines[..2], [b"0".to_vec(), b"1".to_vec()]);
        assert!(stream.left.load(Relaxed) <= 1);
    }
}
