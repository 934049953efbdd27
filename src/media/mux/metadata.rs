//! Metadata of a file besides its streams: tags, chapters, programs and cover images.

use ffmpeg_next::packet::Mut;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec, ffi, format};

use crate::error::{ErrorKind, Result};
use crate::media::demux::input::Input;
use crate::media::ffmpeg::{MICROSECONDS, check, copy_tags, failure};
use crate::media::output::Output;
use crate::media::stream::Trim;

/// Copies the file's tags, and the chapters that lie in the wanted part, earlier by `offset_us`.
pub(crate) fn copy_tags_and_chapters(
    context: &mut format::context::Output,
    input: &Input,
    output: &Output,
    trim: Trim,
    offset_us: i64,
) -> Result<()> {
    // SAFETY: the input is alive.
    context.set_metadata(unsafe { copy_tags((*input.context().as_ptr()).metadata) });
    // Chapters get new ids: FFmpeg's wrapper would merge those of one id.
    for (id, chapter) in (0..).zip(input.context().chapters()) {
        let time_base = chapter.time_base();
        let us = |time: i64| time.rescale(time_base, MICROSECONDS);
        let (start, end) = (us(chapter.start()).max(trim.from_us), us(chapter.end()).min(trim.to_us));
        if start > end {
            continue;
        }
        let (start, end) = (start - offset_us, end - offset_us);
        let mut added = context.add_chapter(id, MICROSECONDS, start, end, "").map_err(|e| {
            failure(&output.name, "takes no chapters", e, "use .mkv").with_kind(ErrorKind::Unsupported)
        })?;
        // SAFETY: both chapters are alive; tags are copied as bytes, whatever their encoding.
        unsafe {
            let code =
                ffi::av_dict_copy(&mut (*added.as_mut_ptr()).metadata, (*chapter.as_ptr()).metadata, 0);
            check(code).expect("no memory for a chapter's tags");
        }
    }
    Ok(())
}

/// Copies the programs of a transport stream; `output_index` maps streams of the input. A stream of no program is added
/// to the first one, or no receiver would find it.
pub(crate) fn copy_programs(
    context: &mut format::context::Output,
    input: &Input,
    output_index: &[Option<usize>],
) {
    let mut has_no_program: Vec<bool> = vec![true; context.nb_streams() as usize];
    // SAFETY: both contexts are alive; the lists have the lengths that are stored with them; the new programs are the
    // output's.
    unsafe {
        let (from, to) = (&*input.context().as_ptr(), context.as_mut_ptr());
        let programs = (0..from.nb_programs as usize).map(|i| &**from.programs.add(i));
        for program in programs {
            let members = (0..program.nb_stream_indexes as usize)
                .filter_map(|i| output_index.get(*program.stream_index.add(i) as usize).copied().flatten());
            for (position, member) in members.enumerate() {
                if position == 0 {
                    let added = ffi::av_new_program(to, program.id);
                    assert!(!added.is_null(), "no memory for a program");
                    let code = ffi::av_dict_copy(&mut (*added).metadata, program.metadata, 0);
                    check(code).expect("no memory for a program's tags");
                }
                ffi::av_program_add_stream_index(to, program.id, member as u32);
                has_no_program[member] = false;
            }
        }
        if (*to).nb_programs > 0 {
            let first = (**(*to).programs).id;
            for (member, _) in has_no_program.iter().enumerate().filter(|(_, has_none)| **has_none) {
                ffi::av_program_add_stream_index(to, first, member as u32);
            }
        }
    }
}

/// Moves the start timecodes of the file and its streams on by `frames` frames at this rate.
pub(crate) fn advance_timecodes(context: &mut format::context::Output, rate: Rational, frames: i32) {
    // SAFETY: the context is alive, and the list has as many streams as are stored with it.
    unsafe {
        let raw = &mut *context.as_mut_ptr();
        advance_timecode(&mut raw.metadata, rate, frames);
        for index in 0..raw.nb_streams as usize {
            advance_timecode(&mut (**raw.streams.add(index)).metadata, rate, frames);
        }
    }
}

/// # Safety
/// The tags are null or alive.
unsafe fn advance_timecode(tags: &mut *mut ffi::AVDictionary, rate: Rational, frames: i32) {
    let key = c"timecode".as_ptr();
    // SAFETY: keys and values are C strings that live through the calls, which copy them.
    unsafe {
        let Some(entry) = ffi::av_dict_get(*tags, key, std::ptr::null(), 0).as_ref() else { return };
        let mut timecode = std::mem::zeroed();
        let code =
            ffi::av_timecode_init_from_string(&mut timecode, rate.into(), entry.value, std::ptr::null_mut());
        if code >= 0 {
            let mut text = [0; ffi::AV_TIMECODE_STR_SIZE as usize];
            ffi::av_timecode_make_string(&timecode, text.as_mut_ptr(), frames);
            check(ffi::av_dict_set(tags, key, text.as_ptr(), 0)).expect("no memory for a timecode");
        }
    }
}

/// Returns the cover image of an attached picture's stream; an empty packet where there is none.
pub(crate) fn cover_packet(stream: &ffmpeg::Stream) -> ffmpeg::Packet {
    let mut packet = ffmpeg::Packet::empty();
    // SAFETY: the stream is alive, and its cover is a packet that is empty or referenced.
    let code = unsafe { ffi::av_packet_ref(packet.as_mut_ptr(), &(*stream.as_ptr()).attached_pic) };
    check(code).expect("no memory for a cover");
    packet
}

/// Makes a stream an attachment, as which Matroska keeps a cover image.
pub(crate) fn attach_cover(added: &mut format::stream::StreamMut, id: codec::Id, image: &[u8]) {
    // SAFETY: the stream is new and alive; its codec header is freed, and a copy with FFmpeg's padding, zeroed, which the
    // parameters free, takes its place.
    unsafe {
        let parameters = &mut *(*added.as_mut_ptr()).codecpar;
        parameters.codec_type = ffi::AVMediaType::AVMEDIA_TYPE_ATTACHMENT;
        parameters.codec_id = id.into();
        let padded = image.len() + ffi::AV_INPUT_BUFFER_PADDING_SIZE as usize;
        ffi::av_freep((&raw mut parameters.extradata).cast());
        parameters.extradata = ffi::av_mallocz(padded).cast();
        assert!(!parameters.extradata.is_null(), "no memory for a cover");
        parameters.extradata.copy_from_nonoverlapping(image.as_ptr(), image.len());
        parameters.extradata_size = image.len() as i32;
    }
}
