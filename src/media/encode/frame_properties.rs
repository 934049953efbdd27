//! What describes a frame to be encoded, besides its samples.

use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{Rational, ffi};

use crate::frame::FrameFormat;
use crate::media::av_frame::set_fields;
use crate::media::encode::target::Target;
use crate::media::ffmpeg::check;
use crate::media::format::Tags;
use crate::media::side_data;

/// Sets what describes a frame to be encoded: its colour, sample aspect, pts and side data.
pub(super) fn set_frame_properties(
    av_frame: &mut AvFrame,
    target: &Target,
    aspect: Rational,
    pts: i64,
    props: Option<&AvFrame>,
) {
    let tags = Tags::of(&target.format);
    if let Some(props) = props {
        // SAFETY: both frames are owned; copying props takes references to side data.
        let code = unsafe { ffi::av_frame_copy_props(av_frame.as_mut_ptr(), props.as_ptr()) };
        check(code).expect("no memory for side data");
        if !target.keeps_lines {
            set_fields(av_frame, false, false);
        }
        side_data::remove_stale(av_frame, target.codec(), &target.format.pixel_format);
    }
    // SAFETY: the frame is owned; all fields set are plain values.
    unsafe {
        let raw = &mut *av_frame.as_mut_ptr();
        // The encoder places its own keyframes, and the decoder has cropped the frame.
        raw.pict_type = ffi::AVPictureType::AV_PICTURE_TYPE_NONE;
        (raw.crop_top, raw.crop_bottom, raw.crop_left, raw.crop_right) = (0, 0, 0, 0);
        raw.pts = pts;
        raw.sample_aspect_ratio = aspect.into();
        raw.colorspace = tags.space;
        raw.color_primaries = tags.primaries;
        raw.color_trc = tags.transfer;
        raw.color_range = tags.range;
        raw.chroma_location = tags.chroma_location;
    }
}

/// Returns the sample aspect ratio that keeps the display aspect ratio where width and height grow differently. Sides
/// are integers, so that a difference of less than two samples is taken for square.
pub(super) fn scaled_aspect(aspect: Rational, lr: &FrameFormat, sr: &FrameFormat) -> Rational {
    let num = i64::from(aspect.numerator()) * lr.width as i64 * sr.height as i64;
    let den = i64::from(aspect.denominator()) * lr.height as i64 * sr.width as i64;
    let (mut reduced_num, mut reduced_den) = (0, 0);
    // SAFETY: writes the two integers only.
    unsafe { ffi::av_reduce(&mut reduced_num, &mut reduced_den, num, den, i64::from(i32::MAX)) };
    let from_square = (num as f64 / den as f64 - 1.0).abs() * sr.width as f64;
    if from_square < 2.0 { Rational(1, 1) } else { Rational(reduced_num, reduced_den) }
}
