//! Rows of maps: [channels or words, columns] with zeros left and right.

use super::simd::{PIXELS_MAX, REACH};

/// Zeros left and right of a row: as far as a vector's neighbours, which keeps vectors on cache lines too.
pub const MARGIN: usize = REACH;

const _: () = assert!(MARGIN.is_multiple_of(16) && PIXELS_MAX.is_multiple_of(MARGIN));

/// A row of one channel.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Of the frame.
    pub width: usize,
    /// Floats from one channel to the next.
    pub stride: usize,
}

impl Span {
    /// With its margins, and whole vectors of any level.
    pub fn new(width: usize) -> Span {
        Span { width, stride: 2 * MARGIN + width.next_multiple_of(PIXELS_MAX) }
    }

    /// Vectors leave something beyond the last pixel, where they do not fit; it becomes zero again. `row`:
    /// [channels, stride].
    #[inline(always)]
    pub fn clear_tail(self, row: &mut [f32]) {
        if self.width.is_multiple_of(PIXELS_MAX) {
            return;
        }
        for channel in row.chunks_exact_mut(self.stride) {
            channel[MARGIN + self.width..].fill(0.0);
        }
    }

    /// All but the pixels becomes zero.
    pub fn clear_margins(self, row: &mut [f32]) {
        for channel in row.chunks_exact_mut(self.stride) {
            channel[..MARGIN].fill(0.0);
            channel[MARGIN + self.width..].fill(0.0);
        }
    }
}
