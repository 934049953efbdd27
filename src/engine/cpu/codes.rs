//! What a whole number of 16 bits stands for: how many codes are 1.0, for each channel of each tensor in words.
//!
//! A model in, codes out. They come from how large its tensors become on a picture that no film exceeds, and leave
//! room beyond that. Where words are floats all codes are 1, and whatever is multiplied by them stays as it is.

use crate::engine::forward::SIDE_MIN;
use crate::engine::reference::Reference;
use crate::model::{Model, Sizes};

/// Of the tensors of one block, by channel.
#[derive(Clone, Debug)]
pub(super) struct BlockCodes {
    /// The trunk, before the channel attention's scale.
    pub(super) z: Vec<f32>,
    pub(super) n: Vec<f32>,
    pub(super) c1: Vec<f32>,
    /// What `conv4` reads.
    pub(super) attention: Vec<f32>,
    /// What `g` reads.
    pub(super) gated: Vec<f32>,
    pub(super) g: Vec<f32>,
    pub(super) u: Vec<f32>,
    pub(super) t: Vec<f32>,
}

/// Of all tensors.
#[derive(Debug)]
pub(super) struct Codes {
    pub(super) blocks: Vec<BlockCodes>,
    /// The trunk after the last block.
    pub(super) trunk: Vec<f32>,
    /// What `conv_2` makes of it.
    pub(super) last: Vec<f32>,
}

/// Codes of the largest value that is expected, a quarter of those there are: beyond them values are clipped.
const CODES: f32 = 8192.0;
/// Side of the picture that the tensors are measured on.
const SIDE: usize = 2 * SIDE_MIN;

impl Codes {
    pub(super) fn ones(sizes: &Sizes) -> Codes {
        let ones = |channels: usize| vec![1.0; channels];
        let block = BlockCodes {
            z: ones(sizes.dim),
            n: ones(sizes.dim),
            c1: ones(sizes.esa_channels),
            attention: ones(sizes.esa_channels),
            gated: ones(sizes.mlp_channels),
            g: ones(sizes.dim),
            u: ones(sizes.dim),
            t: ones(sizes.cab_channels),
        };
        Codes { blocks: vec![block; sizes.blocks], trunk: ones(sizes.dim), last: ones(sizes.dim) }
    }

    /// Sums and products are taken to be as large as their parts allow.
    pub(super) fn of(model: &Model) -> Codes {
        let x: Vec<f32> = (0..model.sizes.in_channels).flat_map(|_| restless()).collect();
        let peaks = Reference::new(model.clone().into()).peaks(&x, (SIDE, SIDE));
        let blocks = (1..=model.sizes.blocks).map(|block| {
            let of = |name: &str| &*peaks[&format!("block_{block}.{name}")];
            let (entered, before) = match block {
                1 => (&peaks["conv_1"], &peaks["conv_1"]),
                _ => (
                    &peaks[&format!("block_{}.cab.cab.2", block - 1)],
                    &peaks[&format!("block_{}", block - 1)],
                ),
            };
            let gated = of("f1").iter().zip(of("f2")).zip(of("f3"));
            BlockCodes {
                z: codes(entered.iter().copied()),
                n: vec![norm_codes(model.sizes.dim); model.sizes.dim],
                c1: codes(of("esa.conv1").iter().copied()),
                attention: codes(
                    of("esa.conv3").iter().zip(of("esa.conv_f")).map(|(grid, fine)| grid + fine),
                ),
                gated: codes(gated.map(|((f1, f2), f3)| f1.min(6.0) * f2 + f3)),
                g: codes(of("g").iter().copied()),
                u: codes(before.iter().zip(of("dwconv2")).map(|(skip, own)| skip + own)),
                t: codes(of("cab.cab.1").iter().copied()),
            }
        });
        let trunk = codes(peaks[&format!("block_{}", model.sizes.blocks)].iter().copied());
        Codes { blocks: blocks.collect(), trunk, last: codes(peaks["conv_2"].iter().copied()) }
    }
}

/// Of the normalised tensor: no value among C of mean 0 and variance 1 is beyond √(C - 1).
#[inline(always)]
pub(super) fn norm_codes(channels: usize) -> f32 {
    f32::from(i16::MAX) / (channels as f32).sqrt()
}

/// A channel that is 0 throughout may be so in any codes.
fn codes(peaks: impl Iterator<Item = f32>) -> Vec<f32> {
    peaks.map(|peak| CODES / peak.max(f32::MIN_POSITIVE * CODES)).collect()
}

/// A picture of noise from black to white, finest below, with a plain part: its tensors are larger than those of any
/// film. [`SIDE`, `SIDE`].
fn restless() -> impl Iterator<Item = f32> {
    (0..SIDE * SIDE).map(|i| {
        let (x, y) = (i % SIDE, i / SIDE);
        let coarseness = 1 + 3 * (SIDE - 1 - y) / SIDE;
        let cell = (x / coarseness * 0x9e37 + y / coarseness * 0x85eb) as u32;
        // The finaliser of MurmurHash3, a bit of which is as good as chance.
        let mixed = (cell ^ cell >> 16).wrapping_mul(0x85eb_ca6b);
        let mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
        if x < SIDE / 4 { 1.0 } else { (mixed >> 31) as f32 }
    })
}
