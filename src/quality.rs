//! PSNR and SSIM of luma between frames.
//!
//! In: pairs of frames of one size. Out: figures of each frame and of all of them, over code values as the
//! super-resolution literature reports them. It knows nothing of engines and files.
//!
//! SSIM is that of Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to
//! structural similarity" (IEEE Transactions on Image Processing 13(4), 2004): a Gaussian window that lies
//! entirely inside the frame.

use crate::color::{Matrix, Quantization, Range, Signal};
use crate::error::{Error, Result};
use crate::frame::{Family, Frame, FrameFormat};
use crate::pixel::read::read_component;

/// Side of the SSIM window.
const WINDOW: usize = 11;
/// Standard deviation of the SSIM window.
const SIGMA: f64 = 1.5;

/// A constant of Wang et al. that stabilises SSIM, relative to the peak.
const K1: f64 = 0.01;
/// See [`K1`].
const K2: f64 = 0.03;

/// Returns Y' of a frame as code values, `[H, W]`, and the largest code value.
///
/// Gray and Y'CbCr frames keep their own codes. R'G'B' is converted to BT.601 Y' in 8-bit limited range (16..235), as in
/// the literature; so is float gray, which has no codes of its own.
#[cfg(test)]
fn luma_plane(frame: &Frame) -> (Vec<f32>, f32) {
    let units = Units::of(&frame.format);
    (luma_in(frame, units), units.peak())
}

/// The code values in which luma is compared.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Units {
    depth: u8,
    range: Range,
}

impl Units {
    fn of(frame_format: &FrameFormat) -> Units {
        match frame_format.pixel_format.family {
            Family::Gray | Family::Ycbcr if !frame_format.pixel_format.float => {
                Units { depth: frame_format.pixel_format.depth(), range: frame_format.color.range }
            }
            _ => Units { depth: 8, range: Range::Limited },
        }
    }

    /// Returns the units of the deeper frame. Limited range takes precedence, because R'G'B' is compared in it.
    fn common(self, other: Units) -> Units {
        let range = if self.range == other.range { self.range } else { Range::Limited };
        Units { depth: self.depth.max(other.depth), range }
    }

    fn peak(self) -> f32 {
        ((1u32 << self.depth) - 1) as f32
    }
}

/// Reads Y' in units at least as deep as the frame's own.
fn luma_in(frame: &Frame, units: Units) -> Vec<f32> {
    let frame_format = &frame.format;
    let (width, height) = (frame_format.width, frame_format.height);
    let mut luma = vec![0.0; width * height];
    read_component(frame, 0, &mut luma);
    if frame_format.pixel_format.family == Family::Rgb {
        let (k_r, k_b) = Matrix::SMPTE170M.luma_coefficients().expect("BT.601 has K_R and K_B");
        let mut other = vec![0.0; width * height];
        luma.iter_mut().for_each(|v| *v *= k_r as f32);
        for (component, weight) in [(1, 1.0 - k_r - k_b), (2, k_b)] {
            read_component(frame, component, &mut other);
            luma.iter_mut().zip(&other).for_each(|(sum, v)| *sum += weight as f32 * v);
        }
    }
    let own = Units::of(frame_format);
    let Quantization { zero, unit } = Quantization::new(Signal::Luma, own.range, own.depth);
    // Codes of the same range differ by a power of two; otherwise the value is quantized again.
    let (zero, unit) = if own.range == units.range {
        let align = (1u32 << (units.depth - own.depth)) as f32;
        (zero * align, unit * align)
    } else {
        let to = Quantization::new(Signal::Luma, units.range, units.depth);
        (to.zero, to.unit)
    };
    let coded = frame_format.pixel_format.family != Family::Rgb && !frame_format.pixel_format.float;
    let integer = coded && own.range == units.range;
    for v in &mut luma {
        let code = *v * unit + zero;
        // An integer code stays one, so that equal frames have no difference.
        *v = if integer { code.round_ties_even() } else { code };
    }
    luma
}

/// Returns the mean squared error.
fn mse(a: &[f32], b: &[f32]) -> f64 {
    assert!(a.len() == b.len() && !a.is_empty(), "planes of one size");
    let squares = |(&a, &b): (&f32, &f32)| f64::from(a - b) * f64::from(a - b);
    a.iter().zip(b).map(squares).sum::<f64>() / a.len() as f64
}

/// Returns the PSNR in dB; infinite for equal frames.
fn psnr(mse: f64, peak: f32) -> f64 {
    10.0 * (f64::from(peak) * f64::from(peak) / mse).log10()
}

/// Returns the mean SSIM of two planes `[H, W]`, at least 11x11.
fn ssim(a: &[f32], b: &[f32], width: usize, peak: f32) -> f64 {
    assert!(a.len() == b.len() && a.len().is_multiple_of(width), "planes of one size");
    let height = a.len() / width;
    assert!(width >= WINDOW && height >= WINDOW, "{width}x{height} is smaller than the window");
    let (out_width, out_height) = (width - WINDOW + 1, height - WINDOW + 1);
    let taps = gaussian();
    let stabilise = |k: f64| (k * f64::from(peak)).powi(2);
    let (c1, c2) = (stabilise(K1), stabilise(K2));
    // Windowed sums of a, b, a^2 + b^2 and ab: first down the columns, then along the row. They are f64, because variances
    // are small differences of large sums: in flat frames the fifth digit of SSIM in f32 was wrong.
    let mut columns = [(); 4].map(|()| vec![0.0f64; width]);
    let mut sums = [(); 4].map(|()| vec![0.0f64; out_width]);
    let mut total = 0.0;
    for y in 0..out_height {
        sum_columns(&taps, &a[y * width..], &b[y * width..], &mut columns);
        for (sum, column) in sums.iter_mut().zip(&columns) {
            sum_row(&taps, column, sum);
        }
        let [mean_a, mean_b, squares, products] = &sums;
        for (((&mean_a, &mean_b), &squares), &products) in
            mean_a.iter().zip(mean_b).zip(squares).zip(products)
        {
            let (mean_squares, mean_product) = (mean_a * mean_a + mean_b * mean_b, mean_a * mean_b);
            let (variances, covariance) = (squares - mean_squares, products - mean_product);
            total += ((2.0 * mean_product + c1) * (2.0 * covariance + c2))
                / ((mean_squares + c1) * (variances + c2));
        }
    }
    total / (out_width * out_height) as f64
}

/// Returns the window along one axis, whose sum is 1.
fn gaussian() -> [f64; WINDOW] {
    let weights: [f64; WINDOW] = std::array::from_fn(|i| {
        let x = i as f64 - (WINDOW / 2) as f64;
        (-x * x / (2.0 * SIGMA * SIGMA)).exp()
    });
    let total: f64 = weights.iter().sum();
    weights.map(|w| w / total)
}

/// Windowed sums down the columns of the first 11 rows of `a` and `b`.
fn sum_columns(taps: &[f64; WINDOW], a: &[f32], b: &[f32], sums: &mut [Vec<f64>; 4]) {
    let [mean_a, mean_b, squares, products] = sums;
    let width = mean_a.len();
    for sums in [&mut *mean_a, mean_b, squares, products] {
        sums.fill(0.0);
    }
    for ((&tap, a), b) in taps.iter().zip(a.chunks_exact(width)).zip(b.chunks_exact(width)) {
        let outputs = mean_a.iter_mut().zip(&mut *mean_b).zip(&mut *squares).zip(&mut *products);
        for ((((mean_a, mean_b), squares), products), (&a, &b)) in outputs.zip(a.iter().zip(b)) {
            let (a, b) = (f64::from(a), f64::from(b));
            let (weighted_a, weighted_b) = (tap * a, tap * b);
            *mean_a += weighted_a;
            *mean_b += weighted_b;
            *squares += weighted_a * a + weighted_b * b;
            *products += weighted_a * b;
        }
    }
}

/// Windowed sums along a row.
fn sum_row(taps: &[f64; WINDOW], row: &[f64], sums: &mut [f64]) {
    sums.fill(0.0);
    for (start, &tap) in taps.iter().enumerate() {
        sums.iter_mut().zip(&row[start..]).for_each(|(sum, &v)| *sum += tap * v);
    }
}

/// Figures of one pair of frames.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FrameQuality {
    /// Mean squared error of luma, in code values.
    pub mse: f64,
    /// PSNR in dB; infinite for equal frames.
    pub psnr: f64,
    /// SSIM; 1 for equal frames.
    pub ssim: f64,
    /// The largest code value, which PSNR is relative to.
    pub peak: f32,
}

/// Figures over many frames.
#[derive(Clone, Default, Debug)]
pub struct Quality {
    frames: Vec<FrameQuality>,
}

impl Quality {
    /// Compares a frame with its original, and adds it to the figures.
    pub fn add(&mut self, frame: &Frame, original: &Frame) -> Result<FrameQuality> {
        let (a, b) = (&frame.format, &original.format);
        let (width, height) = (a.width, a.height);
        if (width, height) != (b.width, b.height) {
            let problem = format!("is {width}x{height} and its original {}x{}", b.width, b.height);
            return Err(Error::new("frame", problem, "compare frames of one size"));
        }
        if width < WINDOW || height < WINDOW {
            let problem = format!("is {width}x{height}; SSIM needs {WINDOW}x{WINDOW} at least");
            return Err(Error::new("frame", problem, "compare larger frames"));
        }
        let units = Units::of(a).common(Units::of(b));
        let (a, b, peak) = (luma_in(frame, units), luma_in(original, units), units.peak());
        let mse = mse(&a, &b);
        let quality = FrameQuality { mse, psnr: psnr(mse, peak), ssim: ssim(&a, &b, width, peak), peak };
        self.frames.push(quality);
        Ok(quality)
    }

    /// Figures of each frame, in the order of addition.
    pub fn frames(&self) -> &[FrameQuality] {
        &self.frames
    }

    /// Mean of the frames' PSNR; infinite where any frame equals its original.
    pub fn psnr_mean(&self) -> f64 {
        self.mean(|p| p.psnr)
    }

    /// PSNR of the mean MSE, which is finite unless all frames are equal.
    pub fn psnr_of_mean_mse(&self) -> f64 {
        // Relative to the peak, so that frames of different bit depths have equal weight.
        psnr(self.mean(|p| p.mse / f64::from(p.peak).powi(2)), 1.0)
    }

    /// Mean of the frames' SSIM.
    pub fn ssim_mean(&self) -> f64 {
        self.mean(|p| p.ssim)
    }

    fn mean(&self, figure: impl Fn(&FrameQuality) -> f64) -> f64 {
        self.frames.iter().map(figure).sum::<f64>() / self.frames.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixel::write::{Rounding, write_component};
    use crate::testing::frame_format;

    /// A frame whose components hold these code values.
    fn frame(width: usize, height: usize, name: &'static str, code: impl Fn(usize, usize) -> f32) -> Frame {
        let frame_format = frame_format(width, height, name);
        of(frame_format, code)
    }

    fn of(frame_format: FrameFormat, code: impl Fn(usize, usize) -> f32) -> Frame {
        let mut frame = Frame::new(frame_format);
        for i in 0..frame_format.pixel_format.component_count() {
            let q = frame_format.quantization(i);
            let (width, height) = frame_format.component_size(i);
            let plane: Vec<f32> = (0..width * height).map(|n| (code(i, n) - q.zero) / q.unit).collect();
            write_component(&mut frame, i, &plane, Rounding::Nearest);
        }
        frame
    }

    fn scene(n: usize) -> f32 {
        let wave = (n % 64) as f32 * 0.3;
        (120.0 + 60.0 * wave.sin() + 40.0 * ((n / 64) as f32 * 0.2).cos()).round()
    }

    #[test]
    fn luma_is_in_the_codes_of_the_literature() {
        let first = |frame: Frame| {
            let (plane, peak) = luma_plane(&frame);
            (plane[0], peak)
        };
        assert_eq!(first(frame(16, 16, "yuv420p", |_, _| 77.0)), (77.0, 255.0));
        assert_eq!(first(frame(16, 16, "p010le", |_, _| 701.0)), (701.0, 1023.0));
        assert_eq!(first(frame(16, 16, "gray16be", |_, _| 31_001.0)), (31_001.0, 65_535.0));
        assert_eq!(first(frame(16, 16, "grayf32le", |_, _| 0.5)), (125.5, 255.0));
        let (red, peak) = first(frame(16, 16, "rgb24", |i, _| if i == 0 { 255.0 } else { 0.0 }));
        assert!((red - (16.0 + 65.481)).abs() < 1e-4 && peak == 255.0, "{red}");
        let (white, _) = first(frame(16, 16, "gbrp10le", |_, _| 1023.0));
        assert!((white - 235.0).abs() < 1e-4, "{white}");
    }

    #[test]
    fn a_frame_equals_itself() {
        for name in ["gray", "yuv420p", "p010le", "yuv444p16le", "rgb24", "gbrpf32le"] {
            let one = || frame(64, 48, name, |_, n| scene(n));
            let figures = Quality::default().add(&one(), &one()).unwrap();
            assert_eq!((figures.mse, figures.psnr), (0.0, f64::INFINITY), "{name}");
            assert!((figures.ssim - 1.0).abs() < 1e-12, "{name}: {}", figures.ssim);
        }
    }

    #[test]
    fn psnr_is_that_of_the_added_noise() {
        // Every sample off by 2 is an MSE of 4: 10 log10(255^2 / 4).
        let original = frame(64, 48, "gray", |_, n| scene(n));
        let off = frame(64, 48, "gray", |_, n| scene(n) + if n % 2 == 0 { 2.0 } else { -2.0 });
        let half = frame(64, 48, "gray", |_, n| scene(n) + if n % 2 == 0 { 2.0 } else { 0.0 });
        let mut quality = Quality::default();
        let first = quality.add(&off, &original).unwrap();
        assert_eq!(first.mse, 4.0);
        assert!((first.psnr - 42.1102).abs() < 1e-4, "{}", first.psnr);
        let second = quality.add(&half, &original).unwrap();
        assert_eq!(second.mse, 2.0);
        assert!((quality.psnr_mean() - (42.1102 + 45.1205) / 2.0).abs() < 1e-4);
        assert!((quality.psnr_of_mean_mse() - 43.3596).abs() < 1e-4, "{}", quality.psnr_of_mean_mse());
        assert_eq!(quality.ssim_mean(), (first.ssim + second.ssim) / 2.0);
        assert_eq!(quality.frames().len(), 2);
    }

    #[test]
    fn ssim_of_flat_frames_is_their_luminance_term() {
        let (a, b) = (vec![100.0; 20 * 15], vec![120.0; 20 * 15]);
        let c1 = (0.01f64 * 255.0).powi(2);
        let expected = (2.0 * 100.0 * 120.0 + c1) / (100.0 * 100.0 + 120.0 * 120.0 + c1);
        assert!((ssim(&a, &b, 20, 255.0) - expected).abs() < 1e-9);
    }

    #[test]
    fn ssim_is_the_definition() {
        let (width, height) = (19, 14);
        let a: Vec<f32> = (0..width * height).map(|n| ((n * 7919) % 256) as f32).collect();
        let b: Vec<f32> = (0..width * height).map(|n| ((n * 7919 + n % 5 * 20) % 256) as f32).collect();
        let weights: Vec<f64> = (0..121)
            .map(|n| {
                let (x, y) = ((n % 11) as f64 - 5.0, (n / 11) as f64 - 5.0);
                (-(x * x + y * y) / 4.5).exp()
            })
            .collect();
        let norm: f64 = weights.iter().sum();
        let (c1, c2) = ((0.01f64 * 255.0).powi(2), (0.03f64 * 255.0).powi(2));
        let (mut total, mut windows) = (0.0, 0.0);
        for (y, x) in (0..height - 10).flat_map(|y| (0..width - 10).map(move |x| (y, x))) {
            let at = |p: &[f32], n: usize| f64::from(p[(y + n / 11) * width + x + n % 11]);
            let mean = |f: &dyn Fn(usize) -> f64| (0..121).map(|n| weights[n] * f(n)).sum::<f64>() / norm;
            let (ma, mb) = (mean(&|n| at(&a, n)), mean(&|n| at(&b, n)));
            let va = mean(&|n| (at(&a, n) - ma).powi(2));
            let vb = mean(&|n| (at(&b, n) - mb).powi(2));
            let cov = mean(&|n| (at(&a, n) - ma) * (at(&b, n) - mb));
            total += (2.0 * ma * mb + c1) * (2.0 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
            windows += 1.0;
        }
        let found = ssim(&a, &b, width, 255.0);
        assert!((found - total / windows).abs() < 1e-9, "{found}, {}", total / windows);
    }

    #[test]
    fn depths_and_ranges_are_aligned() {
        let eight = frame(64, 48, "yuv420p", |_, n| scene(n));
        let ten = frame(64, 48, "yuv420p10le", |_, n| scene(n) * 4.0 + 4.0);
        let figures = Quality::default().add(&eight, &ten).unwrap();
        assert_eq!((figures.mse, figures.peak), (16.0, 1023.0));

        let mut full = frame_format(64, 48, "gray");
        full.color.range = Range::Full;
        let gray = of(full, |_, n| scene(n));
        let rgb = frame(64, 48, "rgb24", |_, n| scene(n));
        assert!(Quality::default().add(&gray, &rgb).unwrap().mse < 1e-6);
    }

    #[test]
    fn frames_that_cannot_be_compared_are_refused() {
        let flat = |width, height| frame(width, height, "gray", |_, _| 99.0);
        let error = Quality::default().add(&flat(64, 48), &flat(64, 50)).unwrap_err();
        assert_eq!(error.to_string(), "frame: is 64x48 and its original 64x50; compare frames of one size");
        let error = Quality::default().add(&flat(64, 10), &flat(64, 10)).unwrap_err();
        assert!(error.to_string().contains("SSIM needs 11x11 at least"), "{error}");
    }
}
