//! A decoded frame with its timing, on its way through the filters.

use ffmpeg_next::frame::Video as AvFrame;

use crate::frame::Origin;

/// A frame with pts and duration.
pub(crate) struct TimedFrame {
    pub av_frame: AvFrame,
    pub pts: i64,
    pub duration: i64,
    /// Filter that turns it upright.
    pub upright: Option<&'static str>,
    /// What it was decoded from.
    pub origin: Origin,
}
