//! Tensors in scratch: rings of rows, a row being [channels or words, columns] with zeros left and right.

use super::simd::{PIXELS_MAX, REACH};

/// Zeros left and right of a row: as far as a vector's neighbours, which keeps vectors on cache lines too.
pub(super) const MARGIN: usize = REACH;

const _: () = assert!(MARGIN.is_multiple_of(16) && PIXELS_MAX.is_multiple_of(MARGIN));

/// A row of one channel.
#[derive(Clone, Copy, Debug)]
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

    /// Vectors leave something beyond the last pixel, where they do not fit; it becomes zero again. `row`:
    /// [channels, stride].
    #[inline(always)]
    pub(super) fn clear_tail(self, row: &mut [f32]) {
        if self.width.is_multiple_of(PIXELS_MAX) {
            return;
        }
        for channel in row.chunks_exact_mut(self.stride) {
            channel[MARGIN + self.width..].fill(0.0);
        }
    }

    /// All but the pixels becomes zero.
    pub(super) fn clear_margins(self, row: &mut [f32]) {
        for channel in row.chunks_exact_mut(self.stride) {
            channel[..MARGIN].fill(0.0);
            channel[MARGIN + self.width..].fill(0.0);
        }
    }
}

/// A tensor whose row `y` is kept in place `y` modulo `rows`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    /// Kept at a time.
    pub(super) rows: usize,
    /// Floats of a row.
    pub(super) row_len: usize,
}

impl Ring {
    pub(super) fn len(self) -> usize {
        self.rows * self.row_len
    }
}

/// A ring in memory that tasks on several threads share.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    start: *mut f32,
    ring: Ring,
}

// SAFETY: it is only a place; what is done there is up to the callers of its unsafe functions.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// All access to `memory` goes through the ring from now on, for as long as the borrow that made it lasts.
    pub(super) fn new(memory: &mut [f32], ring: Ring) -> Shared {
        assert!(memory.len() >= ring.len());
        Shared { start: memory.as_mut_ptr(), ring }
    }

    /// # Safety
    /// The memory is still borrowed, and nothing writes the row meanwhile.
    #[inline(always)]
    pub(super) unsafe fn row<'a>(self, y: usize) -> &'a [f32] {
        // SAFETY: the row is inside the memory, and the caller answers for the rest.
        unsafe {
            std::slice::from_raw_parts(
                self.start.add(y % self.ring.rows * self.ring.row_len),
                self.ring.row_len,
            )
        }
    }

    /// # Safety
    /// The memory is still borrowed, and nothing else reads or writes the row meanwhile.
    #[inline(always)]
    pub(super) unsafe fn row_mut<'a>(self, y: usize) -> &'a mut [f32] {
        // SAFETY: the row is inside the memory, and the caller answers for the rest.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.start.add(y % self.ring.rows * self.ring.row_len),
                self.ring.row_len,
            )
        }
    }
}
