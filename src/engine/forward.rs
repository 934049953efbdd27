//! What the host engine asks of a network.
//!
//! In: dense planes of numbers. Out: the same planes, `scale` times larger. A network knows nothing of
//! pictures, formats and colour, and keeps no memory of its own that grows with the picture.

/// A network ready to run on the host.
pub(crate) trait Forward: Send + Sync {
    /// Numbers of scratch that a picture of this size needs.
    fn scratch_len(&self, height: usize, width: usize) -> usize;

    /// `x: [in, H, W]` f32, planar, to `y: [in, scale*H, scale*W]`. `scratch` is at least
    /// [`Forward::scratch_len`] long and holds anything on entry.
    fn forward(&self, x: &[f32], y: &mut [f32], height: usize, width: usize, scratch: &mut [f32]);
}
