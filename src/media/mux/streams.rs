//! Streams: which streams of the input go into the output, and whether each is upscaled, copied or converted.

use std::collections::BTreeMap;

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, Rational, codec, media};
use tracing::warn;

use crate::error::{Error, ErrorKind, Result};
use crate::media::container::{audio_codecs, audio_streams_max, holds_starts, sample_rates};
use crate::media::decode::orientation::upright_filter;
use crate::media::demux::input::Input;
use crate::media::mux::audio::{DepthChange, LayoutChange, TranscodeSpec};
use crate::media::mux::language::written_code;
use crate::media::mux::transcode::{Transcoder, Transcoders};
use crate::media::output::Output;
use crate::media::packet::Packet;
use crate::media::side_data::display_matrix;
use crate::media::stream::{Trim, has_alpha_apart, is_cover, kind_name, start_us, tag};
use crate::media::trial::{Trial, TrialStream, survives, try_stream};

/// What is done with audio streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AudioMode {
    /// Copies audio; converts it where the container cannot hold its codec.
    #[default]
    Copy,
    /// Leaves audio out.
    None,
    /// Converts audio with the FFmpeg encoder of this name.
    Encode(String),
}

/// What is done with a stream of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamAction {
    Upscale,
    Copy,
    Convert,
    /// A cover image, which is written with the header.
    Cover,
}

/// A stream of the output: where it comes from, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamMapping {
    /// Stream index in the input.
    pub input_index: usize,
    pub action: StreamAction,
}

/// The streams of the output, in their order.
pub struct Plan {
    pub(crate) mappings: Vec<StreamMapping>,
    /// Parameters and time base of each converted stream, by its index in the input.
    pub(crate) encoded: BTreeMap<usize, (codec::Parameters, Rational)>,
    /// Codes of languages that differ from the input's, by the stream's index there; empty for none.
    pub(crate) languages: BTreeMap<usize, String>,
    transcoders: Transcoders,
    part: Trim,
    /// Where audio has to start, in a container that has no starts of tracks.
    start_us: Option<i64>,
    pub(crate) converted: Vec<String>,
    pub(crate) left_out: Vec<String>,
}

/// Distance between audio and video from which on viewers detect it, where audio comes first (ITU-R BT.1359-1).
const START_TOLERANCE_US: u64 = 45_000;

impl Plan {
    /// Maps every wanted stream of the input, of which `part` is written. A stream that the container cannot hold is
    /// converted where FFmpeg can, else left out with a warning.
    pub fn new(input: &mut Input, output: &Output, audio: &AudioMode, part: Trim) -> Result<Plan> {
        if *audio == AudioMode::Copy {
            input.read_ahead(&tracks_to_copy(input, output))?;
        }
        let input = &*input;
        let mut plan = Plan {
            mappings: Vec::new(),
            encoded: BTreeMap::new(),
            languages: BTreeMap::new(),
            transcoders: Transcoders::new(input.name()),
            part,
            start_us: (!holds_starts(output.container)).then(|| input.video_start_us().max(part.from_us)),
            converted: Vec::new(),
            left_out: Vec::new(),
        };
        for &index in input.wanted() {
            let stream = input.context().stream(index).expect("a stream of the input");
            if index == input.video_index() {
                plan.map(index, StreamAction::Upscale);
                // Frames are turned upright instead, by a quarter turn or several.
                let is_lost = display_matrix(&stream).is_some_and(|matrix| upright_filter(&matrix).is_none());
                if is_lost && !output.holds_display_matrix() {
                    plan.leave_out(format!("the display matrix of {}", describe(&stream)), output);
                }
            } else {
                plan.add(&stream, input, output, audio)?;
            }
        }
        let is_video = |mapping: &&StreamMapping| {
            let stream = input.context().stream(mapping.input_index).expect("a stream of the input");
            mapping.action == StreamAction::Copy && stream.parameters().medium() == media::Type::Video
        };
        if let Some(other) = plan.mappings.iter().find(is_video) {
            let (name, video, other) = (input.name(), input.video_index(), other.input_index);
            warn!(
                "{name}: stream {video} is upscaled, stream {other} is copied; --map 0:{other} chooses that"
            );
        }
        plan.choose_languages(input, output);
        Ok(plan)
    }

    /// Chooses the code of each language that the container reads back.
    fn choose_languages(&mut self, input: &Input, output: &Output) {
        for StreamMapping { input_index, .. } in self.mappings.clone() {
            let stream = input.context().stream(input_index).expect("a stream of the input");
            let language =
                tag(&stream, c"language").filter(|language| !matches!(language.as_str(), "" | "und"));
            let Some(language) = language.filter(|_| !output.is_still() && !output.is_y4m()) else {
                continue;
            };
            let code = written_code(output.container, &language);
            if code.is_none() {
                self.leave_out(format!("the language {language} of {}", describe(&stream)), output);
            }
            if code.as_ref() != Some(&language) {
                self.languages.insert(input_index, code.unwrap_or_default());
            }
        }
    }

    fn add(
        &mut self,
        stream: &ffmpeg::Stream,
        input: &Input,
        output: &Output,
        audio: &AudioMode,
    ) -> Result<()> {
        let parameters = stream.parameters();
        let packets = input.queued(stream.index());
        let (medium, id) = (parameters.medium(), layer_of(parameters.id(), &packets));
        let is_audio = medium == media::Type::Audio;
        let is_track = is_audio || medium == media::Type::Subtitle;
        if (is_audio && *audio == AudioMode::None) || is_written_by_muxer(stream, output) {
            return Ok(());
        }
        // SAFETY: stream and parameters are alive.
        let sample_rate = unsafe { (*parameters.as_ptr()).sample_rate };
        // A stream that was found at the end of a broadcast, none of whose packets was read yet.
        if is_audio && sample_rate == 0 {
            let what = format!("{}, whose parameters are unknown at the start", describe(stream));
            self.leave_out(what, output);
            return Ok(());
        }
        if is_audio && self.audio_streams(input) == audio_streams_max(output.container) {
            self.leave_out(format!("{} beside the audio before it", describe(stream)), output);
            return Ok(());
        }
        match audio {
            AudioMode::Encode(name) if is_audio => {
                let encoder = requested_encoder(name, output)?;
                let transcoder = open_transcoder(stream, encoder, input, output, self.start_us)?;
                self.convert(stream, transcoder, encoder, output);
            }
            _ if is_cover(stream) && output.holds_cover(id) => self.map(stream.index(), StreamAction::Cover),
            _ if is_cover(stream) => self.leave_out(describe(stream), output),
            _ if output.holds(medium, id)
                && holds_rate(stream, output)
                && !(is_audio && self.starts_apart(stream))
                && (!is_track || survives(output.container, stream, &packets)) =>
            {
                if has_alpha_apart(stream) && !output.holds_alpha(id) {
                    self.leave_out(format!("the alpha of {}", describe(stream)), output);
                }
                if medium == media::Type::Subtitle && is_text(id) {
                    self.transcoders.add_text(stream.index());
                }
                self.map(stream.index(), StreamAction::Copy);
            }
            _ => self.convert_to_held(stream, input, output)?,
        }
        Ok(())
    }

    /// Converts a stream that the container cannot hold to the best codec that it holds, one that keeps all channels and
    /// bits if there is any, or leaves it out.
    fn convert_to_held(&mut self, stream: &ffmpeg::Stream, input: &Input, output: &Output) -> Result<()> {
        let parameters = stream.parameters();
        let (mut best, mut failed) = (None, None);
        for encoder in fallback_encoders(output, parameters.medium(), parameters.id()) {
            match open_transcoder(stream, encoder, input, output, self.start_us) {
                Ok(transcoder) => {
                    let is_complete = transcoder.layout_change().is_none_or(|change| change.is_complete)
                        && transcoder.depth_change().is_none();
                    if best.is_none() || is_complete {
                        best = Some((transcoder, encoder));
                    }
                    if is_complete {
                        break;
                    }
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match (best, failed) {
            (Some((transcoder, encoder)), _) => {
                if let Some(DepthChange { names: (from, _) }) = transcoder.depth_change() {
                    self.left_out.push(format!("the depth ({from}) of {}", describe(stream)));
                }
                let conversion = self.convert(stream, transcoder, encoder, output);
                let what = match output.holds(parameters.medium(), parameters.id()) {
                    true if self.starts_apart(stream) => "start",
                    true if !holds_rate(stream, output) => "sample rate",
                    _ => "codec",
                };
                warn!("{}: {} cannot hold its {what}: {conversion}", output.name, output.container());
                Ok(())
            }
            (None, Some(error)) => Err(error),
            (None, None) => {
                self.leave_out(describe(stream), output);
                Ok(())
            }
        }
    }

    /// Whether the audio would be out of sync in a container that has no starts of tracks.
    fn starts_apart(&self, stream: &ffmpeg::Stream) -> bool {
        let (Some(wanted_us), Some(us)) = (self.start_us, start_us(stream)) else { return false };
        us.max(self.part.from_us).abs_diff(wanted_us) > START_TOLERANCE_US
    }

    /// Number of audio streams that are mapped so far.
    fn audio_streams(&self, input: &Input) -> usize {
        let medium =
            |index| input.context().stream(index).expect("a stream of the input").parameters().medium();
        let is_audio = |mapping: &&StreamMapping| medium(mapping.input_index) == media::Type::Audio;
        self.mappings.iter().filter(is_audio).count()
    }

    fn map(&mut self, input_index: usize, action: StreamAction) {
        self.mappings.push(StreamMapping { input_index, action });
    }

    /// Returns a description of the conversion.
    fn convert(
        &mut self,
        stream: &ffmpeg::Stream,
        transcoder: Transcoder,
        encoder: ffmpeg::Codec,
        output: &Output,
    ) -> String {
        let mut conversion = format!("{} to {}", describe(stream), encoder.id().name());
        if let Some(LayoutChange { names: (from, to), is_complete }) = transcoder.layout_change() {
            let codec = encoder.id().name();
            warn!(
                "{}: {codec} cannot hold the channel layout {from} of stream {}: it becomes {to}",
                output.name,
                stream.index()
            );
            conversion += &format!(", channel layout {from} to {to}");
            if !is_complete {
                self.left_out.push(format!("the channel layout {from} of {} in {codec}", describe(stream)));
            }
        }
        if let Some(DepthChange { names: (from, to) }) = transcoder.depth_change() {
            conversion += &format!(", {from} to {to}");
        }
        self.encoded.insert(stream.index(), transcoder.encoded());
        if encoder.medium() == media::Type::Subtitle {
            self.transcoders.add_text(stream.index());
        }
        self.transcoders.add(transcoder);
        self.map(stream.index(), StreamAction::Convert);
        self.converted.push(conversion.clone());
        conversion
    }

    fn leave_out(&mut self, what: String, output: &Output) {
        warn!("{}: {} cannot hold {what}; it is left out", output.name, output.container());
        self.left_out.push(what);
    }

    /// Fails if anything is left out.
    pub fn check_complete(&self, output: &Output) -> Result<()> {
        let Some(first) = self.left_out.first() else { return Ok(()) };
        let problem = format!("{} cannot hold {first}", output.container());
        let remedy = "choose another container, e.g. .mkv, leave it out with --map, or do without --strict";
        Err(Error::new(&output.name, problem, remedy).with_kind(ErrorKind::Unsupported))
    }

    /// What the container cannot hold.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Takes the transcoders that packets pass through on their way to the muxer, which writes those within `part`.
    pub fn take_transcoders(&mut self, part: Trim) -> Transcoders {
        let taken = std::mem::replace(&mut self.transcoders, Transcoders::new(""));
        taken.within(part)
    }
}

/// The codec of a stream, where that is MP3, by its first packet: MP4 has one name for all layers of MPEG audio.
fn layer_of(id: codec::Id, packets: &[Packet]) -> codec::Id {
    const LAYER_2: u8 = 0b10;
    match packets.first().map(Packet::data) {
        Some([0xff, second, ..]) if id == codec::Id::MP3 && second >> 1 & 0b11 == LAYER_2 => codec::Id::MP2,
        _ => id,
    }
}

/// Whether the container holds audio at the rate of the stream.
fn holds_rate(stream: &ffmpeg::Stream, output: &Output) -> bool {
    let rates = sample_rates(output.container);
    // SAFETY: the stream is alive. Other streams have no rate.
    let rate = unsafe { (*(*stream.as_ptr()).codecpar).sample_rate };
    rate == 0 || rates.is_empty() || rates.contains(&rate)
}

/// Opens a conversion whose result the container takes.
fn open_transcoder(
    stream: &ffmpeg::Stream,
    encoder: ffmpeg::Codec,
    input: &Input,
    output: &Output,
    start_us: Option<i64>,
) -> Result<Transcoder> {
    let (global_header, rates) = (output.wants_global_header(), sample_rates(output.container));
    let spec = TranscodeSpec { encoder, global_header, rates, start_us, like: None };
    let transcoder = Transcoder::open(stream, input.name(), &spec)?;
    let (parameters, time_base) = transcoder.encoded();
    let alone = TrialStream { parameters, time_base, language: "", packets: &[] };
    if let Trial::Refused(e) = try_stream(output.container, &alone) {
        let problem = format!("{} does not take {}: {e}", output.container(), encoder.id().name());
        let remedy = "choose another container, or --audio";
        return Err(Error::new(&output.name, problem, remedy).with_kind(ErrorKind::Unsupported));
    }
    Ok(transcoder)
}

/// The wanted tracks of audio that the container holds, as far as their codec tells.
fn tracks_to_copy(input: &Input, output: &Output) -> Vec<usize> {
    let is_copied = |&index: &usize| {
        let stream = input.context().stream(index).expect("a stream of the input");
        let parameters = stream.parameters();
        parameters.medium() == media::Type::Audio && output.holds(media::Type::Audio, parameters.id())
    };
    input.wanted().iter().copied().filter(is_copied).collect()
}

fn describe(stream: &ffmpeg::Stream) -> String {
    let parameters = stream.parameters();
    let cover = if is_cover(stream) { ", cover" } else { "" };
    let codec = parameters.id().name();
    format!("stream {} ({}, {codec}{cover})", stream.index(), kind_name(parameters.medium()))
}

/// Whether the muxer writes this track itself: timecode and chapter tracks of the MP4 family, whose contents the
/// demuxer turned into metadata and chapters.
pub(crate) fn is_written_by_muxer(stream: &ffmpeg::Stream, output: &Output) -> bool {
    const TIMECODE: u32 = u32::from_le_bytes(*b"tmcd");
    // SAFETY: stream and parameters are alive.
    let (tag, hidden) = unsafe {
        let raw = &*stream.as_ptr();
        ((*raw.codecpar).codec_tag, raw.discard == ffi::AVDiscard::AVDISCARD_ALL)
    };
    let kept = matches!(output.container(), "mp4" | "mov" | "ipod" | "matroska" | "webm");
    stream.parameters().medium() == media::Type::Data && kept && (hidden || tag == TIMECODE)
}

/// Finds FFmpeg's audio encoder of this name.
pub(crate) fn audio_encoder(name: &str) -> Result<ffmpeg::Codec> {
    ffmpeg::encoder::find_by_name(name).filter(ffmpeg::Codec::is_audio).ok_or_else(|| {
        let problem = format!("this FFmpeg has no audio encoder '{name}'");
        Error::new("--audio", problem, "ffmpeg -encoders lists those it has").with_kind(ErrorKind::NotFound)
    })
}

/// Finds the audio encoder that the user named, if the container holds its codec.
fn requested_encoder(name: &str, output: &Output) -> Result<ffmpeg::Codec> {
    let encoder = audio_encoder(name)?;
    if output.holds(media::Type::Audio, encoder.id()) {
        return Ok(encoder);
    }
    let problem = format!("{} cannot hold {}", output.container(), encoder.id().name());
    let remedy = "choose another --audio or file name";
    Err(Error::new(&output.name, problem, remedy).with_kind(ErrorKind::Unsupported))
}

/// Encoders for audio or text in a codec that the container does not hold, the best first.
fn fallback_encoders(output: &Output, medium: media::Type, id: codec::Id) -> Vec<ffmpeg::Codec> {
    if output.is_still() || output.is_y4m() || ffmpeg::decoder::find(id).is_none() {
        return Vec::new();
    }
    let wanted = match medium {
        media::Type::Audio => audio_codecs(output.container, id),
        media::Type::Subtitle if is_text(id) => vec![match output.container() {
            "matroska" => codec::Id::SUBRIP,
            "mp4" | "mov" | "ipod" => codec::Id::MOV_TEXT,
            _ => codec::Id::from(output.container.subtitle_codec),
        }],
        _ => return Vec::new(),
    };
    let encoder = |wanted| {
        // FFmpeg's own encoders of these two are experimental.
        let name = match wanted {
            codec::Id::OPUS => Some("libopus"),
            codec::Id::VORBIS => Some("libvorbis"),
            _ => None,
        };
        name.and_then(ffmpeg::encoder::find_by_name).or_else(|| ffmpeg::encoder::find(wanted))
    };
    let encoders = wanted.into_iter().filter_map(encoder);
    encoders.filter(|encoder| output.holds(medium, encoder.id())).collect()
}

fn is_text(id: codec::Id) -> bool {
    // SAFETY: descriptors are static.
    let descriptor = unsafe { ffi::avcodec_descriptor_get(id.into()).as_ref() };
    descriptor.is_some_and(|descriptor| descriptor.props & ffi::AV_CODEC_PROP_TEXT_SUB != 0)
}
