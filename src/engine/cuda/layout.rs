//! A frame in one block of memory, pinned or on the device: the places of its planes and samples.
//!
//! In: a frame format, and planes of the host to gather from or scatter to. Out: the arguments of the kernels that read
//! and write samples.

use super::kernels::Samples;
use super::maps::Part;
use crate::frame::{FrameFormat, HostBuffer};

/// A frame in one block of memory: its planes one after another, rows and planes at multiples of 16 bytes.
pub(super) struct Layout {
    pub(super) format: FrameFormat,
    planes: Vec<Plane>,
    pub(super) len: usize,
}

#[derive(Clone, Copy)]
struct Plane {
    offset: usize,
    linesize: usize,
    /// Bytes of a row that hold samples.
    row_len: usize,
    rows: usize,
}

impl Layout {
    pub(super) fn new(frame_format: FrameFormat) -> Layout {
        let mut len = 0;
        let planes = (0..usize::from(frame_format.pixel_format.planes)).map(|plane| {
            let (row_len, rows) = frame_format.plane_size(plane);
            let plane = Plane { offset: len, linesize: row_len.next_multiple_of(16), row_len, rows };
            len += plane.linesize * rows;
            plane
        });
        Layout { planes: planes.collect(), format: frame_format, len }
    }

    /// Bytes of a plane of f32 that fits any component.
    pub(super) fn plane_len(&self) -> usize {
        self.format.width * self.format.height * size_of::<f32>()
    }

    /// The part of `memory` from a component's first sample on, and its layout.
    pub(super) fn component(&self, index: usize, memory: Part) -> (Part, Samples) {
        let format = self.format.pixel_format;
        let component = format.components[index];
        let plane = self.planes[usize::from(component.plane)];
        let (width, height) = self.format.component_size(index);
        let quantization = self.format.quantization(index);
        let samples = Samples {
            width,
            height,
            linesize: plane.linesize,
            step: component.step.into(),
            word_bytes: format.word_bytes(index),
            big_endian: format.big_endian,
            shift: component.shift,
            depth: component.depth,
            zero: quantization.zero,
            unit: quantization.unit,
        };
        let offset = usize::from(component.offset);
        (memory.at(plane.offset + offset, plane.linesize * plane.rows - offset), samples)
    }

    pub(super) fn gather(&self, from: &dyn HostBuffer, to: &mut [u8]) {
        for (index, plane) in self.planes.iter().enumerate() {
            let rows = from.plane(index).chunks(from.linesize(index));
            let to = to[plane.offset..].chunks_mut(plane.linesize);
            for (from, to) in rows.zip(to).take(plane.rows) {
                to[..plane.row_len].copy_from_slice(&from[..plane.row_len]);
            }
        }
    }

    pub(super) fn scatter(&self, from: &[u8], to: &mut dyn HostBuffer) {
        for (index, plane) in self.planes.iter().enumerate() {
            let linesize = to.linesize(index);
            let rows = from[plane.offset..].chunks(plane.linesize);
            let to = to.plane_mut(index).chunks_mut(linesize);
            for (from, to) in rows.zip(to).take(plane.rows) {
                to[..plane.row_len].copy_from_slice(&from[..plane.row_len]);
            }
        }
    }
}
