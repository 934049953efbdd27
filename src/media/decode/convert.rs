//! Conversion of frames whose samples no engine can read.

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi;
use ffmpeg_next::frame::Video as AvFrame;
use tracing::info;

use crate::error::{Error, ErrorKind, Result};
use crate::frame::PixelFormat;
use crate::media::ffmpeg::check;
use crate::media::format::describe;

/// As swscale.h defines it: a macro or a member of an enumeration, by version.
const SWS_ACCURATE_RND: i32 = 1 << 18;

/// Converts by swscale: palettes, bit streams, frames stored from bottom to top.
pub(crate) struct Converter {
    context: *mut ffi::SwsContext,
    pub from: ffi::AVPixelFormat,
    to: ffi::AVPixelFormat,
    pub format: PixelFormat,
    size: (i32, i32),
}

// SAFETY: a SwsContext is used by one thread at a time, whichever holds the decoder, and is bound to none.
unsafe impl Send for Converter {}

impl Converter {
    pub fn new(from: ffi::AVPixelFormat, known: Option<PixelFormat>, source: &str) -> Result<Converter> {
        use ffi::AVPixelFormat::*;
        const READABLE: [ffi::AVPixelFormat; 9] = [
            AV_PIX_FMT_GRAY8,
            AV_PIX_FMT_RGB24,
            AV_PIX_FMT_RGBA,
            AV_PIX_FMT_YUV444P,
            AV_PIX_FMT_GRAY16LE,
            AV_PIX_FMT_GBRP16LE,
            AV_PIX_FMT_YUV444P16LE,
            AV_PIX_FMT_GBRPF32LE,
            AV_PIX_FMT_NONE,
        ];
        let to = match known {
            Some(_) => from,
            // SAFETY: the list ends with NONE; the loss is not asked for.
            None => unsafe {
                ffi::avcodec_find_best_pix_fmt_of_list(READABLE.as_ptr(), from, 1, std::ptr::null_mut())
            },
        };
        // SAFETY: a number that FFmpeg gave as a format; the name is static or null.
        let name = unsafe { ffi::av_get_pix_fmt_name(from).as_ref().map(|n| std::ffi::CStr::from_ptr(n)) };
        let name = name.map_or("unknown".into(), |name| name.to_string_lossy());
        // SAFETY: asks about the format only.
        if unsafe { ffi::sws_isSupportedInput(from) } == 0 {
            let problem = format!("pixel format {name} is not supported");
            let remedy = "convert it with ffmpeg first, e.g. to yuv420p";
            return Err(Error::new(source, problem, remedy).with_kind(ErrorKind::Unsupported));
        }
        let format = describe(to).expect("the formats of the list are known");
        info!("{source}: pixel format {name} is converted to {}", format.name);
        Ok(Converter { context: std::ptr::null_mut(), from, to, format, size: (0, 0) })
    }

    pub fn convert(&mut self, av_frame: &AvFrame) -> std::result::Result<AvFrame, ffmpeg::Error> {
        let mut converted = AvFrame::empty();
        // SAFETY: both frames are owned; the context is created again for each size and freed by drop, and
        // sws_scale_frame allocates the destination of the size and format given.
        unsafe {
            let (source, target) = (&*av_frame.as_ptr(), &mut *converted.as_mut_ptr());
            let size = (source.width, source.height);
            if size != self.size {
                ffi::sws_freeContext(self.context);
                let null = std::ptr::null_mut();
                self.context = ffi::sws_getContext(
                    size.0,
                    size.1,
                    self.from,
                    size.0,
                    size.1,
                    self.to,
                    SWS_ACCURATE_RND,
                    null,
                    null,
                    null.cast(),
                );
                if self.context.is_null() {
                    return Err(ffmpeg::Error::Other { errno: ffmpeg::error::EINVAL });
                }
                self.size = size;
            }
            (target.width, target.height, target.format) = (size.0, size.1, self.to as i32);
            check(ffi::sws_scale_frame(self.context, target, source))?;
            check(ffi::av_frame_copy_props(target, source))?;
        }
        Ok(converted)
    }
}

impl Drop for Converter {
    fn drop(&mut self) {
        // SAFETY: created by sws_getContext or null, which is allowed.
        unsafe { ffi::sws_freeContext(self.context) }
    }
}
