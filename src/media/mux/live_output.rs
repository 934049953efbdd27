//! Live outputs: files and connections that are written to while they are watched.
//!
//! In: packets with times in microseconds of the relay's clock. Out: the same in each output's container, with audio that
//! all of them take. It knows no retry and no queue.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use ffmpeg_next::ffi;
use ffmpeg_next::packet::{Mut, Ref};
use ffmpeg_next::util::interrupt;
use ffmpeg_next::{self as ffmpeg, Rational, codec, format};
use tracing::{info, warn};

use crate::error::{Error, Result};
use crate::media::demux::address::{bound, redacted};
use crate::media::demux::input::Input;
use crate::media::demux::live::Watch;
use crate::media::encode::encoder::Encoder;
use crate::media::ffmpeg::c_string;
use crate::media::ffmpeg::check;
use crate::media::ffmpeg::parameters_of;
use crate::media::mux::silence::Silence;
use crate::media::mux::streams::{AudioMode, audio_encoder};
use crate::media::mux::transcode::Transcoder;
use crate::media::output::Output;
use crate::media::packet::Packet;

/// What every output gets, known before one is opened.
#[derive(Clone)]
pub struct LiveStreams {
    frame: codec::Parameters,
    rate: Rational,
    aspect: Rational,
    header: Vec<u8>,
    audio: Option<codec::Parameters>,
    /// What makes the audio, where it is not the source's.
    audio_encoder: Option<ffmpeg::Codec>,
}

/// What audio becomes where an output does not take the source's: the first that all of them take.
const AUDIO_ENCODERS: [&str; 3] = ["aac", "libopus", "libmp3lame"];

impl LiveStreams {
    /// Frames as the encoder makes them, and audio that all sinks take.
    pub fn new(
        encoder: &Encoder,
        input: &Input,
        wanted: &AudioMode,
        sinks: &[String],
    ) -> Result<LiveStreams> {
        let mut streams = LiveStreams {
            frame: parameters_of(encoder.context()),
            rate: encoder.video().frame_rate,
            aspect: encoder.sample_aspect(),
            header: encoder.extradata().to_vec(),
            audio: None,
            audio_encoder: None,
        };
        let Some(stream) = input.audio_stream().filter(|_| *wanted != AudioMode::None) else {
            return Ok(streams);
        };
        let container = |sink: &String| kind_and_container(sink, &redacted(sink)).map(|(_, found)| found);
        let containers = sinks.iter().map(container).collect::<Result<Vec<_>>>()?;
        let all_hold = |id| containers.iter().all(|container| holds(container, id));
        let found = |name: &&str| {
            ffmpeg::encoder::find_by_name(name).filter(|encoder| encoder.is_audio() && all_hold(encoder.id()))
        };
        streams.audio_encoder = match wanted {
            AudioMode::Encode(name) => Some(audio_encoder(name)?),
            _ if all_hold(stream.parameters().id()) => None,
            _ => AUDIO_ENCODERS.iter().find_map(found),
        };
        streams.audio = Some(match streams.audio_encoder {
            Some(encoder) => {
                let (from, to) = (stream.parameters().id().name(), encoder.id().name());
                info!("{}: audio is converted from {from} to {to}", input.name());
                parameters_of(Transcoder::open(&stream, input.name(), encoder, true)?.context())
            }
            // A copy, for what a stream gives holds its input open.
            None => stream.parameters().clone(),
        });
        Ok(streams)
    }

    /// What is heard while no audio comes; `None` where there is none, or no encoder for it.
    pub fn silence(&self) -> Option<Silence> {
        self.audio.as_ref().and_then(Silence::like)
    }

    /// The audio of a connection; `None` where there is none that could follow that of the first one.
    pub fn audio_of(&self, input: &Input) -> Result<Option<LiveAudio>> {
        let Some((audio, stream)) = self.audio.as_ref().zip(input.audio_stream()) else { return Ok(None) };
        let index = stream.index();
        let transcoder = match self.audio_encoder {
            Some(encoder) => Some(Transcoder::open_like(Some(audio), &stream, input.name(), encoder, true)?),
            None => None,
        };
        let follows = transcoder.is_some() || described(audio) == described(&stream.parameters());
        if !follows {
            warn!("{}: its audio is not as before, and is left out; --audio aac takes any", input.name());
        }
        Ok(follows.then_some(LiveAudio { index, transcoder }))
    }
}

/// What an output was told of audio in the beginning.
fn described(parameters: &codec::Parameters) -> (ffi::AVCodecID, i32, i32, &[u8]) {
    // SAFETY: the parameters are alive, and so is what they point to.
    unsafe {
        let raw = &*parameters.as_ptr();
        let header = match raw.extradata.is_null() {
            true => &[][..],
            false => std::slice::from_raw_parts(raw.extradata, raw.extradata_size as usize),
        };
        (raw.codec_id, raw.sample_rate, raw.channels, header)
    }
}

/// Whether the container takes it, as far as it knows.
fn holds(container: &ffi::AVOutputFormat, id: codec::Id) -> bool {
    // SAFETY: the container is static.
    unsafe { ffi::avformat_query_codec(container, id.into(), ffi::FF_COMPLIANCE_EXPERIMENTAL) != 0 }
}

/// The audio of one connection.
pub struct LiveAudio {
    index: usize,
    transcoder: Option<Transcoder>,
}

impl LiveAudio {
    /// Packets of audio for the outputs, if this is one of the source's.
    pub fn of(&mut self, packet: Packet) -> Result<Vec<Packet>> {
        match &mut self.transcoder {
            _ if packet.stream != self.index => Ok(Vec::new()),
            Some(transcoder) => transcoder.take(Some(packet)),
            None => Ok(vec![packet]),
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
    has_audio: bool,
}

impl LiveOutput {
    /// Whether the output is a file with a name of its own: neither a connection, nor a list of many files, nor a pipe.
    pub fn is_one_file(sink: &str) -> bool {
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
        let id = streams.frame.id();
        if !holds(container, id) {
            let problem = format!("does not take {}", id.name());
            return Err(Error::new(name, problem, "choose another --encoder, e.g. libx264"));
        }
        if let Some(audio) = streams.audio.as_ref().filter(|audio| !holds(container, audio.id())) {
            let problem = format!("does not take {} as audio", audio.id().name());
            return Err(Error::new(name, problem, "name another --audio, e.g. aac, or none"));
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
        let url = match &paths {
            Some((_, partial)) => partial.to_string_lossy().into_owned(),
            None if sink.starts_with("srt") => bound(sink, false),
            None => sink.to_owned(),
        };
        let url = c_string(&url);
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
        added.set_parameters(streams.frame.clone());
        added.set_avg_frame_rate(streams.rate);
        added.set_time_base(Rational(1, 90_000));
        // SAFETY: the stream is alive. The tag is another container's word for the codec.
        unsafe {
            (*added.as_mut_ptr()).sample_aspect_ratio = streams.aspect.into();
            (*(*added.as_mut_ptr()).codecpar).codec_tag = 0;
        }
        if let Some(audio) = &streams.audio {
            let mut added = context.add_stream(ffmpeg::encoder::find(codec::Id::None)).map_err(fail)?;
            added.set_parameters(audio.clone());
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
            has_audio: streams.audio.is_some(),
        })
    }

    /// Writes a packet of the frames, or of the audio.
    pub fn write(&mut self, coded: Packet, is_audio: bool) -> Result<()> {
        let begin_us = *self.begin_us.get_or_insert(coded.dts_us());
        let Packet { mut packet, time_base, .. } = coded.moved_by_us(-begin_us);
        if is_audio && (!self.has_audio || packet.dts().is_none_or(|dts| dts < 0)) {
            return Ok(());
        }
        if !is_audio && packet.is_key() && !packet.data().unwrap_or_default().starts_with(&self.header) {
            packet = with_header(&packet, &self.header);
        }
        let index = usize::from(is_audio);
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
