//! Transcode: audio and text subtitles in a codec that the output's container cannot hold are converted to one that it
//! can.

use ffmpeg_next::ffi;
use ffmpeg_next::frame::Audio as AvFrame;
use ffmpeg_next::packet::Mut;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, Rounding, codec, filter, format};

use crate::error::{Error, ErrorKind, Result};
use crate::media::damage::{Damage, DamagedPlace};
use crate::media::decode::open::decoder_of;
use crate::media::ffmpeg::{MICROSECONDS, check, error_kind, is_again, parameters_of};
use crate::media::mux::channel_layout::ChannelLayout;
use crate::media::packet::Packet;
use crate::media::stream::Trim;

/// The transcoders of all streams that are converted, and what a cut makes of text.
pub struct Transcoders {
    transcoders: Vec<Transcoder>,
    /// Streams of text in the output.
    texts: Vec<usize>,
    part: Trim,
    damage: Damage,
}

/// What a stream is converted to.
pub(crate) struct TranscodeSpec<'a> {
    /// Encoder for the stream's kind.
    pub encoder: ffmpeg::Codec,
    /// Whether the container keeps the encoder's header apart from the packets.
    pub global_header: bool,
    /// The sample rates that the container holds; none if it holds any.
    pub rates: &'static [i32],
    /// Where audio has to start, in microseconds of the source's clock: silence or a cut makes it.
    pub start_us: Option<i64>,
    /// Sample rate and channel layout to keep, where they are not the stream's own.
    pub like: Option<&'a codec::Parameters>,
}

/// A change of the channel layout, which the encoder made necessary.
pub(crate) struct LayoutChange {
    /// FFmpeg's names of the layouts before and after.
    pub names: (String, String),
    /// Whether every channel is still one of its own.
    pub is_complete: bool,
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
        let damage = Damage::new(source, false);
        Transcoders { transcoders: Vec::new(), texts: Vec::new(), part: Trim::EVERYTHING, damage }
    }

    /// The same, of which only packets within `part` are written.
    pub(crate) fn within(mut self, part: Trim) -> Transcoders {
        self.transcoders.iter_mut().for_each(|transcoder| transcoder.part = part);
        self.part = part;
        self
    }

    pub(crate) fn add(&mut self, transcoder: Transcoder) {
        self.transcoders.push(transcoder);
    }

    /// States that a stream of the output is text.
    pub(crate) fn add_text(&mut self, stream: usize) {
        self.texts.push(stream);
    }

    /// Packets that could not be decoded, apart from the damage that reading the source finds.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Converts a packet; one of a copied stream is returned as it is, text within the part.
    pub fn convert(&mut self, packet: Packet) -> Result<Vec<Packet>> {
        let converted = self.transcoders.iter_mut().find(|transcoder| transcoder.stream == packet.stream);
        let mut packets = match converted {
            Some(transcoder) => transcoder.take(Some(packet), &self.damage)?,
            None => vec![packet],
        };
        self.clip_texts(&mut packets);
        Ok(packets)
    }

    /// Drains decoders and encoders after the last packet.
    pub fn finish(&mut self) -> Result<Vec<Packet>> {
        let mut rest = Vec::new();
        for transcoder in &mut self.transcoders {
            rest.extend(transcoder.take(None, &self.damage)?);
        }
        self.clip_texts(&mut rest);
        Ok(rest)
    }

    fn clip_texts(&self, packets: &mut [Packet]) {
        for packet in packets.iter_mut().filter(|packet| self.texts.contains(&packet.stream)) {
            clip_text(&mut packet.packet, packet.time_base, self.part);
        }
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
        Ok(Transcoder { stream: stream.index(), name, kind, part: Trim::EVERYTHING })
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

    /// The change of the channel layout, if there is one.
    pub(crate) fn layout_change(&self) -> Option<LayoutChange> {
        match &self.kind {
            Kind::Audio(audio) => audio.layout_change(),
            Kind::Text(_) => None,
        }
    }

    /// Converts a packet; without one, drains decoder and encoder. A packet that cannot be decoded is noted as damage.
    pub(crate) fn take(&mut self, packet: Option<Packet>, damage: &Damage) -> Result<Vec<Packet>> {
        let mut out = Vec::new();
        let is_written = packet.as_ref().is_none_or(|packet| self.part.contains(packet.dts_us()));
        let pts = packet.as_ref().and_then(|packet| packet.packet.pts());
        let seconds = packet.as_ref().filter(|_| pts.is_some()).map(|packet| packet.pts_us() as f64 / 1e6);
        let result = match &mut self.kind {
            Kind::Audio(audio) => audio.take(packet.map(|packet| packet.packet), &mut out),
            Kind::Text(text) => text.take(packet.map(|packet| packet.packet), &mut out),
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

/// Shortens a text that begins before the written part, or ends after it, to what lies in the part.
/// Packets are ordered by their dts afterwards.
fn clip_text(packet: &mut ffmpeg::Packet, time_base: Rational, trim: Trim) {
    let Some(pts) = packet.pts().filter(|_| packet.duration() > 0) else { return };
    let ticks = |us: i64| us.rescale_with(MICROSECONDS, time_base, Rounding::Up);
    let from = if trim.from_us == i64::MIN { pts } else { ticks(trim.from_us) };
    let to = if trim.to_us == i64::MAX { i64::MAX } else { ticks(trim.to_us) };
    let (start, end) = (pts.max(from), pts.saturating_add(packet.duration()).min(to));
    if start < end {
        packet.set_pts(Some(start));
        packet.set_dts(packet.dts().map(|dts| dts.max(start)));
        packet.set_duration(end - start);
    }
}

type Outcome = std::result::Result<(), ffmpeg::Error>;

struct AudioTranscoder {
    decoder: codec::decoder::Audio,
    source_base: Rational,
    /// The filter graph and the kind of frames that it was built for.
    graph: Option<(FrameKind, filter::Graph)>,
    /// Where the audio has to start, in microseconds, until the first graph is built.
    start_us: Option<i64>,
    /// End of the last decoded frame in microseconds: the next one may have no timestamp.
    end_us: Option<i64>,
    encoder: codec::encoder::Audio,
    time_base: Rational,
}

/// Sample format, sample rate in Hz, channel layout.
type FrameKind = (format::Sample, u32, ChannelLayout);

/// Bit rate of converted audio, for each channel, in bit/s: transparent in every codec that is chosen here.
const CHANNEL_BIT_RATE: usize = 96_000;

impl AudioTranscoder {
    fn open(
        stream: &ffmpeg::Stream,
        spec: &TranscodeSpec,
    ) -> std::result::Result<AudioTranscoder, ffmpeg::Error> {
        let decoder = decoder_of(stream.parameters(), stream.time_base())?.audio()?;
        let layouts = match spec.like {
            // SAFETY: the parameters are alive.
            Some(like) => vec![ChannelLayout::of(unsafe { &(*like.as_ptr()).ch_layout })],
            None => layout_of(&decoder).candidates(spec.encoder),
        };
        let mut opened = Err(ffmpeg::Error::InvalidData);
        for layout in layouts {
            opened = open_encoder(&decoder, spec, &layout);
            if opened.as_ref().is_ok_and(|encoder| is_read_back(encoder, &layout)) {
                break;
            }
        }
        let encoder = opened?;
        let (source_base, time_base) = (stream.time_base(), Rational(1, encoder.rate() as i32));
        let start_us = spec.start_us;
        Ok(AudioTranscoder { decoder, source_base, graph: None, start_us, end_us: None, encoder, time_base })
    }

    fn layout_change(&self) -> Option<LayoutChange> {
        let (from, to) = (layout_of(&self.decoder), layout_of(&self.encoder));
        let names = (from.to_string(), to.to_string());
        (from != to).then(|| LayoutChange { names, is_complete: from.survives_in(&to) })
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
        let sample_base = Rational(1, av_frame.rate() as i32);
        let pts = match av_frame.timestamp() {
            Some(pts) => Some(pts.rescale(self.source_base, sample_base)),
            None => self.end_us.map(|end_us| end_us.rescale(MICROSECONDS, sample_base)),
        };
        av_frame.set_pts(pts);
        let end = pts.map(|pts| pts + av_frame.samples() as i64);
        self.end_us = end.map(|end| end.rescale(sample_base, MICROSECONDS));
        // SAFETY: the frame is alive.
        let layout = ChannelLayout::of(unsafe { &(*av_frame.as_ptr()).ch_layout });
        // SAFETY: as above; the filters are built for this layout.
        layout.write_to(unsafe { &mut (*av_frame.as_mut_ptr()).ch_layout });
        let kind = (av_frame.format(), av_frame.rate(), layout);
        if self.graph.as_ref().is_none_or(|(built_for, _)| *built_for != kind) {
            self.flush_graph(out)?;
            let start_us = self.start_us.take();
            let graph = self.build_graph(&kind, start_us)?;
            self.graph = Some((kind, graph));
        }
        let (_, graph) = self.graph.as_mut().expect("just built");
        graph.get("in").expect("its source").source().add(&av_frame)?;
        self.encode(out)
    }

    /// Builds a graph that fills gaps with silence and cuts overlaps, so that the audio stays at its timestamps.
    fn build_graph(
        &self,
        (sample, rate, layout): &FrameKind,
        start_us: Option<i64>,
    ) -> std::result::Result<filter::Graph, ffmpeg::Error> {
        let mut graph = filter::Graph::new();
        let encoder = &self.encoder;
        let source = format!(
            "time_base=1/{rate}:sample_rate={rate}:sample_fmt={}:channel_layout={}",
            sample.name(),
            layout.filter_argument()
        );
        let start = start_us.map_or(String::new(), |us| {
            format!(":first_pts={}", us.rescale(MICROSECONDS, Rational(1, *rate as i32)))
        });
        let wanted = format!(
            "aresample=async=1:min_hard_comp=0.02{start},aformat=sample_fmts={}:sample_rates={}:channel_layouts={}",
            encoder.format().name(),
            encoder.rate(),
            layout_of(encoder).filter_argument()
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

/// Opens the encoder of `spec` for the decoder's audio in this layout.
fn open_encoder(
    decoder: &codec::decoder::Audio,
    &TranscodeSpec { encoder, global_header, rates, like, .. }: &TranscodeSpec,
    layout: &ChannelLayout,
) -> std::result::Result<codec::encoder::Audio, ffmpeg::Error> {
    let properties = encoder.audio()?;
    // SAFETY: the parameters are alive.
    let rate = like.map_or(decoder.rate() as i32, |like| unsafe { (*like.as_ptr()).sample_rate });
    let rate = match rates {
        [] => nearest_rate(properties.rates().into_iter().flatten(), rate),
        _ => nearest_rate(rates.iter().copied(), rate),
    };
    // SAFETY: the decoder is alive.
    let stated_bits = unsafe { (*decoder.as_ptr()).bits_per_raw_sample };
    let bits = if stated_bits > 0 { stated_bits } else { precision(decoder.format()) };
    let loss = |sample: &format::Sample| ((bits - precision(*sample)).max(0), precision(*sample));
    let sample = properties.formats().into_iter().flatten().min_by_key(loss).unwrap_or(decoder.format());
    let mut context = codec::Context::new_with_codec(encoder);
    context.compliance(codec::Compliance::Experimental);
    if global_header {
        context.set_flags(codec::Flags::GLOBAL_HEADER);
    }
    let mut context = context.encoder().audio()?;
    context.set_rate(rate);
    context.set_format(sample);
    context.set_time_base(Rational(1, rate));
    context.set_bit_rate(CHANNEL_BIT_RATE * layout.channels().max(1) as usize);
    // SAFETY: the context is alive and not opened yet.
    unsafe {
        layout.write_to(&mut (*context.as_mut_ptr()).ch_layout);
        if stated_bits < precision(sample) {
            (*context.as_mut_ptr()).bits_per_raw_sample = stated_bits;
        }
    }
    context.open_as(encoder)
}

/// Bits of a sample that are as good as those of an integer.
fn precision(sample: format::Sample) -> i32 {
    match sample {
        format::Sample::None => 0,
        format::Sample::U8(_) => 8,
        format::Sample::I16(_) => 16,
        format::Sample::F32(_) => 24,
        format::Sample::I32(_) => 32,
        format::Sample::F64(_) => 53,
        format::Sample::I64(_) => 64,
    }
}

/// Whether FFmpeg's decoder finds the layout in the encoder's header. It does not understand all layouts that FFmpeg's
/// encoder of AAC describes there.
fn is_read_back(encoder: &codec::Context, layout: &ChannelLayout) -> bool {
    if encoder.id() != codec::Id::AAC {
        return true;
    }
    let mut parameters = parameters_of(encoder);
    // SAFETY: the parameters are ours.
    unsafe { ffi::av_channel_layout_uninit(&mut (*parameters.as_mut_ptr()).ch_layout) };
    let decoder = decoder_of(parameters, MICROSECONDS).and_then(|decoder| decoder.audio());
    // SAFETY: the decoder is alive.
    decoder.is_ok_and(|decoder| layout.is(unsafe { &(*decoder.as_ptr()).ch_layout }))
}

/// The layout of an opened decoder or encoder.
fn layout_of(context: &codec::Context) -> ChannelLayout {
    // SAFETY: the context is alive.
    ChannelLayout::of(unsafe { &(*context.as_ptr()).ch_layout })
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
    /// A text that is shown until the next one, or the erasure of the screen, arrives.
    open_ended: Option<ffmpeg::Packet>,
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
        let mut options = ffmpeg::Dictionary::new();
        if stream.parameters().id() == codec::Id::DVB_TELETEXT {
            // Its decoder draws the text otherwise.
            options.set("txt_format", "text");
        }
        let codec = ffmpeg::decoder::find(stream.parameters().id()).ok_or(ffmpeg::Error::DecoderNotFound)?;
        let decoder =
            decoder_of(stream.parameters(), stream.time_base())?.open_as_with(codec, options)?.subtitle()?;
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
        Ok(TextTranscoder { decoder, encoder: context, open_ended: None, encoded: vec![0; TEXT_BYTES_MAX] })
    }

    fn take(&mut self, packet: Option<ffmpeg::Packet>, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
        if let Some(packet) = packet {
            return self.decode(packet, out).map(drop);
        }
        // Each empty packet fetches one text that the decoder holds back. That of captions gives its last one every time.
        let flushes = if self.decoder.id() == codec::Id::EIA_608 { 1 } else { usize::MAX };
        for _ in 0..flushes {
            if !self.decode(ffmpeg::Packet::empty(), out)? {
                break;
            }
        }
        out.extend(self.open_ended.take());
        Ok(())
    }

    /// Decodes a packet. Returns whether it gave a text, or erased the one before.
    fn decode(
        &mut self,
        mut packet: ffmpeg::Packet,
        out: &mut Vec<ffmpeg::Packet>,
    ) -> std::result::Result<bool, ffmpeg::Error> {
        // SAFETY: a subtitle of zeros is empty; the decoder fills it.
        let (mut subtitle, mut got_subtitle) = (Subtitle(unsafe { std::mem::zeroed() }), 0);
        // SAFETY: the decoder is alive, and so it stays.
        let decoder = unsafe { self.decoder.as_mut_ptr() };
        let raw = &mut subtitle.0;
        // SAFETY: decoder, subtitle and packet are alive.
        check(unsafe {
            ffi::avcodec_decode_subtitle2(decoder, raw, &mut got_subtitle, packet.as_mut_ptr())
        })?;
        if got_subtitle == 0 {
            return Ok(false);
        }
        // Decoders that hold texts back say when each was meant to be shown.
        let pts_us = raw.pts.saturating_add(i64::from(raw.start_display_time) * 1000);
        if raw.pts == ffi::AV_NOPTS_VALUE {
            return Err(ffmpeg::Error::InvalidData);
        }
        if let Some(mut before) = self.open_ended.take() {
            before.set_duration(pts_us.saturating_sub(before.pts().unwrap_or(pts_us)).max(0));
            out.push(before);
        }
        if raw.num_rects == 0 {
            return Ok(true);
        }
        raw.end_display_time = raw.end_display_time.saturating_sub(raw.start_display_time);
        raw.start_display_time = 0;
        let ends = !matches!(raw.end_display_time, 0 | u32::MAX);
        let (buffer, len) = (self.encoded.as_mut_ptr(), self.encoded.len() as i32);
        // SAFETY: encoder and subtitle are alive, and `len` is the buffer's length.
        let size =
            check(unsafe { ffi::avcodec_encode_subtitle(self.encoder.as_mut_ptr(), buffer, len, raw) })?;
        let mut converted = ffmpeg::Packet::copy(&self.encoded[..size as usize]);
        converted.set_pts(Some(pts_us));
        converted.set_dts(Some(pts_us));
        converted.set_flags(ffmpeg::packet::Flags::KEY);
        if ends {
            converted.set_duration(i64::from(raw.end_display_time) * 1000);
            out.push(converted);
        } else {
            self.open_ended = Some(converted);
        }
        Ok(true)
    }
}

/// A decoded subtitle, which is freed.
struct Subtitle(ffi::AVSubtitle);

impl Drop for Subtitle {
    fn drop(&mut self) {
        // SAFETY: it is empty, or a decoder filled it.
        unsafe { ffi::avsubtitle_free(&mut self.0) };
    }
}
