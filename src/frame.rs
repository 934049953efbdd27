//! A frame: planes of samples, their format, their timestamp, and the buffer that owns them.
//!
//! Frames are what flows between the stages. A decoded frame borrows the decoder's buffer and an output frame comes from
//! the encoder's pool, so that no stage copies samples. This module knows neither FFmpeg nor CUDA: `media` implements
//! [`HostBuffer`].

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::color::{ColorSpec, Quantization, Signal};
use crate::error::{Error, ErrorKind, Result};

/// The colour model of a format's components.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Family {
    /// Y'.
    Gray,
    /// Y', Cb, Cr.
    Ycbcr,
    /// R', G', B'.
    Rgb,
}

/// The memory layout of one component's samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Component {
    /// Index of the plane.
    pub plane: u8,
    /// Bytes from one sample to the next in a row.
    pub step: u8,
    /// Bytes before the first sample of a row. A one-byte sample is addressed as that byte, even inside a big-endian
    /// word.
    pub offset: u8,
    /// Bits below the sample in its word (6 in P010).
    pub shift: u8,
    /// Bit depth of the sample.
    pub depth: u8,
}

impl Component {
    /// Whether a sample is one byte; otherwise it is a word of two bytes (four in a float format).
    pub fn is_byte(&self) -> bool {
        self.shift + self.depth <= 8
    }
}

/// A sample format: planar, semi-planar or packed, 1 to 16 bits or float.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PixelFormat {
    /// FFmpeg's name.
    pub name: &'static str,
    /// Colour model of the components.
    pub family: Family,
    /// Whether samples are 32-bit floats.
    pub float: bool,
    /// Whether words of several bytes start with the high byte.
    pub big_endian: bool,
    /// Whether the last component is alpha.
    pub alpha: bool,
    /// Chroma width is luma width divided by `2^log2_chroma_w`.
    pub log2_chroma_w: u8,
    /// Chroma height is luma height divided by `2^log2_chroma_h`.
    pub log2_chroma_h: u8,
    /// Number of planes.
    pub planes: u8,
    /// Y', Cb, Cr, A or R', G', B', A or Y', A; the first [`PixelFormat::component_count`] are in use.
    pub components: [Component; 4],
}

impl PixelFormat {
    /// Number of components, alpha included.
    pub fn component_count(&self) -> usize {
        self.color_count() + usize::from(self.alpha)
    }

    /// Number of components, alpha excluded.
    pub fn color_count(&self) -> usize {
        if self.family == Family::Gray { 1 } else { 3 }
    }

    /// Size in bytes of the word that holds a sample of component `index`.
    pub fn word_bytes(&self, index: usize) -> usize {
        match (self.float, self.components[index].is_byte()) {
            (true, _) => 4,
            (false, true) => 1,
            (false, false) => 2,
        }
    }

    /// Whether components can be written one by one: no byte belongs to two samples. Formats whose words hold several
    /// components (rgb565, x2rgb10) are read-only.
    pub fn writable(&self) -> bool {
        (0..self.planes).all(|plane| {
            let here = |&i: &usize| self.components[i].plane == plane;
            let inside: Vec<usize> = (0..self.component_count()).filter(here).collect();
            // The steps of a plane divide the longest one, after which the pattern repeats.
            let period = inside.iter().map(|&i| usize::from(self.components[i].step)).max().unwrap_or(0);
            let mut taken = vec![false; period];
            inside.iter().all(|&i| {
                let Component { step, offset, .. } = self.components[i];
                (usize::from(offset)..usize::from(offset) + period)
                    .step_by(usize::from(step))
                    .flat_map(|start| start..start + self.word_bytes(i))
                    .all(|byte| !std::mem::replace(&mut taken[byte % period], true))
            })
        })
    }

    /// Bit depth of a luma (or red) sample.
    pub fn depth(&self) -> u8 {
        self.components[0].depth
    }

    /// The kind of component `index`.
    pub fn signal(&self, index: usize) -> Signal {
        match (self.family, index) {
            (Family::Rgb, _) => Signal::Full,
            (_, 0) => Signal::Luma,
            (Family::Ycbcr, 1 | 2) => Signal::Chroma,
            _ => Signal::Full,
        }
    }

    /// Width and height of component `index` in a frame of this size.
    pub fn component_size(&self, index: usize, width: usize, height: usize) -> (usize, usize) {
        match self.signal(index) {
            Signal::Chroma => {
                (width.div_ceil(1 << self.log2_chroma_w), height.div_ceil(1 << self.log2_chroma_h))
            }
            _ => (width, height),
        }
    }
}

/// Size, pixel format and colour properties: fixed when an engine is opened.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FrameFormat {
    /// Width in luma samples.
    pub width: usize,
    /// Height in luma samples.
    pub height: usize,
    /// Layout of the samples.
    pub pixel_format: PixelFormat,
    /// Colour properties of the code values.
    pub color: ColorSpec,
}

impl FrameFormat {
    /// Width and height of component `index`.
    pub fn component_size(&self, index: usize) -> (usize, usize) {
        self.pixel_format.component_size(index, self.width, self.height)
    }

    /// Bytes of all samples.
    pub fn bytes(&self) -> usize {
        let planes = 0..usize::from(self.pixel_format.planes);
        planes.map(|plane| self.plane_size(plane)).map(|(row_len, rows)| row_len * rows).sum()
    }

    /// Bytes of a plane's row that hold samples, and the number of rows.
    pub fn plane_size(&self, plane: usize) -> (usize, usize) {
        let format = self.pixel_format;
        let inside =
            (0..format.component_count()).filter(|&i| usize::from(format.components[i].plane) == plane);
        inside.fold((0, 0), |(row_len, rows), i| {
            let (width, height) = self.component_size(i);
            let component = format.components[i];
            let last = usize::from(component.offset) + (width - 1) * usize::from(component.step);
            (row_len.max(last + format.word_bytes(i)), rows.max(height))
        })
    }

    /// Quantization of component `index`; the identity for floats.
    pub fn quantization(&self, index: usize) -> Quantization {
        if self.pixel_format.float {
            return Quantization { zero: 0.0, unit: 1.0 };
        }
        let depth = self.pixel_format.components[index].depth;
        Quantization::new(self.pixel_format.signal(index), self.color.range, depth)
    }
}

/// Duration of a tick, in seconds, as a fraction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeBase {
    /// Numerator, above 0.
    pub num: i32,
    /// Denominator, above 0.
    pub den: i32,
}

impl TimeBase {
    /// Converts `ticks` to seconds, for messages.
    pub fn seconds(self, ticks: i64) -> f64 {
        ticks as f64 * f64::from(self.num) / f64::from(self.den)
    }
}

/// The timestamp of a frame, passed through unchanged from demux to mux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timestamp {
    /// Index of the decoded frame, from 0.
    pub index: u64,
    /// Presentation time in ticks.
    pub pts: i64,
    /// Duration in ticks; 0 where unknown.
    pub duration: i64,
    /// Duration of a tick.
    pub time_base: TimeBase,
    /// What the frame was decoded from.
    pub origin: Origin,
}

/// What a frame was decoded from: a source that is read again gives the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// CRC-32 of the coded packet with the frame's timestamp; 0 where there is none.
    pub checksum: u32,
    /// Damaged places that the decoder found since the previous frame.
    pub damaged: u32,
}

impl Origin {
    /// Adds a packet: a filter may make one frame of several.
    pub(crate) fn add(&mut self, checksum: u32) {
        self.checksum = self.checksum.wrapping_mul(31).wrapping_add(checksum);
    }

    /// Adds what another frame was decoded from.
    pub(crate) fn add_origin(&mut self, other: Origin) {
        self.add(other.checksum);
        self.damaged += other.damaged;
    }
}

impl Default for Timestamp {
    fn default() -> Timestamp {
        let time_base = TimeBase { num: 1, den: 1 };
        Timestamp { index: 0, pts: 0, duration: 0, time_base, origin: Origin::default() }
    }
}

impl Timestamp {
    /// Presentation time in seconds, for messages.
    pub fn seconds(&self) -> f64 {
        self.time_base.seconds(self.pts)
    }
}

/// Side data passed through unchanged (captions, timecode, HDR metadata). Only `media` sets and reads it.
#[derive(Default)]
pub struct Props(pub Option<Box<dyn Any + Send>>);

/// Planes in host memory. Dropping it returns the buffer to its pool.
pub trait HostBuffer: Send {
    /// Bytes from one row of the plane to the next.
    fn linesize(&self, plane: usize) -> usize;
    /// The bytes of a plane; the last row may end with its last sample.
    fn plane(&self, plane: usize) -> &[u8];
    /// The bytes of a plane, for writing.
    fn plane_mut(&mut self, plane: usize) -> &mut [u8];
    /// Another read-only reference to the same samples: neither is written from then on.
    fn share(&self) -> Box<dyn HostBuffer>;
    /// Converts back to the concrete type, for `media`.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// One frame.
pub struct Frame {
    /// Size, pixel format and colour properties.
    pub format: FrameFormat,
    /// Timestamp.
    pub time: Timestamp,
    /// Side data.
    pub props: Props,
    /// The samples.
    pub buffer: Box<dyn HostBuffer>,
}

impl Frame {
    /// Allocates a frame of zeroed samples in plain memory.
    ///
    /// # Panics
    /// If there is no memory for it: [`try_new`](Frame::try_new) returns an error then.
    pub fn new(format: FrameFormat) -> Frame {
        Frame::try_new(format).expect("memory for a frame")
    }

    /// As [`new`](Frame::new); an error if there is no memory for it.
    pub fn try_new(format: FrameFormat) -> Result<Frame> {
        Ok(Frame {
            format,
            time: Timestamp::default(),
            props: Props::default(),
            buffer: Box::new(PlainBuffer::new(&format)?),
        })
    }

    /// Another read-only reference to the same samples, without timestamp and side data.
    pub fn share(&self) -> Frame {
        Frame {
            format: self.format,
            time: Timestamp::default(),
            props: Props::default(),
            buffer: self.buffer.share(),
        }
    }

    /// Whether no sample is transparent, as in a format without alpha.
    pub fn is_opaque(&self) -> bool {
        let format = &self.format.pixel_format;
        if !format.alpha {
            return true;
        }
        let index = format.component_count() - 1;
        let Component { plane, step, offset, shift, depth } = format.components[index];
        let (plane, bytes) = (usize::from(plane), format.word_bytes(index));
        let max = (1u32 << depth.min(16)) - 1;
        let is_full = |word: &[u8]| match (word, format.big_endian) {
            (&[byte], _) => u32::from(byte) >> shift & max == max,
            (&[high, low], true) | (&[low, high], false) => {
                u32::from(u16::from_be_bytes([high, low])) >> shift & max == max
            }
            (&[a, b, c, d], true) => f32::from_be_bytes([a, b, c, d]) >= 1.0,
            (&[a, b, c, d], false) => f32::from_le_bytes([a, b, c, d]) >= 1.0,
            _ => unreachable!("words have one, two or four bytes"),
        };
        let rows = self.buffer.plane(plane).chunks(self.buffer.linesize(plane)).take(self.format.height);
        let mut samples =
            rows.flat_map(|row| row[usize::from(offset)..].chunks(usize::from(step)).take(self.format.width));
        samples.all(|sample| is_full(&sample[..bytes]))
    }

    /// Whether both frames have equal samples; padding is ignored.
    pub fn has_samples_of(&self, other: &Frame) -> bool {
        let (mine, others) = (&self.buffer, &other.buffer);
        self.format == other.format
            && (0..usize::from(self.format.pixel_format.planes)).all(|plane| {
                let (row_len, rows) = self.format.plane_size(plane);
                let mine = mine.plane(plane).chunks(mine.linesize(plane));
                let others = others.plane(plane).chunks(others.linesize(plane));
                mine.zip(others).take(rows).all(|(mine, others)| mine[..row_len] == others[..row_len])
            })
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("format", &self.format)
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

/// [`HostBuffer`] in plain memory, without padding.
struct PlainBuffer {
    planes: Vec<(usize, Arc<Vec<u8>>)>,
}

impl PlainBuffer {
    fn new(frame_format: &FrameFormat) -> Result<PlainBuffer> {
        let FrameFormat { width, height, pixel_format: format, .. } = frame_format;
        let planes = (0..format.planes).map(|plane| {
            let inside = (0..format.component_count()).filter(|&i| format.components[i].plane == plane);
            let (linesize, rows) = inside.fold((0, 0), |(linesize, rows), i| {
                let (w, h) = format.component_size(i, *width, *height);
                (linesize.max(w * usize::from(format.components[i].step)), rows.max(h))
            });
            let mut plane = Vec::new();
            plane.try_reserve_exact(linesize * rows).map_err(|e| {
                let problem = format!("{width}x{height} {} does not fit into memory", format.name);
                let error = Error::new("frame", problem, "choose a smaller size");
                error.with_kind(ErrorKind::OutOfMemory).with_source(e)
            })?;
            plane.resize(linesize * rows, 0);
            Ok((linesize, Arc::new(plane)))
        });
        Ok(PlainBuffer { planes: planes.collect::<Result<_>>()? })
    }
}

impl HostBuffer for PlainBuffer {
    fn linesize(&self, plane: usize) -> usize {
        self.planes[plane].0
    }

    fn plane(&self, plane: usize) -> &[u8] {
        &self.planes[plane].1
    }

    fn plane_mut(&mut self, plane: usize) -> &mut [u8] {
        Arc::get_mut(&mut self.planes[plane].1).expect("a shared buffer is never written")
    }

    fn share(&self) -> Box<dyn HostBuffer> {
        Box::new(PlainBuffer { planes: self.planes.clone() })
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::format;

    #[test]
    fn formats_whose_samples_share_no_bytes_are_writable() {
        for name in ["gray", "yuv420p10le", "nv12", "p010le", "yuyv422", "uyvy422", "y210le", "ya8", "rgb24"]
            .into_iter()
            .chain(["rgb48be", "rgba", "rgb0", "gbrpf32le", "gbrap16be", "yuv410p"])
        {
            assert!(format(name).writable(), "{name}");
        }
        for name in ["rgb565le", "rgb565be", "x2rgb10le"] {
            assert!(!format(name).writable(), "{name}");
        }
    }
}
