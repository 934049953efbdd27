//! The end of the network as one conv: `upsampler` after `conv_2`, and the long skip straight from the picture.
//!
//! Nothing is non-linear between `conv_2` and `upsampler`, so they are one 5x5 conv where that is less work, and
//! the long skip (`upsampler` after `conv_1`) is a 5x5 conv of the picture itself, which stays in f32 whatever
//! the rest is. `upsampler` sees zeros outside the picture, not what the inner conv would have there: pixels at
//! the border leave out those taps of `upsampler`, so there are nine versions of each.

use super::pack::{Dense, Packing};
use crate::model::{Conv, Model};

/// Pixels of the first row or column, those between, or of the last.
pub(super) const PLACES: usize = 3;
/// Where all taps are inside.
pub(super) const MIDDLE: usize = 1;

/// By the place of the row, then of the column.
pub(super) type ByPlace = [[Dense; PLACES]; PLACES];

/// The maps to one colour component.
#[derive(Debug)]
pub(super) struct Output {
    /// Of the trunk or, in two steps, of what `conv_2` makes of it.
    pub(super) main: ByPlace,
    /// Of the picture; its biases are in `main`'s.
    pub(super) skip: ByPlace,
}

/// All of it. It reads the trunk after the channel attention's scale.
#[derive(Debug)]
pub(super) struct Tail {
    /// `conv_2`, where two steps are less work.
    pub(super) first_step: Option<Dense>,
    /// For each colour component.
    pub(super) outputs: Vec<Output>,
}

impl Tail {
    pub(super) fn new(model: &Model, packing: Packing) -> Tail {
        let components = model.sizes.in_channels;
        // Multiply-adds of a pixel: 25 · C · out, or 9 · C · C + 9 · C · out.
        let merged = 16 * model.upsampler.outputs < 9 * model.sizes.dim;
        let output = |upsampler: Conv| Output {
            main: by_place(|rows, columns| {
                let mut main = match merged {
                    true => merge(&upsampler, &model.conv_2, rows, columns),
                    // The bias of `conv_2` goes in with the first step.
                    false => Conv { bias: vec![0.0; upsampler.outputs], ..upsampler.clone() },
                };
                let skip = merge(&upsampler, &model.conv_1, rows, columns);
                let biases = main.bias.iter_mut().zip(&skip.bias).zip(&upsampler.bias);
                biases.for_each(|((bias, skip), own)| *bias += skip + own);
                Dense::new(&main, packing)
            }),
            skip: by_place(|rows, columns| {
                Dense::new(&merge(&upsampler, &model.conv_1, rows, columns), packing.exact())
            }),
        };
        Tail {
            first_step: (!merged).then(|| Dense::new(&model.conv_2, packing)),
            outputs: split(&model.upsampler, components).map(output).collect(),
        }
    }
}

/// Calls `make` with the taps that are inside, of three rows and of three columns.
fn by_place<T>(make: impl Fn([bool; 3], [bool; 3]) -> T) -> [[T; PLACES]; PLACES] {
    let inside = [[false, true, true], [true; 3], [true, true, false]];
    inside.map(|rows| inside.map(|columns| make(rows, columns)))
}

/// Of a conv whose outputs are [components, phases], a conv for each component.
fn split(conv: &Conv, components: usize) -> impl Iterator<Item = Conv> {
    let outputs = conv.outputs / components;
    let weights = conv.weight.chunks_exact(conv.weight.len() / components);
    weights.zip(conv.bias.chunks_exact(outputs)).map(move |(weight, bias)| Conv {
        outputs,
        weight: weight.to_vec(),
        bias: bias.to_vec(),
        ..*conv
    })
}

/// `outer` after `inner`, both 3x3, over the taps of `outer` that are inside: a 5x5 conv, summed in f64. Its bias
/// is what `inner`'s becomes.
fn merge(outer: &Conv, inner: &Conv, rows: [bool; 3], columns: [bool; 3]) -> Conv {
    assert!(outer.side == 3 && inner.side == 3 && outer.inputs == inner.outputs);
    let mut weight = vec![0.0_f64; outer.outputs * inner.inputs * 25];
    let mut bias = vec![0.0_f64; outer.outputs];
    for (output, (weight, bias)) in weight.chunks_exact_mut(inner.inputs * 25).zip(&mut bias).enumerate() {
        for (middle, inner_bias) in inner.bias.iter().enumerate() {
            let outer = &outer.weight[(output * outer.inputs + middle) * 9..][..9];
            let inside = (0..9).filter(|k| rows[k / 3] && columns[k % 3]);
            for (k, outer) in inside.map(|k| (k, f64::from(outer[k]))) {
                *bias += outer * f64::from(*inner_bias);
                let inner = inner.weight[middle * inner.inputs * 9..][..inner.inputs * 9].chunks_exact(9);
                for (weight, inner) in weight.chunks_exact_mut(25).zip(inner) {
                    for (j, inner) in inner.iter().enumerate() {
                        weight[(k / 3 + j / 3) * 5 + k % 3 + j % 3] += outer * f64::from(*inner);
                    }
                }
            }
        }
    }
    Conv {
        outputs: outer.outputs,
        inputs: inner.inputs,
        side: 5,
        weight: weight.into_iter().map(|w| w as f32).collect(),
        bias: bias.into_iter().map(|b| b as f32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every border's taps, on constant pictures: the sum of weights is what two convs in a row give.
    #[test]
    fn merged_taps_sum_to_what_two_convs_give() {
        let conv = |outputs: usize, inputs: usize, seed: usize| Conv {
            outputs,
            inputs,
            side: 3,
            weight: (0..outputs * inputs * 9).map(|i| ((i * 7 + seed) % 11) as f32 - 5.0).collect(),
            bias: (0..outputs).map(|i| (i + seed) as f32).collect(),
        };
        let (outer, inner) = (conv(4, 3, 1), conv(3, 2, 4));
        for (rows, columns) in [([true; 3], [true; 3]), ([false, true, true], [true, true, false])] {
            let merged = merge(&outer, &inner, rows, columns);
            for output in 0..4 {
                let kept = |middle: usize| -> f32 {
                    let taps = &outer.weight[(output * 3 + middle) * 9..][..9];
                    (0..9).filter(|k| rows[k / 3] && columns[k % 3]).map(|k| taps[k]).sum()
                };
                for input in 0..2 {
                    let taps =
                        |middle: usize| -> f32 { inner.weight[(middle * 2 + input) * 9..][..9].iter().sum() };
                    let expected: f32 = (0..3).map(|middle| kept(middle) * taps(middle)).sum();
                    let found: f32 = merged.weight[(output * 2 + input) * 25..][..25].iter().sum();
                    assert_eq!(found, expected, "{rows:?} {columns:?}");
                }
                let bias: f32 = (0..3).map(|middle| kept(middle) * inner.bias[middle]).sum();
                assert_eq!(merged.bias[output], bias);
            }
        }
    }
}
