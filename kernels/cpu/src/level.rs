//! One table of loops for each CPU level and precision, chosen once.
//!
//! Every table is the same generic code, inlined into functions that enable the level's features. An entry of a table can
//! be replaced by hand-written code for that level alone.

use super::esa::Between;
use super::layout::Span;
use super::leave::PLACES;
use super::samples::{BLOCK, Coding, TAPS};
use super::simd::Simd;
use super::weights::{Dense, Depthwise, Gate, Packing};
use super::{dense, depthwise, esa, gate, leave, peak, samples, simd};

/// The number format of the convs' products. The trunk and the long skip are f32 in all of them, sums in all but `Int16`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Precision {
    /// f32 products, within 1e-4 of the reference.
    F32,
    /// bf16 products, where the CPU has a dot product of them.
    Bf16,
    /// int16 products, summed in int32 without loss.
    Int16,
}

impl Precision {
    /// `f32`, `bf16` or `int16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Int16 => "int16",
        }
    }
}

/// A CPU level: an instruction set that this machine has.
#[derive(Clone, Copy)]
pub struct Level {
    name: &'static str,
    f32: &'static Kernels,
    bf16: Option<&'static Kernels>,
    int16: Option<&'static Kernels>,
}

impl PartialEq for Level {
    fn eq(&self, other: &Level) -> bool {
        self.name == other.name
    }
}

impl Eq for Level {}

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Level({})", self.name)
    }
}

impl Level {
    /// Returns all levels of this CPU, slowest first.
    pub fn available() -> Vec<Level> {
        let mut levels = vec![Level { name: "plain", f32: &PLAIN, bf16: None, int16: None }];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                let avx2 = Level { name: "avx2", f32: &AVX2, bf16: None, int16: Some(&AVX2_INT16) };
                levels.push(avx2);
                if is_x86_feature_detected!("avxvnni") {
                    levels.push(Level { name: "avxvnni", int16: Some(&AVX_VNNI_INT16), ..avx2 });
                }
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                let mut avx512 = Level { name: "avx512", f32: &AVX512, bf16: None, int16: None };
                levels.push(avx512);
                if is_x86_feature_detected!("avx512vnni") {
                    avx512 = Level { name: "avx512vnni", int16: Some(&AVX512_VNNI_INT16), ..avx512 };
                    levels.push(avx512);
                }
                if is_x86_feature_detected!("avx512bf16") {
                    levels.push(Level { name: "avx512bf16", bf16: Some(&AVX512_BF16), ..avx512 });
                }
            }
        }
        levels
    }

    /// `plain`, `avx2`, `avxvnni`, `avx512`, `avx512vnni` or `avx512bf16`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The precisions of this level, most exact first.
    pub fn precisions(&self) -> impl Iterator<Item = Precision> {
        let level = *self;
        let all = [Precision::F32, Precision::Int16, Precision::Bf16];
        all.into_iter().filter(move |&precision| level.table(precision).is_some())
    }

    /// Measures the floating-point operations per second of one thread that only multiplies and adds in registers.
    pub fn peak_flops(&self, precision: Precision) -> f64 {
        let kernels = self.kernels(precision);
        let mut sink = [0.0; simd::PIXELS_MAX];
        // The first round raises the clock; the fastest round is the least disturbed.
        let seconds = |_| {
            let start = std::time::Instant::now();
            (kernels.peak)(&mut sink, peak::ROUNDS);
            start.elapsed().as_secs_f64()
        };
        let fastest = (0..8).map(seconds).fold(f64::INFINITY, f64::min);
        assert!(sink[0].is_finite());
        let lanes = peak::SUMS * kernels.pixels * kernels.packing.channels;
        (2 * peak::ROUNDS * lanes) as f64 / fastest
    }

    /// The table of loops of one of its precisions.
    pub fn kernels(self, precision: Precision) -> &'static Kernels {
        self.table(precision).expect("one of `precisions`")
    }

    fn table(self, precision: Precision) -> Option<&'static Kernels> {
        match precision {
            Precision::F32 => Some(self.f32),
            Precision::Bf16 => self.bf16,
            Precision::Int16 => self.int16,
        }
    }
}

/// Declares the type of the table and the macro that defines one.
macro_rules! kernels {
    ($($module:ident::$kernel:ident($($argument:ident: $kind:ty),*);)*) => {
        /// The loops of a level.
        pub struct Kernels {
            pixels: usize,
            /// Packing of its dense maps.
            pub packing: Packing,
            $(
                #[doc = concat!("[`", stringify!($kernel), "`](crate::", stringify!($module), "::", stringify!($kernel), ").")]
                pub $kernel: fn($($kind),*),
            )*
        }

        impl Kernels {
            /// Each entry is a safe function that calls one with the level's features.
            const fn new<S: Entries>() -> Kernels {
                let packing = Packing {
                    channels: S::CHANNELS,
                    outputs_max: S::OUTPUTS_MAX,
                    outputs_waiting: S::OUTPUTS_WAITING,
                    outputs_of_three: S::OUTPUTS_OF_THREE,
                    outputs_multiple: S::CHANNELS,
                    int16: S::INT16,
                };
                Kernels { pixels: S::PIXELS, packing, $($kernel: S::$kernel,)* }
            }
        }

        /// The functions of a level's table.
        trait Entries: Simd {
            $(fn $kernel($($argument: $kind),*);)*
        }

        /// Defines the table of a level, in a module of its own so that levels compile in parallel.
        macro_rules! level {
            ($table:ident, $level:ident, $token:ty, $features:literal) => {
                static $table: Kernels = Kernels::new::<$token>();

                mod $level {
                    use super::*;

                    impl Entries for $token {
                        $(fn $kernel($($argument: $kind),*) {
                            #[cfg_attr(target_arch = "x86_64", target_feature(enable = $features))]
                            fn with_features($($argument: $kind),*) {
                                // SAFETY: this function is called on CPUs with these features only.
                                let s = unsafe { <$token as Simd>::new() };
                                $module::$kernel(s, $($argument),*);
                            }
                            // SAFETY: the entry is reached through a `Level`, which exists after detection only.
                            #[allow(unused_unsafe, reason = "the plain level's features are the target's own")]
                            unsafe {
                                with_features($($argument),*)
                            }
                        })*
                    }
                }
            };
        }
    };
}

kernels! {
    depthwise::norm(
        out: (&mut [&mut [f32]], &mut [&mut [f32]]), rows: &[&[f32]],
        maps: (&Depthwise, &Dense), tile: &mut [f32], span: Span
    );
    depthwise::add_skip(
        out: &mut [&mut [f32]], rows: &[&[f32]], conv: &Depthwise, skip: &[&[f32]],
        scale: &[f32], span: Span
    );
    depthwise::pair_rows(out: &mut [f32], low: &[f32], high: &[f32], factor: f32);
    esa::conv2(out: &mut [f32], rows: &[&[f32]; 3], conv: &Dense, stride2: usize);
    esa::pool(out: &mut [f32], rows: &[&[f32]; 7], stride2: usize, highest: &mut [f32], span3: Span);
    esa::interpolate_rows(out: &mut [f32], rows: [&[f32]; 2], fraction: f32, span3: Span);
    gate::gate(
        out: &mut [f32], n: &[&[f32]], maps: &Gate, coarse: (&[f32], Span, &Between), scratch: &mut [f32], span: Span
    );
    dense::convolve(out: &mut [f32], rows: &[&[f32]; 3], conv: &Dense, span: Span);
    dense::convolve_gelu(out: &mut [f32], rows: &[&[f32]; 3], conv: &Dense, factor: f32, span: Span);
    dense::convolve_sum(out: &mut [f32], rows: &[&[f32]; 3], conv: &Dense, span: Span, sums: &mut [f32]);
    dense::scale_row(out: &mut [f32], row: &[f32], scale: &[f32], span: Span);
    leave::leave(
        out: &mut [f32], main: (&[&[f32]; 5], &[Dense; PLACES]), skip: (&[&[f32]; 5], &[Dense; PLACES]),
        span: Span, scale: usize
    );
    samples::read_bytes(numbers: &mut [f32], bytes: &[[u8; 1]], coding: &Coding);
    samples::read_words(numbers: &mut [f32], words: &[[u8; 2]], coding: &Coding);
    samples::write_bytes(bytes: &mut [[u8; 1]], numbers: &[f32], offsets: &[f32; BLOCK], coding: &Coding);
    samples::write_words(words: &mut [[u8; 2]], numbers: &[f32], offsets: &[f32; BLOCK], coding: &Coding);
    samples::sum_rows(out: &mut [f32], rows: &[f32], stride: usize, weights: &[f32]);
    samples::filter_repeated(out: &mut [f32], row: &[f32], starts: &[usize], weights: &[[f32; TAPS]]);
    peak::peak(sink: &mut [f32], rounds: usize);
}

level!(PLAIN, plain, simd::Plain, "sse2");
#[cfg(target_arch = "x86_64")]
level!(AVX2, avx2, simd::Avx2<2>, "avx2,fma");
#[cfg(target_arch = "x86_64")]
level!(AVX2_INT16, avx2_int16, simd::Avx2Int16<2>, "avx2,fma");
#[cfg(target_arch = "x86_64")]
level!(AVX_VNNI_INT16, avx_vnni_int16, simd::AvxVnniInt16<2>, "avx2,fma,avxvnni");
#[cfg(target_arch = "x86_64")]
level!(AVX512, avx512, simd::Avx512<2>, "avx512f,avx512bw,avx512dq,avx512vl");
#[cfg(target_arch = "x86_64")]
level!(
    AVX512_VNNI_INT16,
    avx512_vnni_int16,
    simd::Avx512VnniInt16<2>,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
);
#[cfg(target_arch = "x86_64")]
level!(AVX512_BF16, avx512_bf16, simd::Avx512Bf16<2>, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16");
