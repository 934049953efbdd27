//! A network on the device: the launches that make planes into larger planes.
//!
//! In: planes of f32 in device memory. Out: the same, larger. Maps lie in scratch that all networks share.

use super::device::Device;
use super::kernels::Launcher;
use super::maps::{Maps, Part};
use super::weights::Weights;
use crate::error::Result;

/// Four passes a block: norm, ESA's grid, gate, cab. The channel attention of a block is no pass: whoever reads
/// the trunk next multiplies by it.
pub(super) fn run<D: Device>(
    launcher: &Launcher<'_, D>,
    weights: &Weights,
    maps: Maps,
    (x, out): (Part, Part),
) -> Result<()> {
    let size = weights.size;
    let mut maps = maps;
    launcher.enter(size, x, &maps, weights.conv_1, weights.in_channels)?;
    let mut scale = weights.ones;
    for block in &weights.blocks {
        launcher.norm(size, &maps, scale, block, weights.dim)?;
        launcher.esa(size, &maps, block)?;
        launcher.gate(size, &maps, block)?;
        launcher.cab(size, &maps, scale, block)?;
        scale = maps.scale;
        maps = maps.turned();
    }
    launcher.leave(size, &maps, &weights.tail, (x, out), (scale, weights.ones))
}
