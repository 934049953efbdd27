//! The reference does what the paper's PyTorch code does, module by module.
//!
//! `tests/data/make_golden.py` made the files that are kept here out of full ones; `HASN_GOLDEN=folder` runs
//! the same test on those.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::{GOLDEN, Golden, Tensor, golden, relative_error};
use hasn::engine::reference::Reference;
use ndarray::Array3;

/// Of a tensor's largest value. PyTorch sums in another order: a relative 2^-24 for each of up to some thousand
/// additions, most of which cancel; 1.2e-6 is seen.
const TOLERANCE: f32 = 1e-4;

fn check(name: &str) {
    let Golden { model, input, output, mut activations, every, whole_max } = golden(name);
    let x = Array3::from_shape_vec((input.shape[0], input.shape[1], input.shape[2]), input.values).unwrap();
    let mut seen = BTreeSet::new();
    let y = Reference::new(Arc::new(model)).forward_probed(&x, &mut |module, made| {
        assert!(seen.insert(module.to_owned()), "{name}: {module} was shown twice");
        let Tensor { shape, values } =
            activations.remove(module).unwrap_or_else(|| panic!("{name}: no golden tensor {module}"));
        let step = if made.len() <= whole_max { 1 } else { every };
        if step == 1 {
            assert_eq!(made.shape(), shape, "{name}: {module}");
        }
        let made: Vec<f32> = made.iter().step_by(step).copied().collect();
        let error = relative_error(&made, &values);
        assert!(error < TOLERANCE, "{name}: {module} is off by {error}");
    });
    let left: Vec<_> = activations.keys().collect();
    assert!(left.is_empty(), "{name}: never made: {left:?}");
    assert_eq!(y.shape(), output.shape);
    let error = relative_error(y.as_slice().unwrap(), &output.values);
    assert!(error < TOLERANCE, "{name}: output is off by {error}");
}

#[test]
fn reference_agrees_with_pytorch() {
    for name in GOLDEN {
        check(name);
    }
}
