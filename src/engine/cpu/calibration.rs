//! Calibration of the int16 precision: the quantization factor of each tensor, in int16 values per 1.0.
//!
//! In: a model. Out: factors. They are measured on a frame of patterns and leave headroom for four times the largest
//! value, since a pattern that fills the frame may resonate more. Larger values are clipped. In float precisions all
//! factors are 1 and change nothing.

use hasn_kernels::depthwise::norm_factor;

use crate::engine::reference::Reference;
use crate::model::{Model, Sizes};

/// Factors of the tensors of one block, and a peak.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockFactors {
    /// The trunk, before the channel attention's scale.
    pub(super) z: f32,
    pub(super) n: f32,
    pub(super) c1: f32,
    /// The input of `conv4`.
    pub(super) attention: f32,
    /// The input of `g`.
    pub(super) gated: f32,
    pub(super) g: f32,
    pub(super) u: f32,
    pub(super) t: f32,
    /// The peak of the output of `cab.0`.
    pub(super) cab_0: f32,
}

/// Factors of all tensors.
#[derive(Debug)]
pub(super) struct Calibration {
    pub(super) blocks: Vec<BlockFactors>,
    /// The trunk after the last block.
    pub(super) trunk: f32,
    /// The output of `conv_2`.
    pub(super) last: f32,
    /// The peak of the frame.
    pub(super) output: f32,
}

/// The int16 value of a tensor's largest value on the frame of patterns, a quarter of the range.
const PEAK: f32 = 8192.0;
/// Side of the frame of patterns, large enough for each pattern to fill a block's receptive field.
const SIDE: usize = 32;

impl Calibration {
    /// The factors of the float precisions.
    pub(super) fn ones(sizes: &Sizes) -> Calibration {
        let block = BlockFactors {
            z: 1.0,
            n: 1.0,
            c1: 1.0,
            attention: 1.0,
            gated: 1.0,
            g: 1.0,
            u: 1.0,
            t: 1.0,
            cab_0: 1.0,
        };
        Calibration { blocks: vec![block; sizes.blocks], trunk: 1.0, last: 1.0, output: 1.0 }
    }

    /// Measures the factors of a model. For sums and products the bound from their operands' peaks is used.
    pub(super) fn of(model: &Model) -> Calibration {
        let x: Vec<f32> = (0..model.sizes.in_channels).flat_map(|_| patterns()).collect();
        let peaks = Reference::new(model.clone().into()).peaks(&x, (SIDE, SIDE));
        let factor = |peak: f32| PEAK / peak.max(f32::MIN_POSITIVE * PEAK);
        let blocks = (1..=model.sizes.blocks).map(|block| {
            let of = |name: &str| peaks[&format!("block_{block}.{name}")];
            let (entered, before) = match block {
                1 => (peaks["conv_1"], peaks["conv_1"]),
                _ => {
                    (peaks[&format!("block_{}.cab.cab.2", block - 1)], peaks[&format!("block_{}", block - 1)])
                }
            };
            BlockFactors {
                z: factor(entered),
                n: norm_factor(model.sizes.dim),
                c1: factor(of("esa.conv1")),
                attention: factor(of("esa.conv3") + of("esa.conv_f")),
                gated: factor(of("f1").min(6.0) * of("f2") + of("f3")),
                g: factor(of("g")),
                u: factor(before + of("dwconv2")),
                t: factor(of("cab.cab.1")),
                cab_0: of("cab.cab.0"),
            }
        });
        let trunk = factor(peaks[&format!("block_{}", model.sizes.blocks)]);
        Calibration {
            blocks: blocks.collect(),
            trunk,
            last: factor(peaks["conv_2"]),
            output: peaks["upsampler.0"],
        }
    }
}

/// Chequers, columns, rows and noise, all of black and white: [`SIDE`, `SIDE`].
fn patterns() -> impl Iterator<Item = f32> {
    (0..SIDE * SIDE).map(|i| {
        let (x, y) = (i % SIDE, i / SIDE);
        // The finaliser of MurmurHash3, whose bits are pseudo-random.
        let mixed = (i as u32 ^ 0x9e37_79b9).wrapping_mul(0x85eb_ca6b);
        let noise = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35) as usize >> 16;
        let bit = match (y < SIDE / 2, x < SIDE / 2) {
            (true, true) => x + y,
            (true, false) => x,
            (false, true) => y,
            (false, false) => noise,
        };
        (bit % 2) as f32
    })
}
