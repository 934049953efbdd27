//! Tensors in scratch: rings of rows.

/// Floats between rows that are read together: rows are multiples of a page or of half a page at many widths, and would
/// compete for the same lines of the L1 cache.
const GAP: usize = 5 * 16;

/// A tensor whose row `y` is stored at index `y` modulo `rows`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    /// Rows in memory.
    pub(super) rows: usize,
    /// Length of a row in floats.
    pub(super) row_len: usize,
    /// Floats from one row to the next.
    pitch: usize,
}

impl Ring {
    /// Rows with a gap between them.
    pub(super) fn new(rows: usize, row_len: usize) -> Ring {
        Ring { rows, row_len, pitch: row_len + GAP }
    }

    /// Rows without gaps.
    pub(super) fn dense(rows: usize, row_len: usize) -> Ring {
        Ring { rows, row_len, pitch: row_len }
    }

    pub(super) fn len(self) -> usize {
        self.rows * self.pitch
    }

    /// The rows in its memory.
    pub(super) fn each_row(self, memory: &mut [f32]) -> impl Iterator<Item = &mut [f32]> {
        memory.chunks_exact_mut(self.pitch).map(move |row| &mut row[..self.row_len])
    }
}

/// A ring in memory that tasks on several threads share.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    start: *mut f32,
    ring: Ring,
}

// SAFETY: it is only an address; the callers of its unsafe functions guarantee exclusive access.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Wraps `memory`, which is accessed only through the ring for as long as its borrow lasts.
    pub(super) fn new(memory: &mut [f32], ring: Ring) -> Shared {
        assert!(memory.len() >= ring.len());
        Shared { start: memory.as_mut_ptr(), ring }
    }

    /// # Safety
    /// The memory is still borrowed, and nothing writes the row meanwhile.
    #[inline(always)]
    pub(super) unsafe fn row<'a>(self, y: usize) -> &'a [f32] {
        // SAFETY: the row is inside the memory, and the caller guarantees the rest.
        unsafe {
            std::slice::from_raw_parts(
                self.start.add(y % self.ring.rows * self.ring.pitch),
                self.ring.row_len,
            )
        }
    }

    /// # Safety
    /// The memory is still borrowed, and nothing else reads or writes the row meanwhile.
    #[inline(always)]
    pub(super) unsafe fn row_mut<'a>(self, y: usize) -> &'a mut [f32] {
        // SAFETY: the row is inside the memory, and the caller guarantees the rest.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.start.add(y % self.ring.rows * self.ring.pitch),
                self.ring.row_len,
            )
        }
    }
}
