//! 2^x, sigmoid and GELU for vectors. Where words are of 16 bits the polynomials are shorter.

use super::simd::Simd;

/// 2^x to 3e-7 of its value (1e-4 where words are of 16 bits), for x within ±126 (±125) and never far from it beyond; NaN
/// stays NaN. A whole power of two, and a polynomial of least error on ±1/2.
#[inline(always)]
#[allow(clippy::approx_constant, reason = "a coefficient of the polynomial of least error")]
pub fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    const LONG: [f32; 6] =
        [1.339_086_3e-3, 9.676_032e-3, 5.550_357e-2, 0.240_221_07, 0.693_147_2, 1.000_000_1];
    const SHORT: [f32; 4] = [5.583_828_3e-2, 0.242_639_48, 0.693_136_7, 0.999_924_56];
    let (whole, r) = s.split(x);
    let polynomial: &[f32] = if S::CHANNELS == 1 { &LONG } else { &SHORT };
    let mut p = s.splat(polynomial[0]);
    for coefficient in &polynomial[1..] {
        p = s.mul_add(p, r, s.splat(*coefficient));
    }
    s.scale_by_power(p, whole)
}

/// 1 / (1 + e^-x) of an x that comes multiplied by -log2(e), to 3e-7 (3e-5 where words are of 16 bits).
#[inline(always)]
pub fn sigmoid_of_scaled<S: Simd>(s: S, t: S::V) -> S::V {
    s.recip(s.add(s.splat(1.0), exp2(s, t)))
}

/// x · Φ(x), to 3e-7 of max(1, |x|) (5e-5 where words are of 16 bits): erfc by Abramowitz and Stegun 7.1.26, which is off
/// by at most 1.5e-7.
#[inline(always)]
#[allow(clippy::excessive_precision, reason = "as published")]
pub fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    const P: f32 = 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2;
    const POLYNOMIAL: [f32; 5] = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
    let zero = s.splat(0.0);
    let size = s.max(s.sub(zero, x), x);
    let t = s.recip(s.mul_add(s.min(size, s.splat(1e30)), s.splat(P), s.splat(1.0)));
    let mut p = s.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        p = s.mul_add(p, t, s.splat(*coefficient));
    }
    // e^(-x²/2)
    let exponent = s.mul(s.mul(x, x), s.splat(-0.5 * std::f32::consts::LOG2_E));
    let e = exp2(s, s.max(s.splat(-126.0), exponent));
    let erfc = s.mul(s.mul(p, t), e);
    // x Φ(x) is x - x erfc / 2 right of zero and x erfc / 2 left of it.
    s.sub(s.max(zero, x), s.mul(s.mul(size, s.splat(0.5)), erfc))
}
