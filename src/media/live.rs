//! Live: sources that are read while they come about, and outputs that are written to while they are watched.
//!
//! In: addresses, packets with times in microseconds of the relay's clock. Out: the same in each output's container. It
//! knows no retry and no queue: what fails is closed, and its owner opens it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ffmpeg_next::ffi;
use ffmpeg_next::packet::{Mut, Ref};
use ffmpeg_next::util::interrupt;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec, format, media};

use super::encode::Encoder;
use super::input::Input;
use super::output::Output;
use super::silence::Silence;
use super::{Coded, MICROSECONDS, c_string, check};
use crate::error::{Error, Result};

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

    fn interrupt(&self) -> interrupt::Interrupt {
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

/// Opens a source. `listen`: waits for somebody to publish there.
pub(super) fn open_source(
    source: &str,
    listen: bool,
    watch: &Watch,
) -> std::result::Result<format::context::Input, ffmpeg::Error> {
    let mut options = ffmpeg::Dictionary::new();
    options.set("analyzeduration", PROBE_US);
    if listen && source.starts_with("rtmp") {
        options.set("listen", "1");
    }
    if source.starts_with("rtsp") {
        options.set("rtsp_flags", if listen { "listen" } else { "prefer_tcp" });
    }
    let watch = watch.clone();
    format::input_with_interrupt_and_dictionary(source, move || watch.is_over(), options)
}

impl Input {
    /// Whether packets are there before their time: files, and lists of files.
    pub fn comes_in_pieces(&self) -> bool {
        let kind = self.context().format();
        matches!(kind.name(), "hls" | "dash") || Path::new(self.name()).is_file()
    }

    /// Whether its pictures are so large that the header that says so is taken for damaged.
    pub fn is_too_large(&self) -> bool {
        let parameters = self.video_parameters();
        // SAFETY: the parameters are alive.
        let (width, height) = unsafe { ((*parameters.as_ptr()).width, (*parameters.as_ptr()).height) };
        i64::from(width) * i64::from(height) > PIXELS_MAX
    }

    /// The stream of sound that goes along.
    pub fn sound_index(&self) -> Option<usize> {
        self.context().streams().best(media::Type::Audio).map(|stream| stream.index())
    }
}

impl Coded {
    /// Its stream in the source.
    pub fn stream(&self) -> usize {
        self.stream
    }

    /// When it ends, in microseconds.
    pub fn end_us(&self) -> i64 {
        self.pts_us().saturating_add(self.packet.duration().rescale(self.time_base, MICROSECONDS))
    }

    /// When its picture is shown, in ticks of its own.
    pub fn pts(&self) -> i64 {
        self.packet.pts().unwrap_or(i64::MIN)
    }

    /// The same in microseconds.
    pub fn pts_us(&self) -> i64 {
        self.packet.pts().map_or(i64::MIN, |pts| pts.rescale(self.time_base, MICROSECONDS))
    }

    /// Moved by so much, in microseconds from now on.
    pub fn moved_by_us(mut self, offset_us: i64) -> Coded {
        let us = |time: i64| time.rescale(self.time_base, MICROSECONDS) + offset_us;
        let (pts, dts) = (self.packet.pts().map(us), self.packet.dts().map(us));
        let duration = self.packet.duration().rescale(self.time_base, MICROSECONDS);
        self.packet.set_pts(pts.or(dts));
        self.packet.set_dts(dts.or(pts));
        self.packet.set_duration(duration);
        Coded { time_base: MICROSECONDS, ..self }
    }

    /// Whether decoding can begin with it.
    pub fn is_key(&self) -> bool {
        self.packet.is_key()
    }

    /// The same bytes once more.
    pub fn share(&self) -> Coded {
        let mut packet = ffmpeg::Packet::empty();
        // SAFETY: both packets are alive; the new one takes a reference to the other's bytes.
        let code = unsafe { ffi::av_packet_ref(packet.as_mut_ptr(), self.packet.as_ptr()) };
        check(code).expect("no memory for a packet");
        Coded { packet, stream: self.stream, time_base: self.time_base, index: self.index }
    }
}

/// What every output gets, known before one is opened.
#[derive(Clone)]
pub struct LiveStreams {
    picture: codec::Parameters,
    rate: Rational,
    aspect: Rational,
    header: Vec<u8>,
    sound: Option<codec::Parameters>,
}

impl LiveStreams {
    /// Pictures as the encoder makes them, and that stream of the source as it is.
    pub fn new(encoder: &Encoder, input: &Input, sound: Option<usize>) -> LiveStreams {
        let sound = sound.and_then(|index| input.context().stream(index)).map(|stream| stream.parameters());
        let mut picture = codec::Parameters::new();
        // SAFETY: both are alive, and the encoder is open.
        let code =
            unsafe { ffi::avcodec_parameters_from_context(picture.as_mut_ptr(), encoder.context().as_ptr()) };
        check(code).expect("no memory for parameters");
        LiveStreams {
            picture,
            rate: encoder.video().frame_rate,
            aspect: encoder.sample_aspect(),
            header: encoder.extradata().to_vec(),
            sound,
        }
    }

    /// What is heard while no sound comes; `None` where there is none, or no encoder for it.
    pub fn silence(&self) -> Option<Silence> {
        self.sound.as_ref().and_then(Silence::like)
    }

    /// Whether sound of another connection can follow that of the first.
    pub fn sound_goes_on_with(&self, input: &Input, index: usize) -> bool {
        let described = |parameters: &codec::Parameters| {
            // SAFETY: the parameters are alive, and so is what they point to.
            unsafe {
                let raw = &*parameters.as_ptr();
                let header = match raw.extradata.is_null() {
                    true => &[][..],
                    false => std::slice::from_raw_parts(raw.extradata, raw.extradata_size as usize),
                };
                (raw.codec_id, raw.sample_rate, raw.channels, header.to_vec())
            }
        };
        let new = input.context().stream(index).map(|stream| stream.parameters());
        match (&self.sound, new) {
            (Some(old), Some(new)) => described(old) == described(&new),
            _ => false,
        }
    }
}

/// What FFmpeg is to write to an address.
struct Kind {
    /// FFmpeg's name; by the file's ending where there is none.
    container: Option<&'static str>,
    options: &'static [(&'static str, &'static str)],
    /// Whoever begins to watch in the middle finds the encoder's header in front of each keyframe.
    repeats_header: bool,
}

impl Kind {
    /// `None` for an address of another kind.
    fn of(sink: &str) -> Option<Kind> {
        let (container, options, repeats_header): (_, &[(&str, &str)], _) = match sink.split_once("://") {
            Some(("rtmp" | "rtmps", _)) => (Some("flv"), &[("flvflags", "no_duration_filesize")], false),
            Some(("udp", _)) => (Some("mpegts"), &[("pkt_size", "1316")], true),
            Some(("srt", _)) => (Some("mpegts"), &[], true),
            Some(_) => return None,
            None if sink.ends_with(".m3u8") => {
                (Some("hls"), &[("hls_time", "2"), ("hls_flags", "delete_segments+temp_file")], true)
            }
            None => (None, &[], sink.ends_with(".ts")),
        };
        Some(Kind { container, options, repeats_header })
    }
}

/// A file that is written, or a connection.
pub struct LiveOutput {
    context: format::context::Output,
    /// What the context's callback points to: dropped after it.
    _guard: interrupt::InterruptGuard,
    name: String,
    /// The name it has until it is whole, and the one it gets; of files that are one.
    paths: Option<(PathBuf, PathBuf)>,
    header: Vec<u8>,
    /// Its first time, which is 0 for whoever takes it: a connection that is made later begins as well.
    begin_us: Option<i64>,
    last_dts: [Option<i64>; 2],
    has_sound: bool,
}

impl LiveOutput {
    /// Whether the output is a file with a name of its own: neither a connection, nor a list of many files, nor a pipe.
    pub fn is_one_file(sink: &str) -> bool {
        use std::os::unix::fs::FileTypeExt;
        let is_special = fs::metadata(Path::new(sink)).is_ok_and(|data| {
            let kind = data.file_type();
            kind.is_fifo() || kind.is_char_device() || kind.is_socket()
        });
        !sink.contains("://") && !sink.ends_with(".m3u8") && !is_special
    }

    /// What of this would be in the way is found without opening it: a container that does not take the codec.
    pub fn check(sink: &str, streams: &LiveStreams, overwrite: bool) -> Result<()> {
        let name = redacted(sink);
        let (_, container) = kind_and_container(sink, &name)?;
        let id = streams.picture.id();
        // SAFETY: the container is static.
        let holds = |id: codec::Id| unsafe {
            ffi::avformat_query_codec(container, id.into(), ffi::FF_COMPLIANCE_EXPERIMENTAL) != 0
        };
        if !holds(id) {
            let problem = format!("does not take {}", id.name());
            return Err(Error::new(name, problem, "choose another --encoder, e.g. libx264"));
        }
        if let Some(sound) = streams.sound.as_ref().filter(|sound| !holds(sound.id())) {
            let problem = format!("does not take the source's sound ({})", sound.id().name());
            return Err(Error::new(
                name,
                problem,
                "let the source send AAC, or leave it out with --audio none",
            ));
        }
        let folder = Path::new(sink).parent().filter(|folder| *folder != Path::new(""));
        if let Some(folder) = folder.filter(|folder| !sink.contains("://") && !folder.is_dir()) {
            return Err(Error::new(folder.to_string_lossy(), "is no folder", format!("make it, for {name}")));
        }
        if LiveOutput::is_one_file(sink) && !overwrite {
            Output::new(sink, "")?.check_free(false)?;
        }
        Ok(())
    }

    /// Opens it and writes its header.
    pub fn open(sink: &str, streams: &LiveStreams, watch: &Watch) -> Result<LiveOutput> {
        let name = redacted(sink);
        let fail = |e: ffmpeg::Error| {
            Error::new(&name, format!("cannot be opened: {e}"), "look at who is to take it")
        };
        let (kind, container) = kind_and_container(sink, &name)?;
        let paths = LiveOutput::is_one_file(sink)
            .then(|| Output::new(sink, ""))
            .transpose()?
            .and_then(|output| output.paths);
        let url = c_string(
            &paths.as_ref().map_or(sink.into(), |(_, partial)| partial.to_string_lossy().into_owned()),
        );
        let interrupt = watch.interrupt();
        let mut options = ffmpeg::Dictionary::new();
        for (key, value) in kind.options {
            options.set(key, value);
        }
        let guard;
        // SAFETY: the strings live through the calls that copy them; the context is taken over at once, with what its
        // callback points to, and all that is set on it are plain values.
        let mut context = unsafe {
            let mut raw = std::ptr::null_mut();
            let null = std::ptr::null();
            check(ffi::avformat_alloc_output_context2(&mut raw, container, null, url.as_ptr()))
                .map_err(fail)?;
            (*raw).interrupt_callback = interrupt.interrupt;
            (*raw).strict_std_compliance = ffi::FF_COMPLIANCE_EXPERIMENTAL;
            (*raw).flags |= ffi::AVFMT_FLAG_FLUSH_PACKETS;
            guard = interrupt.guard;
            let wrapped = format::context::Output::wrap(raw);
            if container.flags & ffi::AVFMT_NOFILE == 0 {
                let mut opened = options.disown();
                let (write, callback) = (ffi::AVIO_FLAG_WRITE, &(*raw).interrupt_callback);
                let code = ffi::avio_open2(&mut (*raw).pb, url.as_ptr(), write, callback, &mut opened);
                options = ffmpeg::Dictionary::own(opened);
                check(code).map_err(fail)?;
            }
            wrapped
        };
        let mut added = context.add_stream(ffmpeg::encoder::find(codec::Id::None)).map_err(fail)?;
        added.set_parameters(streams.picture.clone());
        added.set_avg_frame_rate(streams.rate);
        added.set_time_base(Rational(1, 90_000));
        // SAFETY: the stream is alive. The tag is another container's word for the codec.
        unsafe {
            (*added.as_mut_ptr()).sample_aspect_ratio = streams.aspect.into();
            (*(*added.as_mut_ptr()).codecpar).codec_tag = 0;
        }
        if let Some(sound) = &streams.sound {
            let mut added = context.add_stream(ffmpeg::encoder::find(codec::Id::None)).map_err(fail)?;
            added.set_parameters(sound.clone());
            added.set_time_base(Rational(1, 90_000));
            // SAFETY: as above.
            unsafe { (*(*added.as_mut_ptr()).codecpar).codec_tag = 0 };
        }
        context.write_header_with(options).map_err(fail)?;
        let header = if kind.repeats_header { streams.header.clone() } else { Vec::new() };
        Ok(LiveOutput {
            context,
            _guard: guard,
            name,
            paths,
            header,
            begin_us: None,
            last_dts: [None; 2],
            has_sound: streams.sound.is_some(),
        })
    }

    /// Writes a packet of the pictures, or of the sound.
    pub fn write(&mut self, coded: Coded, is_sound: bool) -> Result<()> {
        let begin_us = *self.begin_us.get_or_insert(coded.dts_us());
        let Coded { mut packet, time_base, .. } = coded.moved_by_us(-begin_us);
        if is_sound && (!self.has_sound || packet.dts().is_none_or(|dts| dts < 0)) {
            return Ok(());
        }
        if !is_sound && packet.is_key() && !packet.data().unwrap_or_default().starts_with(&self.header) {
            packet = with_header(&packet, &self.header);
        }
        let index = usize::from(is_sound);
        let base = self.context.stream(index).expect("an added stream").time_base();
        packet.rescale_ts(time_base, base);
        // Where ticks are long, two times may become one.
        if let (Some(dts), Some(last)) = (packet.dts(), self.last_dts[index])
            && dts <= last
        {
            packet.set_dts(Some(last + 1));
            packet.set_pts(packet.pts().map(|pts| pts.max(last + 1)));
        }
        self.last_dts[index] = packet.dts();
        packet.set_stream(index);
        packet.set_position(-1);
        packet.write(&mut self.context).map(drop).map_err(|e| {
            Error::new(&self.name, format!("cannot be written: {e}"), "look at who is to take it")
        })
    }

    /// Ends it as its readers expect; a file gets its name.
    pub fn finish(mut self) -> Result<()> {
        let fail =
            |e: String| Error::new(&self.name, format!("cannot be ended: {e}"), "what came before is there");
        self.context.write_trailer().map_err(|e| fail(e.to_string()))?;
        match &self.paths {
            Some((path, partial)) => fs::rename(partial, path).map_err(|e| fail(e.to_string())),
            None => Ok(()),
        }
    }
}

fn kind_and_container(sink: &str, name: &str) -> Result<(Kind, &'static ffi::AVOutputFormat)> {
    let kind = Kind::of(sink).ok_or_else(|| {
        let problem = "streams go out to rtmp, rtmps, srt, udp, lists and files only";
        Error::new(name, problem, "name one of these, e.g. udp://host:port")
    })?;
    let (url, short) = (c_string(sink), kind.container.map(c_string));
    let short = short.as_ref().map_or(std::ptr::null(), |short| short.as_ptr());
    // SAFETY: the strings live through the call; containers are static.
    let found = unsafe { ffi::av_guess_format(short, url.as_ptr(), std::ptr::null()).as_ref() };
    let remedy = "use e.g. .ts, .flv, .mkv or .m3u8";
    found.map(|found| (kind, found)).ok_or_else(|| Error::new(name, "its ending names no container", remedy))
}

fn with_header(packet: &ffmpeg::Packet, header: &[u8]) -> ffmpeg::Packet {
    let mut longer = ffmpeg::Packet::copy(&[header, packet.data().unwrap_or_default()].concat());
    // SAFETY: both packets are alive; times, flags and side data are copied.
    let code = unsafe { ffi::av_packet_copy_props(longer.as_mut_ptr(), packet.as_ptr()) };
    check(code).expect("no memory for a packet");
    longer
}

#[cfg(test)]
mod tests {
    use super::*;

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
