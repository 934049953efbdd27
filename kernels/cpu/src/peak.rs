//! What a core can do: multiply-adds between registers and nothing else.

use super::simd::Simd;

/// Independent sums: enough to hide the latency of a multiply-add on any CPU, few enough for any's registers.
pub(crate) const SUMS: usize = 6;
/// Some milliseconds.
pub(crate) const ROUNDS: usize = 500_000;

/// `rounds` times a few vectors of dot products.
#[inline(always)]
pub fn peak<S: Simd>(s: S, sink: &mut [f32], rounds: usize) {
    // What is not known cannot be left out, and what it is multiplied by is another each time.
    let nothing = std::hint::black_box(0.0);
    let mut acc = [s.splat(1.0); SUMS];
    for _ in 0..rounds {
        for i in 0..SUMS {
            acc[i] = s.dot(&nothing, acc[(i + 1) % SUMS], acc[i]);
        }
    }
    for acc in &acc[1..] {
        let sum = s.add(s.load(sink), *acc);
        s.store(sink, sum);
    }
    let sum = s.add(s.load(sink), acc[0]);
    s.store(sink, sum);
}
