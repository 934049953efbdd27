//! What every network of an engine on the host does: planes of f32 in, larger planes out, scratch lent.

/// ESA's pool needs 7 pixels after a step of 2 without padding, which takes 15.
pub const SIDE_MIN: usize = 15;

/// A network, ready to run on the host on frames of one size.
pub trait Forward: Send {
    /// Floats of scratch that [`Forward::forward`] needs.
    fn scratch_len(&self) -> usize;

    /// `x`: [in, H, W], `y`: [in, sH, sW], planar and dense. `scratch` may hold anything, NaN too, and at least
    /// `scratch_len` floats: several networks share the largest one.
    fn forward(&mut self, x: &[f32], y: &mut [f32], scratch: &mut [f32]);
}
