//! What a whole number of 16 bits stands for: how many codes of a tensor are 1.0.
//!
//! A model in, codes out. They come from how large its tensors become on a frame of patterns, and leave room for four
//! times as much, since a pattern that fills a whole frame may resonate more. Beyond that values are clipped. Where
//! words are floats all codes are 1, and whatever is multiplied by them stays as it is.

use hasn_kernels::depthwise::norm_codes;

use crate::engine::reference::Reference;
use crate::model::{Model, Sizes};

/// Of the tensors of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockCodes {
    /// The trunk, before the channel attention's scale.
    pub(super) z: f32,
    pub(super) n: f32,
    pub(super) c1: f32,
    /// What `conv4` reads.
    pub(super) attention: f32,
    /// What `g` reads.
    pub(super) gated: f32,
    pub(super) g: f32,
    pub(super) u: f32,
    pub(super) t: f32,
}

/// Of all tensors.
#[derive(Debug)]
pub(super) struct Codes {
    pub(super) blocks: Vec<BlockCodes>,
    /// The trunk after the last block.
    pub(super) trunk: f32,
    /// What `conv_2` makes of it.
    pub(super) last: f32,
}

/// Codes of the largest value that the patterns make, a quarter of those there are.
const CODES: f32 = 8192.0;
/// Side of the frame of patterns, large enough for a block to see each of them.
const SIDE: usize = 32;

impl Codes {
    /// Where words are floats.
    pub(super) fn ones(sizes: &Sizes) -> Codes {
        let block =
            BlockCodes { z: 1.0, n: 1.0, c1: 1.0, attention: 1.0, gated: 1.0, g: 1.0, u: 1.0, t: 1.0 };
        Codes { blocks: vec![block; sizes.blocks], trunk: 1.0, last: 1.0 }
    }

    /// Sums and products are taken to be as large as their parts allow.
    pub(super) fn of(model: &Model) -> Codes {
        let x: Vec<f32> = (0..model.sizes.in_channels).flat_map(|_| patterns()).collect();
        let peaks = Reference::new(model.clone().into()).peaks(&x, (SIDE, SIDE));
        let codes = |peak: f32| CODES / peak.max(f32::MIN_POSITIVE * CODES);
        let blocks = (1..=model.sizes.blocks).map(|block| {
            let of = |name: &str| peaks[&format!("block_{block}.{name}")];
            let (entered, before) = match block {
                1 => (peaks["conv_1"], peaks["conv_1"]),
                _ => {
                    (peaks[&format!("block_{}.cab.cab.2", block - 1)], peaks[&format!("block_{}", block - 1)])
                }
            };
            BlockCodes {
                z: codes(entered),
                n: norm_codes(model.sizes.dim),
                c1: codes(of("esa.conv1")),
                attention: codes(of("esa.conv3") + of("esa.conv_f")),
                gated: codes(of("f1").min(6.0) * of("f2") + of("f3")),
                g: codes(of("g")),
                u: codes(before + of("dwconv2")),
                t: codes(of("cab.cab.1")),
            }
        });
        let trunk = codes(peaks[&format!("block_{}", model.sizes.blocks)]);
        Codes { blocks: blocks.collect(), trunk, last: codes(peaks["conv_2"]) }
    }
}

/// Chequers, columns, rows and noise, all from black to white: [`SIDE`, `SIDE`].
fn patterns() -> impl Iterator<Item = f32> {
    (0..SIDE * SIDE).map(|i| {
        let (x, y) = (i % SIDE, i / SIDE);
        // The finaliser of MurmurHash3, a bit of which is as good as chance.
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
