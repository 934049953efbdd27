//! The loops of samples for this CPU.

use std::sync::LazyLock;

use hasn_kernels::samples::Coding;
use hasn_kernels::{Kernels, Level, Precision};

use crate::color::Quantization;
use crate::frame::Component;

/// Returns the table of the highest level: all give the same bits.
pub(super) fn loops() -> &'static Kernels {
    static LOOPS: LazyLock<&Kernels> = LazyLock::new(|| {
        let level = Level::available().pop().expect("every CPU is at least plain");
        level.kernels(Precision::F32)
    });
    *LOOPS
}

/// The code values of a component.
pub(super) fn coding(component: &Component, quantization: Quantization, big_endian: bool) -> Coding {
    let Quantization { zero, unit } = quantization;
    Coding { zero, unit, depth: component.depth, shift: component.shift, big_endian }
}
