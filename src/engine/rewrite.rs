//! The exact rewrites of the network. In: a model. Out: the convs that a fast engine runs.
//!
//! LayerNorm's affine is merged into the maps that read it; ESA's `conv1` and `conv_f` after `f3` become maps of the
//! normalised tensor itself; `conv4` is scaled for a sigmoid by powers of two; and the network's last two convs are merged.
//! Nothing is non-linear between `conv_2` and `upsampler`, so they are one 5x5 conv where that needs fewer operations, and
//! the long skip (`upsampler` after `conv_1`) is a 5x5 conv of the LR frame. `upsampler` is padded with zeros, not with
//! what the inner conv would give there: pixels at the border omit those taps of `upsampler`, so there are nine versions
//! of each.

use crate::model::{BlockWeights, Conv, LayerNorm, Model};

/// Factor of `conv4`'s result t: 1 / (1 + 2^t) is the sigmoid of -t ln 2.
pub(super) const SIGMOID_SCALE: f32 = -std::f32::consts::LOG2_E;

/// Places of a pixel along an axis: the first row or column, any in between, the last.
pub(super) const PLACES: usize = 3;
/// The place where all taps are inside the frame.
pub(super) const MIDDLE: usize = 1;

/// Indexed by the place of the row, then of the column.
pub(super) type ByPlace<T> = [[T; PLACES]; PLACES];

/// One block.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) dwconv: Conv,
    /// `conv1` after `f3`: C -> E.
    pub(super) conv1: Conv,
    pub(super) conv2: Conv,
    pub(super) conv3: Conv,
    /// C -> M, as `f2` and `f3`.
    pub(super) f1: Conv,
    pub(super) f2: Conv,
    pub(super) f3: Conv,
    /// `conv_f` after `conv1` after `f3`: C -> E.
    pub(super) conv_f: Conv,
    /// E -> M, scaled by [`SIGMOID_SCALE`].
    pub(super) conv4: Conv,
    /// M -> C.
    pub(super) g: Conv,
    pub(super) dwconv2: Conv,
    pub(super) cab_0: Conv,
    pub(super) cab_2: Conv,
    pub(super) attention_1: Conv,
    pub(super) attention_3: Conv,
}

impl Block {
    pub(super) fn new(weights: &BlockWeights) -> Block {
        let BlockWeights { dwconv, ln, f1, f2, f3, esa, g, dwconv2, cab } = weights;
        let f3 = after_norm(f3, ln);
        let conv1 = compose(&esa.conv1, &f3);
        let mut conv4 = esa.conv4.clone();
        conv4.weight.iter_mut().chain(&mut conv4.bias).for_each(|w| *w *= SIGMOID_SCALE);
        Block {
            dwconv: dwconv.clone(),
            conv_f: compose(&esa.conv_f, &conv1),
            conv1,
            conv2: esa.conv2.clone(),
            conv3: esa.conv3.clone(),
            f1: after_norm(f1, ln),
            f2: after_norm(f2, ln),
            f3,
            conv4,
            g: g.clone(),
            dwconv2: dwconv2.clone(),
            cab_0: cab.conv_0.clone(),
            cab_2: cab.conv_2.clone(),
            attention_1: cab.attention_1.clone(),
            attention_3: cab.attention_3.clone(),
        }
    }
}

/// The maps to one colour component.
#[derive(Debug)]
pub(super) struct Output {
    /// From the trunk or, in two steps, from the output of `conv_2`.
    pub(super) main: ByPlace<Conv>,
    /// From the LR frame, 5x5; `main` includes its biases.
    pub(super) skip: ByPlace<Conv>,
}

/// The network after the last block. Its input is the trunk times the channel attention's scale.
#[derive(Debug)]
pub(super) struct Tail {
    /// `conv_2`, where two steps need fewer operations.
    pub(super) first_step: Option<Conv>,
    /// One per colour component.
    pub(super) outputs: Vec<Output>,
}

impl Tail {
    pub(super) fn new(model: &Model) -> Tail {
        // Multiply-adds per pixel: 25 · C · out, or 9 · C · C + 9 · C · out.
        let merged = 16 * model.upsampler.outputs < 9 * model.sizes.dim;
        let output = |upsampler: Conv| {
            let skip = by_place(|rows, columns| merge(&upsampler, &model.conv_1, rows, columns));
            let mut main = by_place(|rows, columns| match merged {
                true => merge(&upsampler, &model.conv_2, rows, columns),
                // The first step adds the bias of `conv_2`.
                false => Conv { bias: vec![0.0; upsampler.outputs], ..upsampler.clone() },
            });
            for (main, skip) in main.as_flattened_mut().iter_mut().zip(skip.as_flattened()) {
                let biases = main.bias.iter_mut().zip(&skip.bias).zip(&upsampler.bias);
                biases.for_each(|((bias, skip), own)| *bias += skip + own);
            }
            Output { main, skip }
        };
        Tail {
            first_step: (!merged).then(|| model.conv_2.clone()),
            outputs: split(&model.upsampler, model.sizes.in_channels).map(output).collect(),
        }
    }
}

/// Calls `make` for each place, with the rows and the columns of a 3x3 kernel that are inside the frame.
fn by_place<T>(make: impl Fn([bool; 3], [bool; 3]) -> T) -> [[T; PLACES]; PLACES] {
    let inside = [[false, true, true], [true; 3], [true, true, false]];
    inside.map(|rows| inside.map(|columns| make(rows, columns)))
}

/// Splits a conv with outputs [components, phases] into one conv per component.
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

/// Merges `outer` after `inner`, both 3x3, over the taps of `outer` that are inside, into a 5x5 conv, summed in f64. Its
/// bias is the contribution of `inner`'s bias.
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

/// Merges `conv` with the affine of `ln` before it.
fn after_norm(conv: &Conv, ln: &LayerNorm) -> Conv {
    assert_eq!(conv.side, 1);
    let affine = Conv {
        outputs: conv.inputs,
        inputs: conv.inputs,
        side: 1,
        weight: (0..conv.inputs * conv.inputs)
            .map(|i| if i / conv.inputs == i % conv.inputs { ln.weight[i % conv.inputs] } else { 0.0 })
            .collect(),
        bias: ln.bias.clone(),
    };
    compose(conv, &affine)
}

/// Merges `outer` after `inner`, both 1x1, summed in f64 and rounded once.
fn compose(outer: &Conv, inner: &Conv) -> Conv {
    assert!(outer.side == 1 && inner.side == 1 && outer.inputs == inner.outputs);
    let row = |o: usize| &outer.weight[o * outer.inputs..][..outer.inputs];
    let dot = |o: usize, column: &dyn Fn(usize) -> f32| -> f64 {
        row(o).iter().enumerate().map(|(m, w)| f64::from(*w) * f64::from(column(m))).sum()
    };
    let weight =
        |i: usize| dot(i / inner.inputs, &|m| inner.weight[m * inner.inputs + i % inner.inputs]) as f32;
    let bias = |o: usize| (f64::from(outer.bias[o]) + dot(o, &|m| inner.bias[m])) as f32;
    Conv {
        outputs: outer.outputs,
        inputs: inner.inputs,
        side: 1,
        weight: (0..outer.outputs * inner.inputs).map(weight).collect(),
        bias: (0..outer.outputs).map(bias).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On constant frames the sum of a merged conv's weights equals the result of two convs, at every border.
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
