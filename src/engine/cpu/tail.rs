//! The packed end of the network: see `rewrite` for what it is and why its weights depend on the place of a pixel.

use hasn_kernels::weights::{Dense, Packing};

use super::pack::pack_dense;
use crate::engine::rewrite;
use crate::model::{Conv, Model};

pub(super) use crate::engine::rewrite::{MIDDLE, PLACES};

/// By the place of the row, then of the column.
pub(super) type ByPlace = rewrite::ByPlace<Dense>;

/// The maps to one colour component.
#[derive(Debug)]
pub(super) struct Output {
    /// Of the trunk or, in two steps, of what `conv_2` makes of it.
    pub(super) main: ByPlace,
    /// Of the frame, in f32 whatever the rest is; its biases are in `main`'s.
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
    /// The codes of the `trunk`, and of what the `last` conv reads where there are two steps.
    pub(super) fn new(model: &Model, packing: Packing, trunk: f32, last: f32) -> Tail {
        let tail = rewrite::Tail::new(model);
        let dense = |convs: &rewrite::ByPlace<Conv>, packing, from: f32| {
            let of = |conv: &Conv| pack_dense(conv, packing, (from, 1.0));
            convs.each_ref().map(|row| row.each_ref().map(of))
        };
        let from = if tail.first_step.is_some() { last } else { trunk };
        let output = |output: &rewrite::Output| Output {
            main: dense(&output.main, packing, from),
            skip: dense(&output.skip, packing.exact(), 1.0),
        };
        Tail {
            first_step: tail.first_step.as_ref().map(|conv| pack_dense(conv, packing, (trunk, last))),
            outputs: tail.outputs.iter().map(output).collect(),
        }
    }
}
