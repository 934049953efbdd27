//! Streams: which of the input's go into the output, how, and what of each is taken over.

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, Rescale, codec, format, media};
use tracing::warn;

use crate::error::{Error, Result};
use crate::media::demux::input::Input;
use crate::media::ffmpeg::{MICROSECONDS, check};
use crate::media::mux::transcode::{Transcoder, Transcoders};
use crate::media::output::Output;
use crate::media::stream::{Trim, is_cover, kind_name};

/// What is to become of audio.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AudioMode {
    /// Copied; converted where the container cannot hold it.
    #[default]
    Copy,
    /// Left out.
    None,
    /// Converted by FFmpeg's encoder of this name.
    Encode(String),
}

/// How a stream gets into the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Upscale,
    Copy,
    Convert,
    /// A frame beside the video, which is written with the header.
    Cover,
}

/// What becomes of every stream of the input.
pub struct Plan {
    pub(crate) lanes: Vec<(usize, Way)>,
    pub(crate) transcoders: Transcoders,
    pub(crate) converted: Vec<String>,
    pub(crate) left_out: Vec<String>,
}

impl Plan {
    /// What the container cannot hold is converted where FFmpeg can, else left out and said.
    pub fn new(input: &Input, output: &Output, audio: &AudioMode) -> Result<Plan> {
        let mut plan = Plan {
            lanes: Vec::new(),
            transcoders: Transcoders::default(),
            converted: Vec::new(),
            left_out: Vec::new(),
        };
        for &index in input.wanted() {
            let stream = input.context().stream(index).expect("a stream of the input");
            if index == input.video_index() {
                plan.lanes.push((index, Way::Upscale));
                if is_turned(&stream) && !output.holds_rotation() {
                    plan.leave_out(format!("how {} is turned", in_words(&stream)), output);
                }
            } else {
                plan.add(&stream, input, output, audio)?;
            }
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        stream: &ffmpeg::Stream,
        input: &Input,
        output: &Output,
        audio: &AudioMode,
    ) -> Result<()> {
        let parameters = stream.parameters();
        let (medium, id, index) = (parameters.medium(), parameters.id(), stream.index());
        let is_audio = medium == media::Type::Audio;
        if (is_audio && *audio == AudioMode::None) || is_made_anew(stream, output) {
            return Ok(());
        }
        // Found by its packets at the end of a broadcast, and not yet heard.
        // SAFETY: stream and parameters are alive.
        if is_audio && unsafe { (*parameters.as_ptr()).sample_rate } == 0 {
            self.leave_out(
                format!("{}, of which nothing is known at the beginning", in_words(stream)),
                output,
            );
            return Ok(());
        }
        let is_cover = is_cover(stream);
        let holds = if is_cover { output.holds_cover(id) } else { output.holds(medium, id) };
        let encoder = match audio {
            AudioMode::Encode(name) if is_audio => Some(find_encoder(name, output)?),
            _ if holds || is_cover => None,
            _ => usual_encoder(output, medium, id),
        };
        match encoder {
            Some(encoder) => {
                let header = output.wants_global_header();
                self.transcoders.add(Transcoder::open(stream, input.name(), encoder, header)?);
                let told = format!("{} to {}", in_words(stream), encoder.id().name());
                if *audio == AudioMode::Copy || !is_audio {
                    warn!("{}: {} cannot hold its codec: {told}", output.name, output.container());
                }
                self.converted.push(told);
                self.lanes.push((index, Way::Convert));
            }
            None if holds => self.lanes.push((index, if is_cover { Way::Cover } else { Way::Copy })),
            None => self.leave_out(in_words(stream), output),
        }
        Ok(())
    }

    fn leave_out(&mut self, told: String, output: &Output) {
        warn!("{}: {} cannot hold {told}; it is left out", output.name, output.container());
        self.left_out.push(told);
    }

    /// Makes an error of what is left out.
    pub fn check_complete(&self, output: &Output) -> Result<()> {
        let Some(first) = self.left_out.first() else { return Ok(()) };
        let problem = format!("{} cannot hold {first}", output.container());
        Err(Error::new(
            &output.name,
            problem,
            "choose another container, e.g. .mkv, take it out with --map, or leave --strict out",
        ))
    }

    /// Streams that the container cannot hold.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// What the pipeline puts packets through.
    pub fn into_transcoders(self) -> Transcoders {
        self.transcoders
    }
}

fn in_words(stream: &ffmpeg::Stream) -> String {
    let parameters = stream.parameters();
    let cover = if is_cover(stream) { ", cover" } else { "" };
    let codec = parameters.id().name();
    format!("stream {} ({}, {codec}{cover})", stream.index(), kind_name(parameters.medium()))
}

/// Telephones video upright and say so.
fn is_turned(stream: &ffmpeg::Stream) -> bool {
    use ffmpeg::packet::side_data::Type;
    stream.side_data().any(|data| data.kind() == Type::DisplayMatrix)
}

/// Timecode tracks and chapter tracks of the MP4 family: their contents are metadata and chapters by now, of which the
/// muxer makes such tracks again.
fn is_made_anew(stream: &ffmpeg::Stream, output: &Output) -> bool {
    const TIMECODE: u32 = u32::from_le_bytes(*b"tmcd");
    // SAFETY: stream and parameters are alive.
    let (tag, hidden) = unsafe {
        let raw = &*stream.as_ptr();
        ((*raw.codecpar).codec_tag, raw.discard == ffi::AVDiscard::AVDISCARD_ALL)
    };
    let kept = matches!(output.container(), "mp4" | "mov" | "ipod" | "matroska" | "webm");
    stream.parameters().medium() == media::Type::Data && kept && (hidden || tag == TIMECODE)
}

/// FFmpeg's encoder of audio of this name.
pub(crate) fn audio_encoder(name: &str) -> Result<ffmpeg::Codec> {
    ffmpeg::encoder::find_by_name(name).filter(ffmpeg::Codec::is_audio).ok_or_else(|| {
        let problem = format!("this FFmpeg has no audio encoder '{name}'");
        Error::new("--audio", problem, "ffmpeg -encoders lists those it has")
    })
}

fn find_encoder(name: &str, output: &Output) -> Result<ffmpeg::Codec> {
    let encoder = audio_encoder(name)?;
    if output.holds(media::Type::Audio, encoder.id()) {
        return Ok(encoder);
    }
    let problem = format!("{} cannot hold {}", output.container(), encoder.id().name());
    Err(Error::new(&output.name, problem, "choose another --audio or file name"))
}

/// Of what the container cannot hold: audio and text have a usual codec there.
fn usual_encoder(output: &Output, medium: media::Type, id: codec::Id) -> Option<ffmpeg::Codec> {
    if output.is_still() || output.is_y4m() {
        return None;
    }
    let wanted = match medium {
        media::Type::Audio => match output.container() {
            "webm" => codec::Id::OPUS,
            "mp4" | "mov" | "ipod" | "mpegts" | "matroska" => codec::Id::AAC,
            _ => codec::Id::from(output.container.audio_codec),
        },
        media::Type::Subtitle if is_text(id) => match output.container() {
            "matroska" => codec::Id::SUBRIP,
            "mp4" | "mov" | "ipod" => codec::Id::MOV_TEXT,
            _ => codec::Id::from(output.container.subtitle_codec),
        },
        _ => return None,
    };
    // FFmpeg's own encoders of these are experiments.
    let name = match wanted {
        codec::Id::OPUS => Some("libopus"),
        codec::Id::VORBIS => Some("libvorbis"),
        _ => None,
    };
    let named = name.and_then(ffmpeg::encoder::find_by_name);
    let encoder = named.or_else(|| ffmpeg::encoder::find(wanted))?;
    let decodes = ffmpeg::decoder::find(id).is_some();
    (decodes && output.holds(medium, encoder.id())).then_some(encoder)
}

fn is_text(id: codec::Id) -> bool {
    // SAFETY: descriptors are static.
    let descriptor = unsafe { ffi::avcodec_descriptor_get(id.into()).as_ref() };
    descriptor.is_some_and(|descriptor| descriptor.props & ffi::AV_CODEC_PROP_TEXT_SUB != 0)
}

/// Whether this packet is the video's cover, as the demuxer found it.
pub(crate) fn cover_packet(stream: &ffmpeg::Stream) -> ffmpeg::Packet {
    use ffmpeg::packet::Mut;
    let mut packet = ffmpeg::Packet::empty();
    // SAFETY: the stream is alive, its cover is a packet of its own, empty where there is none, and referenced.
    let code = unsafe { ffi::av_packet_ref(packet.as_mut_ptr(), &(*stream.as_ptr()).attached_pic) };
    check(code).expect("no memory for a cover");
    packet
}

/// Matroska keeps covers as attached files.
pub(crate) fn attach_cover(added: &mut ffmpeg::format::stream::StreamMut, id: codec::Id, frame: &[u8]) {
    // SAFETY: the stream is new and alive; its extradata is null, and gets a copy with FFmpeg's padding, zeroed, which
    // the parameters free.
    unsafe {
        let parameters = &mut *(*added.as_mut_ptr()).codecpar;
        parameters.codec_type = ffi::AVMediaType::AVMEDIA_TYPE_ATTACHMENT;
        parameters.codec_id = id.into();
        let padded = frame.len() + ffi::AV_INPUT_BUFFER_PADDING_SIZE as usize;
        parameters.extradata = ffi::av_mallocz(padded).cast();
        assert!(!parameters.extradata.is_null(), "no memory for a cover");
        parameters.extradata.copy_from_nonoverlapping(frame.as_ptr(), frame.len());
        parameters.extradata_size = frame.len() as i32;
    }
}

/// Chapters within the wanted part, and what is said of the whole file.
pub(crate) fn copy_chapters(
    context: &mut format::context::Output,
    input: &Input,
    output: &Output,
    (trim, offset_us): (Trim, i64),
) -> Result<()> {
    context.set_metadata(input.context().metadata().to_owned());
    // Numbered anew: FFmpeg's wrapper would join chapters of one number.
    for (id, chapter) in (0..).zip(input.context().chapters()) {
        let time_base = chapter.time_base();
        let us = |time: i64| time.rescale(time_base, MICROSECONDS);
        let (start, end) = (us(chapter.start()).max(trim.from_us), us(chapter.end()).min(trim.to_us));
        if start > end {
            continue;
        }
        let (start, end) = (start - offset_us, end - offset_us);
        let mut added = context
            .add_chapter(id, MICROSECONDS, start, end, "")
            .map_err(|e| Error::new(&output.name, format!("takes no chapters: {e}"), "use .mkv"))?;
        // SAFETY: both chapters are alive; tags are copied as bytes, whatever their script.
        unsafe {
            let code =
                ffi::av_dict_copy(&mut (*added.as_mut_ptr()).metadata, (*chapter.as_ptr()).metadata, 0);
            check(code).expect("no memory for a chapter's tags");
        }
    }
    Ok(())
}

/// Programs of a transport stream; `streams` leads from input to output. A stream of no program goes to the first, or
/// no receiver would find it.
pub(crate) fn copy_programs(context: &mut format::context::Output, input: &Input, streams: &[Option<usize>]) {
    let mut homeless: Vec<bool> = vec![true; context.nb_streams() as usize];
    // SAFETY: both contexts are alive; the lists have as many entries as they say; the new programs are the output's.
    unsafe {
        let (from, to) = (&*input.context().as_ptr(), context.as_mut_ptr());
        let programs = (0..from.nb_programs as usize).map(|i| &**from.programs.add(i));
        for program in programs {
            let members = (0..program.nb_stream_indexes as usize)
                .filter_map(|i| streams.get(*program.stream_index.add(i) as usize).copied().flatten());
            for (place, member) in members.enumerate() {
                if place == 0 {
                    let added = ffi::av_new_program(to, program.id);
                    assert!(!added.is_null(), "no memory for a program");
                    let code = ffi::av_dict_copy(&mut (*added).metadata, program.metadata, 0);
                    check(code).expect("no memory for a program's tags");
                }
                ffi::av_program_add_stream_index(to, program.id, member as u32);
                homeless[member] = false;
            }
        }
        if (*to).nb_programs > 0 {
            let first = (**(*to).programs).id;
            for (member, _) in homeless.iter().enumerate().filter(|(_, is)| **is) {
                ffi::av_program_add_stream_index(to, first, member as u32);
            }
        }
    }
}
