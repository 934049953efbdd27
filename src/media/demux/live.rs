//! Live: sources that are read while they come about.
//!
//! In: addresses. Out: an opened input whose waiting can be ended, packets with times in microseconds. It knows no retry:
//! what fails is closed, and its owner opens it again.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ffmpeg_next::ffi;
use ffmpeg_next::packet::{Mut, Ref};
use ffmpeg_next::util::interrupt;
use ffmpeg_next::{self as ffmpeg, Rescale, format, media};

use crate::media::demux::input::Input;
use crate::media::demux::open::open_by;
use crate::media::ffmpeg::MICROSECONDS;
use crate::media::ffmpeg::check;
use crate::media::packet::Packet;

/// So much of a source is looked at to know its streams; FFmpeg's five seconds would all be latency.
const PROBE_US: &str = "1000000";

/// 8K: no live stream is larger.
const PIXELS_MAX: i64 = 7680 * 4320;

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

/// An address as it may be told: without passwords, stream keys and passphrases.
pub fn redacted(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let rest = rest.split(['?', '#']).next().expect("there is a first part");
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    // The last part of an RTMP address is the key to publish with.
    let path = match path.rsplit_once('/').filter(|_| scheme.starts_with("rtmp")) {
        Some((app, key)) if !app.is_empty() && !key.is_empty() => format!("{app}/***"),
        _ => path.to_owned(),
    };
    format!("{scheme}://{host}{path}")
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

/// An address where somebody is waited for, at this machine's own interface unless it names another: FFmpeg takes packets
/// of UDP from anywhere, and so it does where no host is named.
pub(crate) fn bound(address: &str, listen: bool) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, place) = authority.rsplit_once('@').map_or(("", authority), |(user, place)| (user, place));
    let (host, port) =
        place.split_at(place.rfind(':').filter(|_| !place.ends_with(']')).unwrap_or(place.len()));
    let is_udp = matches!(scheme, "udp" | "rtp");
    if !(is_udp || listen || tail.contains("mode=listener")) {
        return address.to_owned();
    }
    let home = Ipv4Addr::LOCALHOST.to_string();
    let host = if host.is_empty() { &home } else { host };
    let at = if user.is_empty() { "" } else { "@" };
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let is_open = ip.is_some_and(|ip| ip.is_multicast() || ip.is_unspecified());
    let local = match is_udp && !is_open && !tail.contains("localaddr=") {
        true => format!("{}localaddr={host}", if tail.contains('?') { '&' } else { '?' }),
        false => String::new(),
    };
    format!("{scheme}://{user}{at}{host}{port}{tail}{local}")
}

impl Input {
    /// Whether packets are there before their time: files, and lists of files.
    pub fn comes_in_pieces(&self) -> bool {
        let kind = self.context().format();
        matches!(kind.name(), "hls" | "dash" | "lavfi") || Path::new(self.name()).is_file()
    }

    /// Whether its frames are so large that the header that says so is taken for damaged.
    pub fn is_too_large(&self) -> bool {
        let parameters = self.video_parameters();
        // SAFETY: the parameters are alive.
        let (width, height) = unsafe { ((*parameters.as_ptr()).width, (*parameters.as_ptr()).height) };
        i64::from(width) * i64::from(height) > PIXELS_MAX
    }

    /// The stream of audio that goes along.
    pub(crate) fn audio_stream(&self) -> Option<ffmpeg::Stream<'_>> {
        self.context().streams().best(media::Type::Audio)
    }
}

impl Packet {
    /// When it ends, in microseconds.
    pub fn end_us(&self) -> i64 {
        self.pts_us().saturating_add(self.packet.duration().rescale(self.time_base, MICROSECONDS))
    }

    /// When its frame is shown, in ticks of its own.
    pub fn pts(&self) -> i64 {
        self.packet.pts().unwrap_or(i64::MIN)
    }

    /// The same in microseconds.
    pub fn pts_us(&self) -> i64 {
        self.packet.pts().map_or(i64::MIN, |pts| pts.rescale(self.time_base, MICROSECONDS))
    }

    /// Moved by so much, in microseconds from now on.
    pub fn moved_by_us(mut self, offset_us: i64) -> Packet {
        let us = |time: i64| time.rescale(self.time_base, MICROSECONDS) + offset_us;
        let (pts, dts) = (self.packet.pts().map(us), self.packet.dts().map(us));
        let duration = self.packet.duration().rescale(self.time_base, MICROSECONDS);
        self.packet.set_pts(pts.or(dts));
        self.packet.set_dts(dts.or(pts));
        self.packet.set_duration(duration);
        Packet { time_base: MICROSECONDS, ..self }
    }

    /// Whether decoding can begin with it.
    pub fn is_key(&self) -> bool {
        self.packet.is_key()
    }

    /// The same bytes once more.
    pub fn share(&self) -> Packet {
        let mut packet = ffmpeg::Packet::empty();
        // SAFETY: both packets are alive; the new one takes a reference to the other's bytes.
        let code = unsafe { ffi::av_packet_ref(packet.as_mut_ptr(), self.packet.as_ptr()) };
        check(code).expect("no memory for a packet");
        Packet { packet, stream: self.stream, time_base: self.time_base, index: self.index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_is_listened_to_unless_told() {
        for (address, listen, opened) in [
            ("udp://:5000", false, "udp://127.0.0.1:5000?localaddr=127.0.0.1"),
            ("udp://@:5000?timeout=1", false, "udp://127.0.0.1:5000?timeout=1&localaddr=127.0.0.1"),
            ("udp://127.0.0.1:5000", false, "udp://127.0.0.1:5000?localaddr=127.0.0.1"),
            ("udp://localhost:5000", false, "udp://localhost:5000?localaddr=localhost"),
            ("rtp://[::1]:5000", false, "rtp://[::1]:5000?localaddr=[::1]"),
            ("udp://0.0.0.0:5000", false, "udp://0.0.0.0:5000"),
            ("udp://239.0.0.1:5000", false, "udp://239.0.0.1:5000"),
            ("udp://10.0.0.1:5000?localaddr=10.0.0.2", false, "udp://10.0.0.1:5000?localaddr=10.0.0.2"),
            ("srt://:9000?mode=listener", false, "srt://127.0.0.1:9000?mode=listener"),
            ("srt://0.0.0.0:9000?mode=listener", false, "srt://0.0.0.0:9000?mode=listener"),
            ("srt://example.com:9000", false, "srt://example.com:9000"),
            ("rtmp://:1935/live/key", true, "rtmp://127.0.0.1:1935/live/key"),
            ("rtmp://user:pw@host/live/key", false, "rtmp://user:pw@host/live/key"),
            ("video.mkv", false, "video.mkv"),
        ] {
            assert_eq!(bound(address, listen), opened);
        }
    }

    #[test]
    fn no_secret_of_an_address_is_told() {
        for (address, told) in [
            ("rtmp://live.example.com/app/s3cret", "rtmp://live.example.com/app/***"),
            ("rtmp://user:pw@host:1935/app/s3cret?token=1", "rtmp://host:1935/app/***"),
            ("srt://host:9000?passphrase=s3cret&streamid=x", "srt://host:9000"),
            ("rtsp://user:s3cret@camera/stream1", "rtsp://camera/stream1"),
            ("https://cdn/live.m3u8?key=s3cret#s3cret", "https://cdn/live.m3u8"),
            ("udp://239.0.0.1:5000", "udp://239.0.0.1:5000"),
            ("out/live.m3u8", "out/live.m3u8"),
        ] {
            assert_eq!(redacted(address), told);
        }
    }
}
