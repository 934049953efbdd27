//! The packed tail of the network. `rewrite` explains the tail and why its weights depend on the place of a pixel.

use hasn_kernels::weights::{Dense, Packing};

use super::calibration::Calibration;
use super::pack::{Factors, pack_dense};
use crate::engine::rewrite;
use crate::model::{Conv, Model};

pub(super) use crate::engine::rewrite::{MIDDLE, PLACES};

/// Indexed by the place of the row, then of the column.
pub(super) type ByPlace = rewrite::ByPlace<Dense>;

/// The maps to one colour component.
#[derive(Debug)]
pub(super) struct Output {
    /// From the trunk or, in two steps, from the output of `conv_2`.
    pub(super) main: ByPlace,
    /// From the LR frame, in f32 in every precision; `main` includes its biases.
    pub(super) skip: ByPlace,
}

/// The complete tail. Its input is the trunk times the channel attention's scale.
#[derive(Debug)]
pub(super) struct Tail {
    /// `conv_2`, where two steps need fewer operations.
    pub(super) first_step: Option<Dense>,
    /// One per colour component.
    pub(super) outputs: Vec<Output>,
}

impl Tail {
    pub(super) fn new(model: &Model, packing: Packing, calibration: &Calibration) -> Tail {
        let &Calibration { trunk, last, output: peak, .. } = calibration;
        let tail = rewrite::Tail::new(model);
        let dense = |convs: &rewrite::ByPlace<Conv>, packing, factors: Factors| {
            let of = |conv: &Conv| pack_dense(conv, packing, factors);
            convs.each_ref().map(|row| row.each_ref().map(of))
        };
        let input = if tail.first_step.is_some() { last } else { trunk };
        let output = |output: &rewrite::Output| Output {
            main: dense(&output.main, packing, Factors { peak, ..Factors::new(input, 1.0) }),
            skip: dense(&output.skip, packing.exact(), Factors::ONE),
        };
        Tail {
            first_step: tail
                .first_step
                .as_ref()
                .map(|conv| pack_dense(conv, packing, Factors::new(trunk, last))),
            outputs: tail.outputs.iter().map(output).collect(),
        }
    }
}
