//! How the two fields of a frame move, measured against the frames before and after it.
//!
//! In: three decoded frames in order. Out: whether the fields of the middle one show two moments, and which comes first. It
//! knows neither flags nor what was measured before.

use ffmpeg_next::frame::Video as AvFrame;

use crate::frame::{Component, Family};
use crate::media::format::{describe, pixel_of};

/// Motion in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Motion {
    /// Its fields show different moments.
    Fields { top_first: bool },
    /// Its fields show the same moment.
    Whole,
    /// Nothing moves, or it cannot be determined.
    Unknown,
}

/// Number of pairs of lines that are measured.
const PAIRS: usize = 64;
/// Part of the height above and below what is measured: captures have data lines and switching noise there.
const BORDER: usize = 16;
/// Least difference, in 8-bit code values a sample and as a part of the combing with the nearer field, that is no noise.
const DIFFERENCE_MIN: f64 = 0.05;
const DIFFERENCE_PART_MIN: f64 = 0.02;
/// How much less the frame itself may be combed than with the nearer field, and how much more in telecined video, whose
/// nearer field shows the same moment; as parts of the difference between the nearer and the farther one.
const OWN: std::ops::RangeInclusive<f64> = -0.5..=1.25;
/// In a progressive frame the fields of other frames are equally far: the largest difference between them, as a part of
/// their distance.
const UNEVEN_MAX: f64 = 0.3;

/// Measures the middle one of three frames.
///
/// The later field of a frame is as near to the earlier field of the next frame as to that of its own: combing with both is
/// alike, and less than with that of the frame before. A progressive frame is combed least with its own field, and equally
/// with those of the frames around it. Detail that flickers from line to line, such as dither, is combed most with its own.
pub(crate) fn motion([before, frame, after]: [&AvFrame; 3]) -> Motion {
    let planes = [before, frame, after].map(Plane::of);
    let [Some(before), Some(frame), Some(after)] = planes else { return Motion::Unknown };
    if before.layout() != frame.layout() || after.layout() != frame.layout() || frame.height < 3 * BORDER {
        return Motion::Unknown;
    }
    let measured = match frame.component.step {
        1 => measure::<1>(&before, &frame, &after),
        2 => measure::<2>(&before, &frame, &after),
        3 => measure::<3>(&before, &frame, &after),
        4 => measure::<4>(&before, &frame, &after),
        6 => measure::<6>(&before, &frame, &after),
        8 => measure::<8>(&before, &frame, &after),
        _ => return Motion::Unknown,
    };
    classify(measured)
}

/// Combing of a frame with the fields of three frames: mean distances between lines and the mean of the two around them.
#[derive(Clone, Copy, Default, Debug)]
struct Combing {
    /// With its own.
    own: f64,
    /// With the fields that are nearer if the top field comes first, and those that are nearer otherwise.
    near: [f64; 2],
}

fn classify(Combing { own, near: [top, bottom] }: Combing) -> Motion {
    let (near, far) = (top.min(bottom), top.max(bottom));
    let (difference, least) = (far - near, DIFFERENCE_MIN.max(DIFFERENCE_PART_MIN * near));
    if difference > least && OWN.contains(&((own - near) / difference)) {
        Motion::Fields { top_first: top < bottom }
    } else if near - own > least && difference < UNEVEN_MAX * (near - own) {
        Motion::Whole
    } else {
        Motion::Unknown
    }
}

fn measure<const STEP: usize>(before: &Plane, frame: &Plane, after: &Plane) -> Combing {
    let height = frame.height;
    let border = height / BORDER;
    // Lines of both fields in turn.
    let pitch = ((height - 2 * border) / PAIRS).max(2) & !1;
    let (mut sums, mut lines) = ([[0u64; 3]; 2], 0);
    for first in (border.max(1)..height - border.max(1) - 1).step_by(pitch) {
        for y in [first, first + 1] {
            let lines = [frame.line(y - 1), frame.line(y + 1), before.line(y), frame.line(y), after.line(y)];
            let combing = comb::<STEP>(lines, frame);
            for (sum, combing) in sums[y % 2].iter_mut().zip(combing) {
                *sum += combing;
            }
        }
        lines += 2;
    }
    let code_values = f64::from(1u32 << frame.component.depth) / 256.0;
    let mean = |sum: u64| sum as f64 / (2 * lines * frame.width) as f64 / code_values;
    let [[top_before, top_own, top_after], [bottom_before, bottom_own, bottom_after]] = sums;
    Combing {
        own: mean(top_own + bottom_own),
        // The top field of the next frame follows this frame's bottom field, if the top field comes first.
        near: [mean(top_after + bottom_before), mean(top_before + bottom_after)],
    }
}

/// Sums of the doubled distances of three lines from the mean of two others, `[above, below, lines..]`.
fn comb<const STEP: usize>([above, below, before, own, after]: [&[u8]; 5], plane: &Plane) -> [u64; 3] {
    let Component { shift, depth, .. } = plane.component;
    let (is_byte, big_endian) = (plane.component.is_byte(), plane.big_endian);
    let mask = (1 << depth) - 1;
    let sample = |bytes: &[u8; STEP]| {
        let word = match (is_byte, big_endian) {
            (true, _) => u32::from(bytes[0]),
            (false, false) => u32::from(u16::from_le_bytes([bytes[0], bytes[1 % STEP]])),
            (false, true) => u32::from(u16::from_be_bytes([bytes[0], bytes[1 % STEP]])),
        };
        (word >> shift) & mask
    };
    let [above, below, before, own, after] =
        [above, below, before, own, after].map(|line| line.as_chunks::<STEP>().0);
    let mut sums = [0u32; 3];
    for ((((above, below), before), own), after) in above.iter().zip(below).zip(before).zip(own).zip(after) {
        let around = sample(above) + sample(below);
        sums[0] += around.abs_diff(2 * sample(before));
        sums[1] += around.abs_diff(2 * sample(own));
        sums[2] += around.abs_diff(2 * sample(after));
    }
    sums.map(u64::from)
}

/// The plane of a frame that holds luma, or green.
struct Plane {
    data: *const u8,
    linesize: isize,
    width: usize,
    height: usize,
    component: Component,
    big_endian: bool,
}

/// Wider lines would overflow the sums.
const WIDTH_MAX: usize = 1 << 14;

impl Plane {
    fn of(av_frame: &AvFrame) -> Option<Plane> {
        // SAFETY: the frame is alive.
        let raw = unsafe { &*av_frame.as_ptr() };
        let format = describe(pixel_of(raw))?;
        let component = format.components[usize::from(format.family == Family::Rgb)];
        let plane = usize::from(component.plane);
        let (width, height) = (raw.width as usize, raw.height as usize);
        let is_read = !format.float && !raw.data[plane].is_null() && (2..WIDTH_MAX).contains(&width);
        is_read.then_some(Plane {
            data: raw.data[plane],
            linesize: raw.linesize[plane] as isize,
            width,
            height,
            component,
            big_endian: format.big_endian,
        })
    }

    fn layout(&self) -> (usize, usize, Component, bool) {
        (self.width, self.height, self.component, self.big_endian)
    }

    /// The samples of a line but the last, whose bytes may end before the step does.
    fn line(&self, y: usize) -> &[u8] {
        let Component { step, offset, .. } = self.component;
        assert!(y < self.height, "lines are those of the plane");
        // SAFETY: the frame that the plane is part of is alive while it is measured, FFmpeg allocated this line for
        // `width` samples, and those before the last are whole.
        unsafe {
            let start = self.data.offset(self.linesize * y as isize).add(usize::from(offset));
            std::slice::from_raw_parts(start, (self.width - 1) * usize::from(step))
        }
    }
}

#[cfg(test)]
mod tests {
    use ffmpeg_next::format::Pixel;

    use super::*;
    use crate::media::format::pixel_format;

    const WIDTH: usize = 96;
    const HEIGHT: usize = 96;

    /// A frame of smooth shapes whose lines show these two moments, in samples of `format`.
    fn frame(format: &str, [top, bottom]: [f64; 2]) -> AvFrame {
        let pixel = Pixel::from(pixel_format(format));
        let mut av_frame = AvFrame::new(pixel, WIDTH as u32, HEIGHT as u32);
        let described = describe(pixel_format(format)).unwrap();
        let Component { plane, step, offset, shift, depth } =
            described.components[usize::from(described.family == Family::Rgb)];
        let stride = av_frame.stride(plane.into());
        let word_bytes = described.word_bytes(0);
        let data = av_frame.data_mut(plane.into());
        for y in 0..HEIGHT {
            let moment = if y % 2 == 0 { top } else { bottom };
            for x in 0..WIDTH {
                let shape = (x as f64 / 9.0 - moment).sin() * (y as f64 / 11.0 + moment / 3.0).cos();
                let word = (((shape * 0.4 + 0.5) * f64::from((1u32 << depth) - 1)) as u16) << shift;
                let at = y * stride + x * usize::from(step) + usize::from(offset);
                match (word_bytes, described.big_endian) {
                    (1, _) => data[at] = word as u8,
                    (_, true) => data[at..at + 2].copy_from_slice(&word.to_be_bytes()),
                    (_, false) => data[at..at + 2].copy_from_slice(&word.to_le_bytes()),
                }
            }
        }
        av_frame
    }

    #[test]
    fn fields_and_whole_frames_are_distinguished_in_every_layout() {
        for format in [
            "yuv420p",
            "gray",
            "nv12",
            "yuyv422",
            "uyvy422",
            "yuv422p10le",
            "yuv420p12be",
            "p010le",
            "gbrp",
            "rgb24",
            "bgra",
            "rgb48le",
            "rgba64be",
            "y210le",
            "yuv444p16le",
        ] {
            let moments = |field: fn(usize) -> [f64; 2]| {
                let frames = [0, 1, 2].map(|i| frame(format, field(i).map(|moment| 0.2 * moment)));
                motion([&frames[0], &frames[1], &frames[2]])
            };
            let top_first = Motion::Fields { top_first: true };
            assert_eq!(moments(|i| [2.0 * i as f64, 2.0 * i as f64 + 1.0]), top_first, "{format}");
            let bottom_first = Motion::Fields { top_first: false };
            assert_eq!(moments(|i| [2.0 * i as f64 + 1.0, 2.0 * i as f64]), bottom_first, "{format}");
            assert_eq!(moments(|i| [i as f64, i as f64]), Motion::Whole, "{format}");
            assert_eq!(moments(|_| [1.0, 1.0]), Motion::Unknown, "{format}");
        }
    }

    #[test]
    fn frames_of_other_formats_are_not_compared() {
        let [a, b] = ["yuv420p", "yuv420p10le"].map(|format| frame(format, [0.0, 1.0]));
        assert_eq!(motion([&a, &a, &b]), Motion::Unknown);
        let small = AvFrame::new(Pixel::YUV420P, 32, 32);
        assert_eq!(motion([&small, &small, &small]), Motion::Unknown);
    }
}
