//! Grid: the timestamps of a constant frame rate that the source's clock is too coarse to state, as Matroska's milliseconds
//! are for 24000/1001 fps.

use ffmpeg_next::{self as ffmpeg, Rational, Rescale, ffi};

use crate::media::stream::VideoInfo;

/// Places timestamps of the source on frames of its rate, where that is what they were rounded from.
pub(super) struct Grid {
    /// Time base of the source.
    source_base: Rational,
    rate: Rational,
    time_base: Rational,
    /// pts of the first packet, in ticks of the source.
    start: Option<i64>,
}

/// The finest time base that is used: rates whose fraction needs a finer one are estimates.
const TICKS_MAX: i64 = 10_000_000;
/// FFmpeg rounds the start of an MP4 to milliseconds.
const STARTS: i64 = 1000;

impl Grid {
    /// The grid of a video of constant rate; `None` where its own clock states the rate exactly.
    pub fn of(video: &VideoInfo) -> Option<Grid> {
        let (Rational(num, den), rate) = (video.time_base, video.frame_rate);
        let (frame, tick) = (i64::from(den) * i64::from(rate.1), i64::from(num) * i64::from(rate.0));
        // SAFETY: this computes a number.
        let ticks = i64::from(rate.0) * (STARTS / unsafe { ffi::av_gcd(STARTS, rate.0.into()) });
        let is_useful = video.is_constant && frame % tick != 0 && ticks <= TICKS_MAX;
        is_useful.then(|| {
            let time_base = Rational(1, ticks as i32);
            Grid { source_base: video.time_base, rate, time_base, start: None }
        })
    }

    /// A time base in which every frame of the rate, and every start, has a whole number of ticks.
    pub fn time_base(&self) -> Rational {
        self.time_base
    }

    /// Puts the packet's times on the grid, in its time base.
    pub fn place(&mut self, packet: &mut ffmpeg::Packet) {
        let pts = packet.pts().expect("encoded frames have timestamps");
        self.start.get_or_insert(pts);
        let end = self.placed(pts.saturating_add(packet.duration()));
        let pts = self.placed(pts);
        packet.set_dts(packet.dts().map(|dts| self.placed(dts)));
        packet.set_pts(Some(pts));
        packet.set_duration(end - pts);
    }

    /// A time of the source: that of the frame whose time rounds to it, if there is one.
    fn placed(&self, time: i64) -> i64 {
        let start = self.start.expect("set at the first packet");
        let from_start = time.saturating_sub(start);
        let (source, own, frame) = (self.source_base, self.time_base, self.rate.invert());
        let frames = from_start.rescale(source, frame);
        // Both the start and the time are rounded, each by up to half a tick.
        let is_rounded = frames.rescale(frame, source).abs_diff(from_start) <= 1;
        start.rescale(source, own)
            + match is_rounded {
                true => frames.rescale(frame, own),
                false => from_start.rescale(source, own),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rational = Rational(24_000, 1001);

    fn video(time_base: Rational, frame_rate: Rational, is_constant: bool) -> VideoInfo {
        VideoInfo { time_base, frame_rate, is_constant, sample_aspect: Rational(1, 1), frames_expected: 0 }
    }

    #[test]
    fn rounded_times_are_placed_on_the_rate_and_others_kept() {
        const MS: Rational = Rational(1, 1000);
        assert!(Grid::of(&video(MS, Rational(25, 1), true)).is_none(), "40 ms");
        assert!(Grid::of(&video(MS, RATE, false)).is_none(), "variable");
        assert!(Grid::of(&video(Rational(1, 24_000), RATE, true)).is_none(), "exact");
        let mut grid = Grid::of(&video(MS, RATE, true)).unwrap();
        grid.start = Some(21);
        let placed = |ms: i64| grid.placed(ms) - 504;
        for n in -3..200_000 {
            // The first frame is at 20.6 ms, for example.
            let ms = (20.6 + n as f64 * 1001.0 / 24.0).round() as i64;
            assert_eq!(placed(ms), n * 1001, "frame {n}");
        }
        assert_eq!(placed(21 + 20), 480, "between two frames");
        let mut whole = Grid::of(&video(MS, Rational(24, 1), true)).unwrap();
        whole.start = Some(21);
        assert_eq!([whole.placed(21), whole.placed(63), whole.placed(104)], [63, 188, 313]);
    }
}
