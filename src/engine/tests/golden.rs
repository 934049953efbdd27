//! The reference against the paper's PyTorch code, module by module.
//!
//! `tests/data/make_golden.py` reduces full golden files to those in the repository; `HASN_GOLDEN=folder` runs the same
//! test on full ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::common::{GOLDEN, Golden, Tensor, golden, relative_error};
use crate::engine::reference::Reference;

/// Relative to a tensor's largest value. PyTorch sums in another order: a relative 2^-24 for each of up to some thousand
/// additions, most of which cancel; 1.2e-6 is seen.
const TOLERANCE: f32 = 1e-4;

fn check(name: &str) {
    let Golden { model, input, output, mut activations, every, whole_max } = golden(name);
    let size = (input.shape[2], input.shape[1]);
    let mut seen = BTreeSet::new();
    let y =
        Reference::new(Arc::new(model)).forward_probed(&input.values, size, &mut |module, shape, actual| {
            assert!(seen.insert(module.to_owned()), "{name}: {module} was probed twice");
            let Tensor { shape: expected_shape, values } =
                activations.remove(module).unwrap_or_else(|| panic!("{name}: no golden tensor {module}"));
            let step = if actual.len() <= whole_max { 1 } else { every };
            if step == 1 {
                assert_eq!(shape, expected_shape, "{name}: {module}");
            }
            let actual: Vec<f32> = actual.iter().step_by(step).copied().collect();
            let error = relative_error(&actual, &values);
            assert!(error < TOLERANCE, "{name}: {module} is off by {error}");
        });
    let left: Vec<_> = activations.keys().collect();
    assert!(left.is_empty(), "{name}: never computed: {left:?}");
    assert_eq!(y.shape, output.shape);
    let error = relative_error(&y.values, &output.values);
    assert!(error < TOLERANCE, "{name}: output is off by {error}");
}

#[test]
fn reference_agrees_with_pytorch() {
    for name in GOLDEN {
        check(name);
    }
}
