//! Live muxers: connections, playlists and files that are watched while they are written.
//!
//! In: packets with timestamps on the relay's clock in microseconds. Out: the same in the output's container, with audio
//! that all outputs take. It knows one connection or one file.

use std::os::unix::ffi::OsStrExt;

use ffmpeg_next::ffi;
use ffmpeg_next::format::context::StreamIo;
use ffmpeg_next::packet::{Mut, Ref};
use ffmpeg_next::util::interrupt;
use ffmpeg_next::{self as ffmpeg, Rational, codec, format, media};
use tracing::{info, warn};

use crate::error::{Error, ErrorKind, Result};
use crate::media::container::{guess_container, holds};
use crate::media::damage::Damage;
use crate::media::demux::address::bound;
use crate::media::demux::input::Input;
use crate::media::encode::encoder::Encoder;
use crate::media::ffmpeg::{c_string, check, failure, parameters_of};
use crate::media::mux::audio::{LayoutChange, TranscodeSpec};
use crate::media::mux::silence::Silence;
use crate::media::mux::streams::{AudioMode, audio_encoder};
use crate::media::mux::transcode::Transcoder;
use crate::media::packet::{Packet, write_packet};
use crate::media::path::{Place, url_of};
use crate::media::pipe::{PipeWriter, is_named_pipe};
use crate::media::redact::redacted;
use crate::media::trial::survives;
use crate::media::watch::Watch;

/// The streams that every output gets, known before the first one is opened.
#[derive(Clone)]
pub struct LiveStreams {
    pub(super) video: codec::Parameters,
    frame_rate: Rational,
    sample_aspect: Rational,
    /// Header of the video encoder.
    header: Vec<u8>,
    pub(super) audio: Option<codec::Parameters>,
    /// Encoder of the audio; `None` where it is copied.
    audio_encoder: Option<ffmpeg::Codec>,
}

/// Time that the send buffer of a TCP connection holds of the stream; the system doubles it for its own overhead. A round
/// trip of 300 ms needs as much; more would only hide that a receiver is slow, as what is in it counts as taken.
const SEND_BUFFER_S: f64 = 0.25;
/// A smaller send buffer would hold less than a keyframe.
const SEND_BUFFER_BYTES_MIN: u64 = 16 << 10;

/// Encoders to convert audio with where an output does not take the source's codec: the first that all outputs take.
const AUDIO_ENCODERS: [&str; 5] = ["aac", "libopus", "libmp3lame", "mp2", "pcm_s16le"];

impl LiveStreams {
    /// Takes the encoder's video, and audio in a codec that all sinks take.
    pub fn new(
        encoder: &Encoder,
        input: &Input,
        wanted: &AudioMode,
        sinks: &[String],
    ) -> Result<LiveStreams> {
        let mut streams = LiveStreams {
            video: parameters_of(encoder.context()),
            frame_rate: encoder.video().frame_rate,
            sample_aspect: encoder.sample_aspect(),
            header: encoder.extradata().to_vec(),
            audio: None,
            audio_encoder: None,
        };
        let Some(stream) = input.audio_stream().filter(|_| *wanted != AudioMode::None) else {
            return Ok(streams);
        };
        let container = |sink: &String| LiveFormat::of(sink, &redacted(sink)).map(|format| format.container);
        let containers = sinks.iter().map(container).collect::<Result<Vec<_>>>()?;
        let all_hold = |id| containers.iter().all(|&container| holds(container, media::Type::Audio, id));
        let packets = input.queued(stream.index());
        let survives = || containers.iter().all(|&container| survives(container, &stream, &packets));
        let find = |name: &&str| {
            ffmpeg::encoder::find_by_name(name).filter(|encoder| encoder.is_audio() && all_hold(encoder.id()))
        };
        streams.audio_encoder = match wanted {
            AudioMode::Encode(name) => Some(audio_encoder(name)?),
            _ if all_hold(stream.parameters().id()) && survives() => None,
            _ => AUDIO_ENCODERS.iter().find_map(find),
        };
        streams.audio = Some(match streams.audio_encoder {
            Some(encoder) => {
                let (from, to) = (stream.parameters().id().name(), encoder.id().name());
                info!("{}: audio is converted from {from} to {to}", input.name());
                let spec =
                    TranscodeSpec { encoder, global_header: true, rates: &[], start_us: None, like: None };
                let transcoder = Transcoder::open(&stream, input.name(), &spec)?;
                if let Some(LayoutChange { names: (from, to), .. }) = transcoder.layout_change() {
                    warn!(
                        "{}: {} cannot hold the channel layout {from}: it becomes {to}",
                        input.name(),
                        encoder.name()
                    );
                }
                transcoder.encoded().0
            }
            // A copy, as the parameters of a stream hold its input open.
            None => stream.parameters().clone(),
        });
        Ok(streams)
    }

    /// Size to ask for of a TCP connection's send buffer.
    fn send_buffer_bytes(&self) -> u64 {
        // SAFETY: the parameters are alive.
        let bit_rate = unsafe { (*self.video.as_ptr()).bit_rate } as f64;
        ((bit_rate / 8.0 * SEND_BUFFER_S) as u64).max(SEND_BUFFER_BYTES_MIN)
    }

    /// Streams without audio, of a codec that needs no header.
    #[cfg(test)]
    pub fn of_test() -> LiveStreams {
        let mut video = codec::Parameters::new();
        // SAFETY: the parameters are ours, and these are plain values.
        let raw = unsafe { &mut *video.as_mut_ptr() };
        (raw.codec_type, raw.codec_id) =
            (ffi::AVMediaType::AVMEDIA_TYPE_VIDEO, ffi::AVCodecID::AV_CODEC_ID_FLV1);
        (raw.width, raw.height) = (16, 16);
        let (frame_rate, sample_aspect) = (Rational(25, 1), Rational(1, 1));
        LiveStreams { video, frame_rate, sample_aspect, header: Vec::new(), audio: None, audio_encoder: None }
    }

    /// Silence to send while the source gives no audio; `None` where there is no audio, or no encoder for it.
    pub fn silence(&self) -> Option<Silence> {
        self.audio.as_ref().and_then(Silence::like)
    }

    /// Opens the audio of a connection; returns `None` where it has none that continues the first connection's.
    pub fn open_audio(&self, input: &Input) -> Result<Option<LiveAudio>> {
        let Some((audio, stream)) = self.audio.as_ref().zip(input.audio_stream()) else { return Ok(None) };
        let index = stream.index();
        let transcoder = match self.audio_encoder {
            Some(encoder) => {
                let spec = TranscodeSpec {
                    encoder,
                    global_header: true,
                    rates: &[],
                    start_us: None,
                    like: Some(audio),
                };
                Some(Transcoder::open(&stream, input.name(), &spec)?)
            }
            None => None,
        };
        let continues = transcoder.is_some() || codec_identity(audio) == codec_identity(&stream.parameters());
        if !continues {
            let name = input.name();
            warn!(
                "{name}: its audio is not in the same codec as before, and is left out; --audio aac takes any"
            );
        }
        let damage = Damage::new(input.name(), false);
        Ok(continues.then_some(LiveAudio { index, transcoder, damage }))
    }
}

/// Returns what must stay the same for copied packets to fit under a header that is already written.
fn codec_identity(parameters: &codec::Parameters) -> (ffi::AVCodecID, i32, i32, &[u8]) {
    // SAFETY: the parameters are alive, and so is what they point to.
    unsafe {
        let raw = &*parameters.as_ptr();
        let header = match raw.extradata.is_null() {
            true => &[][..],
            false => std::slice::from_raw_parts(raw.extradata, raw.extradata_size as usize),
        };
        (raw.codec_id, raw.sample_rate, raw.ch_layout.nb_channels, header)
    }
}

/// The audio of one connection.
pub struct LiveAudio {
    index: usize,
    transcoder: Option<Transcoder>,
    damage: Damage,
}

impl LiveAudio {
    /// Converts a packet of the source for the outputs; one of another stream gives nothing.
    pub fn convert(&mut self, packet: Packet) -> Result<Vec<Packet>> {
        match &mut self.transcoder {
            _ if packet.stream != self.index => Ok(Vec::new()),
            Some(transcoder) => transcoder.take(Some(packet), &self.damage),
            None => Ok(vec![packet]),
        }
    }
}

/// How FFmpeg writes to a sink.
pub(super) struct LiveFormat {
    pub container: &'static ffi::AVOutputFormat,
    options: &'static [(&'static str, &'static str)],
    /// Whether each keyframe comes with the encoder's header, for viewers who join in the middle.
    repeats_header: bool,
}

impl LiveFormat {
    /// Chooses the format by the sink's protocol or extension. `name` is for errors.
    pub fn of(sink: &str, name: &str) -> Result<LiveFormat> {
        let protocol = match Place::of_output(sink) {
            Place::Url(url) => url.split_once("://").map(|(protocol, _)| protocol),
            Place::File(_) | Place::Standard => None,
        };
        let (container, options, repeats_header): (_, &'static [(&str, &str)], _) = match protocol {
            Some("rtmp" | "rtmps") => (Some(c"flv"), &[("flvflags", "no_duration_filesize")], false),
            Some("udp") => (Some(c"mpegts"), &[("pkt_size", "1316")], true),
            Some("srt") => (Some(c"mpegts"), &[], true),
            Some(_) => {
                let problem = "live outputs are rtmp, rtmps, srt and udp addresses, playlists and files only";
                let remedy = "choose one of these, e.g. udp://host:port";
                return Err(Error::new(name, problem, remedy).with_kind(ErrorKind::Unsupported));
            }
            None if sink.ends_with(".m3u8") => {
                (Some(c"hls"), &[("hls_time", "2"), ("hls_flags", "delete_segments+temp_file")], true)
            }
            // Fragments can be played after any end.
            None if [".mp4", ".mov", ".m4v"].iter().any(|extension| sink.ends_with(extension)) => {
                (None, &[("movflags", "+frag_keyframe+delay_moov+default_base_moof")], false)
            }
            None => (None, &[], sink.ends_with(".ts")),
        };
        let container = guess_container(container, sink).ok_or_else(|| {
            Error::new(name, "its extension names no container", "use e.g. .ts, .flv, .mkv or .m3u8")
                .with_kind(ErrorKind::Unsupported)
        })?;
        Ok(LiveFormat { container, options, repeats_header })
    }
}

/// The remedy for a sink that does not take what is sent.
const CHECK_RECEIVER: &str = "check the receiver";
/// The same of a file.
const CHECK_DISK: &str = "check the disk and its free space";

/// A connection, or a file that is written.
pub(super) struct LiveMuxer {
    context: format::context::Output,
    /// What the context's callback points to: dropped after the context.
    _guard: interrupt::InterruptGuard,
    name: String,
    remedy: &'static str,
    /// Header to put before keyframes; may be empty.
    header: Vec<u8>,
    /// First timestamp, which becomes 0: a later connection starts at 0 as well.
    start_us: Option<i64>,
    /// dts of the last packet of video and of audio.
    last_dts: [Option<i64>; 2],
    pub has_audio: bool,
}

impl LiveMuxer {
    /// Opens `place` in the format of the sink of this name and writes the header.
    pub fn open(
        name: String,
        format: &LiveFormat,
        place: Place,
        streams: &LiveStreams,
        watch: &Watch,
    ) -> Result<LiveMuxer> {
        let remedy = if place.path().is_some() { CHECK_DISK } else { CHECK_RECEIVER };
        let fail =
            |e: ffmpeg::Error| failure(&name, "cannot be opened", e, remedy).with_kind(watch.error_kind(e));
        let (mut context, guard, options) = open_context(format, place, streams, watch).map_err(fail)?;
        let mut video = add_stream(&mut context, &streams.video).map_err(fail)?;
        video.set_avg_frame_rate(streams.frame_rate);
        // SAFETY: the stream is alive.
        unsafe { (*video.as_mut_ptr()).sample_aspect_ratio = streams.sample_aspect.into() };
        if let Some(audio) = &streams.audio {
            add_stream(&mut context, audio).map_err(fail)?;
        }
        context.write_header_with(options).map_err(fail)?;
        let header = if format.repeats_header { streams.header.clone() } else { Vec::new() };
        Ok(LiveMuxer {
            context,
            _guard: guard,
            name,
            remedy,
            header,
            start_us: None,
            last_dts: [None; 2],
            has_audio: streams.audio.is_some(),
        })
    }

    /// dts of the first packet; `i64::MIN` before that.
    pub fn start_us(&self) -> i64 {
        self.start_us.unwrap_or(i64::MIN)
    }

    /// Writes a packet of the video, or of the audio.
    pub fn write(&mut self, packet: Packet, is_audio: bool) -> Result<()> {
        let start_us = *self.start_us.get_or_insert(packet.dts_us());
        let Packet { mut packet, time_base, .. } = packet.shifted_by_us(-start_us);
        if is_audio && (!self.has_audio || packet.dts().is_none_or(|dts| dts < 0)) {
            return Ok(());
        }
        if !is_audio && packet.is_key() && !packet.data().unwrap_or_default().starts_with(&self.header) {
            packet = with_header(&packet, &self.header);
        }
        let index = usize::from(is_audio);
        let base = self.context.stream(index).expect("an added stream").time_base();
        packet.rescale_ts(time_base, base);
        // Two timestamps may fall into one tick of the container.
        if let (Some(dts), Some(last)) = (packet.dts(), self.last_dts[index])
            && dts <= last
        {
            packet.set_dts(Some(last + 1));
            packet.set_pts(packet.pts().map(|pts| pts.max(last + 1)));
        }
        self.last_dts[index] = packet.dts();
        packet.set_stream(index);
        packet.set_position(-1);
        write_packet(&packet, &mut self.context)
            .map_err(|e| failure(&self.name, "cannot be written", e, self.remedy))
    }

    /// Writes the trailer and closes the file or the connection.
    pub fn finish(&mut self) -> Result<()> {
        let fail = |e| failure(&self.name, "cannot be finished", e, "what was written before is kept");
        self.context.write_trailer().map_err(fail)?;
        // SAFETY: the context is alive, and writes nothing more; pb is null for formats that open connections themselves.
        // That of a named pipe is not FFmpeg's to close: it is dropped with the context.
        let code = unsafe {
            let raw = &mut *self.context.as_mut_ptr();
            match raw.flags & ffi::AVFMT_FLAG_CUSTOM_IO != 0 {
                true => {
                    ffi::avio_flush(raw.pb);
                    (*raw.pb).error
                }
                false => ffi::avio_closep(&mut raw.pb),
            }
        };
        check(code).map(drop).map_err(fail)
    }
}

/// An opened output, the guard of its interrupt callback, and the options that the muxer has still to take.
type Opened = (format::context::Output, interrupt::InterruptGuard, ffmpeg::Dictionary<'static>);

/// Opens the connection or the file, which `watch` may interrupt.
fn open_context(
    format: &LiveFormat,
    place: Place,
    streams: &LiveStreams,
    watch: &Watch,
) -> std::result::Result<Opened, ffmpeg::Error> {
    let url = match place {
        Place::File(path) => url_of(path),
        Place::Url(url) if url.starts_with("srt") => c_string(&bound(url, false)),
        Place::Url(url) => c_string(url),
        Place::Standard => c"-".into(),
    };
    let interrupt = watch.interrupt();
    let mut options = ffmpeg::Dictionary::new();
    for (key, value) in format.options {
        options.set(key, value);
    }
    if let Place::Url(url) = place
        && url.starts_with("rtmp")
    {
        options.set("send_buffer_size", &streams.send_buffer_bytes().to_string());
    }
    if place.path().is_some_and(|path| path.as_os_str().as_bytes().contains(&b':')) {
        // In a playlist, a name with a colon would be an address.
        options.set("hls_base_url", "./");
    }
    // SAFETY: the strings live through the calls that copy them; the context is taken over at once, with what its
    // callback points to, and all fields set on it are plain values.
    unsafe {
        let mut raw = std::ptr::null_mut();
        let null = std::ptr::null();
        check(ffi::avformat_alloc_output_context2(&mut raw, format.container, null, url.as_ptr()))?;
        (*raw).interrupt_callback = interrupt.interrupt;
        (*raw).strict_std_compliance = ffi::FF_COMPLIANCE_EXPERIMENTAL;
        (*raw).flags |= ffi::AVFMT_FLAG_FLUSH_PACKETS;
        if let Some(path) = place.path().filter(|path| is_named_pipe(path)) {
            let mut io = StreamIo::from_write(PipeWriter::open(path, watch)?)?;
            (*raw).pb = io.as_mut_ptr();
            (*raw).flags |= ffi::AVFMT_FLAG_CUSTOM_IO;
            let context = format::context::Output::wrap_with_custom_io(raw, io);
            return Ok((context, interrupt.guard, options));
        }
        let context = format::context::Output::wrap(raw);
        if format.container.flags & ffi::AVFMT_NOFILE == 0 {
            let mut left = options.disown();
            let (write, callback) = (ffi::AVIO_FLAG_WRITE, &(*raw).interrupt_callback);
            let code = ffi::avio_open2(&mut (*raw).pb, url.as_ptr(), write, callback, &mut left);
            options = ffmpeg::Dictionary::own(left);
            check(code)?;
        }
        Ok((context, interrupt.guard, options))
    }
}

fn add_stream<'a>(
    context: &'a mut format::context::Output,
    parameters: &codec::Parameters,
) -> std::result::Result<format::stream::StreamMut<'a>, ffmpeg::Error> {
    let mut added = context.add_stream(ffmpeg::encoder::find(codec::Id::None))?;
    added.set_parameters(parameters.clone());
    added.set_time_base(Rational(1, 90_000));
    // SAFETY: the stream is alive. The codec tag is another container's.
    unsafe { (*(*added.as_mut_ptr()).codecpar).codec_tag = 0 };
    Ok(added)
}

fn with_header(packet: &ffmpeg::Packet, header: &[u8]) -> ffmpeg::Packet {
    let mut longer = ffmpeg::Packet::copy(&[header, packet.data().unwrap_or_default()].concat());
    // SAFETY: both packets are alive; times, flags and side data are copied.
    let code = unsafe { ffi::av_packet_copy_props(longer.as_mut_ptr(), packet.as_ptr()) };
    check(code).expect("no memory for a packet");
    longer
}
