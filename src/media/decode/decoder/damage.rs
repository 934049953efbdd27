//! Damage of the source: packets that the decoder refuses, frames that it patches, and packets that give no frame.

use ffmpeg_next::{self as ffmpeg, codec};
use tracing::debug;

use crate::error::{Error, ErrorKind, Result};
use crate::media::damage::DamagedPlace;
use crate::media::decode::decoder::Decoder;
use crate::media::ffmpeg::error_kind;
use crate::media::pattern::Numbering;

/// Intra-only codecs: an error in the decoder's log is damage of the file. With other codecs it may be a reference that was
/// cut away on purpose; their decoders flag the frames that they patch.
const LOG_MEANS_DAMAGE: [codec::Id; 12] = [
    codec::Id::FFV1,
    codec::Id::PRORES,
    codec::Id::MJPEG,
    codec::Id::DNXHD,
    codec::Id::HUFFYUV,
    codec::Id::FFVHUFF,
    codec::Id::UTVIDEO,
    codec::Id::PNG,
    codec::Id::TIFF,
    codec::Id::DPX,
    codec::Id::EXR,
    codec::Id::DVVIDEO,
];

/// Errors without a frame between them after which decoding is given up.
const ERRORS_IN_A_ROW_MAX: u32 = 1000;

impl Decoder {
    /// Notes a packet that the decoder refuses as damage. Decoding continues.
    pub(super) fn refused(&mut self, error: ffmpeg::Error, pts: Option<i64>) -> Result<()> {
        const ENOMEM: ffmpeg::Error = ffmpeg::Error::Other { errno: ffmpeg::error::ENOMEM };
        self.counts.errors_in_a_row += 1;
        if error == ENOMEM || self.counts.errors_in_a_row > ERRORS_IN_A_ROW_MAX {
            let seconds = self.timestamps.last_pts().map(|pts| self.timestamps.seconds(pts));
            let problem = format!("cannot be decoded further: {error}");
            let remedy = "get a complete copy, or stop before with --to";
            let kind = if error == ENOMEM { error_kind(error) } else { ErrorKind::Damaged };
            let failed = Error::new(&self.source, problem, remedy).with_kind(kind).with_source(error);
            return Err(failed.at("decode", self.counts.inside, seconds));
        }
        // Taken here, so that it is not assigned to the next frame.
        let logged = self.take_logged_error().map_or(String::new(), |logged| format!(" ({logged})"));
        if self.timestamps.refused(pts) {
            self.note(
                format!("a packet cannot be decoded: {error}{logged}"),
                pts.or(self.timestamps.last_pts()),
            );
        } else {
            debug!("{}: a packet before the first keyframe cannot be decoded: {error}", self.source);
        }
        Ok(())
    }

    /// The error that the decoder logged since the last frame, where that means damage.
    pub(super) fn take_logged_error(&self) -> Option<String> {
        self.errors.take().filter(|_| LOG_MEANS_DAMAGE.contains(&self.opened.id()))
    }

    pub(super) fn note_lost(&mut self, lost: &[i64]) {
        for &pts in lost {
            self.note("a packet gave no frame".into(), Some(pts));
        }
    }

    pub(super) fn note(&mut self, problem: String, pts: Option<i64>) {
        if pts.is_some_and(|pts| !self.trim.contains(self.timestamps.us(pts))) {
            return;
        }
        self.origin.damaged += 1;
        let seconds = pts.map(|pts| self.timestamps.seconds(pts));
        let file = self
            .files
            .as_ref()
            .zip(pts)
            .map(|((pattern, first), pts)| pattern.name(Numbering::ByTime(*first).number(0, pts)));
        let problem = file.map_or(problem.clone(), |file| format!("{file}: {problem}"));
        self.damage.note(DamagedPlace { problem, frame: Some(self.counts.inside), pts, seconds });
    }
}
