//! The first frame: from the beginning, or of the wanted part after a seek.

use ffmpeg_next::Rescale;

use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
use crate::media::decode::decoder::Decoder;
use crate::media::demux::input::Input;
use crate::media::ffmpeg::{MICROSECONDS, rational_of};
use crate::media::ffmpeg_log;

/// Distances before the wanted part at which a seek is tried: some containers seek to a place that cannot be decoded from.
const SEEK_BACK_US: [i64; 4] = [0, 3_000_000, 30_000_000, i64::MAX];

impl Decoder {
    /// The first frame of the wanted part, after a seek.
    pub(super) fn seek_first(&mut self, input: &mut Input) -> Result<Frame> {
        for back_us in SEEK_BACK_US {
            let target_us = self.trim.from_us.saturating_sub(back_us).max(input.start_us());
            input.seek(target_us)?;
            self.reset();
            let is_start = target_us == input.start_us();
            if !is_start && !self.skip_to_keyframe(input)? {
                continue;
            }
            let first = self.decode_first(input);
            let us = |frame: &Frame| {
                let time_base = rational_of(frame.time.time_base);
                frame.time.pts.rescale(time_base, MICROSECONDS)
            };
            let is_late = |frame: &Frame| us(frame) - self.trim.from_us >= self.timestamps.frame_us();
            let in_time = self.counts.outside > 0 || first.as_ref().is_ok_and(|frame| !is_late(frame));
            if in_time || is_start {
                return first;
            }
        }
        unreachable!("the last attempt is from the start");
    }

    /// Skips what comes before the first keyframe: a seek in a transport stream ends at any packet. Returns whether that
    /// keyframe lies before the wanted part, all of which can be decoded then.
    fn skip_to_keyframe(&self, input: &mut Input) -> Result<bool> {
        while let Some(packet) = input.next_video()? {
            let time = packet.packet.pts().or(packet.packet.dts());
            let us = time.map(|time| time.rescale(packet.time_base, MICROSECONDS));
            if us.is_some_and(|us| us > self.trim.from_us) {
                return Ok(false);
            }
            if packet.is_key() {
                input.put_back(packet)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first frame that is decoded.
    pub(super) fn decode_first(&mut self, input: &mut Input) -> Result<Frame> {
        ffmpeg_log::take_refused_size();
        loop {
            match input.next_video()? {
                Some(packet) => self.send(packet)?,
                None => self.finish()?,
            }
            if let Some(frame) = self.receive_frame()? {
                return Ok(frame);
            }
            if self.ended {
                return Err(match (self.counts.outside, ffmpeg_log::take_refused_size()) {
                    (0, Some(size)) => {
                        let problem = format!("frames of {size} are beyond FFmpeg's limit on frame size");
                        Error::new(&self.source, problem, "split or scale them down with another program")
                            .with_kind(ErrorKind::Unsupported)
                    }
                    (0, None) => Error::new(&self.source, "no frame could be decoded", "get a complete copy")
                        .with_kind(ErrorKind::Damaged),
                    _ => Error::new(
                        &self.source,
                        "has no frame in that part",
                        "choose other times with --from and --to",
                    ),
                });
            }
        }
    }
}
