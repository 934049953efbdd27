//! Missing: what was read, held against what the container announced and against what its cells and tables say.

use ffmpeg_next::ffi;

use crate::media::demux::input::{Input, PAST_END_US};
use crate::media::demux::{matroska, mpegts, quicktime};

impl Input {
    /// A packet of the frames is to be decoded then.
    pub(crate) fn note_step(&mut self, dts_us: i64) {
        let step_us = self.last_dts_us.map(|last_us| dts_us - last_us).filter(|&step_us| step_us > 0);
        if let Some(step_us) = step_us {
            self.step_us = (self.step_us.0.min(step_us), self.step_us.1.max(step_us));
        }
        self.last_dts_us = Some(dts_us);
    }

    /// Several demuxers end quietly where a file is cut off: hold what was read against what the container
    /// announced. A second is more than any muxer's rounding and less than anybody wants to lose.
    pub(crate) fn what_is_missing(&self) -> Option<String> {
        const TOLERANCE_US: i64 = 1_000_000;
        // SAFETY: the context is alive, and pb is null for demuxers that open files themselves. Seeking by 0 from
        // where it is (SEEK_CUR) only tells that.
        let position =
            unsafe { (*self.context.as_ptr()).pb.as_mut().map_or(0, |pb| ffi::avio_seek(pb, 0, 1)) };
        // y4m announces nothing, but a frame that was begun is bytes too many. `FRAME` may be before or after a
        // packet's position.
        const FRAME_HEADERS_BYTES: i64 = 2 * "FRAME\n".len() as i64;
        if self.context.format().name() == "yuv4mpegpipe" && position - self.last_byte > FRAME_HEADERS_BYTES {
            return Some("its last frame is cut short".into());
        }
        if self.context.format().name().contains("matroska")
            && let Some(problem) = matroska::what_is_missing(&self.name)
        {
            return Some(problem);
        }
        // Cells are looked at where a frame may be missing.
        let has_gap = self.step_us.1 > self.step_us.0.saturating_mul(3) / 2;
        if self.context.format().name() == "mpegts" && self.part_end_us.is_none() && has_gap {
            let broken = mpegts::broken_cells(&self.name, self.stream(self.video).id());
            if broken > 0 {
                return Some(format!("{broken} cells of its frames cannot be read"));
            }
        }
        // SAFETY: the context is alive.
        let context = unsafe { &*self.context.as_ptr() };
        let from_header =
            context.duration_estimation_method == ffi::AVDurationEstimationMethod::AVFMT_DURATION_FROM_STREAM;
        let announced = self.stream(self.video).frames().max(0) as u64;
        let found = self.video_packets;
        let counted_short = self.part_end_us.is_none() && found < announced;
        // A count alone proves nothing where edit lists leave frames out.
        let has_edits = self.context.format().name().contains("mp4");
        if counted_short && !has_edits {
            return Some(format!("ends after {found} of {announced} frames"));
        }
        if counted_short && quicktime::contradicts_itself(&self.name, self.stream(self.video).id()) {
            return Some(format!("its index contradicts itself, and gives {found} of {announced} frames"));
        }
        if !from_header || found == 0 {
            return None;
        }
        let us = |seconds: f64| (seconds * 1e6) as i64;
        let frame_us = us(1.0 / f64::from(self.video().frame_rate));
        // Headers count from 0, however late the first frame is.
        let read_us = self.last_end_us.saturating_sub(self.start_us().min(0));
        let wanted_us = match self.part_end_us {
            Some(end_us) => context.duration.min(end_us.saturating_sub(self.start_us()) - PAST_END_US),
            None => context.duration,
        };
        let tolerance_us = if counted_short { 3 * frame_us / 2 } else { TOLERANCE_US };
        if wanted_us.saturating_sub(read_us) > tolerance_us {
            let (read, whole) = (read_us as f64 / 1e6, context.duration as f64 / 1e6);
            return Some(format!("ends after {read:.3} of {whole:.3} s"));
        }
        if counted_short && self.damage.count() == 0 {
            self.damage.say(&format!("its edit list leaves out {} of {announced} frames", announced - found));
        }
        None
    }
}
