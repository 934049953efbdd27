//! What a core can do: multiply-adds between registers and nothing else.

use super::simd::Simd;

/// Independent sums: enough to hide the latency of a multiply-add on any CPU, few enough for any's registers.
pub(super) const SUMS: usize = 6;
/// Some milliseconds.
pub(super) const ROUNDS: usize = 500_000;

/// `rounds` times [`SUMS`] vectors of dot products.
#[inline(always)]
pub(super) fn peak<S: Simd>(s: S, sink: &mut [f32], rounds: usize) {
    let (a, b) = (s.splat(0.5), s.splat(f32::from_bits(0x3f00_3f00)));
    let mut acc = [s.splat(0.0); SUMS];
    for _ in 0..rounds {
        // Or the compiler would multiply once and add whole numbers in one go.
        let a = std::hint::black_box(a);
        for acc in &mut acc {
            *acc = s.dot(a, b, *acc);
        }
    }
    for acc in &acc[1..] {
        let sum = s.add(s.load(sink), *acc);
        s.store(sink, sum);
    }
    let sum = s.add(s.load(sink), acc[0]);
    s.store(sink, sum);
}
