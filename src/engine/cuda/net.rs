//! A network on the device, as launches.
//!
//! In: LR planes of f32 in device memory. Out: SR planes. Maps are in scratch memory that all networks share.

use super::device::Device;
use super::kernels::Launcher;
use super::maps::{Maps, Part};
use super::weights::Weights;
use crate::error::Result;

/// Launches four passes per block: norm, ESA's grid, gate, cab. The channel attention of a block is not a pass: the next
/// reader of the trunk multiplies by it.
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
        maps = maps.swapped();
    }
    launcher.leave(size, &maps, &weights.tail, (x, out), (scale, weights.ones))
}
