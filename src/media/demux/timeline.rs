//! Timeline: a clock that jumps, as a broadcast's does, is made continuous, as the `ffmpeg` command does.

use ffmpeg_next::{self as ffmpeg, Rational, Rescale, media};
use tracing::warn;

use crate::media::ffmpeg::MICROSECONDS;

/// FFmpeg's `-dts_delta_threshold`: a shorter jump is a gap, not another clock.
const JUMP_US: i64 = 10_000_000;
/// How far dts of one stream may go back.
const BACK_US: i64 = 100_000;

/// The clock of one input.
pub(crate) struct Timeline {
    /// Offset that is added to all timestamps.
    offset_us: i64,
    /// Expected dts of the next packet of each stream.
    next_us: Vec<Option<i64>>,
    last_us: Option<i64>,
    jumps: u64,
}

impl Timeline {
    pub(crate) fn new() -> Timeline {
        Timeline { offset_us: 0, next_us: Vec::new(), last_us: None, jumps: 0 }
    }

    /// Number of jumps.
    pub(crate) fn jumps(&self) -> u64 {
        self.jumps
    }

    /// Expects nothing, as after a seek.
    pub(crate) fn reset(&mut self) {
        *self = Timeline::new();
    }

    /// Puts the packet on the continuous clock. `usual_us` is the duration of one that states none.
    pub(crate) fn correct(
        &mut self,
        packet: &mut ffmpeg::Packet,
        time_base: Rational,
        medium: media::Type,
        usual_us: i64,
    ) {
        let stream = packet.stream();
        if self.next_us.len() <= stream {
            self.next_us.resize(stream + 1, None);
        }
        let us = |ticks: i64| ticks.rescale(time_base, MICROSECONDS);
        let has_clock = matches!(medium, media::Type::Video | media::Type::Audio);
        if let Some(dts_us) = packet.dts().map(|dts| us(dts) + self.offset_us).filter(|_| has_clock) {
            let jump = match (self.next_us[stream], self.last_us) {
                (Some(next), _) => {
                    let delta = dts_us - next;
                    (delta.abs() > JUMP_US || delta < -BACK_US).then_some(delta)
                }
                (None, Some(last)) => Some(dts_us - last).filter(|delta| delta.abs() > JUMP_US),
                (None, None) => None,
            };
            if let Some(delta) = jump {
                self.offset_us -= delta;
                self.jumps += 1;
                if self.jumps == 1 {
                    let seconds = dts_us as f64 / 1e6;
                    warn!(
                        "the input's clock jumps at {seconds:.3} s; timestamps after it are made continuous"
                    );
                }
            }
        }
        let offset = self.offset_us.rescale(MICROSECONDS, time_base);
        packet.set_pts(packet.pts().map(|pts| pts + offset));
        packet.set_dts(packet.dts().map(|dts| dts + offset));
        if let Some(dts) = packet.dts() {
            self.last_us = Some(us(dts));
            let duration_us = if packet.duration() > 0 { us(packet.duration()) } else { usual_us };
            self.next_us[stream] = Some(us(dts) + duration_us);
        }
    }
}
