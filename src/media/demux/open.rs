//! Open: a name becomes FFmpeg's own context, and one of its streams the video.

use std::ffi::CStr;
use std::path::Path;

use ffmpeg_next::ffi;
use ffmpeg_next::util::interrupt::Interrupt;
use ffmpeg_next::{self as ffmpeg, format, media};

use crate::media::ffmpeg::c_string;
use crate::media::ffmpeg::check;
use crate::media::stream::is_cover;

/// FFmpeg's choice where it is wanted, else the first; a cover is no video.
pub(crate) fn best_video(context: &format::context::Input, wanted: &[usize]) -> Option<usize> {
    let is_video_file = |stream: &ffmpeg::Stream| {
        stream.parameters().medium() == media::Type::Video
            && !is_cover(stream)
            && wanted.contains(&stream.index())
    };
    let best = context.streams().best(media::Type::Video).filter(is_video_file);
    best.or_else(|| context.streams().find(is_video_file)).map(|stream| stream.index())
}

/// What to do about a source that does not open.
pub(crate) fn open_remedy(source: &str, error: ffmpeg::Error) -> &'static str {
    match error {
        ffmpeg::Error::Other { errno: ffmpeg::error::ENOENT } => "check the name",
        _ if source == "-" => "pipe y4m into it, e.g. with ffmpeg -f yuv4mpegpipe -strict -1 -",
        ffmpeg::Error::InvalidData if Path::new(source).exists() => {
            "it is no media file, or is cut off before its index: get a whole copy"
        }
        ffmpeg::Error::ProtocolNotFound => "this FFmpeg has no such protocol: write the address otherwise",
        _ => "check that it can be read",
    }
}

/// By a demuxer of this name, or the one that FFmpeg finds.
pub(crate) fn open_by(
    demuxer: Option<&CStr>,
    url: &str,
    options: ffmpeg::Dictionary,
    interrupt: Option<Interrupt>,
) -> std::result::Result<format::context::Input, ffmpeg::Error> {
    let url = c_string(url);
    // SAFETY: the strings live through the calls; on failure FFmpeg frees the context itself, on success the wrapper takes
    // it over, with what its callback points to. What is left of the options is owned again, and freed.
    unsafe {
        let mut context = ffi::avformat_alloc_context();
        assert!(!context.is_null(), "no memory for a context");
        if let Some(interrupt) = &interrupt {
            (*context).interrupt_callback = interrupt.interrupt;
        }
        let demuxer = demuxer.map_or(std::ptr::null(), |name| ffi::av_find_input_format(name.as_ptr()));
        let mut options = options.disown();
        let code = ffi::avformat_open_input(&mut context, url.as_ptr(), demuxer, &mut options);
        drop(ffmpeg::Dictionary::own(options));
        check(code)?;
        let mut input = match interrupt {
            Some(interrupt) => format::context::Input::wrap_with_interrupt(context, interrupt.guard),
            None => format::context::Input::wrap(context),
        };
        check(ffi::avformat_find_stream_info(input.as_mut_ptr(), std::ptr::null_mut()))?;
        Ok(input)
    }
}
