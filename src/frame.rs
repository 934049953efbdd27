//! A frame: planes of samples, what they mean, when they are shown, and who owns the memory.
//!
//! Everything that flows between stages is one of these. A decoded frame is borrowed as a frame and a
//! frame to be filled comes from the encoder's pool, so that no stage copies samples in or out. It
//! knows neither FFmpeg nor CUDA: they implement [`HostBuffer`] or hand in addresses.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::color::{ColorSpec, Quantization, Signal};

/// What the components of a format are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Y'.
    Gray,
    /// Y', Cb, Cr.
    Ycbcr,
    /// R', G', B'.
    Rgb,
}

/// Where the samples of one component lie in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Component {
    /// Index of its plane.
    pub plane: u8,
    /// Bytes from one sample to the next in a row.
    pub step: u8,
    /// Bytes before the first sample of a row. A sample read as one byte is addressed as that byte, also
    /// where it is a part of a big-endian word.
    pub offset: u8,
    /// Bits below the sample in its word (6 in P010).
    pub shift: u8,
    /// Bits of the sample.
    pub depth: u8,
}

impl Component {
    /// Whether a sample is read as one byte; else it is a word of two (four where the format is float).
    pub fn is_byte(&self) -> bool {
        self.shift + self.depth <= 8
    }
}

/// A sample format: planar, semi-planar or packed, 1 to 16 bits or float.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PixelFormat {
    /// FFmpeg's name.
    pub name: &'static str,
    /// What the components are.
    pub family: Family,
    /// Samples are 32-bit floats.
    pub float: bool,
    /// Words of several bytes have the high byte first.
    pub big_endian: bool,
    /// Whether the last component is alpha.
    pub alpha: bool,
    /// Chroma is `2^log2_chroma_w` times narrower than luma.
    pub log2_chroma_w: u8,
    /// Chroma is `2^log2_chroma_h` times lower than luma.
    pub log2_chroma_h: u8,
    /// How many planes there are.
    pub planes: u8,
    /// Y', Cb, Cr, A or R', G', B', A or Y', A: the first [`PixelFormat::component_count`] count.
    pub components: [Component; 4],
}

impl PixelFormat {
    /// Components in use, alpha included.
    pub fn component_count(&self) -> usize {
        self.color_count() + usize::from(self.alpha)
    }

    /// Components in use, alpha left out.
    pub fn color_count(&self) -> usize {
        if self.family == Family::Gray { 1 } else { 3 }
    }

    /// Bytes of the word that a sample of component `index` is read from.
    pub fn word_bytes(&self, index: usize) -> usize {
        match (self.float, self.components[index].is_byte()) {
            (true, _) => 4,
            (false, true) => 1,
            (false, false) => 2,
        }
    }

    /// Whether components can be written one by one: no byte belongs to two samples. Words that hold
    /// several components (rgb565, x2rgb10) can be read only.
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

    /// Bits of a luma (or red) sample.
    pub fn depth(&self) -> u8 {
        self.components[0].depth
    }

    /// What component `index` holds.
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

/// Size, format and meaning: all that is fixed when an engine is opened.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FrameFormat {
    /// Luma samples in a row.
    pub width: usize,
    /// Rows of luma.
    pub height: usize,
    /// Of the samples.
    pub pixel_format: PixelFormat,
    /// Of the code values.
    pub color: ColorSpec,
}

impl FrameFormat {
    /// Width and height of component `index`.
    pub fn component_size(&self, index: usize) -> (usize, usize) {
        self.pixel_format.component_size(index, self.width, self.height)
    }

    /// Bytes of a row of the plane that samples lie in, and how many rows there are.
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

    /// What the code values of component `index` mean as numbers. Floats are those numbers.
    pub fn quantization(&self, index: usize) -> Quantization {
        if self.pixel_format.float {
            return Quantization { zero: 0.0, unit: 1.0 };
        }
        let depth = self.pixel_format.components[index].depth;
        Quantization::new(self.pixel_format.signal(index), self.color.range, depth)
    }
}

/// A fraction of seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeBase {
    /// Numerator, above 0.
    pub num: i32,
    /// Denominator, above 0.
    pub den: i32,
}

impl TimeBase {
    /// `ticks` in seconds, for people.
    pub fn seconds(self, ticks: i64) -> f64 {
        ticks as f64 * f64::from(self.num) / f64::from(self.den)
    }
}

/// When a frame is shown: its source's own numbers, untouched from demux to mux.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timestamp {
    /// Counts decoded frames from 0.
    pub index: u64,
    /// Presentation time in ticks.
    pub pts: i64,
    /// In ticks; 0 where nobody knows.
    pub duration: i64,
    /// Of a tick.
    pub time_base: TimeBase,
}

impl Default for Timestamp {
    fn default() -> Timestamp {
        Timestamp { index: 0, pts: 0, duration: 0, time_base: TimeBase { num: 1, den: 1 } }
    }
}

impl Timestamp {
    /// Presentation time in seconds, for people.
    pub fn seconds(&self) -> f64 {
        self.time_base.seconds(self.pts)
    }
}

/// What travels along untouched (captions, timecode, HDR metadata): put in and taken out by media only.
#[derive(Default)]
pub struct Props(pub Option<Box<dyn Any + Send>>);

/// Planes in host memory. Its drop gives the buffer back to its pool.
pub trait HostBuffer: Send {
    /// Bytes from one row of the plane to the next.
    fn linesize(&self, plane: usize) -> usize;
    /// The rows of a plane; the last one may end with its last sample.
    fn plane(&self, plane: usize) -> &[u8];
    /// The same, to be written.
    fn plane_mut(&mut self, plane: usize) -> &mut [u8];
    /// The same samples once more, to be read: from now on neither is written.
    fn share(&self) -> Box<dyn HostBuffer>;
    /// For media to take its own buffer back.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// One frame.
pub struct Frame {
    /// Size, format and meaning.
    pub format: FrameFormat,
    /// When it is shown.
    pub time: Timestamp,
    /// What travels along.
    pub props: Props,
    /// The samples.
    pub buffer: Box<dyn HostBuffer>,
}

impl Frame {
    /// A frame of zeroed samples in plain memory, for users of the library and for tests.
    pub fn new(format: FrameFormat) -> Frame {
        Frame {
            format,
            time: Timestamp::default(),
            props: Props::default(),
            buffer: Box::new(PlainBuffer::new(&format)),
        }
    }

    /// The same samples once more, to be read, without time and props.
    pub fn share(&self) -> Frame {
        Frame {
            format: self.format,
            time: Timestamp::default(),
            props: Props::default(),
            buffer: self.buffer.share(),
        }
    }

    /// Whether both have the same samples, whatever lies between their rows.
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
            .field("geometry", &self.format)
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

/// [`HostBuffer`] of plain memory, rows without gaps.
struct PlainBuffer {
    planes: Vec<(usize, Arc<Vec<u8>>)>,
}

impl PlainBuffer {
    fn new(frame_format: &FrameFormat) -> PlainBuffer {
        let FrameFormat { width, height, pixel_format: format, .. } = frame_format;
        let planes = (0..format.planes).map(|plane| {
            let inside = (0..format.component_count()).filter(|&i| format.components[i].plane == plane);
            let (linesize, rows) = inside.fold((0, 0), |(linesize, rows), i| {
                let (w, h) = format.component_size(i, *width, *height);
                (linesize.max(w * usize::from(format.components[i].step)), rows.max(h))
            });
            (linesize, Arc::new(vec![0; linesize * rows]))
        });
        PlainBuffer { planes: planes.collect() }
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
        Arc::get_mut(&mut self.planes[plane].1).expect("what is shared is not written")
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
    fn only_formats_whose_samples_own_their_bytes_are_writable() {
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
