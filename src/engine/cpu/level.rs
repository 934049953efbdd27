//! One table of loops for each kind of CPU, chosen once.
//!
//! Every table is the same generic code, inlined into functions that enable the level's features. What stands
//! in a table can be replaced by hand-written code for that level alone.

use super::gate::BoundGate;
use super::layout::{Layout, Span};
use super::pack::Depthwise;
use super::simd::Simd;
use super::taps::Bound;
use super::{dense3x3, depthwise, esa, gate, simd};
use crate::error::{Error, Result};

/// Names the level to run, for measurements and tests.
const VARIABLE: &str = "HASN_CPU_LEVEL";

/// A kind of CPU that this machine is, and the loops for it.
#[derive(Clone, Copy)]
pub struct Level(&'static Kernels);

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Level({})", self.name())
    }
}

impl Level {
    /// The fastest that this CPU has, or the one that `HASN_CPU_LEVEL` names.
    pub fn detect() -> Result<Level> {
        let level = match std::env::var_os(VARIABLE) {
            Some(name) => Level::named(&name.to_string_lossy())?,
            None => *Level::available().last().expect("every CPU is at least plain"),
        };
        tracing::info!(level = level.name(), "CPU level");
        Ok(level)
    }

    /// The level of that name, if this CPU has it.
    pub fn named(name: &str) -> Result<Level> {
        let available = Level::available();
        available.iter().copied().find(|level| level.name() == name).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(Level::name).collect();
            Error::new(
                format!("{VARIABLE}={name}"),
                "is no CPU level of this machine",
                format!("give one of {}", names.join(", ")),
            )
        })
    }

    /// All that this CPU has, slowest first.
    pub fn available() -> Vec<Level> {
        let mut levels = vec![Level(&PLAIN)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Level(&AVX2));
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                levels.push(Level(&AVX512));
            }
        }
        levels
    }

    /// `plain`, `avx2` or `avx512`.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    pub(super) fn kernels(self) -> &'static Kernels {
        self.0
    }
}

/// Declares the table's type and the macro that makes one.
macro_rules! kernels {
    ($($module:ident::$kernel:ident($($argument:ident: $kind:ty),*);)*) => {
        /// The loops of a level.
        pub(super) struct Kernels {
            name: &'static str,
            $(pub(super) $kernel: fn($($kind),*),)*
        }

        impl Kernels {
            /// Each entry is a safe function round one with the level's features.
            const fn new<S: Entries>(name: &'static str) -> Kernels {
                Kernels { name, $($kernel: S::$kernel,)* }
            }
        }

        /// A level's functions, before they are a table.
        trait Entries {
            $(fn $kernel($($argument: $kind),*);)*
        }

        macro_rules! level {
            ($token:ident, $features:literal) => {
                impl Entries for simd::$token {
                    $(fn $kernel($($argument: $kind),*) {
                        #[cfg_attr(target_arch = "x86_64", target_feature(enable = $features))]
                        fn with_features($($argument: $kind),*) {
                            // SAFETY: this function is called on CPUs with these features only.
                            let s = unsafe { <simd::$token as Simd>::new() };
                            $module::$kernel(s, $($argument),*);
                        }
                        // SAFETY: the entry is reached through a `Level`, which exists after detection only.
                        #[allow(unused_unsafe, reason = "the plain level's features are the target's own")]
                        unsafe {
                            with_features($($argument),*)
                        }
                    })*
                }
            };
        }
    };
}

kernels! {
    dense3x3::convolve(out: &mut [f32], src: &[f32], conv: Bound<'_>, span: Span);
    dense3x3::convolve_gelu(out: &mut [f32], src: &[f32], conv: Bound<'_>, span: Span);
    dense3x3::convolve_sum(out: &mut [f32], src: &[f32], conv: Bound<'_>, span: Span, sums: &mut [f32]);
    dense3x3::convolve_skip(
        out: &mut [f32], src: &[f32], conv: Bound<'_>, skip: (&[f32], Bound<'_>), span: Span
    );
    dense3x3::upsample(out: &mut [f32], src: &[f32], conv: Bound<'_>, span: Span, scale: usize);
    depthwise::norm_rows(out: &mut [f32], src: &[f32], conv: &Depthwise, layout: Layout);
    depthwise::add_rows(out: &mut [f32], src: &[f32], conv: &Depthwise, scale: &[f32], layout: Layout);
    esa::conv1_row(out: &mut [f32], n: &[f32], conv: Bound<'_>, span: Span);
    esa::conv2_row(out: &mut [f32], conv1: &[f32], conv: Bound<'_>, stride2: usize);
    gate::gate(row: &mut [f32], coarse: &[f32], gate: BoundGate<'_>, scratch: &mut [f32], span: Span);
}

level!(Plain, "sse2");
static PLAIN: Kernels = Kernels::new::<simd::Plain>("plain");

#[cfg(target_arch = "x86_64")]
level!(Avx2, "avx2,fma");
#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = Kernels::new::<simd::Avx2>("avx2");

#[cfg(target_arch = "x86_64")]
level!(Avx512, "avx512f,avx512bw,avx512dq,avx512vl");
#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = Kernels::new::<simd::Avx512>("avx512");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_found_by_name_and_others_refused() {
        let names: Vec<_> = Level::available().iter().map(Level::name).collect();
        assert_eq!(names[0], "plain");
        for name in &names {
            assert_eq!(Level::named(name).unwrap().name(), *name);
        }
        for unknown in ["avx1024", "", "AVX2"] {
            let line = Level::named(unknown).unwrap_err().to_string();
            assert!(line.starts_with(&format!("HASN_CPU_LEVEL={unknown}: ")), "{line}");
            assert!(line.ends_with(&names.join(", ")), "{line}");
        }
    }
}
