//! exp, sigmoid and GELU for vectors.

use super::simd::Simd;

/// e^x to 2e-7 of its value, for x clamped to ±87; NaN stays NaN. Cephes' expf (S. Moshier, 1992): a whole power
/// of two, and a polynomial on ±ln 2 / 2.
#[inline(always)]
#[allow(clippy::excessive_precision, reason = "as published")]
pub(super) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    const LN_2_HIGH: f32 = 0.693_359_375;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding it rounds to a whole number, which the low bits of the sum then hold.
    const ROUND: f32 = 12_582_912.0;
    const POLYNOMIAL: [f32; 6] =
        [1.987_569_2e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_1e-1];
    let x = s.max(s.splat(-87.0), s.min(s.splat(87.0), x));
    let rounded = s.mul_add(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(rounded, s.splat(ROUND));
    let r = s.mul_add(n, s.splat(-LN_2_HIGH), x);
    let r = s.mul_add(n, s.splat(-LN_2_LOW), r);
    let mut p = s.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        p = s.mul_add(p, r, s.splat(*coefficient));
    }
    let p = s.mul_add(s.mul(p, r), r, s.add(r, s.splat(1.0)));
    s.mul(p, s.exponent(rounded))
}

/// 1 / (1 + e^-x), to 3e-7.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// x · Φ(x), to 2e-7 of max(1, |x|): erfc by Abramowitz and Stegun 7.1.26, which is off by at most 1.5e-7.
#[inline(always)]
#[allow(clippy::excessive_precision, reason = "as published")]
pub(super) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    const P: f32 = 0.327_591_1;
    const POLYNOMIAL: [f32; 5] = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
    let zero = s.splat(0.0);
    let size = s.max(s.sub(zero, x), x);
    let z = s.mul(size, s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = s.div(s.splat(1.0), s.mul_add(z, s.splat(P), s.splat(1.0)));
    let mut p = s.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        p = s.mul_add(p, t, s.splat(*coefficient));
    }
    let erfc = s.mul(s.mul(p, t), exp(s, s.sub(zero, s.mul(z, z))));
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
        let exp_error = worst(87.0, exp, f64::exp, f64::exp);
        assert!(exp_error < 2e-7, "{exp_error}");
        let sigmoid_error = worst(100.0, sigmoid, |x| 1.0 / (1.0 + (-x).exp()), |_| 1.0);
        assert!(sigmoid_error < 3e-7, "{sigmoid_error}");
        let gelu_error = worst(12.0, gelu, |x| x * normal_cdf(x), |x| x.abs().max(1.0));
        assert!(gelu_error < 2e-7, "{gelu_error}");
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
        for function in [exp, sigmoid, gelu] {
            assert!(function(s, [f32::NAN; 8])[0].is_nan());
        }
    }
}
