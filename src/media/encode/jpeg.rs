//! JPEG: a frame for a preview.
//!
//! In: a frame in host memory, as decoders and pools give them. Out: the bytes of a file.

use ffmpeg_next::ffi;
use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, Rational, codec};

use crate::color::Range;
use crate::error::Result;
use crate::frame::Frame;
use crate::media::av_frame::AvFrameBuffer;
use crate::media::ffmpeg::{check, failure};
use crate::media::format::pixel_format;

/// Quantizer, from 2 to 31: no artifacts are visible at the usual sizes.
const QUALITY: i32 = 3;
/// BT.601 (`SWS_CS_ITU601`), which JFIF prescribes whatever the frame's matrix.
const MATRIX: i32 = 5;
/// From swscale.h and avutil.h, where they are macros or enumerators depending on FFmpeg's version.
const SWS_BILINEAR: i32 = 2;
const QP_TO_LAMBDA: i32 = 118;

/// Encodes the frame as an 8-bit 4:2:0 JPEG.
pub fn jpeg(frame: Frame) -> Result<Vec<u8>> {
    encode(frame)
        .map_err(|e| failure("frame", "cannot be encoded as JPEG", e, "check the pixel format with ffprobe"))
}

fn encode(frame: Frame) -> std::result::Result<Vec<u8>, ffmpeg::Error> {
    let frame_format = frame.format;
    let buffer = frame.buffer;
    let source =
        buffer.into_any().downcast::<AvFrameBuffer>().expect("a frame of a decoder or a pool").av_frame;
    let from = pixel_format(frame_format.pixel_format.name);
    let to = ffi::AVPixelFormat::AV_PIX_FMT_YUVJ420P;
    let (width, height) = (frame_format.width as i32, frame_format.height as i32);
    let is_full = i32::from(frame_format.color.range == Range::Full);
    let mut av_frame = AvFrame::empty();
    // SAFETY: the source is owned, of this size and format; sws_scale_frame allocates the other frame as it says, the
    // context is freed once, and tables of coefficients are static.
    unsafe {
        let null = std::ptr::null_mut();
        let (filter, none) = (SWS_BILINEAR, std::ptr::null());
        let context = ffi::sws_getContext(width, height, from, width, height, to, filter, null, null, none);
        if context.is_null() {
            return Err(ffmpeg::Error::Other { errno: ffmpeg::error::EINVAL });
        }
        let table = |matrix| ffi::sws_getCoefficients(matrix);
        let matrix = i32::from(frame_format.color.matrix.0);
        ffi::sws_setColorspaceDetails(context, table(matrix), is_full, table(MATRIX), 1, 0, 1 << 16, 1 << 16);
        let raw = &mut *av_frame.as_mut_ptr();
        (raw.width, raw.height, raw.format) = (width, height, to as i32);
        let code = ffi::sws_scale_frame(context, raw, source.as_ptr());
        ffi::sws_freeContext(context);
        check(code)?;
        (raw.pts, raw.quality) = (0, QUALITY * QP_TO_LAMBDA);
    }
    let codec = ffmpeg::encoder::find(codec::Id::MJPEG).ok_or(ffmpeg::Error::EncoderNotFound)?;
    let mut context = codec::Context::new_with_codec(codec).encoder().video()?;
    context.set_width(width as u32);
    context.set_height(height as u32);
    context.set_format(to.into());
    context.set_time_base(Rational(1, 25));
    context.set_flags(codec::Flags::QSCALE);
    let mut encoder = context.open_as(codec)?;
    let mut packet = ffmpeg::Packet::empty();
    encoder.send_frame(&av_frame)?;
    encoder.send_eof()?;
    encoder.receive_packet(&mut packet)?;
    Ok(packet.data().unwrap_or_default().to_vec())
}
