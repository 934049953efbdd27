//! What a file lacks at its end: what was read, compared with what the container announces and with its own tables.

use std::io;

use ffmpeg_next::ffi;

use crate::error::{Error, Result};
use crate::media::demux::input::{AV_LAG_US_MAX, Input};
use crate::media::demux::{avi, matroska, mpegts, quicktime, quirks};
use crate::media::ffmpeg::CHECK_DEVICE;

/// More than the rounding of any muxer, less than a user would accept to lose.
const TOLERANCE_US: i64 = 1_000_000;

impl Input {
    /// What is missing; `None` if the file is complete. Several demuxers end without an error where a file is truncated.
    pub(crate) fn missing(&self) -> Result<Option<String>> {
        let found = || -> io::Result<Option<String>> {
            match self.missing_in_container()? {
                None => self.missing_of_announced(),
                found => Ok(found),
            }
        };
        found().map_err(|e| Error::io(&self.name, e, CHECK_DEVICE))
    }

    /// What the structure of the container shows.
    fn missing_in_container(&self) -> io::Result<Option<String>> {
        // SAFETY: the context is alive, and pb is null for demuxers that open files themselves. Seeking by 0 from the
        // current position only returns it.
        let position = unsafe {
            (*self.context.as_ptr()).pb.as_mut().map_or(0, |pb| ffi::avio_seek(pb, 0, ffi::SEEK_CUR))
        };
        // A frame of y4m that was begun is bytes too many. `FRAME` may be before or after a packet's position.
        const FRAME_HEADERS_BYTES: i64 = 2 * "FRAME\n".len() as i64;
        let demuxer = self.demuxer();
        if quirks::is_y4m(demuxer) && position - self.progress.end_byte > FRAME_HEADERS_BYTES {
            return Ok(Some("its last frame is truncated".into()));
        }
        if quirks::is_matroska(demuxer)
            && let Some(problem) = matroska::missing(self.path())?
        {
            return Ok(Some(problem));
        }
        // The packets of a transport stream are parsed only where a frame may be missing.
        let (least_us, most_us) = self.progress.step_us;
        let has_gap = most_us > least_us.saturating_mul(3) / 2;
        if quirks::is_mpegts(demuxer) && self.part_end_us.is_none() && has_gap {
            let unreadable = mpegts::unreadable_packets(self.path(), self.stream(self.video).id())?;
            if unreadable > 0 {
                return Ok(Some(format!("{unreadable} transport packets of its video cannot be read")));
            }
        }
        Ok(None)
    }

    /// What the number of frames and the duration show that the container announces.
    fn missing_of_announced(&self) -> io::Result<Option<String>> {
        // SAFETY: the context is alive.
        let context = unsafe { &*self.context.as_ptr() };
        let announced = self.stream(self.video).frames().max(0) as u64;
        let found = self.progress.video_packets;
        let is_complete = self.part_end_us.is_none();
        if is_complete && found < announced && quirks::counts_repeated_frames(self.demuxer()) {
            let repeated = avi::empty_chunks(self.path(), self.video)?;
            if repeated > 0 && found + repeated >= announced {
                return Ok(None);
            }
        }
        let is_count_short = is_complete && found < announced;
        if is_count_short && !quirks::has_edit_lists(self.demuxer()) {
            return Ok(Some(format!("ends after {found} of {announced} frames")));
        }
        if is_count_short && quicktime::is_inconsistent(self.path(), self.stream(self.video).id())? {
            let problem = format!("its index contradicts itself, and gives {found} of {announced} frames");
            return Ok(Some(problem));
        }
        let from_header =
            context.duration_estimation_method == ffi::AVDurationEstimationMethod::AVFMT_DURATION_FROM_STREAM;
        if !from_header || found == 0 {
            return Ok(None);
        }
        let us = |seconds: f64| (seconds * 1e6) as i64;
        let frame_us = us(1.0 / self.video().fps());
        // Headers count from 0, however late the first frame is.
        let read_us = self.progress.end_us.saturating_sub(self.start_us().min(0));
        let wanted_us = match self.part_end_us {
            Some(end_us) => context.duration.min(end_us.saturating_sub(self.start_us()) - AV_LAG_US_MAX),
            None => context.duration,
        };
        let tolerance_us = if is_count_short { 3 * frame_us / 2 } else { TOLERANCE_US };
        if wanted_us.saturating_sub(read_us) > tolerance_us {
            let (read, all) = (read_us as f64 / 1e6, context.duration as f64 / 1e6);
            return Ok(Some(format!("ends after {read:.3} of {all:.3} s")));
        }
        if is_count_short && self.damage.count() == 0 {
            let hidden = announced - found;
            self.damage.warn(&format!("its edit list leaves out {hidden} of {announced} frames"));
        }
        Ok(None)
    }
}
