//! Tensors in scratch: rings of rows.

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
