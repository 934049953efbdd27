//! Reads a component of a frame into a dense plane of f32.
//!
//! In: code values in the layout of the format. Out: `(code - zero) / unit` in f32, values outside 0..1 kept. It knows
//! every layout that a [`PixelFormat`] describes and nothing of networks.
//!
//! [`PixelFormat`]: crate::frame::PixelFormat

use hasn_kernels::samples::{BLOCK, Coding};
use rayon::prelude::*;

use super::loops::{coding, loops};
use crate::frame::{Component, Frame};

/// Minimum number of rows per task of the thread pool.
const ROWS_MIN: usize = 16;

/// Reads component `index` of a frame into `plane: [H, W]` of that component's own size.
pub fn read_component(frame: &Frame, index: usize, plane: &mut [f32]) {
    let frame_format = &frame.format;
    let (width, height) = frame_format.component_size(index);
    assert_eq!(plane.len(), width * height, "plane of component {index}");
    let component = frame_format.pixel_format.components[index];
    let host_plane = usize::from(component.plane);
    let (bytes, linesize) = (frame.buffer.plane(host_plane), frame.buffer.linesize(host_plane));
    let reader = Reader::new(frame, index);
    let rows = bytes.par_chunks(linesize);
    assert!(rows.len() >= height, "a plane of the frame has too few rows");
    plane
        .par_chunks_mut(width)
        .with_min_len(ROWS_MIN)
        .zip(rows)
        .for_each(|(out, row)| reader.read_row(&row[usize::from(component.offset)..], out));
}

struct Reader {
    component: Component,
    word_bytes: usize,
    coding: Coding,
}

impl Reader {
    fn new(frame: &Frame, index: usize) -> Reader {
        let format = &frame.format.pixel_format;
        let component = format.components[index];
        let coding = coding(&component, frame.format.quantization(index), format.big_endian);
        Reader { component, word_bytes: format.word_bytes(index), coding }
    }

    /// `row` starts with the first sample.
    fn read_row(&self, row: &[u8], out: &mut [f32]) {
        match (self.word_bytes, self.coding.big_endian) {
            (1, _) => self.codes(row, out, loops().read_bytes),
            (2, _) => self.codes(row, out, loops().read_words),
            (_, false) => self.words(row, out, f32::from_le_bytes),
            (_, true) => self.words(row, out, f32::from_be_bytes),
        }
    }

    /// Samples with gaps between them are gathered in blocks.
    fn codes<const N: usize>(&self, row: &[u8], out: &mut [f32], read: fn(&mut [f32], &[[u8; N]], &Coding)) {
        let step = usize::from(self.component.step);
        if step == N {
            return read(out, row.as_chunks().0, &self.coding);
        }
        let mut words = [[0; N]; BLOCK];
        for (out, row) in out.chunks_mut(BLOCK).zip(row.chunks(BLOCK * step)) {
            self.words(row, &mut words[..out.len()], |word| word);
            read(out, &words, &self.coding);
        }
    }

    /// The loop over samples without gaps has a fixed stride, so that it vectorises.
    #[inline(always)]
    fn words<V, const N: usize>(&self, row: &[u8], out: &mut [V], value: impl Fn([u8; N]) -> V) {
        let step = usize::from(self.component.step);
        if step == N {
            let (words, _) = row.as_chunks::<N>();
            assert!(words.len() >= out.len(), "a row of the frame is too short");
            out.iter_mut().zip(words).for_each(|(v, &word)| *v = value(word));
        } else {
            for (x, v) in out.iter_mut().enumerate() {
                *v = value(*row[x * step..].first_chunk().expect("a row of the frame is too short"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::color::Range;
    use crate::testing::frame_format;

    /// Returns the first sample of every component of a frame whose plane 0 starts with these bytes.
    fn read(name: &'static str, range: Range, bytes: &[u8]) -> Vec<f32> {
        let mut frame_format = frame_format(8, 2, name);
        frame_format.color.range = range;
        let mut frame = Frame::new(frame_format);
        frame.buffer.plane_mut(0)[..bytes.len()].copy_from_slice(bytes);
        let components = 0..frame_format.pixel_format.component_count();
        let first = |i| {
            let (width, height) = frame_format.component_size(i);
            let mut plane = vec![f32::NAN; width * height];
            read_component(&frame, i, &mut plane);
            plane[0]
        };
        components.map(first).collect()
    }

    #[test]
    fn every_layout_is_read_as_its_name_says() {
        use Range::{Full, Limited};
        let float = 0.375f32;
        let rows: &[(&str, Range, &[u8], &[f32])] = &[
            ("gray", Full, &[51], &[0.2]),
            ("gray", Limited, &[235], &[1.0]),
            ("gray", Limited, &[0], &[-16.0 / 219.0]),
            ("gray10le", Limited, &[27, 1], &[219.0 / 876.0]),
            ("gray12be", Full, &[0x0f, 0xff], &[1.0]),
            ("grayf32le", Limited, &float.to_le_bytes(), &[float]),
            ("grayf32be", Limited, &float.to_be_bytes(), &[float]),
            ("ya8", Full, &[51, 255], &[0.2, 1.0]),
            ("yuyv422", Limited, &[16, 240, 16, 16], &[0.0, 0.5, -0.5]),
            ("uyvy422", Limited, &[240, 16, 16, 16], &[0.0, 0.5, -0.5]),
            // The bits below an MSB-aligned sample are not part of it.
            ("y210le", Limited, &[0x3f, 0xeb, 0, 0x80, 0, 0, 0, 0x80], &[1.0, 0.0, 0.0]),
            ("rgb24", Limited, &[255, 0, 51], &[1.0, 0.0, 0.2]),
            ("argb", Full, &[0, 255, 51, 102], &[1.0, 0.2, 0.4, 0.0]),
            ("rgb48be", Full, &[0xff, 0xff, 0, 0, 0x33, 0x33], &[1.0, 0.0, 0.2]),
            ("rgb565le", Full, &[0x1f, 0xf8], &[1.0, 0.0, 1.0]),
            ("rgb565be", Full, &[0x07, 0xe0], &[0.0, 1.0, 0.0]),
            ("x2rgb10le", Full, &[0, 0xfc, 0x0f, 0], &[0.0, 1.0, 0.0]),
        ];
        for (name, range, bytes, expected) in rows {
            let found = read(name, *range, bytes);
            assert_eq!(found.len(), expected.len(), "{name}");
            for (f, e) in found.iter().zip(*expected) {
                assert!((f - e).abs() < 1e-6, "{name}: {found:?}, {expected:?}");
            }
        }
    }
}
