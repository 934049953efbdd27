//! Transcode: audio and text subtitles in a codec that the output's container cannot hold are converted to one that it
//! can.

use ffmpeg_next::ffi;
use ffmpeg_next::frame::Audio as AvFrame;
use ffmpeg_next::packet::Mut;
use ffmpeg_next::{self as ffmpeg, ChannelLayout, Rational, Rescale, codec, filter, format};

use crate::error::{Error, ErrorKind, Result};
use crate::media::damage::{Damage, DamagedPlace};
use crate::media::decode::open::decoder_of;
use crate::media::ffmpeg::{MICROSECONDS, check, error_kind, is_again, parameters_of};
use crate::media::packet::Packet;
use crate::media::stream::Trim;

/// The transcoders of all streams that are converted.
pub struct Transcoders {
    transcoders: Vec<Transcoder>,
    damage: Damage,
}

/// What a stream is converted to.
pub(crate) struct TranscodeSpec<'a> {
    /// Encoder for the stream's kind.
    pub encoder: ffmpeg::Codec,
    /// Whether the container keeps the encoder's header apart from the packets.
    pub global_header: bool,
    /// Sample rate and channels to keep, where they are not the stream's own.
    pub like: Option<&'a codec::Parameters>,
}

/// Decoder and encoder of one stream.
pub(crate) struct Transcoder {
    stream: usize,
    name: String,
    kind: Kind,
    /// The part of the stream that is written: what cannot be decoded outside of it is not damage.
    part: Trim,
}

enum Kind {
    Audio(Box<AudioTranscoder>),
    Text(TextTranscoder),
}

impl Transcoders {
    /// Those of the input named `source`; none yet.
    pub(crate) fn new(source: &str) -> Transcoders {
        Transcoders { transcoders: Vec::new(), damage: Damage::new(source, false) }
    }

    /// The same, of which only packets within `part` are written.
    pub(crate) fn within(mut self, part: Trim) -> Transcoders {
        self.transcoders.iter_mut().for_each(|transcoder| transcoder.part = part);
        self
    }

    pub(crate) fn add(&mut self, transcoder: Transcoder) {
        self.transcoders.push(transcoder);
    }

    /// Packets that could not be decoded, apart from the damage that reading the source finds.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Converts a packet; one of a copied stream is returned as it is.
    pub fn convert(&mut self, packet: Packet) -> Result<Vec<Packet>> {
        let converted = self.transcoders.iter_mut().find(|transcoder| transcoder.stream == packet.stream);
        match converted {
            Some(transcoder) => transcoder.take(Some(packet), &self.damage),
            None => Ok(vec![packet]),
        }
    }

    /// Drains decoders and encoders after the last packet.
    pub fn finish(&mut self) -> Result<Vec<Packet>> {
        let mut rest = Vec::new();
        for transcoder in &mut self.transcoders {
            rest.extend(transcoder.take(None, &self.damage)?);
        }
        Ok(rest)
    }
}

impl Transcoder {
    /// Opens decoder and encoder for a stream of the input named `source`.
    pub(crate) fn open(stream: &ffmpeg::Stream, source: &str, spec: &TranscodeSpec) -> Result<Transcoder> {
        let name = format!("{source}: stream {}", stream.index());
        let opened = if spec.encoder.is_audio() {
            AudioTranscoder::open(stream, spec).map(|audio| Kind::Audio(Box::new(audio)))
        } else {
            TextTranscoder::open(stream, spec.encoder).map(Kind::Text)
        };
        let kind = opened.map_err(|e| {
            let problem = format!("cannot be converted to {}: {e}", spec.encoder.name());
            Error::new(&name, problem, "leave it out with --map, or choose another container")
                .with_kind(ErrorKind::Unsupported)
                .with_source(e)
        })?;
        let part = Trim { from_us: i64::MIN, to_us: i64::MAX };
        Ok(Transcoder { stream: stream.index(), name, kind, part })
    }

    /// Parameters and time base of the converted stream.
    pub(crate) fn encoded(&self) -> (codec::Parameters, Rational) {
        let context = match &self.kind {
            Kind::Audio(audio) => &audio.encoder,
            Kind::Text(text) => &text.encoder,
        };
        // SAFETY: the context is alive.
        let time_base = unsafe { Rational::from((*context.as_ptr()).time_base) };
        (parameters_of(context), time_base)
    }

    /// Converts a packet; without one, drains decoder and encoder. A packet that cannot be decoded is noted as damage.
    pub(crate) fn take(&mut self, packet: Option<Packet>, damage: &Damage) -> Result<Vec<Packet>> {
        let mut out = Vec::new();
        let is_written = packet.as_ref().is_none_or(|packet| self.part.contains(packet.dts_us()));
        let pts = packet.as_ref().and_then(|packet| packet.packet.pts());
        let seconds = packet.as_ref().filter(|_| pts.is_some()).map(|packet| packet.pts_us() as f64 / 1e6);
        let result = match &mut self.kind {
            Kind::Audio(audio) => audio.take(packet.map(|packet| packet.packet), &mut out),
            Kind::Text(text) => packet.map_or(Ok(()), |packet| text.take(packet.packet, &mut out)),
        };
        match result {
            Ok(()) => {}
            // As in FFmpeg's command: a packet that cannot be decoded is a gap, and gaps in audio are filled.
            Err(ffmpeg::Error::InvalidData) if !is_written => {}
            Err(ffmpeg::Error::InvalidData) => {
                let problem = format!("a packet of stream {} cannot be decoded", self.stream);
                damage.note(DamagedPlace { problem, frame: None, pts, seconds });
            }
            Err(error) => {
                let problem = format!("cannot be converted further: {error}");
                return Err(Error::new(&self.name, problem, "leave it out with --map")
                    .with_kind(error_kind(error))
                    .with_source(error));
            }
        }
        let (stream, time_base) = (self.stream, self.time_base());
        Ok(out.into_iter().map(|packet| Packet { packet, stream, time_base, index: 0 }).collect())
    }

    fn time_base(&self) -> Rational {
        match &self.kind {
            Kind::Audio(audio) => audio.time_base,
            Kind::Text(_) => MICROSECONDS,
        }
    }
}

type Outcome = std::result::Result<(), ffmpeg::Error>;

struct AudioTranscoder {
    decoder: codec::decoder::Audio,
    source_base: Rational,
    /// The filter graph and the kind of frames that it was built for.
    graph: Option<(FrameKind, filter::Graph)>,
    encoder: codec::encoder::Audio,
    time_base: Rational,
}

/// Sample format, sample rate in Hz, channel layout.
type FrameKind = (format::Sample, u32, u64);

/// Bit rate of converted audio, for each channel, in bit/s: transparent in every codec that is chosen here.
const CHANNEL_BIT_RATE: usize = 96_000;

impl AudioTranscoder {
    fn open(
        stream: &ffmpeg::Stream,
        &TranscodeSpec { encoder, global_header, like }: &TranscodeSpec,
    ) -> std::result::Result<AudioTranscoder, ffmpeg::Error> {
        let decoder = decoder_of(stream.parameters(), stream.time_base())?.audio()?;
        let properties = encoder.audio()?;
        // SAFETY: the parameters are alive.
        let like = like.map(|like| unsafe {
            let raw = &*like.as_ptr();
            (raw.sample_rate, raw.ch_layout.nb_channels)
        });
        let (rate, channels) = like.unwrap_or((decoder.rate() as i32, decoder.channels().into()));
        let rate = nearest_rate(properties.rates().into_iter().flatten(), rate);
        let layout = properties
            .channel_layouts()
            .map_or_else(|| ChannelLayout::default(channels), |layouts| layouts.best(channels));
        let sample = properties.formats().and_then(|mut formats| formats.next()).unwrap_or(decoder.format());
        let time_base = Rational(1, rate);
        let mut context = codec::Context::new_with_codec(encoder);
        context.compliance(codec::Compliance::Experimental);
        if global_header {
            context.set_flags(codec::Flags::GLOBAL_HEADER);
        }
        let mut context = context.encoder().audio()?;
        context.set_rate(rate);
        context.set_channel_layout(layout);
        context.set_format(sample);
        context.set_time_base(time_base);
        context.set_bit_rate(CHANNEL_BIT_RATE * layout.channels().max(1) as usize);
        let encoder = context.open_as(encoder)?;
        Ok(AudioTranscoder { decoder, source_base: stream.time_base(), graph: None, encoder, time_base })
    }

    fn take(&mut self, packet: Option<ffmpeg::Packet>, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
        let is_end = packet.is_none();
        match packet {
            Some(packet) => self.decoder.send_packet(&packet)?,
            None => self.decoder.send_eof().or_else(ignore_eof)?,
        }
        loop {
            let mut av_frame = AvFrame::empty();
            match self.decoder.receive_frame(&mut av_frame) {
                Ok(()) => self.filter(av_frame, out)?,
                Err(error) if is_again(error) || error == ffmpeg::Error::Eof => break,
                Err(error) => return Err(error),
            }
        }
        if is_end {
            self.flush_graph(out)?;
            self.encoder.send_eof().or_else(ignore_eof)?;
            drain(&mut self.encoder, out)?;
        }
        Ok(())
    }

    fn filter(&mut self, mut av_frame: AvFrame, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
        let pts = av_frame.timestamp();
        av_frame.set_pts(pts);
        if av_frame.channel_layout().is_empty() {
            av_frame.set_channel_layout(ChannelLayout::default(i32::from(self.decoder.channels())));
        }
        let kind = (av_frame.format(), av_frame.rate(), av_frame.channel_layout().bits());
        if self.graph.as_ref().is_none_or(|(built_for, _)| *built_for != kind) {
            self.flush_graph(out)?;
            self.graph = Some((kind, self.build_graph(kind)?));
        }
        let (_, graph) = self.graph.as_mut().expect("just built");
        graph.get("in").expect("its source").source().add(&av_frame)?;
        self.encode(out)
    }

    /// Builds a graph that fills gaps with silence and cuts overlaps, so that the audio stays at its timestamps.
    fn build_graph(
        &self,
        (sample, rate, layout): FrameKind,
    ) -> std::result::Result<filter::Graph, ffmpeg::Error> {
        let mut graph = filter::Graph::new();
        let (base, encoder) = (self.source_base, &self.encoder);
        let source = format!(
            "time_base={}/{}:sample_rate={rate}:sample_fmt={}:channel_layout=0x{layout:x}",
            base.numerator(),
            base.denominator(),
            sample.name()
        );
        let wanted = format!(
            "aresample=async=1:min_hard_comp=0.02,aformat=sample_fmts={}:sample_rates={}:channel_layouts=0x{:x}",
            encoder.format().name(),
            encoder.rate(),
            encoder.channel_layout().bits()
        );
        graph.add(&filter::find("abuffer").ok_or(ffmpeg::Error::FilterNotFound)?, "in", &source)?;
        graph.add(&filter::find("abuffersink").ok_or(ffmpeg::Error::FilterNotFound)?, "out", "")?;
        graph.output("in", 0)?.input("out", 0)?.parse(&wanted)?;
        graph.validate()?;
        if encoder.frame_size() > 0 {
            graph.get("out").expect("its sink").sink().set_frame_size(encoder.frame_size());
        }
        Ok(graph)
    }

    fn flush_graph(&mut self, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
        let Some((_, graph)) = &mut self.graph else { return Ok(()) };
        graph.get("in").expect("its source").source().flush()?;
        self.encode(out)?;
        self.graph = None;
        Ok(())
    }

    fn encode(&mut self, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
        let Some((_, graph)) = &mut self.graph else { return Ok(()) };
        let mut sink = graph.get("out").expect("its sink");
        let base = sink.sink().time_base();
        let mut av_frame = AvFrame::empty();
        while sink.sink().frame(&mut av_frame).is_ok() {
            let pts = av_frame.pts().map(|pts| pts.rescale(base, self.time_base));
            av_frame.set_pts(pts);
            self.encoder.send_frame(&av_frame)?;
            drain(&mut self.encoder, out)?;
        }
        Ok(())
    }
}

fn drain(encoder: &mut codec::encoder::Audio, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
    loop {
        let mut packet = ffmpeg::Packet::empty();
        match encoder.receive_packet(&mut packet) {
            Ok(()) => out.push(packet),
            Err(error) if is_again(error) || error == ffmpeg::Error::Eof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn ignore_eof(error: ffmpeg::Error) -> Outcome {
    if error == ffmpeg::Error::Eof { Ok(()) } else { Err(error) }
}

/// Returns the same rate where it is offered, else the next higher one, else the highest.
fn nearest_rate(offered: impl Iterator<Item = i32>, rate: i32) -> i32 {
    let offered: Vec<i32> = offered.collect();
    let higher = offered.iter().copied().filter(|&r| r >= rate).min();
    higher.or(offered.into_iter().max()).unwrap_or(rate)
}

struct TextTranscoder {
    decoder: codec::decoder::Subtitle,
    encoder: codec::Context,
    source_base: Rational,
    /// Room for one encoded subtitle.
    encoded: Vec<u8>,
}

/// Size limit of an encoded subtitle in bytes, as in FFmpeg's command.
const TEXT_BYTES_MAX: usize = 1 << 20;

impl TextTranscoder {
    fn open(
        stream: &ffmpeg::Stream,
        encoder: ffmpeg::Codec,
    ) -> std::result::Result<TextTranscoder, ffmpeg::Error> {
        let decoder = decoder_of(stream.parameters(), stream.time_base())?.subtitle()?;
        let mut context = codec::Context::new_with_codec(encoder);
        context.set_time_base(MICROSECONDS);
        // SAFETY: both contexts are ours; the copy of the header is one zero byte longer, and the encoder's context,
        // which takes it over, frees it.
        unsafe {
            let (from, to) = (&*decoder.as_ptr(), &mut *context.as_mut_ptr());
            if !from.subtitle_header.is_null() {
                let size = from.subtitle_header_size as usize;
                let copy = ffi::av_mallocz(size + 1).cast::<u8>();
                assert!(!copy.is_null(), "no memory for a header");
                copy.copy_from_nonoverlapping(from.subtitle_header, size);
                (to.subtitle_header, to.subtitle_header_size) = (copy, size as i32);
            }
            check(ffi::avcodec_open2(to, encoder.as_ptr(), std::ptr::null_mut()))?;
        }
        let (source_base, encoded) = (stream.time_base(), vec![0; TEXT_BYTES_MAX]);
        Ok(TextTranscoder { decoder, encoder: context, source_base, encoded })
    }

    fn take(&mut self, mut packet: ffmpeg::Packet, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
        let Some(pts) = packet.pts() else { return Err(ffmpeg::Error::InvalidData) };
        // SAFETY: a subtitle of zeros is empty; the decoder fills it, and it is freed here. `len` is the buffer's length.
        let (size, start_ms, length_ms) = unsafe {
            let mut subtitle: ffi::AVSubtitle = std::mem::zeroed();
            let mut got_subtitle = 0;
            let (decoder, raw) = (self.decoder.as_mut_ptr(), packet.as_mut_ptr());
            check(ffi::avcodec_decode_subtitle2(decoder, &mut subtitle, &mut got_subtitle, raw))?;
            if got_subtitle == 0 || subtitle.num_rects == 0 {
                ffi::avsubtitle_free(&mut subtitle);
                return Ok(());
            }
            let start_ms = subtitle.start_display_time;
            subtitle.end_display_time = subtitle.end_display_time.saturating_sub(start_ms);
            subtitle.start_display_time = 0;
            let encoder = self.encoder.as_mut_ptr();
            let (buffer, len) = (self.encoded.as_mut_ptr(), self.encoded.len() as i32);
            let size = ffi::avcodec_encode_subtitle(encoder, buffer, len, &subtitle);
            let length_ms = subtitle.end_display_time;
            ffi::avsubtitle_free(&mut subtitle);
            (check(size)?, i64::from(start_ms), i64::from(length_ms))
        };
        let mut converted = ffmpeg::Packet::copy(&self.encoded[..size as usize]);
        let pts_us = pts.rescale(self.source_base, MICROSECONDS) + start_ms * 1000;
        converted.set_pts(Some(pts_us));
        converted.set_dts(Some(pts_us));
        converted.set_duration(length_ms * 1000);
        converted.set_flags(ffmpeg::packet::Flags::KEY);
        out.push(converted);
        Ok(())
    }
}
