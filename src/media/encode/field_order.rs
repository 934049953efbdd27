//! The order of the fields that frames hold, as encoders and containers state it.

use ffmpeg_next::codec;
use ffmpeg_next::ffi;
use ffmpeg_next::frame::Video as AvFrame;

use crate::media::av_frame::fields_of;

/// Which field of the frames comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum FieldOrder {
    /// Frames are progressive.
    #[default]
    Progressive,
    Top,
    Bottom,
}

/// Codecs whose encoders code the fields of a frame apart where they are asked to.
const CODES_FIELDS: [codec::Id; 4] =
    [codec::Id::MPEG2VIDEO, codec::Id::MPEG4, codec::Id::H264, codec::Id::PRORES];

impl FieldOrder {
    /// By the flags of a frame.
    pub fn of(av_frame: &AvFrame) -> FieldOrder {
        match fields_of(av_frame) {
            (false, _) => FieldOrder::Progressive,
            (true, true) => FieldOrder::Top,
            (true, false) => FieldOrder::Bottom,
        }
    }

    /// Sets it for an encoder that is not open yet, and through it for the container.
    pub fn set(self, raw: &mut ffi::AVCodecContext) {
        use ffi::AVFieldOrder::*;
        let id = codec::Id::from(raw.codec_id);
        // In all codecs but Motion JPEG the lines of both fields are stored in turn.
        raw.field_order = match (self, id == codec::Id::MJPEG) {
            (FieldOrder::Progressive, _) => AV_FIELD_PROGRESSIVE,
            (FieldOrder::Top, true) => AV_FIELD_TT,
            (FieldOrder::Bottom, true) => AV_FIELD_BB,
            (FieldOrder::Top, false) => AV_FIELD_TB,
            (FieldOrder::Bottom, false) => AV_FIELD_BT,
        };
        if self != FieldOrder::Progressive && CODES_FIELDS.contains(&id) {
            raw.flags |= (ffi::AV_CODEC_FLAG_INTERLACED_DCT | ffi::AV_CODEC_FLAG_INTERLACED_ME) as i32;
        }
    }
}
