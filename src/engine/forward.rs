//! A network on the host: LR planes of f32 in, SR planes out, in scratch memory that the caller provides.

/// The smallest width and height of a frame: ESA's pool needs 7 pixels after a stride of 2 without padding.
pub(crate) const SIDE_MIN: usize = 15;

/// A network, ready to run on the host on frames of one size.
pub(crate) trait Forward: Send {
    /// The scratch that [`Forward::forward`] needs, in floats.
    fn scratch_len(&self) -> usize;

    /// Upscales `x`: [in, H, W] to `y`: [in, sH, sW], planar and dense. `scratch` has at least `scratch_len` floats of
    /// any value, NaN included: several networks share the largest one.
    fn forward(&mut self, x: &[f32], y: &mut [f32], scratch: &mut [f32]);
}
