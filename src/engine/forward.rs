//! A network on the host: LR planes of f32 in, SR planes out, in scratch memory that the caller provides.

/// The smallest width and height of a frame: ESA's pool needs 7 pixels after a stride of 2 without padding.
pub(crate) const SIDE_MIN: usize = 15;

/// Where a network has its trunk, which all channels of a frame make the largest tensor by far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trunk {
    /// In scratch, completely.
    Kept,
    /// Nowhere: the rows in use are computed again for each mean over the frame, in a fraction of the memory and several
    /// times as long. The result is the same, bit for bit.
    Recomputed,
}

/// Opens the passes of a network, which share its weights.
pub(crate) trait OpenPass {
    /// Returns the memory that a pass for frames of (width, height) takes on this many threads, in floats: its scratch and
    /// what it allocates itself. `None` where the network has no such trunk.
    fn memory_len(&self, size: (usize, usize), threads: usize, trunk: Trunk) -> Option<usize>;

    /// Opens a pass; `trunk` is one with a [`memory_len`](OpenPass::memory_len).
    fn open(&self, size: (usize, usize), threads: usize, trunk: Trunk) -> Box<dyn Forward>;
}

/// A network, ready to run on the host on frames of one size.
pub(crate) trait Forward: Send {
    /// The scratch that [`Forward::forward`] needs, in floats.
    fn scratch_len(&self) -> usize;

    /// Upscales `x`: [in, H, W] to `y`: [in, sH, sW], planar and dense. `scratch` has at least `scratch_len` floats of
    /// any value, NaN included: several networks share the largest one.
    fn forward(&mut self, x: &[f32], y: &mut [f32], scratch: &mut [f32]);
}
