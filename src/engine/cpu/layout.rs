//! Maps in scratch: [rows, channels, columns], with zeros round every row of every channel.

use rayon::prelude::*;

use super::simd::PIXELS_MAX;

/// Zeros left and right of a row: as far as the depthwise taps reach, rounded up to a cache line so that
/// vectors stay aligned.
pub(super) const MARGIN: usize = 16;
/// Rows of zeros above a map.
pub(super) const ROWS_ABOVE: usize = 3;
/// Rows of zeros below a map: the depthwise loop makes four rows at a time, the last of which may not exist.
pub(super) const ROWS_BELOW: usize = 6;

const _: () = assert!(MARGIN >= 3 && ROWS_ABOVE == 3 && ROWS_BELOW == ROWS_ABOVE + 3);

/// A row of one channel: what all maps of a picture have in common.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// Of the picture.
    pub(super) width: usize,
    /// Floats from one channel to the next.
    pub(super) stride: usize,
}

impl Span {
    pub(super) fn new(width: usize) -> Span {
        Span { width, stride: 2 * MARGIN + width.next_multiple_of(PIXELS_MAX) }
    }

    /// Vectors leave something beyond the last pixel; it becomes zero again. `row`: [channels, stride].
    #[inline(always)]
    pub(super) fn clear_tail(self, row: &mut [f32]) {
        for channel in row.chunks_exact_mut(self.stride) {
            channel[MARGIN + self.width..].fill(0.0);
        }
    }
}

/// The shape of one map.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) span: Span,
    pub(super) height: usize,
    /// Floats from one row to the next.
    pub(super) row: usize,
}

impl Layout {
    /// Channels come in groups of four.
    pub(super) fn new(channels: usize, height: usize, width: usize) -> Layout {
        let span = Span::new(width);
        Layout { span, height, row: channels.next_multiple_of(4) * span.stride }
    }

    /// Floats of the map with its margins.
    pub(super) fn len(&self) -> usize {
        (ROWS_ABOVE + self.height + ROWS_BELOW) * self.row
    }

    /// The rows of the picture.
    pub(super) fn rows<'a>(&self, map: &'a mut [f32]) -> &'a mut [f32] {
        &mut map[ROWS_ABOVE * self.row..][..self.height * self.row]
    }

    /// The map from row `y` - `above` on.
    pub(super) fn from<'a>(&self, map: &'a [f32], y: usize, above: usize) -> &'a [f32] {
        &map[(ROWS_ABOVE + y - above) * self.row..]
    }

    /// Zeros all margins, for scratch may hold anything.
    pub(super) fn clear_margins(&self, map: &mut [f32]) {
        map[..ROWS_ABOVE * self.row].fill(0.0);
        map[(ROWS_ABOVE + self.height) * self.row..].fill(0.0);
        let span = self.span;
        self.rows(map).par_chunks_mut(self.row).for_each(|row| {
            for channel in row.chunks_exact_mut(span.stride) {
                channel[..MARGIN].fill(0.0);
            }
            span.clear_tail(row);
        });
    }

    /// Where the taps of a 1x1 map lie from a pixel in the first of `inputs` channels.
    pub(super) fn taps_1x1(&self, inputs: usize) -> Vec<usize> {
        (0..inputs).map(|i| i * self.span.stride).collect()
    }

    /// Where the taps of a 3x3 map lie, in the order [inputs, 3, 3], from the upper left neighbour.
    pub(super) fn taps_3x3(&self, inputs: usize) -> Vec<usize> {
        let tap = |k: usize| k / 9 * self.span.stride + k / 3 % 3 * self.row + k % 3;
        (0..9 * inputs).map(tap).collect()
    }
}
