//! 2^x, sigmoid and GELU of every level of this machine against exact values.

use hasn_kernels::Level;
use hasn_kernels::math::{exp2, gelu, sigmoid_of_scaled};
use hasn_kernels::simd::*;

/// Calls a function with the token of every level of this machine.
macro_rules! on_every_level {
    ($function:ident) => {
        // SAFETY: the array level needs no features.
        let plain = unsafe { Plain::new() };
        $function(plain);
        #[cfg(target_arch = "x86_64")]
        for level in Level::available() {
            match level.name() {
                "avx2" => {
                    // SAFETY: the machine has the level.
                    let (token, int16) = unsafe { (Avx2::<2>::new(), Avx2Int16::<2>::new()) };
                    $function(token);
                    $function(int16);
                }
                "avxvnni" => {
                    // SAFETY: the machine has the level.
                    let token = unsafe { AvxVnniInt16::<2>::new() };
                    $function(token);
                }
                "avx512vnni" => {
                    // SAFETY: the machine has the level.
                    let token = unsafe { Avx512VnniInt16::<2>::new() };
                    $function(token);
                }
                "avx512" => {
                    // SAFETY: the machine has the level.
                    let token = unsafe { Avx512::<2>::new() };
                    $function(token);
                }
                "avx512bf16" => {
                    // SAFETY: the machine has the level.
                    let token = unsafe { Avx512Bf16::<2>::new() };
                    $function(token);
                }
                _ => {}
            }
        }
    };
}

fn last<S: Simd>(s: S, x: f32, function: impl Fn(S, S::V) -> S::V) -> f32 {
    let mut lanes = [0.0; PIXELS_MAX];
    s.store(&mut lanes, function(s, s.splat(x)));
    lanes[S::PIXELS - 1]
}

/// The largest error over ±`limit`, in units of `scale(x)`.
fn worst<S: Simd>(
    s: S,
    limit: f64,
    function: impl Fn(S, S::V) -> S::V,
    exact: impl Fn(f64) -> f64,
    scale: impl Fn(f64) -> f64,
) -> f64 {
    let steps = 100_000;
    let error = |i: i32| {
        let x = (limit * f64::from(i) / f64::from(steps)) as f32;
        (f64::from(last(s, x, &function)) - exact(f64::from(x))).abs() / scale(f64::from(x))
    };
    (-steps..=steps).map(error).fold(0.0, f64::max)
}

fn errors<S: Simd>(s: S) {
    let short = S::CHANNELS == 2;
    // The short polynomial is below 1 at 0, which makes 2^-126 subnormal.
    let limit = if short { 125.0 } else { 126.0 };
    let exp2_error = worst(s, limit, exp2, f64::exp2, f64::exp2);
    assert!(exp2_error < if short { 1e-4 } else { 3e-7 }, "{exp2_error}");
    let sigmoid_error = worst(s, 200.0, sigmoid_of_scaled, |t| 1.0 / (1.0 + t.exp2()), |_| 1.0);
    assert!(sigmoid_error < if short { 6e-5 } else { 3e-7 }, "{sigmoid_error}");
    let gelu_error = worst(s, 12.0, gelu, |x| x * normal_cdf(x), |x| x.abs().max(1.0));
    assert!(gelu_error < if short { 5e-6 } else { 3e-7 }, "{gelu_error}");
}

#[test]
fn errors_are_as_stated() {
    on_every_level!(errors);
}

/// Maclaurin series, more precise than f32 on this interval.
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

fn extremes<S: Simd>(s: S) {
    assert!(last(s, f32::NAN, exp2).is_nan());
    assert!(last(s, f32::NAN, sigmoid_of_scaled).is_nan());
    assert!(last(s, f32::NAN, gelu).is_nan());
    assert!(last(s, f32::MAX, sigmoid_of_scaled) < 1e-30);
    assert!((last(s, -f32::MAX, sigmoid_of_scaled) - 1.0).abs() < 6e-5);
    assert_eq!(last(s, f32::MAX, gelu), f32::MAX);
    assert_eq!(last(s, -1e30, gelu), 0.0);
}

#[test]
fn nan_stays_nan_and_large_numbers_do_not_become_nan() {
    on_every_level!(extremes);
}
