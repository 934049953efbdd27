//! The video encoders of the FFmpeg that is linked, by codec.

use std::collections::BTreeMap;
use std::ffi::CStr;

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, Rational, codec};

use crate::media::ffmpeg::start;
use crate::media::format::describe;

/// Size of the frames for which hardware is tried: larger than the least of every device.
const SIZE: (u32, u32) = (640, 480);

/// Names of the video encoders by that of their codec. Those of hardware are listed where they open.
pub(crate) fn video_encoders() -> BTreeMap<String, Vec<String>> {
    start();
    let mut encoders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut state = std::ptr::null_mut();
    loop {
        // SAFETY: `state` is the iterator's own and starts as null; the codecs it gives are static.
        let Some(found) = (unsafe { ffi::av_codec_iterate(&mut state).as_ref() }) else { break encoders };
        // SAFETY: `found` is a static AVCodec, whose name is a static C string.
        let (encodes, name) = unsafe { (ffi::av_codec_is_encoder(found) != 0, CStr::from_ptr(found.name)) };
        if !encodes || found.type_ != ffi::AVMediaType::AVMEDIA_TYPE_VIDEO {
            continue;
        }
        let is_hardware =
            found.capabilities & (ffi::AV_CODEC_CAP_HARDWARE | ffi::AV_CODEC_CAP_HYBRID) as i32 != 0;
        let name = name.to_string_lossy().into_owned();
        if !is_hardware || ffmpeg::encoder::find_by_name(&name).is_some_and(opens) {
            encoders.entry(codec::Id::from(found.id).name().to_owned()).or_default().push(name);
        }
    }
}

/// Whether the encoder opens for frames in host memory.
fn opens(codec: ffmpeg::Codec) -> bool {
    let formats = codec.video().ok().and_then(|video| video.formats());
    let is_held = |format: &ffmpeg::format::Pixel| describe((*format).into()).is_some();
    let Some(format) = formats.and_then(|mut formats| formats.find(is_held)) else { return false };
    let open = || -> Result<(), ffmpeg::Error> {
        let mut context = codec::Context::new_with_codec(codec).encoder().video()?;
        context.set_width(SIZE.0);
        context.set_height(SIZE.1);
        context.set_format(format);
        context.set_time_base(Rational(1, 25));
        context.open_as(codec).map(drop)
    };
    open().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoders_are_grouped_by_codec_and_only_those_that_open_are_listed() {
        let encoders = video_encoders();
        assert!(encoders["h264"].contains(&"libx264".to_owned()), "{encoders:?}");
        assert!(encoders["ffv1"] == ["ffv1"], "{encoders:?}");
        // What takes frames of a device only never opens for frames in host memory.
        assert!(encoders.values().flatten().all(|name| !name.ends_with("_vaapi")), "{encoders:?}");
        let opens = |name: &str| ffmpeg::encoder::find_by_name(name).map(opens);
        assert_eq!(opens("ffv1"), Some(true));
    }
}
