//! Pixel formats by FFmpeg's name, and frames of them, for tests. The program derives formats from FFmpeg's descriptors;
//! tests of modules that know no FFmpeg use these.

use std::any::Any;
use std::sync::Arc;

use crate::color::{ChromaLocation, ColorSpec, Matrix, Primaries, Range, Transfer};
use crate::frame::{Component, Family, Frame, FrameFormat, HostBuffer, PixelFormat};

/// Returns the format of this name.
pub(crate) fn format(name: &'static str) -> PixelFormat {
    let big_endian = name.ends_with("be");
    let stem = name.trim_end_matches("le").trim_end_matches("be");
    let float = stem.ends_with("f32");
    let stem = stem.trim_end_matches("f32");
    let base = PixelFormat {
        name,
        family: Family::Ycbcr,
        float,
        big_endian,
        alpha: false,
        log2_chroma_w: 0,
        log2_chroma_h: 0,
        planes: 1,
        components: [Component::default(); 4],
    };
    packed(base, stem).unwrap_or_else(|| planar(base, stem))
}

/// A component in FFmpeg's order: plane, step, offset, shift, depth.
fn component([plane, step, offset, shift, depth]: [u8; 5]) -> Component {
    Component { plane, step, offset, shift, depth }
}

/// Formats with several components in a plane.
fn packed(base: PixelFormat, stem: &str) -> Option<PixelFormat> {
    use Family::{Gray, Rgb, Ycbcr};
    let bytes = |step: u8, offsets: [u8; 4]| offsets.map(|offset| [0, step, offset, 0, 8]);
    let (family, alpha, (w, h), planes, components) = match stem {
        "nv12" => (Ycbcr, false, (1, 1), 2, [[0, 1, 0, 0, 8], [1, 2, 0, 0, 8], [1, 2, 1, 0, 8], [0; 5]]),
        "nv16" => (Ycbcr, false, (1, 0), 2, [[0, 1, 0, 0, 8], [1, 2, 0, 0, 8], [1, 2, 1, 0, 8], [0; 5]]),
        "p010" => (Ycbcr, false, (1, 1), 2, [[0, 2, 0, 6, 10], [1, 4, 0, 6, 10], [1, 4, 2, 6, 10], [0; 5]]),
        "p016" => (Ycbcr, false, (1, 1), 2, [[0, 2, 0, 0, 16], [1, 4, 0, 0, 16], [1, 4, 2, 0, 16], [0; 5]]),
        "y210" => (Ycbcr, false, (1, 0), 1, [[0, 4, 0, 6, 10], [0, 8, 2, 6, 10], [0, 8, 6, 6, 10], [0; 5]]),
        "yuyv422" => (Ycbcr, false, (1, 0), 1, [[0, 2, 0, 0, 8], [0, 4, 1, 0, 8], [0, 4, 3, 0, 8], [0; 5]]),
        "uyvy422" => (Ycbcr, false, (1, 0), 1, [[0, 2, 1, 0, 8], [0, 4, 0, 0, 8], [0, 4, 2, 0, 8], [0; 5]]),
        "ya8" => (Gray, true, (0, 0), 1, bytes(2, [0, 1, 0, 0])),
        "ya16" => (Gray, true, (0, 0), 1, [[0, 4, 0, 0, 16], [0, 4, 2, 0, 16], [0; 5], [0; 5]]),
        "rgb24" => (Rgb, false, (0, 0), 1, bytes(3, [0, 1, 2, 0])),
        "bgr24" => (Rgb, false, (0, 0), 1, bytes(3, [2, 1, 0, 0])),
        "rgb0" => (Rgb, false, (0, 0), 1, bytes(4, [0, 1, 2, 0])),
        "rgba" => (Rgb, true, (0, 0), 1, bytes(4, [0, 1, 2, 3])),
        "argb" => (Rgb, true, (0, 0), 1, bytes(4, [1, 2, 3, 0])),
        "rgb48" => (Rgb, false, (0, 0), 1, [[0, 6, 0, 0, 16], [0, 6, 2, 0, 16], [0, 6, 4, 0, 16], [0; 5]]),
        "rgb565" if base.big_endian => {
            (Rgb, false, (0, 0), 1, [[0, 2, 0, 3, 5], [0, 2, 0, 5, 6], [0, 2, 1, 0, 5], [0; 5]])
        }
        "rgb565" => (Rgb, false, (0, 0), 1, [[0, 2, 1, 3, 5], [0, 2, 0, 5, 6], [0, 2, 0, 0, 5], [0; 5]]),
        "x2rgb10" => (Rgb, false, (0, 0), 1, [[0, 4, 2, 4, 10], [0, 4, 1, 2, 10], [0, 4, 0, 0, 10], [0; 5]]),
        _ => return None,
    };
    let components = components.map(component);
    Some(PixelFormat { family, alpha, log2_chroma_w: w, log2_chroma_h: h, planes, components, ..base })
}

/// `gray`, `yuv420p`, `yuva444p12`, `gbrp`, `gbrap16` and the like.
fn planar(base: PixelFormat, stem: &str) -> PixelFormat {
    let letters = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    let depth: u8 = match stem[letters.len()..].parse() {
        _ if base.float => 32,
        Ok(depth) => depth,
        Err(_) => 8,
    };
    let step = if base.float { 4 } else { depth.div_ceil(8) };
    let (family, alpha, order) = match letters {
        "gray" => (Family::Gray, false, [0, 0, 0, 0]),
        "gbrp" => (Family::Rgb, false, [2, 0, 1, 0]),
        "gbrap" => (Family::Rgb, true, [2, 0, 1, 3]),
        _ => (Family::Ycbcr, letters.starts_with("yuva"), [0, 1, 2, 3]),
    };
    let (log2_chroma_w, log2_chroma_h) = match letters {
        _ if family != Family::Ycbcr => (0, 0),
        _ if letters.ends_with("444p") => (0, 0),
        _ if letters.ends_with("422p") => (1, 0),
        _ if letters.ends_with("420p") => (1, 1),
        _ if letters.ends_with("411p") => (2, 0),
        _ if letters.ends_with("410p") => (2, 2),
        _ => panic!("no format {}", base.name),
    };
    let components = order.map(|plane| component([plane, step, 0, 0, depth]));
    let mut format = PixelFormat { family, alpha, log2_chroma_w, log2_chroma_h, components, ..base };
    let count = format.component_count();
    format.planes = count as u8;
    format.components[count..].fill(Component::default());
    format
}

/// A frame format in BT.709, limited range (full for R'G'B'), with chroma on the left.
pub(crate) fn frame_format(width: usize, height: usize, name: &'static str) -> FrameFormat {
    let format = format(name);
    let rgb = format.family == Family::Rgb;
    let color = ColorSpec {
        matrix: if rgb { Matrix::IDENTITY } else { Matrix::BT709 },
        primaries: Primaries::UNSPECIFIED,
        transfer: Transfer::UNSPECIFIED,
        range: if rgb { Range::Full } else { Range::Limited },
        chroma_location: ChromaLocation::Left,
    };
    FrameFormat { width, height, pixel_format: format, color }
}

/// A frame with padded rows, whose planes end with the last sample, as a decoder's may.
pub(crate) fn padded(frame_format: FrameFormat) -> Frame {
    let plain = Frame::new(frame_format);
    let plane = |index: usize| {
        let linesize = plain.buffer.linesize(index);
        let rows = plain.buffer.plane(index).len() / linesize;
        let padded = linesize + 13;
        (padded, Arc::new(vec![0xaa; (rows - 1) * padded + linesize]))
    };
    let planes = (0..usize::from(frame_format.pixel_format.planes)).map(plane).collect();
    Frame { buffer: Box::new(PaddedBuffer(planes)), ..plain }
}

/// Linesize and bytes of each plane.
struct PaddedBuffer(Vec<(usize, Arc<Vec<u8>>)>);

impl HostBuffer for PaddedBuffer {
    fn linesize(&self, plane: usize) -> usize {
        self.0[plane].0
    }

    fn plane(&self, plane: usize) -> &[u8] {
        &self.0[plane].1
    }

    fn plane_mut(&mut self, plane: usize) -> &mut [u8] {
        Arc::get_mut(&mut self.0[plane].1).expect("a shared buffer is never written")
    }

    fn share(&self) -> Box<dyn HostBuffer> {
        Box::new(PaddedBuffer(self.0.clone()))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
