//! The level of every CPU: arrays, which the compiler vectorises for the target's baseline.

use super::vector::{Simd, split_by_adding};

/// Arrays of eight floats, compiled for the target's baseline.
#[derive(Clone, Copy)]
pub struct Plain(());

impl Plain {
    #[inline(always)]
    fn zip(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
        std::array::from_fn(|i| f(a[i], b[i]))
    }
}

impl Simd for Plain {
    const PIXELS: usize = 8;
    const CHANNELS: usize = 1;
    const OUTPUTS_MAX: usize = 4;
    type V = [f32; 8];
    type Wide = Self;

    // SAFETY: every CPU has the baseline.
    #[inline(always)]
    unsafe fn new() -> Self {
        Plain(())
    }
    #[inline(always)]
    fn wide(self) -> Self {
        self
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; 8]
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::V {
        *from.first_chunk().expect("a full vector")
    }
    #[inline(always)]
    fn store(self, to: &mut [f32], v: Self::V) {
        *to.first_chunk_mut().expect("a full vector") = v;
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // f32::mul_add would be a call of libm without FMA.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn dot(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V {
        self.mul_add(self.splat(*weight), x, c)
    }
    #[inline(always)]
    fn pack(self, _low: Self::V, _high: Self::V) -> Self::V {
        unreachable!("words hold one channel")
    }
    #[inline(always)]
    fn recip(self, a: Self::V) -> Self::V {
        a.map(|a| 1.0 / a)
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn split(self, x: Self::V) -> (Self::V, Self::V) {
        split_by_adding(self, x)
    }
    #[inline(always)]
    fn scale_by_power(self, p: Self::V, n: Self::V) -> Self::V {
        Self::zip(p, n, |p, n| f32::from_bits(p.to_bits().wrapping_add(n.to_bits() << 23)))
    }
    #[inline(always)]
    fn lookup(self, table: &[f32], index: &[u32], base: u32) -> Self::V {
        std::array::from_fn(|i| table[(index[i] - base) as usize])
    }
    #[inline(always)]
    fn store_deinterleaved(self, even: &mut [f32], odd: &mut [f32], v: Self::V) {
        *even.first_chunk_mut().expect("half a vector") = [v[0], v[2], v[4], v[6]];
        *odd.first_chunk_mut().expect("half a vector") = [v[1], v[3], v[5], v[7]];
    }
    #[inline(always)]
    fn store_interleaved(self, to: &mut [f32], a: Self::V, b: Self::V) {
        let interleaved: [f32; 16] = std::array::from_fn(|i| if i % 2 == 0 { a[i / 2] } else { b[i / 2] });
        *to.first_chunk_mut().expect("two vectors") = interleaved;
    }
}
