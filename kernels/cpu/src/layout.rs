//! The layout of rows: [channels or words, columns] with zeros left and right.

use super::simd::{PIXELS_MAX, REACH, Simd};

/// Zeros left and right of a row: the reach of a vector's neighbours, which also keeps vectors on cache lines.
pub const MARGIN: usize = REACH;

const _: () = assert!(MARGIN.is_multiple_of(16) && PIXELS_MAX.is_multiple_of(MARGIN));

/// The columns of one channel.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Width of the frame.
    pub width: usize,
    /// Floats from one channel to the next.
    pub stride: usize,
}

impl Span {
    /// Adds margins and rounds up to full vectors of any level.
    pub fn new(width: usize) -> Span {
        Span { width, stride: 2 * MARGIN + width.next_multiple_of(PIXELS_MAX) }
    }

    /// The column at which wide vectors end and others begin.
    #[inline(always)]
    pub(crate) fn wide_until<S: Simd>(self) -> usize {
        if <S::Wide>::PIXELS == S::PIXELS { 0 } else { self.width - self.width % <S::Wide>::PIXELS }
    }

    /// Clears what vectors wrote beyond the last pixel. `row`: [channels, stride].
    #[inline(always)]
    pub fn clear_tail(self, row: &mut [f32]) {
        if self.width.is_multiple_of(PIXELS_MAX) {
            return;
        }
        for channel in row.chunks_exact_mut(self.stride) {
            channel[MARGIN + self.width..].fill(0.0);
        }
    }

    /// Clears everything but the pixels.
    pub fn clear_margins(self, row: &mut [f32]) {
        for channel in row.chunks_exact_mut(self.stride) {
            channel[..MARGIN].fill(0.0);
            channel[MARGIN + self.width..].fill(0.0);
        }
    }
}
