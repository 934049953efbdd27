//! Live: sources that are read while they come about.
//!
//! In: addresses. Out: an opened input whose waiting can be ended, packets with times in microseconds. It knows no retry:
//! what fails is closed, and its owner opens it again.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ffmpeg_next::util::interrupt;
use ffmpeg_next::{self as ffmpeg, format};

use crate::media::demux::address::bound;
use crate::media::demux::open::open_by;

/// So much of a source is looked at to know its streams; FFmpeg's five seconds would all be latency.
const PROBE_US: &str = "1000000";

/// Ends what FFmpeg waits for in vain, and all of it when the relay is to end.
#[derive(Clone)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    since: Instant,
    /// Milliseconds since then.
    until_ms: Arc<AtomicU64>,
}

impl Watch {
    /// Of one connection. `stop` ends it at once.
    pub fn new(stop: Arc<AtomicBool>) -> Watch {
        Watch { stop, since: Instant::now(), until_ms: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// From now on so much time is given.
    pub fn allow(&self, time: Duration) {
        let until = self.since.elapsed() + time;
        self.until_ms.store(until.as_millis() as u64, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let now_ms = self.since.elapsed().as_millis() as u64;
        self.stop.load(Ordering::Relaxed) || now_ms > self.until_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn interrupt(&self) -> interrupt::Interrupt {
        let watch = self.clone();
        interrupt::new(Box::new(move || watch.is_over()))
    }
}

/// Devices by their names, and FFmpeg's for what reads them.
const DEVICES: [(&str, &CStr); 2] = [("lavfi:", c"lavfi"), ("v4l2:", c"video4linux2,v4l2")];

/// Opens a source. `listen`: waits for somebody to publish there.
pub(crate) fn open_source(
    source: &str,
    listen: bool,
    watch: &Watch,
) -> std::result::Result<format::context::Input, ffmpeg::Error> {
    let mut options = ffmpeg::Dictionary::new();
    options.set("analyzeduration", PROBE_US);
    if fs::metadata(source).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        let pipe = format::context::StreamIo::from_read(Pipe::open(source, watch)?)?;
        let watch = watch.clone();
        return format::input_from_stream_with_interrupt(pipe, None, Some(options), move || watch.is_over());
    }
    let device = DEVICES.iter().find_map(|(prefix, name)| Some((*name, source.strip_prefix(prefix)?)));
    if let Some((name, what)) = device {
        return open_by(Some(name), what, ffmpeg::Dictionary::new(), Some(watch.interrupt()));
    }
    if listen && source.starts_with("rtmp") {
        options.set("listen", "1");
    }
    if source.starts_with("rtsp") {
        options.set("rtsp_flags", if listen { "listen" } else { "prefer_tcp" });
    }
    open_by(None, &bound(source, listen), options, Some(watch.interrupt()))
}

/// A named pipe. Who writes into it may come late, and is waited for in a way that can be ended.
struct Pipe {
    file: File,
    watch: Watch,
}

/// So long nothing is looked for in a pipe that was empty.
const PIPE_EMPTY: Duration = Duration::from_millis(2);
/// Linux's.
const O_NONBLOCK: i32 = 0o4000;

impl Pipe {
    /// With an end to write as well, so that it is open before somebody writes, and no writer is ever turned away.
    fn open(path: &str, watch: &Watch) -> std::result::Result<Pipe, ffmpeg::Error> {
        let opened = File::options().read(true).write(true).custom_flags(O_NONBLOCK).open(path);
        let errno =
            |e: io::Error| ffmpeg::Error::Other { errno: e.raw_os_error().unwrap_or(ffmpeg::error::EIO) };
        Ok(Pipe { file: opened.map_err(errno)?, watch: watch.clone() })
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && !self.watch.is_over() => {
                    thread::sleep(PIPE_EMPTY);
                }
                read => return read,
            }
        }
    }
}
