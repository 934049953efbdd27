//! Live sources: streams, named pipes and capture devices.
//!
//! In: addresses. Out: an opened context whose waiting can be ended. It does not reconnect: its owner opens it again.

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

use crate::error::ErrorKind;
use crate::media::demux::address::bound;
use crate::media::demux::open::open_by;
use crate::media::ffmpeg::error_kind;

/// Duration that FFmpeg probes to find the streams; its default of five seconds would all be latency.
const PROBE_US: &str = "1000000";

/// A deadline and a stop flag, on which FFmpeg ends what it waits for.
#[derive(Clone)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    start: Instant,
    /// The deadline, in milliseconds after `start`.
    deadline_ms: Arc<AtomicU64>,
}

impl Watch {
    /// The watch of one connection. `stop` ends it at once.
    pub fn new(stop: Arc<AtomicBool>) -> Watch {
        Watch { stop, start: Instant::now(), deadline_ms: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Sets the deadline `time` after now.
    pub fn allow(&self, time: Duration) {
        let deadline = self.start.elapsed() + time;
        self.deadline_ms.store(deadline.as_millis() as u64, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        let now_ms = self.start.elapsed().as_millis() as u64;
        self.stop.load(Ordering::Relaxed) || now_ms > self.deadline_ms.load(Ordering::Relaxed)
    }

    /// The kind of an error of a watched call. FFmpeg returns the same code for a deadline that passed and for `stop`.
    pub(crate) fn error_kind(&self, error: ffmpeg::Error) -> ErrorKind {
        match error_kind(error) {
            ErrorKind::Interrupted if !self.stop.load(Ordering::Relaxed) => ErrorKind::Io,
            kind => kind,
        }
    }

    pub(crate) fn interrupt(&self) -> interrupt::Interrupt {
        let watch = self.clone();
        interrupt::new(Box::new(move || watch.is_over()))
    }
}

/// Prefixes of devices, and the demuxers that read them.
const DEVICES: [(&str, &CStr); 2] = [("lavfi:", c"lavfi"), ("v4l2:", c"video4linux2,v4l2")];

/// Whether the source is a capture device.
pub(crate) fn is_capture_device(source: &str) -> bool {
    source.starts_with("v4l2:")
}

/// Opens a source; with `listen` waits for a publisher.
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
    if let Some((demuxer, url)) = device {
        return open_by(Some(demuxer), url, ffmpeg::Dictionary::new(), Some(watch.interrupt()));
    }
    if listen && source.starts_with("rtmp") {
        options.set("listen", "1");
    }
    if source.starts_with("rtsp") {
        options.set("rtsp_flags", if listen { "listen" } else { "prefer_tcp" });
    }
    open_by(None, &bound(source, listen), options, Some(watch.interrupt()))
}

/// A named pipe. Its writer may come late; waiting for it can be ended.
struct Pipe {
    file: File,
    watch: Watch,
}

/// Interval at which an empty pipe is read again.
const PIPE_INTERVAL: Duration = Duration::from_millis(2);
/// As Linux defines it.
const O_NONBLOCK: i32 = 0o4000;

impl Pipe {
    /// Opens it for writing as well, so that opening does not wait for a writer, and a writer that closes it does not end it.
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
                    thread::sleep(PIPE_INTERVAL);
                }
                read => return read,
            }
        }
    }
}
