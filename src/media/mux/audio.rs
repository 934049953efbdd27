//! Audio that is converted: decoded, resampled at its timestamps, and encoded.

use ffmpeg_next::ffi;
use ffmpeg_next::frame::Audio as AvFrame;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec, filter, format};

use crate::media::decode::open::decoder_of;
use crate::media::ffmpeg::{MICROSECONDS, is_again, parameters_of};
use crate::media::mux::channel_layout::ChannelLayout;

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

pub(super) type Outcome = std::result::Result<(), ffmpeg::Error>;

/// Decoder, filters and encoder of an audio stream.
pub(super) struct AudioTranscoder {
    decoder: codec::decoder::Audio,
    source_base: Rational,
    /// The filter graph and the kind of frames that it was built for.
    graph: Option<(FrameKind, filter::Graph)>,
    /// Where the audio has to start, in microseconds, until the first graph is built.
    start_us: Option<i64>,
    /// End of the last decoded frame in microseconds: the next one may have no timestamp.
    end_us: Option<i64>,
    pub(super) encoder: codec::encoder::Audio,
    pub(super) time_base: Rational,
}

/// Samples that a lossless encoder takes with fewer bits only.
pub(crate) struct DepthChange {
    /// Depths before and after in words.
    pub names: (String, String),
}

/// Sample format, sample rate in Hz, channel layout.
type FrameKind = (format::Sample, u32, ChannelLayout);

/// Bit rate of converted audio, for each channel, in bit/s: transparent in every codec that is chosen here.
const CHANNEL_BIT_RATE: usize = 96_000;

impl AudioTranscoder {
    pub(super) fn open(
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

    pub(super) fn layout_change(&self) -> Option<LayoutChange> {
        let (from, to) = (layout_of(&self.decoder), layout_of(&self.encoder));
        let names = (from.to_string(), to.to_string());
        (from != to).then(|| LayoutChange { names, is_complete: from.survives_in(&to) })
    }

    pub(super) fn depth_change(&self) -> Option<DepthChange> {
        // SAFETY: descriptors are static.
        let descriptor = unsafe { ffi::avcodec_descriptor_get(self.encoder.id().into()).as_ref() };
        let is_lossless =
            descriptor.is_some_and(|descriptor| descriptor.props & ffi::AV_CODEC_PROP_LOSSLESS != 0);
        let ((from, was_float), (to, is_float)) = (depth(&self.decoder), depth(&self.encoder));
        let name = |bits: i32, is_float| {
            if is_float { format!("float of {bits} bits") } else { format!("{bits} bits") }
        };
        let names = (name(from, was_float), name(to, is_float));
        (is_lossless && (to < from || was_float && !is_float)).then_some(DepthChange { names })
    }

    pub(super) fn take(&mut self, packet: Option<ffmpeg::Packet>, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
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
    let (bits, was_float) = depth(decoder);
    let loss = |sample: &format::Sample| {
        let is_changed = is_float(*sample) != was_float;
        ((bits - precision(*sample)).max(0), is_changed, precision(*sample))
    };
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
        if bits < precision(sample) && !is_float(sample) {
            (*context.as_mut_ptr()).bits_per_raw_sample = bits;
        }
    }
    context.open_as(encoder)
}

/// Bits of the samples that a decoder gives or an encoder takes, and whether they are float.
fn depth(context: &codec::Context) -> (i32, bool) {
    // SAFETY: the context is alive; only audio has a sample format, which FFmpeg has set. The other is a table lookup.
    let (stated, coded, sample) = unsafe {
        let raw = &*context.as_ptr();
        (raw.bits_per_raw_sample, ffi::av_get_bits_per_sample(raw.codec_id), raw.sample_fmt.into())
    };
    let is_float = is_float(sample);
    let stated = [stated, coded].into_iter().filter(|&bits| bits > 0 && !is_float).min();
    (stated.unwrap_or(i32::MAX).min(precision(sample)), is_float)
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

fn is_float(sample: format::Sample) -> bool {
    matches!(sample, format::Sample::F32(_) | format::Sample::F64(_))
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
