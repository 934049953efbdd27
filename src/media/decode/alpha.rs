//! Alpha: which decoder reads it where it is apart from the frames, and what becomes of it after the decoder.

use ffmpeg_next::{self as ffmpeg, codec};

use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
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
