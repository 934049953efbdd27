//! Opens decoders: every one has a limit on the size of its frames.

use ffmpeg_next::{self as ffmpeg, Rational, codec};

use crate::color::Transfer;
use crate::media::demux::input::Input;
use crate::media::format::code_of;

/// Largest frame in mid-stream: 4K, or this multiple of the size that the stream started with.
const PIXELS_MAX: i64 = 4096 * 2304;
const GROWTH_MAX: i64 = 4;

/// Returns the decoder's context for a stream, which is then opened as video, audio or subtitles. A damaged header may ask
/// for frames of any size; those above the limit are refused.
pub(crate) fn decoder_of(
    parameters: codec::Parameters,
    time_base: Rational,
) -> Result<codec::decoder::Decoder, ffmpeg::Error> {
    let mut context = codec::Context::from_parameters(parameters)?;
    // SAFETY: the context is ours and not yet open; plain values are set.
    unsafe {
        let raw = &mut *context.as_mut_ptr();
        raw.max_pixels = PIXELS_MAX.max(GROWTH_MAX * i64::from(raw.width) * i64::from(raw.height));
    }
    let mut decoder = context.decoder();
    decoder.set_packet_time_base(time_base);
    Ok(decoder)
}

/// Transfer of the video before a frame is decoded, as its container or codec header states it.
pub(crate) fn stated_transfer(input: &Input) -> Transfer {
    // SAFETY: the stream and its parameters are alive.
    let code = code_of(unsafe { &raw const (*(*input.video_stream().as_ptr()).codecpar).color_trc });
    Transfer(u8::try_from(code).unwrap_or(Transfer::UNSPECIFIED.0))
}

#[cfg(test)]
mod tests {
    use ffmpeg_next::ffi;

    use super::*;

    #[test]
    fn frames_may_grow_to_4k_or_to_four_times_the_streams_size() {
        let limit = |width, height| {
            let mut parameters = codec::Parameters::new();
            // SAFETY: the parameters are owned; plain values are set.
            unsafe {
                let raw = &mut *parameters.as_mut_ptr();
                raw.codec_type = ffi::AVMediaType::AVMEDIA_TYPE_VIDEO;
                (raw.codec_id, raw.width, raw.height) = (codec::Id::H264.into(), width, height);
            }
            let decoder = decoder_of(parameters, Rational(1, 25)).unwrap();
            // SAFETY: the context is alive.
            unsafe { (*decoder.as_ptr()).max_pixels }
        };
        assert_eq!(limit(320, 240), PIXELS_MAX);
        assert_eq!(limit(7680, 4320), 4 * 7680 * 4320);
    }
}
