//! Alpha: which decoder reads it where it is apart from the frames, what becomes of it after the decoder, and colours that
//! are premultiplied by it.
//!
//! Colours of EXR are premultiplied; those of every other format that FFmpeg reads and writes are not.

use ffmpeg_next::ffi::{self, AVPixelFormat::AV_PIX_FMT_GBRAPF32LE};
use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, codec};

use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
use crate::media::ffmpeg::check;
use crate::media::format::pixel_of;
use crate::media::stream::has_alpha_apart;

/// What becomes of alpha after the decoder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpha {
    Kept,
    /// The output holds none, which changes nothing while all frames are opaque.
    Dropped {
        is_error: bool,
    },
    /// Frames have lost theirs.
    Lost,
}

impl Alpha {
    /// Notes, or returns the error, that a frame loses its alpha. `source` is the subject of the error.
    pub fn check(&mut self, frame: &Frame, source: &str) -> Result<()> {
        let Alpha::Dropped { is_error } = *self else { return Ok(()) };
        if frame.is_opaque() {
            return Ok(());
        }
        *self = Alpha::Lost;
        if !is_error {
            return Ok(());
        }
        let remedy = "choose an --encoder and a container that keep it, or do without --strict";
        let error = Error::new(source, "has alpha, which the output does not hold", remedy);
        let (index, seconds) = (frame.time.index, frame.time.seconds());
        Err(error.with_kind(ErrorKind::Unsupported).at("decode", index, Some(seconds)))
    }
}

/// The decoder of alpha that VP8 and VP9 have apart from their frames: FFmpeg's own skip it.
pub(crate) fn decoder_with_alpha(stream: &ffmpeg::Stream) -> Option<ffmpeg::Codec> {
    let name = if stream.parameters().id() == codec::Id::VP8 { "libvpx" } else { "libvpx-vp9" };
    has_alpha_apart(stream).then(|| ffmpeg::decoder::find_by_name(name)).flatten()
}

/// Divides the colours of an EXR by its alpha. A transparent sample keeps its colour, which is light that it adds.
pub(crate) fn divide_by_alpha(av_frame: &mut AvFrame) -> std::result::Result<(), ffmpeg::Error> {
    map_by_alpha(av_frame, |color, alpha| if alpha > 0.0 { color / alpha } else { color })
}

/// Multiplies the colours of a frame for an EXR by its alpha.
pub(crate) fn multiply_by_alpha(av_frame: &mut AvFrame) -> std::result::Result<(), ffmpeg::Error> {
    map_by_alpha(av_frame, |color, alpha| color * alpha)
}

/// Maps the colours of a frame in the one format of EXR that has alpha; others stay.
fn map_by_alpha(
    av_frame: &mut AvFrame,
    map: impl Fn(f32, f32) -> f32,
) -> std::result::Result<(), ffmpeg::Error> {
    const ALPHA: usize = 3;
    // SAFETY: the frame is owned and was allocated by FFmpeg.
    if pixel_of(unsafe { &*av_frame.as_ptr() }) != AV_PIX_FMT_GBRAPF32LE {
        return Ok(());
    }
    // SAFETY: the frame is owned. Samples that others see as well are copied.
    check(unsafe { ffi::av_frame_make_writable(av_frame.as_mut_ptr()) })?;
    let (width, height) = (av_frame.width() as usize, av_frame.height() as usize);
    // SAFETY: each of the four planes has `height` rows of `width` floats, at its linesize from each other, which the frame
    // owns alone.
    let row = |plane: usize, y: usize| unsafe {
        let raw = &*av_frame.as_ptr();
        let start = raw.data[plane].offset(raw.linesize[plane] as isize * y as isize);
        std::slice::from_raw_parts_mut(start.cast::<[u8; 4]>(), width)
    };
    for (plane, y) in (0..ALPHA).flat_map(|plane| (0..height).map(move |y| (plane, y))) {
        for (color, alpha) in row(plane, y).iter_mut().zip(row(ALPHA, y)) {
            *color = map(f32::from_le_bytes(*color), f32::from_le_bytes(*alpha)).to_le_bytes();
        }
    }
    Ok(())
}
