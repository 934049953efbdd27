//! Open: a name becomes FFmpeg's context, and one of its streams the video.

use std::cmp::Reverse;
use std::ffi::CStr;
use std::path::Path;
use std::sync::Arc;

use ffmpeg_next::ffi;
use ffmpeg_next::format::context::StreamIo;
use ffmpeg_next::util::interrupt;
use ffmpeg_next::{self as ffmpeg, format, media};

use crate::media::demux::access::Access;
use crate::media::demux::nested::{self, OpenFiles};
use crate::media::ffmpeg::check;
use crate::media::ffmpeg_log;
use crate::media::path::Place;
use crate::media::pipe::PipeReader;
use crate::media::stream::is_cover;
use crate::media::watch::Watch;

/// The video to upscale among the wanted streams: a default one before others, then the largest, then the first. Covers are
/// left out.
pub(crate) fn best_video(context: &format::context::Input, wanted: &[usize]) -> Option<usize> {
    let is_video = |stream: &ffmpeg::Stream| {
        stream.parameters().medium() == media::Type::Video
            && !is_cover(stream)
            && wanted.contains(&stream.index())
    };
    let rank = |stream: &ffmpeg::Stream| {
        let is_default = stream.disposition().contains(format::stream::Disposition::DEFAULT);
        // SAFETY: the stream and its parameters are alive.
        let raw = unsafe { &*(*stream.as_ptr()).codecpar };
        (is_default, i64::from(raw.width) * i64::from(raw.height), Reverse(stream.index()))
    };
    context.streams().filter(is_video).max_by_key(rank).map(|stream| stream.index())
}

/// The remedy for a source that does not open.
pub(crate) fn open_remedy(place: Place, error: ffmpeg::Error) -> &'static str {
    match error {
        ffmpeg::Error::Other { errno: ffmpeg::error::EPERM }
            if place.path().is_some_and(|path| path.extension().is_some_and(|e| e == "ffconcat")) =>
        {
            "FFmpeg takes only names of files in the list's folder and below: name no other in it"
        }
        _ if place.path().is_some_and(Path::is_dir) => {
            "name an image sequence in it by its pattern, such as %06d.dpx, or use hasn batch"
        }
        _ if place.path().is_some_and(|path| path.to_string_lossy().contains(['*', '?'])) => {
            "name an image sequence by its pattern, such as %06d.dpx, or use hasn batch"
        }
        _ if place == Place::Standard => "pipe y4m into it, e.g. with ffmpeg -f yuv4mpegpipe -strict -1 -",
        ffmpeg::Error::InvalidData if place.path().is_some() => {
            "it is not a media file, or is truncated before its index: get a complete copy"
        }
        ffmpeg::Error::ProtocolNotFound => "this FFmpeg is built without that protocol: use another address",
        ffmpeg::Error::Other { errno: ffmpeg::error::ENOENT } => "check the name",
        _ => "check that it can be read",
    }
}

/// FFmpeg's name of the demuxer, which may be a list: `matroska,webm`.
pub(crate) fn demuxer_name(context: &format::context::Input) -> &'static str {
    // SAFETY: an opened context has a demuxer, whose name is a static C string.
    unsafe { CStr::from_ptr((*(*context.as_ptr()).iformat).name) }.to_str().expect("demuxer names are ASCII")
}

/// Opens a source with the demuxer of this name, or the one that FFmpeg probes; a source without `access` is a device.
/// `watch` ends what takes too long, now and later.
pub(crate) fn open_by(
    demuxer: Option<&CStr>,
    url: &CStr,
    options: ffmpeg::Dictionary,
    access: Option<Access>,
    watch: &Watch,
) -> Result<format::context::Input, ffmpeg::Error> {
    open_context(demuxer, url, None, options, access, watch)
}

/// The same of a pipe.
pub(crate) fn open_pipe(
    demuxer: Option<&CStr>,
    pipe: PipeReader,
    options: ffmpeg::Dictionary,
    watch: &Watch,
) -> Result<format::context::Input, ffmpeg::Error> {
    open_context(demuxer, c"", Some(StreamIo::from_read(pipe)?), options, Some(Access::of_pipe()), watch)
}

fn open_context(
    demuxer: Option<&CStr>,
    url: &CStr,
    mut io: Option<StreamIo>,
    mut options: ffmpeg::Dictionary,
    access: Option<Access>,
    watch: &Watch,
) -> Result<format::context::Input, ffmpeg::Error> {
    ffmpeg_log::take_refusal();
    watch.restart_silence();
    let files = access.as_ref().map(|access| Arc::new(OpenFiles::new(&access.protocols)));
    if let Some(access) = &access {
        options.set("protocol_whitelist", &access.nested_protocols);
        options.set("format_whitelist", &access.demuxers);
    }
    let interrupt = interrupt::new(Box::new({
        let (watch, files) = (watch.clone(), files.clone());
        move || {
            if files.as_ref().is_some_and(|files| files.have_moved()) {
                watch.restart_silence();
            }
            watch.is_over()
        }
    }));
    // SAFETY: the strings live through the calls; on failure FFmpeg frees the context itself and leaves a pipe to us, on
    // success the wrapper takes both over, with what the callback points to, which holds `files`. What is left of the
    // options is owned again, and freed.
    unsafe {
        let mut context = ffi::avformat_alloc_context();
        assert!(!context.is_null(), "no memory for a context");
        (*context).interrupt_callback = interrupt.interrupt;
        if let Some(files) = &files {
            nested::watch(&mut *context, files);
        }
        if let Some(io) = &mut io {
            (*context).pb = io.as_mut_ptr();
            (*context).flags |= ffi::AVFMT_FLAG_CUSTOM_IO;
        }
        let demuxer = demuxer.map_or(std::ptr::null(), |name| ffi::av_find_input_format(name.as_ptr()));
        let mut options = options.disown();
        let code = ffi::avformat_open_input(&mut context, url.as_ptr(), demuxer, &mut options);
        drop(ffmpeg::Dictionary::own(options));
        check(code)?;
        let mut input = match io {
            Some(io) => {
                format::context::Input::wrap_with_custom_io_and_interrupt(context, io, interrupt.guard)
            }
            None => format::context::Input::wrap_with_interrupt(context, interrupt.guard),
        };
        check(ffi::avformat_find_stream_info(input.as_mut_ptr(), std::ptr::null_mut()))?;
        Ok(input)
    }
}
