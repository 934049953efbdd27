//! 2^x, sigmoid and GELU for vectors. Levels of 16-bit words have shorter polynomials.

use super::simd::Simd;

/// 2^x with a relative error of 3e-7 (1e-4 with 16-bit words), for x within ±126 (±125); beyond, the result is bounded.
/// NaN stays NaN. It is an integer power of two times a minimax polynomial on ±1/2.
#[inline(always)]
#[allow(clippy::approx_constant, reason = "a coefficient of the minimax polynomial")]
pub fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    const LONG: [f32; 6] =
        [1.339_086_3e-3, 9.676_032e-3, 5.550_357e-2, 0.240_221_07, 0.693_147_2, 1.000_000_1];
    const SHORT: [f32; 4] = [5.583_828_3e-2, 0.242_639_48, 0.693_136_7, 0.999_924_56];
    let (integer, r) = s.split(x);
    let polynomial: &[f32] = if S::CHANNELS == 1 { &LONG } else { &SHORT };
    let mut p = s.splat(polynomial[0]);
    for coefficient in &polynomial[1..] {
        p = s.mul_add(p, r, s.splat(*coefficient));
    }
    s.scale_by_power(p, integer)
}

/// 1 / (1 + e^-x) of t = -log2(e) · x, with an error of 3e-7 (3e-5 with 16-bit words).
#[inline(always)]
pub fn sigmoid_of_scaled<S: Simd>(s: S, t: S::V) -> S::V {
    s.recip(s.add(s.splat(1.0), exp2(s, t)))
}

/// x · Φ(x), with an error of 3e-7 of max(1, |x|) (5e-6 with 16-bit words); NaN stays NaN. Φ - 1/2 is odd: x times a
/// minimax polynomial in x², which exceeds 1/2 at the end of its interval and is clamped there.
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    const LONG: [[f32; 2]; 7] = [
        [-2.658_904e-4, 9.272_151e-4],
        [-1.267_756_1e-3, 1.702_320_8e-3],
        [-3.893_786_3e-3, 7.527_764_4e-3],
        [-1.173_090_9e-2, 1.717_746e-2],
        [-2.407_524_5e-2, 3.177_106_8e-2],
        [-4.021_416_6e-2, 5.077_920_5e-2],
        [-6.900_333_6e-2, 1.386_053_3e-1],
    ];
    const SHORT: [[f32; 2]; 5] = [
        [-1.690_265_6e-3, 4.867_636_6e-3],
        [-6.514_327e-3, 9.795_982e-3],
        [-1.821_429_8e-2, 2.879_321_2e-2],
        [-4.029_647_3e-2, 5.464_631_7e-2],
        [-7.718_243e-2, 1.569_058_7e-1],
    ];
    let (pairs, end): (&[[f32; 2]], f32) = if S::CHANNELS == 1 { (&LONG, 5.1) } else { (&SHORT, 4.5) };
    let inside = s.min(s.splat(end), s.max(s.splat(-end), x));
    // x² is mapped to -1..1, where powers do not cancel each other.
    let u = s.mul_add(s.mul(inside, inside), s.splat(2.0 / (end * end)), s.splat(-1.0));
    // Odd and even powers are separate chains, which do not wait for each other.
    let squared = s.mul(u, u);
    let [mut odd, mut even] = [s.splat(pairs[0][0]), s.splat(pairs[0][1])];
    for &[of_odd, of_even] in &pairs[1..] {
        odd = s.mul_add(odd, squared, s.splat(of_odd));
        even = s.mul_add(even, squared, s.splat(of_even));
    }
    let phi = s.mul_add(inside, s.mul_add(odd, u, even), s.splat(0.5));
    s.mul(x, s.min(s.splat(1.0), s.max(s.splat(0.0), phi)))
}
