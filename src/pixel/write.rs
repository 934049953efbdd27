//! Writes a dense plane of f32 into a component of a frame.
//!
//! In: numbers in f32. Out: code values, rounded and clamped to the full code range of the component, in the layout of the
//! format; bytes of other components and of padding keep their values. It knows every layout that a [`PixelFormat`]
//! describes and nothing of networks.
//!
//! [`PixelFormat`]: crate::frame::PixelFormat

use hasn_kernels::samples::{BLOCK, Coding};
use rayon::prelude::*;

use super::dither::{SIDE, pattern};
use super::loops::{coding, loops};
use crate::frame::{Component, Frame};

pub(crate) use super::dither::Rounding;

/// Minimum number of rows per task of the thread pool.
const ROWS_MIN: usize = 16;

const _: () = assert!(BLOCK.is_multiple_of(SIDE));

/// Writes `plane: [H, W]` of the component's own size into component `index` of a frame.
pub fn write_component(frame: &mut Frame, index: usize, plane: &[f32], rounding: Rounding) {
    let (width, height) = frame.format.component_size(index);
    assert_eq!(plane.len(), width * height, "plane of component {index}");
    let rows = |y: usize| &plane[y * width..][..width];
    write_rows(frame, index, rounding, rows);
}

/// Writes one number to every sample of component `index`.
pub fn fill_component(frame: &mut Frame, index: usize, value: f32) {
    let row = vec![value; frame.format.component_size(index).0];
    write_rows(frame, index, Rounding::Nearest, |_| &row);
}

fn write_rows<'a>(
    frame: &mut Frame,
    index: usize,
    rounding: Rounding,
    row_values: impl Fn(usize) -> &'a [f32] + Sync,
) {
    let frame_format = frame.format;
    assert!(frame_format.pixel_format.writable(), "{} cannot be written", frame_format.pixel_format.name);
    let component = frame_format.pixel_format.components[index];
    let big_endian = frame_format.pixel_format.big_endian;
    let writer = Writer {
        component,
        word_bytes: frame_format.pixel_format.word_bytes(index),
        coding: coding(&component, frame_format.quantization(index), big_endian),
        pattern: pattern(rounding).map(|row| std::array::from_fn(|x| row[x % SIDE])),
    };
    let (_, height) = frame_format.component_size(index);
    let host_plane = usize::from(component.plane);
    let linesize = frame.buffer.linesize(host_plane);
    let rows = frame.buffer.plane_mut(host_plane).par_chunks_mut(linesize).with_min_len(ROWS_MIN);
    assert!(rows.len() >= height, "a plane of the frame has too few rows");
    rows.take(height).enumerate().for_each(|(y, row)| {
        writer.write_row(&mut row[usize::from(component.offset)..], row_values(y), y);
    });
}

struct Writer {
    component: Component,
    word_bytes: usize,
    coding: Coding,
    /// The rows of the dither pattern, repeated to blocks.
    pattern: [[f32; BLOCK]; SIDE],
}

impl Writer {
    /// `row` starts with the first sample.
    fn write_row(&self, row: &mut [u8], values: &[f32], y: usize) {
        let (offsets, coding) = (&self.pattern[y % SIDE], &self.coding);
        match (self.word_bytes, coding.big_endian) {
            (1, _) => {
                self.codes(row, values, |bytes, values| {
                    (loops().write_bytes)(bytes, values, offsets, coding)
                });
            }
            (2, _) => {
                self.codes(row, values, |words, values| {
                    (loops().write_words)(words, values, offsets, coding)
                });
            }
            (_, false) => self.words(row, values, f32::to_le_bytes),
            (_, true) => self.words(row, values, f32::to_be_bytes),
        }
    }

    /// Samples with gaps between them are scattered in blocks.
    fn codes<const N: usize>(&self, row: &mut [u8], values: &[f32], write: impl Fn(&mut [[u8; N]], &[f32])) {
        let step = usize::from(self.component.step);
        if step == N {
            return write(row.as_chunks_mut().0, values);
        }
        let mut words = [[0; N]; BLOCK];
        for (row, values) in row.chunks_mut(BLOCK * step).zip(values.chunks(BLOCK)) {
            write(&mut words, values);
            self.words(row, &words[..values.len()], |word| word);
        }
    }

    /// The loop over samples without gaps has a fixed stride, so that it vectorises.
    #[inline(always)]
    fn words<V: Copy, const N: usize>(&self, row: &mut [u8], values: &[V], word: impl Fn(V) -> [u8; N]) {
        let step = usize::from(self.component.step);
        if step == N {
            let (words, _) = row.as_chunks_mut::<N>();
            assert!(words.len() >= values.len(), "a row of the frame is too short");
            words.iter_mut().zip(values).for_each(|(bytes, &v)| *bytes = word(v));
        } else {
            for (x, &v) in values.iter().enumerate() {
                *row[x * step..].first_chunk_mut().expect("a row of the frame is too short") = word(v);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::color::Range;
    use crate::pixel::read::read_component;
    use crate::testing::{frame_format, padded};

    const FORMATS: [&str; 26] = [
        "gray",
        "gray10le",
        "gray16be",
        "grayf32le",
        "grayf32be",
        "ya8",
        "ya16le",
        "yuv420p",
        "yuv422p10be",
        "yuv444p12le",
        "yuv411p",
        "yuv410p",
        "yuva444p16le",
        "nv12",
        "nv16",
        "p010le",
        "p016le",
        "y210le",
        "yuyv422",
        "uyvy422",
        "rgb24",
        "rgb48be",
        "argb",
        "rgb0",
        "gbrap16le",
        "gbrpf32be",
    ];

    #[test]
    fn what_is_written_is_read_back_in_every_layout() {
        for (name, range) in FORMATS.into_iter().flat_map(|n| [(n, Range::Limited), (n, Range::Full)]) {
            // 128 is a multiple of a block, 37 and 101 are not and odd.
            for width in [37, 101, 128] {
                let mut frame_format = frame_format(width, 19, name);
                frame_format.color.range = range;
                write_and_read_back(Frame::new(frame_format));
                write_and_read_back(padded(frame_format));
            }
        }
    }

    fn write_and_read_back(mut frame: Frame) {
        let frame_format = frame.format;
        let planes: Vec<Vec<f32>> =
            (0..frame_format.pixel_format.component_count()).map(|i| ramp(&frame_format, i)).collect();
        for (i, plane) in planes.iter().enumerate() {
            write_component(&mut frame, i, plane, Rounding::Nearest);
        }
        for (i, plane) in planes.iter().enumerate() {
            let mut back = vec![f32::NAN; plane.len()];
            read_component(&frame, i, &mut back);
            let unit = frame_format.quantization(i).unit;
            let step = if frame_format.pixel_format.float { 0.0 } else { 0.51 / unit };
            for (a, b) in plane.iter().zip(&back) {
                assert!((a - b).abs() <= step, "{} component {i}: {a} {b}", frame_format.pixel_format.name);
            }
        }
    }

    /// Values that differ between components, inside their range.
    fn ramp(frame_format: &crate::frame::FrameFormat, index: usize) -> Vec<f32> {
        let (width, height) = frame_format.component_size(index);
        let len = width * height;
        let low =
            if frame_format.pixel_format.signal(index) == crate::color::Signal::Chroma { -0.5 } else { 0.0 };
        (0..len).map(|i| low + ((i * (index + 3)) % len) as f32 / len as f32).collect()
    }

    fn bytes_of(name: &'static str, index: usize, value: f32) -> Vec<u8> {
        let mut frame = Frame::new(frame_format(2, 1, name));
        frame.buffer.plane_mut(0).fill(0xaa);
        fill_component(&mut frame, index, value);
        frame.buffer.plane(0).to_vec()
    }

    #[test]
    fn other_bytes_stay_and_low_bits_are_cleared() {
        assert_eq!(bytes_of("rgb0", 1, 1.0), [0xaa, 255, 0xaa, 0xaa, 0xaa, 255, 0xaa, 0xaa]);
        assert_eq!(bytes_of("p010le", 0, 1.0), [0, 0xeb, 0, 0xeb]);
        assert_eq!(bytes_of("gray10le", 0, 1.0), [940u16.to_le_bytes(), 940u16.to_le_bytes()].concat());
    }

    #[test]
    fn values_are_clamped_to_the_full_code_range_and_floats_are_not() {
        assert_eq!(bytes_of("gray", 0, 1.05), [246, 246]);
        assert_eq!(bytes_of("gray", 0, 9.0), [255, 255]);
        assert_eq!(bytes_of("gray", 0, -9.0), [0, 0]);
        assert_eq!(bytes_of("gray", 0, f32::NAN), [0, 0]);
        assert_eq!(bytes_of("grayf32le", 0, -9.0), [(-9.0f32).to_le_bytes(); 2].concat());
    }

    #[test]
    fn dither_keeps_the_mean_of_every_level() {
        let frame_format = frame_format(64, 64, "gray");
        for tenth in 0..=20 {
            let code = 100.0 + tenth as f32 / 10.0;
            let mut frame = Frame::new(frame_format);
            let plane = vec![(code - 16.0) / 219.0; 64 * 64];
            write_component(&mut frame, 0, &plane, Rounding::Dither);
            let codes = frame.buffer.plane(0);
            let mean = codes.iter().map(|&c| f32::from(c)).sum::<f32>() / codes.len() as f32;
            assert!((mean - code).abs() < 0.003, "{code}: {mean}");
            assert!(codes.iter().all(|&c| (f32::from(c) - code).abs() < 1.0), "{code}");
        }
    }
}
