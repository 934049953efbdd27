//! The one source of ITU-R numbers: code points of H.273, K_R and K_B, and what follows from them.
//!
//! In: colour tags of a stream. Out: coefficients and quantization as plain numbers, for the engines. It knows no buffer
//! and no FFmpeg.

/// H.273 `MatrixCoefficients`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Matrix(pub u8);

impl Matrix {
    /// R'G'B': no matrix.
    pub const IDENTITY: Matrix = Matrix(0);
    /// BT.709.
    pub const BT709: Matrix = Matrix(1);
    /// Unspecified.
    pub const UNSPECIFIED: Matrix = Matrix(2);
    /// BT.470 System B, G: BT.601's numbers, 625 lines.
    pub const BT470BG: Matrix = Matrix(5);
    /// SMPTE 170M: BT.601's numbers, 525 lines.
    pub const SMPTE170M: Matrix = Matrix(6);
    /// BT.2020, non-constant luminance.
    pub const BT2020_NCL: Matrix = Matrix(9);

    /// Returns (K_R, K_B) of H.273 table 4; `None` where they do not define the matrix.
    pub fn luma_coefficients(self) -> Option<(f64, f64)> {
        match self.0 {
            1 => Some((0.2126, 0.0722)),
            4 => Some((0.30, 0.11)),
            5 | 6 => Some((0.299, 0.114)),
            7 => Some((0.212, 0.087)),
            9 => Some((0.2627, 0.0593)),
            _ => None,
        }
    }

    /// The common name, for messages.
    pub fn name(self) -> &'static str {
        match self.0 {
            0 => "R'G'B'",
            1 => "BT.709",
            2 => "unspecified",
            4 => "FCC",
            5 | 6 => "BT.601",
            7 => "SMPTE 240M",
            8 => "YCgCo",
            9 => "BT.2020",
            10 => "BT.2020 constant luminance",
            11 => "SMPTE 2085",
            12 => "chromaticity-derived",
            13 => "chromaticity-derived constant luminance",
            14 => "ICtCp",
            15 => "IPT-C2",
            16 | 17 => "YCgCo-R",
            _ => "reserved",
        }
    }

    /// Guesses the matrix of untagged Y'CbCr of this size, as players do.
    pub fn guess(primaries: Primaries, width: usize, height: usize) -> Matrix {
        match primaries {
            Primaries::BT2020 => Matrix::BT2020_NCL,
            _ if width >= 1280 || height > 576 => Matrix::BT709,
            _ => Matrix::SMPTE170M,
        }
    }
}

/// H.273 `ColourPrimaries`, passed through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Primaries(pub u8);

/// H.273 `TransferCharacteristics`, passed through; only linear light and sRGB are computed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer(pub u8);

impl Primaries {
    /// BT.709, sRGB.
    pub const BT709: Primaries = Primaries(1);
    /// Unspecified.
    pub const UNSPECIFIED: Primaries = Primaries(2);
    /// BT.470 System B, G: BT.601, 625 lines.
    pub const BT470BG: Primaries = Primaries(5);
    /// SMPTE 170M: BT.601, 525 lines.
    pub const SMPTE170M: Primaries = Primaries(6);
    /// BT.2020.
    pub const BT2020: Primaries = Primaries(9);

    /// Guesses the primaries of untagged Y'CbCr with this matrix and number of lines, as players do.
    pub fn guess(matrix: Matrix, height: usize) -> Primaries {
        match (matrix.0, height) {
            (9 | 10, _) => Primaries::BT2020,
            (5 | 6, 576 | 288) => Primaries::BT470BG,
            (5 | 6, 480 | 486 | 240) | (7, _) => Primaries::SMPTE170M,
            _ => Primaries::BT709,
        }
    }

    /// The primaries with these chromaticities of R, G, B and white, x and y of each.
    pub(crate) fn of_chromaticities(chromaticities: &[f64; 8]) -> Option<Primaries> {
        // Files have them rounded.
        const TOLERANCE: f64 = 0.002;
        let is_near = |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE;
        let is_same = |(_, values): &&(Primaries, [f64; 8])| values.iter().zip(chromaticities).all(is_near);
        CHROMATICITIES.iter().find(is_same).map(|&(primaries, _)| primaries)
    }

    /// Chromaticities of R, G, B and white, x and y of each.
    pub(crate) fn chromaticities(self) -> Option<[f64; 8]> {
        CHROMATICITIES.iter().find(|(primaries, _)| *primaries == self).map(|&(_, values)| values)
    }
}

/// H.273 table 2.
const CHROMATICITIES: [(Primaries, [f64; 8]); 9] = [
    (Primaries(1), [0.640, 0.330, 0.300, 0.600, 0.150, 0.060, 0.3127, 0.3290]),
    (Primaries(4), [0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316]),
    (Primaries(5), [0.64, 0.33, 0.29, 0.60, 0.15, 0.06, 0.3127, 0.3290]),
    (Primaries(6), [0.630, 0.340, 0.310, 0.595, 0.155, 0.070, 0.3127, 0.3290]),
    (Primaries(8), [0.681, 0.319, 0.243, 0.692, 0.145, 0.049, 0.310, 0.316]),
    (Primaries(9), [0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290]),
    (Primaries(11), [0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351]),
    (Primaries(12), [0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290]),
    (Primaries(22), [0.630, 0.340, 0.295, 0.605, 0.155, 0.077, 0.3127, 0.3290]),
];

impl Transfer {
    /// BT.709. BT.601 and BT.2020 have the same function.
    pub const BT709: Transfer = Transfer(1);
    /// Unspecified.
    pub const UNSPECIFIED: Transfer = Transfer(2);
    /// Linear light.
    pub const LINEAR: Transfer = Transfer(8);
    /// IEC 61966-2-1: sRGB.
    pub const SRGB: Transfer = Transfer(13);
    /// SMPTE ST 2084: PQ.
    pub const PQ: Transfer = Transfer(16);
    /// ARIB STD-B67: HLG.
    pub const HLG: Transfer = Transfer(18);

    /// Whether it is that of HDR.
    pub fn is_hdr(self) -> bool {
        matches!(self, Transfer::PQ | Transfer::HLG)
    }
}

/// The linear segment of IEC 61966-2-1 near black.
const SRGB_LINE_END: f32 = 0.003_130_8;
const SRGB_SLOPE: f32 = 12.92;
/// The rest of the curve: `(1 + A) * light^(1/GAMMA) - A`.
const SRGB_A: f32 = 0.055;
const SRGB_GAMMA: f32 = 2.4;
/// The largest finite f16: larger values, or NaN, would spread over the frame through the means of a network.
const LIGHT_MAX: f32 = 65_504.0;

/// Codes linear light as sRGB, extended above 1 and mirrored below 0. NaN becomes 0.
#[inline(always)]
pub(crate) fn linear_to_srgb(light: f32) -> f32 {
    let x = if light.is_nan() { 0.0 } else { light.abs().min(LIGHT_MAX) };
    let curve = (1.0 + SRGB_A) * pow(x.max(SRGB_LINE_END), 1.0 / SRGB_GAMMA) - SRGB_A;
    (if x <= SRGB_LINE_END { SRGB_SLOPE * x } else { curve }).copysign(light)
}

/// The inverse of [`linear_to_srgb`].
#[inline(always)]
pub(crate) fn srgb_to_linear(code: f32) -> f32 {
    const LINE_END: f32 = SRGB_SLOPE * SRGB_LINE_END;
    let y = code.abs();
    let curve = pow((y.max(LINE_END) + SRGB_A) / (1.0 + SRGB_A), SRGB_GAMMA);
    (if y <= LINE_END { y / SRGB_SLOPE } else { curve }).copysign(code)
}

/// `x^y` for normal `x` above 0, with a relative error of about 1e-6. It has no branch, table or call, so that loops
/// vectorise.
#[inline(always)]
fn pow(x: f32, y: f32) -> f32 {
    exp2(y * log2(x))
}

/// Series of artanh on sqrt(1/2)..sqrt(2).
#[inline(always)]
fn log2(x: f32) -> f32 {
    const SQRT_HALF: u32 = std::f32::consts::FRAC_1_SQRT_2.to_bits();
    let exponent = (x.to_bits().wrapping_sub(SQRT_HALF) as i32) >> 23;
    let mantissa = f32::from_bits(x.to_bits().wrapping_sub((exponent << 23) as u32));
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let series = 1.0 + s2 * (1.0 / 3.0 + s2 * (1.0 / 5.0 + s2 * (1.0 / 7.0 + s2 * (1.0 / 9.0))));
    exponent as f32 + 2.0 * std::f32::consts::LOG2_E * s * series
}

/// Series of the exponential function on -1/2..1/2.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to an integer and leaves that in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let rounded = x + ROUND;
    let t = (x - (rounded - ROUND)) * std::f32::consts::LN_2;
    let series = 1.0
        + t * (1.0
            + t * (1.0 / 2.0 + t * (1.0 / 6.0 + t * (1.0 / 24.0 + t * (1.0 / 120.0 + t * (1.0 / 720.0))))));
    series * f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// H.273 `VideoFullRangeFlag`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Range {
    /// Y' in 16..235, Cb and Cr in 16..240 (8-bit).
    Limited,
    /// All code values.
    Full,
}

/// H.273 `ChromaSampleLocType`: the siting of a chroma sample in its cell of luma samples.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ChromaLocation {
    /// 0: on the left column, half way down. MPEG-2, H.264 and HEVC by default.
    Left = 0,
    /// 1: in the middle of the cell. JPEG, MPEG-1.
    Center = 1,
    /// 2: on the upper left luma sample. BT.2020, DV.
    TopLeft = 2,
    /// 3: on the upper row, half way across.
    Top = 3,
    /// 4: on the lower left luma sample.
    BottomLeft = 4,
    /// 5: on the lower row, half way across.
    Bottom = 5,
}

impl ChromaLocation {
    /// Position of chroma sample (0, 0) in luma samples, where luma sample (0, 0) lies at (0.5, 0.5):
    /// chroma sample k of a direction then lies at `k * 2^log2 + offset`.
    pub fn offset(self, log2_chroma_w: u8, log2_chroma_h: u8) -> (f64, f64) {
        use ChromaLocation::*;
        let first = 0.5;
        let middle = |log2: u8| f64::from(1u32 << log2) / 2.0;
        let last = |log2: u8| f64::from(1u32 << log2) - 0.5;
        let x = match self {
            Left | TopLeft | BottomLeft => first,
            Center | Top | Bottom => middle(log2_chroma_w),
        };
        let y = match self {
            TopLeft | Top => first,
            Left | Center => middle(log2_chroma_h),
            BottomLeft | Bottom => last(log2_chroma_h),
        };
        (x, y)
    }
}

/// The colour properties of a frame's code values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ColorSpec {
    /// Matrix from R'G'B' to Y'CbCr.
    pub matrix: Matrix,
    /// Colour primaries, passed through.
    pub primaries: Primaries,
    /// Transfer function, passed through except for linear light.
    pub transfer: Transfer,
    /// Range of the code values.
    pub range: Range,
    /// Siting of subsampled chroma.
    pub chroma_location: ChromaLocation,
}

impl ColorSpec {
    /// Returns the same colour space as R'G'B'.
    pub fn as_rgb(self) -> ColorSpec {
        ColorSpec { matrix: Matrix::IDENTITY, range: Range::Full, ..self }
    }
}

/// The kind of a component, which decides how its code values are quantized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Y'.
    Luma,
    /// Cb or Cr.
    Chroma,
    /// R', G', B' or alpha: all code values, whatever the tagged range.
    Full,
}

/// Code values of n bits as numbers: `value = (code - zero) / unit`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quantization {
    /// The code value of 0.
    pub zero: f32,
    /// Number of code values from 0 to 1.
    pub unit: f32,
}

impl Quantization {
    /// Returns the quantization of BT.601, BT.709 and BT.2100: Y' is 0..1, Cb and Cr are -0.5..0.5.
    pub fn new(signal: Signal, range: Range, depth: u8) -> Quantization {
        let step = (1u32 << depth) as f32 / 256.0;
        let peak = ((1u64 << depth) - 1) as f32;
        let (zero, unit) = match (signal, range) {
            (Signal::Luma, Range::Limited) => (16.0 * step, 219.0 * step),
            (Signal::Chroma, Range::Limited) => (128.0 * step, 224.0 * step),
            (Signal::Chroma, Range::Full) => (128.0 * step, peak),
            (Signal::Luma, Range::Full) | (Signal::Full, _) => (0.0, peak),
        };
        Quantization { zero, unit }
    }
}

/// Returns the matrix whose rows give Y', Cb, Cr of R', G', B'.
pub fn rgb_to_ycbcr((k_r, k_b): (f64, f64)) -> [[f32; 3]; 3] {
    let k_g = 1.0 - k_r - k_b;
    let y = [k_r, k_g, k_b];
    let difference = |component: usize, k: f64| -> [f64; 3] {
        std::array::from_fn(|i| (f64::from(u8::from(i == component)) - y[i]) / (2.0 * (1.0 - k)))
    };
    [y, difference(2, k_b), difference(0, k_r)].map(|row| row.map(|v| v as f32))
}

/// Returns the matrix whose rows give R', G', B' of Y', Cb, Cr.
pub fn ycbcr_to_rgb((k_r, k_b): (f64, f64)) -> [[f32; 3]; 3] {
    let k_g = 1.0 - k_r - k_b;
    let (from_cr, from_cb) = (2.0 * (1.0 - k_r), 2.0 * (1.0 - k_b));
    let rows = [[1.0, 0.0, from_cr], [1.0, -k_b * from_cb / k_g, -k_r * from_cr / k_g], [1.0, from_cb, 0.0]];
    rows.map(|row| row.map(|v| v as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_matrices_are_inverse() {
        for code in [1, 4, 5, 6, 7, 9] {
            let k = Matrix(code).luma_coefficients().unwrap();
            let (there, back) = (rgb_to_ycbcr(k), ycbcr_to_rgb(k));
            for (i, j) in (0..9).map(|n| (n / 3, n % 3)) {
                let product: f32 = (0..3).map(|n| back[i][n] * there[n][j]).sum();
                assert!((product - f32::from(u8::from(i == j))).abs() < 1e-6, "matrix {code}");
            }
        }
    }

    #[test]
    fn bt709_is_the_published_one() {
        let m = ycbcr_to_rgb(Matrix::BT709.luma_coefficients().unwrap());
        assert!((m[0][2] - 1.5748).abs() < 1e-4 && (m[1][1] + 0.1873).abs() < 1e-4);
        assert!((m[1][2] + 0.4681).abs() < 1e-4 && (m[2][1] - 1.8556).abs() < 1e-4);
    }

    #[test]
    fn srgb_is_extended_above_1_mirrored_below_0_and_invertible() {
        let exact = |x: f64| {
            if x <= 0.0031308 { 12.92 * x } else { 1.055 * x.powf(1.0 / 2.4) - 0.055 }
        };
        for i in 0..200_000 {
            // From 1e-9 to 6e4, evenly in the exponent.
            let light = (f64::from(i) / 199_999.0 * 31.7 - 20.7).exp() as f32;
            let code = linear_to_srgb(light);
            let wanted = exact(f64::from(light)) as f32;
            assert!((code - wanted).abs() <= 2e-6 * wanted.max(0.01), "{light}: {code}, {wanted}");
            assert_eq!(linear_to_srgb(-light), -code);
            let back = srgb_to_linear(code);
            assert!((back - light).abs() <= 1e-5 * light, "{light}: {back}");
            assert_eq!(srgb_to_linear(-code), -back);
        }
        assert_eq!([0.0, 1.0].map(linear_to_srgb).map(|code| (code * 1e6).round()), [0.0, 1e6]);
        assert_eq!(linear_to_srgb(f32::NAN).abs(), 0.0);
        assert_eq!(linear_to_srgb(f32::INFINITY), linear_to_srgb(65504.0));
    }

    #[test]
    fn chroma_lies_where_h273_draws_it() {
        use ChromaLocation::*;
        // In 4:2:0, where luma samples lie at 0.5 and 1.5: on one of them, or half way between.
        for (location, position) in [
            (Left, (0.5, 1.0)),
            (Center, (1.0, 1.0)),
            (TopLeft, (0.5, 0.5)),
            (Top, (1.0, 0.5)),
            (BottomLeft, (0.5, 1.5)),
            (Bottom, (1.0, 1.5)),
        ] {
            assert_eq!(location.offset(1, 1), position, "{location:?}");
            assert_eq!(location.offset(0, 0), (0.5, 0.5), "{location:?} of 4:4:4 is on the luma sample");
        }
    }

    #[test]
    fn limited_range_puts_black_white_and_gray_where_the_standards_do() {
        let code = |signal, depth, value: f32| {
            let q = Quantization::new(signal, Range::Limited, depth);
            value * q.unit + q.zero
        };
        assert_eq!([code(Signal::Luma, 8, 0.0), code(Signal::Luma, 8, 1.0)], [16.0, 235.0]);
        assert_eq!([code(Signal::Luma, 10, 0.0), code(Signal::Luma, 10, 1.0)], [64.0, 940.0]);
        assert_eq!([code(Signal::Chroma, 10, 0.0), code(Signal::Chroma, 10, 0.5)], [512.0, 960.0]);
        assert_eq!(Quantization::new(Signal::Full, Range::Limited, 16).unit, 65535.0);
    }
}
