//! The peak of a core: only multiply-adds between registers.

use super::simd::Simd;

/// Independent sums: enough to hide the latency of a multiply-add on any CPU, few enough for any's registers.
pub(crate) const SUMS: usize = 6;
/// Rounds of a measurement, which take some milliseconds.
pub(crate) const ROUNDS: usize = 500_000;

/// Runs `rounds` rounds of dot products of a few vectors.
#[inline(always)]
pub fn peak<S: Simd>(s: S, sink: &mut [f32], rounds: usize) {
    // An unknown operand prevents the compiler from removing the loop; the other operand differs in each product.
    let zero = std::hint::black_box(0.0);
    let mut acc = [s.splat(1.0); SUMS];
    for _ in 0..rounds {
        for i in 0..SUMS {
            acc[i] = s.dot(&zero, acc[(i + 1) % SUMS], acc[i]);
        }
    }
    for acc in &acc[1..] {
        let sum = s.add(s.load(sink), *acc);
        s.store(sink, sum);
    }
    let sum = s.add(s.load(sink), acc[0]);
    s.store(sink, sum);
}
