//! The steps from an LR frame to an SR frame by one network, planned once for a pair of frame formats.
//!
//! In: the formats of the LR and the SR frames, and the network's shape. Out: steps over two banks of dense planes, one
//! at LR size and one at SR size, which the engines execute. Which components a network sees, how chroma is resampled and
//! which matrices apply is decided only here.
//!
//! A component that needs no other is processed alone, in the first plane of each bank: 4:2:0 to 4:2:0 never holds more
//! than one component. Three planes are gathered only where a matrix or a network needs all of them.

use super::forward::SIDE_MIN;
use crate::color::{Matrix, rgb_to_ycbcr, ycbcr_to_rgb};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Family, FrameFormat};
use crate::model::Sizes;
use crate::pixel::matrix::{Coefficients, compose};
use crate::pixel::resample::{Grid, Resampler};

/// The properties of a network that a plan depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// The factor by which one pass upscales a plane, above 1.
    pub scale: usize,
    /// 1 for a network of Y', 3 for one of R'G'B'.
    pub in_channels: usize,
}

impl Shape {
    pub(super) fn of(sizes: &Sizes) -> Shape {
        Shape { scale: sizes.scale, in_channels: sizes.in_channels }
    }
}

/// A plane in a bank. A smaller component lies at the start of its plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    /// A plane of LR luma size.
    Lr(usize),
    /// A plane of SR luma size.
    Sr(usize),
}

/// One operation on complete planes.
#[derive(Debug)]
pub(crate) enum Step {
    /// Reads a component of the LR frame as numbers.
    Read { component: usize, to: Slot },
    /// Resamples one plane into another.
    Resample { from: (Slot, Grid), to: (Slot, Grid), by: Resampler },
    /// Runs the network on the first planes at LR size, into the first ones at SR size.
    Network(Passes),
    /// Applies a matrix to the three planes at LR size, in place.
    MatrixLr(Coefficients),
    /// Applies a matrix to the three planes at SR size, in place.
    MatrixSr(Coefficients),
    /// Writes a component of the SR frame.
    Write { from: (Slot, Grid), component: usize },
    /// Fills a component of the SR frame with one value.
    Fill { component: usize, value: f32 },
}

/// The passes of the network, and the resampling that remains.
#[derive(Debug)]
pub(crate) struct Passes {
    /// Planes in and out.
    pub channels: usize,
    /// Scale factor of one pass.
    pub scale: usize,
    /// (width, height) of the input of each pass.
    pub sizes: Vec<(usize, usize)>,
    /// (width, height) of the output of the last pass.
    pub output_size: (usize, usize),
    /// Resampler to the exact SR size, where the passes give another one.
    pub exact: Option<Resampler>,
}

impl Passes {
    /// Whether a pass writes the SR planes directly.
    pub(super) fn ends_in_sr(&self, pass: usize) -> bool {
        pass + 1 == self.sizes.len() && self.exact.is_none()
    }

    /// Length of the output of a pass, in floats.
    pub(super) fn out_len(&self, pass: usize) -> usize {
        let (width, height) = self.sizes[pass];
        self.channels * width * height * self.scale * self.scale
    }
}

impl Step {
    /// Number of planes that the step uses in the LR and in the SR bank.
    pub(super) fn planes_used(&self) -> (usize, usize) {
        let slot = |slot: Slot| match slot {
            Slot::Lr(i) => (i + 1, 0),
            Slot::Sr(i) => (0, i + 1),
        };
        match self {
            Step::Read { to, .. } => slot(*to),
            Step::Resample { from, to, .. } => {
                let (from, to) = (slot(from.0), slot(to.0));
                (from.0.max(to.0), from.1.max(to.1))
            }
            Step::Network(passes) => (passes.channels, passes.channels),
            Step::MatrixLr(_) => (3, 0),
            Step::MatrixSr(_) => (0, 3),
            Step::Write { from, .. } => slot(from.0),
            Step::Fill { .. } => (0, 0),
        }
    }
}

/// Plans the steps from `lr` to `sr` by a network, or by the resampler alone.
pub(crate) fn plan(lr: &FrameFormat, sr: &FrameFormat, network: Option<Shape>) -> Result<Vec<Step>> {
    if !sr.pixel_format.writable() {
        let problem = format!("{} packs several components into one word", sr.pixel_format.name);
        return Err(
            Error::new("output", problem, "choose another pixel format").with_kind(ErrorKind::Unsupported)
        );
    }
    let passes = network.map(|shape| passes(lr, sr, shape)).transpose()?.flatten();
    let mut planner = Planner { lr, sr, ratio: ratio((lr.width, lr.height), sr), steps: Vec::new() };
    match passes {
        Some(passes) if passes.channels == 3 => planner.through_rgb(passes)?,
        passes => planner.by_component(passes)?,
    }
    planner.alpha();
    Ok(planner.steps)
}

/// Returns `None` where neither side grows.
fn passes(lr: &FrameFormat, sr: &FrameFormat, shape: Shape) -> Result<Option<Passes>> {
    let Shape { scale, in_channels: channels } = shape;
    assert!(scale > 1 && matches!(channels, 1 | 3), "{shape:?}");
    if sr.width <= lr.width && sr.height <= lr.height {
        return Ok(None);
    }
    if lr.width.min(lr.height) < SIDE_MIN {
        let problem = format!("is {}x{}; HASN needs {SIDE_MIN}x{SIDE_MIN} at least", lr.width, lr.height);
        return Err(Error::new("frame", problem, "use --model none").with_kind(ErrorKind::Unsupported));
    }
    let (mut width, mut height) = (lr.width, lr.height);
    let mut sizes = Vec::new();
    while width < sr.width || height < sr.height {
        sizes.push((width, height));
        (width, height) = (width * scale, height * scale);
    }
    let exact = ((width, height) != (sr.width, sr.height)).then(|| {
        let (from, to) = (Grid::full(width, height), Grid::full(sr.width, sr.height));
        Resampler::new(from, to, ratio((width, height), sr))
    });
    Ok(Some(Passes { channels, scale, sizes, output_size: (width, height), exact }))
}

fn ratio((width, height): (usize, usize), sr: &FrameFormat) -> (f64, f64) {
    (width as f64 / sr.width as f64, height as f64 / sr.height as f64)
}

struct Planner<'a> {
    lr: &'a FrameFormat,
    sr: &'a FrameFormat,
    ratio: (f64, f64),
    steps: Vec<Step>,
}

impl Planner<'_> {
    /// Plans for a network of Y', or for none: every component is upscaled alone.
    fn by_component(&mut self, passes: Option<Passes>) -> Result<()> {
        let (before, after) = self.matrices(passes.is_some())?;
        if let Some(matrix) = before {
            (0..3).for_each(|i| self.read(i, Slot::Lr(i)));
            self.steps.push(Step::MatrixLr(matrix));
        }
        let (lr_family, sr_family) = (self.lr.pixel_format.family, self.sr.pixel_format.family);
        let count = if lr_family == Family::Gray || sr_family == Family::Gray { 1 } else { 3 };
        let mut passes = passes;
        for i in 0..count {
            let (from, from_grid) = match before {
                Some(_) => (Slot::Lr(i), self.lr_full()),
                None => (Slot::Lr(0), Grid::of(self.lr, i)),
            };
            if before.is_none() {
                self.read(i, from);
            }
            let (to, to_grid) = match after {
                Some(_) => (Slot::Sr(i), self.sr_full()),
                None => (Slot::Sr(0), Grid::of(self.sr, i)),
            };
            let done = match passes.take() {
                Some(passes) => {
                    self.steps.push(Step::Network(passes));
                    (to, to_grid)
                }
                None if after.is_some() => {
                    self.resample((from, from_grid), (to, to_grid), self.ratio);
                    (to, to_grid)
                }
                None => self.resample_if_needed((from, from_grid), (to, to_grid), self.ratio),
            };
            match (after, lr_family, sr_family) {
                (Some(_), ..) => {}
                (None, Family::Gray, Family::Rgb) => (0..3).for_each(|c| self.write(done, c)),
                _ => self.write(done, i),
            }
        }
        if let Some(matrix) = after {
            self.steps.push(Step::MatrixSr(matrix));
            self.write_gathered();
        }
        if lr_family == Family::Gray && sr_family == Family::Ycbcr {
            (1..3).for_each(|component| self.steps.push(Step::Fill { component, value: 0.0 }));
        }
        Ok(())
    }

    /// Returns the matrices at LR size and at SR size, where every component is upscaled alone. R'G'B' becomes Y'CbCr
    /// for a network of Y'.
    fn matrices(&self, network: bool) -> Result<(Option<Coefficients>, Option<Coefficients>)> {
        use Family::{Gray, Rgb, Ycbcr};
        let of = |frame_format: &FrameFormat, which| luma_coefficients(frame_format.color.matrix, which);
        Ok(match (self.lr.pixel_format.family, self.sr.pixel_format.family) {
            (Gray, _) | (Ycbcr, Gray) => (None, None),
            (Rgb, Rgb) if !network => (None, None),
            (Rgb, Rgb) => {
                let k = luma_coefficients(Matrix::BT709, "input")?;
                (Some(rgb_to_ycbcr(k)), Some(ycbcr_to_rgb(k)))
            }
            (Rgb, Ycbcr) => (Some(rgb_to_ycbcr(of(self.sr, "output")?)), None),
            (Rgb, Gray) => (Some(rgb_to_ycbcr(self.luma_of_gray())), None),
            (Ycbcr, Rgb) => (None, Some(ycbcr_to_rgb(of(self.lr, "input")?))),
            (Ycbcr, Ycbcr) if same_matrix(self.lr.color.matrix, self.sr.color.matrix) => (None, None),
            (Ycbcr, Ycbcr) => {
                let (from, to) = (of(self.lr, "input")?, of(self.sr, "output")?);
                (None, Some(compose(&rgb_to_ycbcr(to), &ycbcr_to_rgb(from))))
            }
        })
    }

    /// Plans for a network of R'G'B'.
    fn through_rgb(&mut self, passes: Passes) -> Result<()> {
        match self.lr.pixel_format.family {
            Family::Gray => (0..3).for_each(|i| self.read(0, Slot::Lr(i))),
            Family::Rgb => (0..3).for_each(|i| self.read(i, Slot::Lr(i))),
            Family::Ycbcr => {
                let k = luma_coefficients(self.lr.color.matrix, "input")?;
                let (grid, full) = (Grid::of(self.lr, 1), self.lr_full());
                for i in 1..3 {
                    if grid == full {
                        self.read(i, Slot::Lr(i));
                    } else {
                        // Y' has not been read yet, so its plane is free.
                        self.read(i, Slot::Lr(0));
                        self.resample((Slot::Lr(0), grid), (Slot::Lr(i), full), (1.0, 1.0));
                    }
                }
                self.read(0, Slot::Lr(0));
                self.steps.push(Step::MatrixLr(ycbcr_to_rgb(k)));
            }
        }
        self.steps.push(Step::Network(passes));
        match self.sr.pixel_format.family {
            Family::Rgb => {}
            Family::Ycbcr => {
                let k = luma_coefficients(self.sr.color.matrix, "output")?;
                self.steps.push(Step::MatrixSr(rgb_to_ycbcr(k)));
            }
            Family::Gray => self.steps.push(Step::MatrixSr(rgb_to_ycbcr(self.luma_of_gray()))),
        }
        self.write_gathered();
        Ok(())
    }

    /// Writes the colour components, whose planes are at SR size in the target's colour model.
    fn write_gathered(&mut self) {
        let full = self.sr_full();
        for i in 0..self.sr.pixel_format.color_count() {
            // Y' has been written before chroma reuses its plane.
            let done =
                self.resample_if_needed((Slot::Sr(i), full), (Slot::Sr(0), Grid::of(self.sr, i)), (1.0, 1.0));
            self.write(done, i);
        }
    }

    fn alpha(&mut self) {
        let (from, component) = (self.lr.pixel_format.color_count(), self.sr.pixel_format.color_count());
        match (self.lr.pixel_format.alpha, self.sr.pixel_format.alpha) {
            (_, false) => {}
            (false, true) => self.steps.push(Step::Fill { component, value: 1.0 }),
            (true, true) => {
                self.read(from, Slot::Lr(0));
                let (lr, sr) = ((Slot::Lr(0), self.lr_full()), (Slot::Sr(0), self.sr_full()));
                let done = self.resample_if_needed(lr, sr, self.ratio);
                self.write(done, component);
            }
        }
    }

    /// Returns the coefficients for Y' of R'G'B' where the target is gray: those of any matrix that either side names.
    fn luma_of_gray(&self) -> (f64, f64) {
        let named = self.sr.color.matrix.luma_coefficients().or(self.lr.color.matrix.luma_coefficients());
        named.or(Matrix::BT709.luma_coefficients()).expect("BT.709 has K_R and K_B")
    }

    fn lr_full(&self) -> Grid {
        Grid::full(self.lr.width, self.lr.height)
    }

    fn sr_full(&self) -> Grid {
        Grid::full(self.sr.width, self.sr.height)
    }

    fn read(&mut self, component: usize, to: Slot) {
        self.steps.push(Step::Read { component, to });
    }

    fn write(&mut self, from: (Slot, Grid), component: usize) {
        self.steps.push(Step::Write { from, component });
    }

    fn resample(&mut self, from: (Slot, Grid), to: (Slot, Grid), ratio: (f64, f64)) {
        self.steps.push(Step::Resample { from, to, by: Resampler::new(from.1, to.1, ratio) });
    }

    /// Resamples unless the resampler is the identity, and returns the plane that then holds the samples.
    fn resample_if_needed(
        &mut self,
        from: (Slot, Grid),
        to: (Slot, Grid),
        ratio: (f64, f64),
    ) -> (Slot, Grid) {
        let by = Resampler::new(from.1, to.1, ratio);
        if by.is_identity() {
            return from;
        }
        self.steps.push(Step::Resample { from, to, by });
        to
    }
}

fn same_matrix(a: Matrix, b: Matrix) -> bool {
    a == b || a.luma_coefficients().is_some_and(|k| Some(k) == b.luma_coefficients())
}

/// Returns K_R and K_B for a conversion that requires them.
fn luma_coefficients(matrix: Matrix, which: &str) -> Result<(f64, f64)> {
    matrix.luma_coefficients().ok_or_else(|| {
        let problem = format!("its colour matrix ({}, code {}) cannot be converted", matrix.name(), matrix.0);
        Error::new(
            which,
            problem,
            "keep its format and matrix with a luma model, or convert it to BT.709 first",
        )
        .with_kind(ErrorKind::Unsupported)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::frame_format;

    /// Describes each step by a word: its operation and its target.
    fn words(from: &'static str, to: &'static str, in_channels: usize) -> String {
        let word = |step: &Step| match step {
            Step::Read { component, to } => format!("read{component}>{}", place(*to)),
            Step::Resample { from, to, .. } => format!("resample {}>{}", place(from.0), place(to.0)),
            Step::Network(passes) => format!("network{}", passes.channels),
            Step::MatrixLr(_) => "matrix l".into(),
            Step::MatrixSr(_) => "matrix S".into(),
            Step::Write { from, component } => format!("write {}>{component}", place(from.0)),
            Step::Fill { component, value } => format!("fill{component} {value}"),
        };
        let shape = (in_channels > 0).then_some(Shape { scale: 2, in_channels });
        let steps = plan(&frame_format(64, 48, from), &frame_format(128, 96, to), shape).unwrap();
        steps.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    fn place(slot: Slot) -> String {
        match slot {
            Slot::Lr(i) => format!("l{i}"),
            Slot::Sr(i) => format!("S{i}"),
        }
    }

    #[test]
    fn components_are_processed_alone_unless_a_matrix_or_a_network_needs_three() {
        let rows = [
            ("gray", "gray", 1, "read0>l0, network1, write S0>0"),
            (
                "yuv420p",
                "nv12",
                1,
                "read0>l0, network1, write S0>0, \
                 read1>l0, resample l0>S0, write S0>1, read2>l0, resample l0>S0, write S0>2",
            ),
            (
                "yuv420p",
                "rgb24",
                1,
                "read0>l0, network1, read1>l0, resample l0>S1, read2>l0, resample l0>S2, \
                 matrix S, write S0>0, write S1>1, write S2>2",
            ),
            (
                "rgb24",
                "gbrp",
                1,
                "read0>l0, read1>l1, read2>l2, matrix l, network1, resample l1>S1, resample l2>S2, \
                 matrix S, write S0>0, write S1>1, write S2>2",
            ),
            (
                "yuv420p",
                "yuv420p",
                3,
                "read1>l0, resample l0>l1, read2>l0, resample l0>l2, read0>l0, matrix l, network3, \
                 matrix S, write S0>0, resample S1>S0, write S0>1, resample S2>S0, write S0>2",
            ),
            (
                "rgba",
                "rgba",
                3,
                "read0>l0, read1>l1, read2>l2, network3, write S0>0, write S1>1, write S2>2, \
                 read3>l0, resample l0>S0, write S0>3",
            ),
            ("ya8", "yuv420p", 1, "read0>l0, network1, write S0>0, fill1 0, fill2 0"),
        ];
        for (from, to, in_channels, expected) in rows {
            assert_eq!(words(from, to, in_channels), expected, "{from} to {to} by {in_channels}");
        }
    }
}
