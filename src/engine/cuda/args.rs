//! The kernels' arguments as bytes: the twin of each argument struct of `kernels/*.cu`.
//!
//! It knows only the sizes of types.

use bytemuck::{NoUninit, Zeroable};

/// The twins of the kernels' arguments: same order, same types, pointers as u64.
macro_rules! args {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            #[repr(C)]
            #[derive(Clone, Copy, NoUninit, Zeroable)]
            pub(super) struct $name { $(pub(super) $field: $type),* }
        )*

        /// The size of every struct in bytes, by the kernel's name without the size suffix.
        #[cfg(test)]
        pub(super) const ARGS_LEN: &[(&str, usize)] = &[$((stringify!($name), size_of::<$name>())),*];
    };
}

args! {
    IngestArgs {
        from: u64, to: u64, width: u32, height: u32, linesize: u32, step: u32, word: u32, big_endian: u32,
        shift: u32, mask: u32, zero: f32, unit: f32,
    }
    EgressArgs {
        from: u64, to: u64, width: u32, height: u32, linesize: u32, step: u32, word: u32, big_endian: u32,
        shift: u32, mask: u32, zero: f32, unit: f32, value: f32, dither: u32,
    }
    MatrixArgs { planes: u64, len: u64, rows: [f32; 9], pad: u32 }
    ResampleArgs {
        from: u64, to: u64, starts: u64, weights: u64, count: u32, vertical: u32, in_width: u32, width: u32,
        height: u32, pad: u32,
    }
    EnterArgs { x: u64, trunk: u64, weights: u64, bias: u64, in_channels: i32, width: i32, height: i32, pad: u32 }
    NormArgs {
        trunk: u64, scale: u64, taps: u64, bias: u64, conv1: u64, conv1_bias: u64, n: u64, c1: u64, width: i32,
        height: i32, dim: i32, pad: u32,
    }
    SqueezeArgs {
        c1: u64, conv2: u64, bias: u64, pooled: u64, width: i32, height: i32, width3: i32, height3: i32,
    }
    GridArgs { pooled: u64, conv3: u64, bias: u64, grid: u64, width: i32, height: i32 }
    GateArgs {
        n: u64, grid: u64, conv_f: u64, f1: u64, f2: u64, f3: u64, conv4: u64, g: u64, conv_f_bias: u64,
        f1_bias: u64, f2_bias: u64, f3_bias: u64, conv4_bias: u64, g_bias: u64, width: i32, height: i32,
        width3: i32, height3: i32,
    }
    CabArgs {
        gated: u64, trunk: u64, scale: u64, taps: u64, dw_bias: u64, z: u64, conv0: u64, conv2: u64, conv0_bias: u64, conv2_bias: u64, sums: u64, width: i32,
        height: i32,
    }
    ReduceArgs { sums: u64, out: u64, rows: i32, channels: i32 }
    AttentionArgs {
        sums: u64, scale: u64, weights1: u64, bias1: u64, weights3: u64, bias3: u64, rows: i32, channels: i32,
        hidden: i32, per_pixel: f32,
    }
    FirstStepArgs { trunk: u64, scale: u64, weights: u64, bias: u64, out: u64, width: i32, height: i32 }
    LeaveArgs {
        trunk: u64, scale: u64, x: u64, out: u64, weights: u64, by_place: u64, skip: u64, bias: u64, side: i32,
        in_channels: i32, outputs: i32, phases: i32, upscale: i32, width: i32, height: i32, pad: u32,
    }
    ProbeArgs {
        from: u64, to: u64, words: u64, kind: u32, rounds: u32, ones: u32, factor: f32, addend: f32, pad: u32,
    }
}
