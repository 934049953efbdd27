//! 2^x, sigmoid and GELU for vectors. Where words are bf16 (8 bits of mantissa) the polynomials are shorter.

use super::simd::Simd;

/// 2^x to 3e-7 of its value (1e-4 where words are bf16), for x clamped to ±126; NaN stays NaN. A whole power of
/// two, and a polynomial of least error on ±1/2.
#[inline(always)]
#[allow(clippy::approx_constant, reason = "a coefficient of the polynomial of least error")]
pub(super) fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    // Adding it rounds to a whole number, which the low bits of the sum then hold.
    const ROUND: f32 = 12_582_912.0;
    const LONG: [f32; 6] =
        [1.339_086_3e-3, 9.676_032e-3, 5.550_357e-2, 0.240_221_07, 0.693_147_2, 1.000_000_1];
    const SHORT: [f32; 4] = [5.583_828_3e-2, 0.242_639_48, 0.693_136_7, 0.999_924_56];
    let x = s.max(s.splat(-126.0), s.min(s.splat(126.0), x));
    let rounded = s.add(x, s.splat(ROUND));
    let r = s.sub(x, s.sub(rounded, s.splat(ROUND)));
    let polynomial: &[f32] = if S::CHANNELS == 1 { &LONG } else { &SHORT };
    let mut p = s.splat(polynomial[0]);
    for coefficient in &polynomial[1..] {
        p = s.mul_add(p, r, s.splat(*coefficient));
    }
    s.scale_by_power(p, rounded)
}

/// 1 / (1 + e^-x) of an x that comes multiplied by [`SIGMOID_SCALE`](crate::engine::rewrite::SIGMOID_SCALE), to 3e-7 (3e-5 where words are bf16).
#[inline(always)]
pub(super) fn sigmoid_of_scaled<S: Simd>(s: S, t: S::V) -> S::V {
    s.recip(s.add(s.splat(1.0), exp2(s, t)))
}

/// x · Φ(x), to 3e-7 of max(1, |x|) (5e-5 where words are bf16): erfc by Abramowitz and Stegun 7.1.26, which is off
/// by at most 1.5e-7.
#[inline(always)]
#[allow(clippy::excessive_precision, reason = "as published")]
pub(super) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
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
    let e = exp2(s, s.mul(s.mul(x, x), s.splat(-0.5 * std::f32::consts::LOG2_E)));
    let erfc = s.mul(s.mul(p, t), e);
    // x Φ(x) is x - x erfc / 2 right of zero and x erfc / 2 left of it.
    s.sub(s.max(zero, x), s.mul(s.mul(size, s.splat(0.5)), erfc))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cpu::simd::Plain;

    /// The largest error over ±`limit` on the array level, in units of `scale(x)`.
    fn worst(
        limit: f64,
        function: impl Fn(Plain, [f32; 8]) -> [f32; 8],
        exact: impl Fn(f64) -> f64,
        scale: impl Fn(f64) -> f64,
    ) -> f64 {
        // SAFETY: the array level needs no features.
        let s = unsafe { Plain::new() };
        let steps = 100_000;
        let error = |i: i32| {
            let x = (limit * f64::from(i) / f64::from(steps)) as f32;
            let exact = exact(f64::from(x));
            (f64::from(function(s, [x; 8])[7]) - exact).abs() / scale(f64::from(x))
        };
        (-steps..=steps).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn errors_are_as_stated() {
        let exp2_error = worst(126.0, exp2, f64::exp2, f64::exp2);
        assert!(exp2_error < 3e-7, "{exp2_error}");
        let sigmoid_error = worst(100.0, sigmoid_of_scaled, |t| 1.0 / (1.0 + t.exp2()), |_| 1.0);
        assert!(sigmoid_error < 3e-7, "{sigmoid_error}");
        let gelu_error = worst(12.0, gelu, |x| x * normal_cdf(x), |x| x.abs().max(1.0));
        assert!(gelu_error < 3e-7, "{gelu_error}");
    }

    /// By its Maclaurin series, which has the digits of f64 to spare where it is used.
    fn normal_cdf(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return if x > 0.0 { 1.0 } else { 0.0 };
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= x * x / f64::from(2 * n + 1);
            sum += term;
        }
        0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
    }

    #[test]
    fn not_a_number_is_never_hidden() {
        // SAFETY: the array level needs no features.
        let s = unsafe { Plain::new() };
        for function in [exp2, sigmoid_of_scaled, gelu] {
            assert!(function(s, [f32::NAN; 8])[0].is_nan());
        }
    }
}
