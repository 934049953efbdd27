//! Transcode: audio and text in a codec that the output's container cannot hold become one that it can.

use ffmpeg_next::ffi;
use ffmpeg_next::frame::Audio as AvFrame;
use ffmpeg_next::packet::Mut;
use ffmpeg_next::{self as ffmpeg, ChannelLayout, Rational, Rescale, codec, filter, format};
use tracing::warn;

use crate::error::{Error, Result};
use crate::media::ffmpeg::MICROSECONDS;
use crate::media::ffmpeg::check;
use crate::media::ffmpeg::is_again;
use crate::media::packet::Packet;

/// All streams that are converted.
#[derive(Default)]
pub struct Transcoders(Vec<Transcoder>);

/// Of one stream.
pub(crate) struct Transcoder {
    stream: usize,
    name: String,
    kind: Kind,
    /// Packets that could not be decoded.
    damaged: u64,
}

enum Kind {
    AudioMode(Box<AudioMode>),
    Text(Text),
}

impl Transcoders {
    pub(crate) fn add(&mut self, transcoder: Transcoder) {
        self.0.push(transcoder);
    }

    /// What describes the converted stream.
    pub(crate) fn context(&self, stream: usize) -> &codec::Context {
        let found = self.0.iter().find(|transcoder| transcoder.stream == stream);
        found.expect("planned to be converted").context()
    }

    /// What becomes of a packet: itself, unless its stream is converted.
    pub fn convert(&mut self, packet: Packet) -> Result<Vec<Packet>> {
        match self.0.iter_mut().find(|transcoder| transcoder.stream == packet.stream) {
            Some(transcoder) => transcoder.take(Some(packet)),
            None => Ok(vec![packet]),
        }
    }

    /// What is still inside of decoders and encoders, after the last packet.
    pub fn finish(&mut self) -> Result<Vec<Packet>> {
        let mut rest = Vec::new();
        for transcoder in &mut self.0 {
            rest.extend(transcoder.take(None)?);
        }
        Ok(rest)
    }
}

impl Transcoder {
    /// To this encoder, whose kind is the stream's.
    pub(crate) fn open(
        stream: &ffmpeg::Stream,
        source: &str,
        encoder: ffmpeg::Codec,
        global_header: bool,
    ) -> Result<Transcoder> {
        Transcoder::open_like(None, stream, source, encoder, global_header)
    }

    /// The same, with the rate and the channels of what it is to follow.
    pub(crate) fn open_like(
        before: Option<&codec::Parameters>,
        stream: &ffmpeg::Stream,
        source: &str,
        encoder: ffmpeg::Codec,
        global_header: bool,
    ) -> Result<Transcoder> {
        let name = format!("{source}: stream {}", stream.index());
        let opened = if encoder.is_audio() {
            AudioMode::open(before, stream, encoder, global_header)
                .map(|audio| Kind::AudioMode(Box::new(audio)))
        } else {
            Text::open(stream, encoder).map(Kind::Text)
        };
        let kind = opened.map_err(|e| {
            let problem = format!("cannot be converted to {}: {e}", encoder.name());
            Error::new(&name, problem, "take it out with --map, or choose another container")
        })?;
        Ok(Transcoder { stream: stream.index(), name, kind, damaged: 0 })
    }

    /// What describes the converted stream.
    pub(crate) fn context(&self) -> &codec::Context {
        match &self.kind {
            Kind::AudioMode(audio) => &audio.encoder,
            Kind::Text(text) => &text.encoder,
        }
    }

    /// What becomes of a packet, or, without one, of what is still inside.
    pub(crate) fn take(&mut self, packet: Option<Packet>) -> Result<Vec<Packet>> {
        let mut out = Vec::new();
        let result = match &mut self.kind {
            Kind::AudioMode(audio) => audio.take(packet.map(|coded| coded.packet), &mut out),
            Kind::Text(text) => packet.map_or(Ok(()), |coded| text.take(coded.packet, &mut out)),
        };
        match result {
            Ok(()) => {}
            // As FFmpeg does: what a decoder cannot read is a gap, and gaps of audio are filled.
            Err(ffmpeg::Error::InvalidData) => {
                self.damaged += 1;
                if self.damaged == 1 {
                    warn!("{}: a damaged packet is left out", self.name);
                }
            }
            Err(error) => {
                let problem = format!("cannot be converted further: {error}");
                return Err(Error::new(&self.name, problem, "take it out with --map"));
            }
        }
        let (stream, time_base) = (self.stream, self.time_base());
        Ok(out.into_iter().map(|packet| Packet { packet, stream, time_base, index: 0 }).collect())
    }

    fn time_base(&self) -> Rational {
        match &self.kind {
            Kind::AudioMode(audio) => audio.time_base,
            Kind::Text(_) => MICROSECONDS,
        }
    }
}

type Outcome = std::result::Result<(), ffmpeg::Error>;

struct AudioMode {
    decoder: codec::decoder::Audio,
    source_base: Rational,
    /// Made for frames of one kind.
    graph: Option<(FrameKind, filter::Graph)>,
    encoder: codec::encoder::Audio,
    time_base: Rational,
}

type FrameKind = (format::Sample, u32, u64);

/// Enough for each channel in any codec that is in use.
const BITS_A_SECOND_A_CHANNEL: usize = 96_000;

impl AudioMode {
    fn open(
        before: Option<&codec::Parameters>,
        stream: &ffmpeg::Stream,
        encoder: ffmpeg::Codec,
        global_header: bool,
    ) -> std::result::Result<AudioMode, ffmpeg::Error> {
        let mut context = codec::Context::from_parameters(stream.parameters())?.decoder();
        context.set_packet_time_base(stream.time_base());
        let decoder = context.audio()?;
        let properties = encoder.audio()?;
        // SAFETY: the parameters are alive.
        let before =
            before.map(|before| unsafe { ((*before.as_ptr()).sample_rate, (*before.as_ptr()).channels) });
        let (rate, channels) = before.unwrap_or((decoder.rate() as i32, decoder.channels().into()));
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
        context.set_bit_rate(BITS_A_SECOND_A_CHANNEL * layout.channels().max(1) as usize);
        let encoder = context.open_as(encoder)?;
        Ok(AudioMode { decoder, source_base: stream.time_base(), graph: None, encoder, time_base })
    }

    fn take(&mut self, packet: Option<ffmpeg::Packet>, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
        let is_end = packet.is_none();
        match packet {
            Some(packet) => self.decoder.send_packet(&packet)?,
            None => self.decoder.send_eof().or_else(at_end)?,
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
            self.end_graph(out)?;
            self.encoder.send_eof().or_else(at_end)?;
            self.collect(out)?;
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
        if self.graph.as_ref().is_none_or(|(made_for, _)| *made_for != kind) {
            self.end_graph(out)?;
            self.graph = Some((kind, self.new_graph(kind)?));
        }
        let (_, graph) = self.graph.as_mut().expect("just made");
        graph.get("in").expect("its source").source().add(&av_frame)?;
        self.encode(out)
    }

    /// Gaps become silence and overlaps are cut, so that the audio stays where its times put it.
    fn new_graph(
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

    fn end_graph(&mut self, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
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

    fn collect(&mut self, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
        drain(&mut self.encoder, out)
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

fn at_end(error: ffmpeg::Error) -> Outcome {
    if error == ffmpeg::Error::Eof { Ok(()) } else { Err(error) }
}

/// The same, else the next higher, else the highest.
fn nearest_rate(offered: impl Iterator<Item = i32>, rate: i32) -> i32 {
    let offered: Vec<i32> = offered.collect();
    let higher = offered.iter().copied().filter(|&r| r >= rate).min();
    higher.or(offered.into_iter().max()).unwrap_or(rate)
}

struct Text {
    decoder: codec::decoder::Subtitle,
    encoder: codec::Context,
    source_base: Rational,
    /// Of one subtitle, coded.
    coded: Vec<u8>,
}

/// As FFmpeg's own command has it.
const TEXT_BYTES_MAX: usize = 1 << 20;

impl Text {
    fn open(stream: &ffmpeg::Stream, encoder: ffmpeg::Codec) -> std::result::Result<Text, ffmpeg::Error> {
        let mut context = codec::Context::from_parameters(stream.parameters())?.decoder();
        context.set_packet_time_base(stream.time_base());
        let decoder = context.subtitle()?;
        let mut context = codec::Context::new_with_codec(encoder);
        context.set_time_base(MICROSECONDS);
        // SAFETY: both contexts are ours; the copy of the header has its size and a zero more, and the encoder's
        // context, to which it goes, frees it.
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
        let (source_base, coded) = (stream.time_base(), vec![0; TEXT_BYTES_MAX]);
        Ok(Text { decoder, encoder: context, source_base, coded })
    }

    fn take(&mut self, mut packet: ffmpeg::Packet, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
        let Some(pts) = packet.pts() else { return Err(ffmpeg::Error::InvalidData) };
        // SAFETY: a subtitle of zeros is empty; the decoder fills it, and it is freed here. The buffer is as long as
        // it is said to be.
        let (size, start_ms, length_ms) = unsafe {
            let mut subtitle: ffi::AVSubtitle = std::mem::zeroed();
            let mut is_there = 0;
            let decoder = self.decoder.as_mut_ptr();
            check(ffi::avcodec_decode_subtitle2(decoder, &mut subtitle, &mut is_there, packet.as_mut_ptr()))?;
            if is_there == 0 || subtitle.num_rects == 0 {
                ffi::avsubtitle_free(&mut subtitle);
                return Ok(());
            }
            let start_ms = subtitle.start_display_time;
            subtitle.end_display_time = subtitle.end_display_time.saturating_sub(start_ms);
            subtitle.start_display_time = 0;
            let encoder = self.encoder.as_mut_ptr();
            let (room, len) = (self.coded.as_mut_ptr(), self.coded.len() as i32);
            let size = ffi::avcodec_encode_subtitle(encoder, room, len, &subtitle);
            let length_ms = subtitle.end_display_time;
            ffi::avsubtitle_free(&mut subtitle);
            (check(size)?, i64::from(start_ms), i64::from(length_ms))
        };
        let mut converted = ffmpeg::Packet::copy(&self.coded[..size as usize]);
        let pts_us = pts.rescale(self.source_base, MICROSECONDS) + start_ms * 1000;
        converted.set_pts(Some(pts_us));
        converted.set_dts(Some(pts_us));
        converted.set_duration(length_ms * 1000);
        converted.set_flags(ffmpeg::packet::Flags::KEY);
        out.push(converted);
        Ok(())
    }
}
