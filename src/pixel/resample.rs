//! The separable resampler: a plane at another size and another siting.
//!
//! In: a dense plane and its sampling grid. Out: a dense plane on another grid. Chroma, exact target sizes and the plain
//! `Resample` network all use it. It knows no code values.
//!
//! The filter is Lanczos with a = 3, widened for downsampling so that nothing aliases. Edges repeat the last sample. A row
//! is filtered vertically first, which needs one row of memory per thread; every output sample is summed in one fixed
//! order, so the result does not depend on the number of threads.

use std::ops::Range;

use hasn_kernels::samples::TAPS;
use hasn_kernels::simd::PIXELS_MAX;
use rayon::prelude::*;

use super::loops::loops;
use crate::color::Signal;
use crate::frame::FrameFormat;

/// Lobes of the Lanczos window on either side.
const LOBES: f64 = 3.0;

/// Positions closer than this are equal: far below the resolution of an f32 weight, far above the rounding of the f64
/// sums that give a position.
const SAME_POSITION: f64 = 1e-9;

/// Minimum number of rows per task of the thread pool.
const ROWS_MIN: usize = 8;

/// The samples along one axis: sample `k` lies at `k * sub + offset` in luma samples of its frame.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Samples {
    /// Number of samples.
    pub(crate) len: usize,
    /// Distance between samples, in luma samples.
    pub(crate) sub: f64,
    /// Position of the first sample, in luma samples; 0.5 for luma.
    pub(crate) offset: f64,
}

/// The samples of a plane in both directions.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Grid {
    /// Along a row.
    pub(crate) x: Samples,
    /// Along a column.
    pub(crate) y: Samples,
}

impl Grid {
    /// The grid of luma, R'G'B' or alpha in a frame of this size.
    pub(crate) fn full(width: usize, height: usize) -> Grid {
        let samples = |len| Samples { len, sub: 1.0, offset: 0.5 };
        Grid { x: samples(width), y: samples(height) }
    }

    /// The grid of component `index` of a frame, with its siting.
    pub(crate) fn of(frame_format: &FrameFormat, index: usize) -> Grid {
        let format = &frame_format.pixel_format;
        if format.signal(index) != Signal::Chroma {
            return Grid::full(frame_format.width, frame_format.height);
        }
        let (log2_w, log2_h) = (format.log2_chroma_w, format.log2_chroma_h);
        let (width, height) = frame_format.component_size(index);
        let (left, top) = frame_format.color.chroma_location.offset(log2_w, log2_h);
        let samples = |len, log2: u8, offset| Samples { len, sub: f64::from(1u32 << log2), offset };
        Grid { x: samples(width, log2_w, left), y: samples(height, log2_h, top) }
    }

    /// Number of samples.
    pub(crate) fn len(&self) -> usize {
        self.x.len * self.y.len
    }
}

/// Resamples planes from one grid to another.
#[derive(Clone, Debug)]
pub(crate) struct Resampler {
    pub(crate) x: Taps,
    pub(crate) y: Taps,
}

impl Resampler {
    /// `ratio`: luma width and height of the input frame over those of the output frame.
    pub(crate) fn new(from: Grid, to: Grid, ratio: (f64, f64)) -> Resampler {
        Resampler { x: Taps::new(from.x, to.x, ratio.0), y: Taps::new(from.y, to.y, ratio.1) }
    }

    /// Whether the output is a copy of the input.
    pub(crate) fn is_identity(&self) -> bool {
        self.x.identity && self.y.identity
    }

    /// Resamples `input: [H, W]` to `output: [H', W']`, both dense.
    pub(crate) fn run(&self, input: &[f32], output: &mut [f32]) {
        let (in_width, out_width) = (self.x.in_len, self.x.out_len);
        assert_eq!(input.len(), in_width * self.y.in_len, "input plane");
        assert_eq!(output.len(), out_width * self.y.out_len, "output plane");
        let rows = output.par_chunks_mut(out_width).with_min_len(ROWS_MIN).enumerate();
        rows.for_each_init(
            || vec![0.0; if self.y.identity || self.x.identity { 0 } else { in_width }],
            |column_sums, (y, out)| match (self.x.identity, self.y.identity) {
                (true, true) => out.copy_from_slice(&input[y * in_width..][..in_width]),
                (true, false) => self.y.sum_rows(input, y, out),
                (false, true) => self.x.filter_row(&input[y * in_width..][..in_width], out),
                (false, false) => {
                    self.y.sum_rows(input, y, column_sums);
                    self.x.filter_row(column_sums, out);
                }
            },
        );
    }
}

/// The filter along one axis: the first input and the weights of every output sample.
#[derive(Clone, Debug)]
pub(crate) struct Taps {
    pub(crate) in_len: usize,
    pub(crate) out_len: usize,
    /// Whether the output samples lie on the input samples.
    pub(crate) identity: bool,
    /// Number of inputs of an output sample.
    pub(crate) count: usize,
    /// `[out_len]`: index of the first input.
    pub(crate) starts: Vec<usize>,
    /// `[out_len, count]`: weights, whose sum is 1.
    pub(crate) weights: Vec<f32>,
    repeated: Repeated,
}

/// Outputs whose weights repeat, one input further on: nearly all where a row becomes two or four times as long.
#[derive(Clone, Debug, Default)]
struct Repeated {
    /// Number of outputs after which weights repeat.
    phases: usize,
    /// The outputs, all phases of each; none where too few are in a row.
    outputs: Range<usize>,
}

impl Taps {
    fn new(from: Samples, to: Samples, ratio: f64) -> Taps {
        assert!(from.len > 0 && to.len > 0, "an empty plane cannot be resampled");
        let step = to.sub * ratio / from.sub;
        let first = (to.offset * ratio - from.offset) / from.sub;
        let same = |a: f64, b: f64| (a - b).abs() < SAME_POSITION;
        let identity = from.len == to.len && same(step, 1.0) && same(first, 0.0);
        let stretch = step.max(1.0);
        let window = (2.0 * LOBES * stretch).ceil() as usize;
        let count = window.min(from.len);
        let mut taps = Taps {
            in_len: from.len,
            out_len: to.len,
            identity,
            count,
            starts: Vec::with_capacity(to.len),
            weights: vec![0.0; to.len * count],
            repeated: Repeated::default(),
        };
        let last = from.len as i64 - 1;
        let mut sums = vec![0.0f64; count];
        for (k, weights) in taps.weights.chunks_exact_mut(count).enumerate() {
            let center = first + k as f64 * step;
            let begin = (center - LOBES * stretch).floor() as i64 + 1;
            let start = begin.clamp(0, (from.len - count) as i64);
            sums.fill(0.0);
            // Positions outside repeat the edge sample, so their weights are added to the edge's.
            for i in begin..begin + window as i64 {
                sums[(i.clamp(0, last) - start) as usize] += lanczos((i as f64 - center) / stretch);
            }
            let total: f64 = sums.iter().sum();
            for (weight, sum) in weights.iter_mut().zip(&sums) {
                *weight = (sum / total) as f32;
            }
            taps.starts.push(start as usize);
        }
        taps.repeated = taps.repeated();
        taps
    }

    fn repeated(&self) -> Repeated {
        let in_a_row = |phases: usize| {
            let weights = |k: usize| self.weights[k * self.count..][..self.count].iter().map(|w| w.to_bits());
            let repeats = |k: usize| {
                let before = k - phases;
                self.starts[k] == self.starts[before] + 1 && weights(k).eq(weights(before))
            };
            let first = (phases..self.out_len).find(|&k| repeats(k))?;
            let end = (first..self.out_len).find(|&k| !repeats(k)).unwrap_or(self.out_len);
            let start = first - phases;
            let end = end - (end - start) % phases;
            (end - start >= phases * PIXELS_MAX).then_some(Repeated { phases, outputs: start..end })
        };
        if self.count == TAPS {
            [2, 4].into_iter().find_map(in_a_row).unwrap_or_default()
        } else {
            Repeated::default()
        }
    }

    /// Filters the input rows of one output row vertically.
    fn sum_rows(&self, input: &[f32], y: usize, out: &mut [f32]) {
        let width = out.len();
        let weights = &self.weights[y * self.count..][..self.count];
        (loops().sum_rows)(out, &input[self.starts[y] * width..], width, weights);
    }

    /// Filters a row horizontally.
    fn filter_row(&self, row: &[f32], out: &mut [f32]) {
        let Repeated { phases, outputs } = &self.repeated;
        if !outputs.is_empty() {
            let once = outputs.start..outputs.start + phases;
            let weights = &self.weights.as_chunks::<TAPS>().0[once.clone()];
            (loops().filter_repeated)(&mut out[outputs.clone()], row, &self.starts[once], weights);
        }
        self.filter_outputs(0..outputs.start, row, out);
        self.filter_outputs(outputs.end..self.out_len, row, out);
    }

    /// Filters one output after the other.
    fn filter_outputs(&self, outputs: Range<usize>, row: &[f32], out: &mut [f32]) {
        let sums = out[outputs.clone()].iter_mut().zip(&self.starts[outputs.clone()]);
        // Every upscale has six taps; a fixed count lets the compiler unroll.
        if self.count == TAPS {
            for ((sum, &start), weights) in sums.zip(&self.weights.as_chunks::<TAPS>().0[outputs]) {
                let inputs: &[f32; TAPS] = row[start..].first_chunk().expect("taps lie inside the row");
                *sum = dot(inputs, weights);
            }
        } else {
            let weights = self.weights.chunks_exact(self.count).skip(outputs.start);
            for ((sum, &start), weights) in sums.zip(weights) {
                *sum = dot(&row[start..][..self.count], weights);
            }
        }
    }
}

#[inline(always)]
fn dot(inputs: &[f32], weights: &[f32]) -> f32 {
    inputs.iter().zip(weights).map(|(v, w)| v * w).sum()
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| {
        let angle = std::f64::consts::PI * x;
        if x == 0.0 { 1.0 } else { angle.sin() / angle }
    };
    if x.abs() < LOBES { sinc(x) * sinc(x / LOBES) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::color::ChromaLocation;
    use crate::testing::frame_format;

    fn noise(len: usize) -> Vec<f32> {
        let mut state = 12345u32;
        let mut next = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        (0..len).map(|_| next()).collect()
    }

    fn scaled(from: (usize, usize), to: (usize, usize)) -> Resampler {
        let ratio = (from.0 as f64 / to.0 as f64, from.1 as f64 / to.1 as f64);
        Resampler::new(Grid::full(from.0, from.1), Grid::full(to.0, to.1), ratio)
    }

    fn run(resampler: &Resampler, input: &[f32]) -> Vec<f32> {
        let mut output = vec![f32::NAN; resampler.x.out_len * resampler.y.out_len];
        resampler.run(input, &mut output);
        output
    }

    #[test]
    fn a_constant_stays_constant() {
        for to in [(106, 62), (53, 62), (106, 31), (80, 47), (20, 11), (1, 1), (7, 300)] {
            let output = run(&scaled((53, 31), to), &vec![0.7; 53 * 31]);
            assert!(output.iter().all(|v| (v - 0.7).abs() < 1e-6), "{to:?}");
        }
        let output = run(&scaled((2, 1), (8, 4)), &[0.7; 2]);
        assert!(output.iter().all(|v| (v - 0.7).abs() < 1e-6), "fewer samples than taps");
    }

    #[test]
    fn the_same_grid_is_an_exact_copy() {
        let same = scaled((37, 21), (37, 21));
        let input = noise(37 * 21);
        assert!(same.is_identity());
        assert_eq!(run(&same, &input), input);
        let only_rows = scaled((37, 21), (37, 42));
        assert!(only_rows.x.identity && !only_rows.y.identity && !only_rows.is_identity());
    }

    /// The definition, written for clarity.
    fn naive(input: &[f32], (w, h): (usize, usize), (x, y): (f64, f64), stretch: f64) -> f64 {
        let (mut sum, mut total) = (0.0, 0.0);
        for j in -40..h as i64 + 40 {
            for i in -40..w as i64 + 40 {
                let weight = lanczos((i as f64 - x) / stretch) * lanczos((j as f64 - y) / stretch);
                let (i, j) = (i.clamp(0, w as i64 - 1) as usize, j.clamp(0, h as i64 - 1) as usize);
                sum += weight * f64::from(input[j * w + i]);
                total += weight;
            }
        }
        sum / total
    }

    #[test]
    fn twice_and_half_the_size_match_the_formula() {
        let (w, h) = (17, 13);
        let input = noise(w * h);
        for ((to_w, to_h), ratio, stretch) in [((34, 26), 0.5, 1.0), ((9, 7), 2.0, 2.0)] {
            let resampler = Resampler::new(Grid::full(w, h), Grid::full(to_w, to_h), (ratio, ratio));
            for (i, &v) in run(&resampler, &input).iter().enumerate() {
                let at = |k: usize| (k as f64 + 0.5) * ratio - 0.5;
                let expected = naive(&input, (w, h), (at(i % to_w), at(i / to_w)), stretch);
                assert!((f64::from(v) - expected).abs() < 1e-6, "sample {i}: {v}, {expected}");
            }
        }
    }

    #[test]
    fn repeated_weights_give_the_bits_of_single_outputs() {
        for (width, by) in (1..80).flat_map(|width| [(width, 2), (width, 4)]).chain([(961, 2), (961, 4)]) {
            let taps = scaled((width, 1), (by * width, 1)).x;
            let Repeated { phases, outputs } = &taps.repeated;
            // All but those near an edge.
            let most = if width < PIXELS_MAX + 5 { 0 } else { by * (width - 5) };
            assert!(outputs.len() >= most && (outputs.is_empty() || *phases == by), "{width}: {outputs:?}");
            let row = noise(width);
            let (mut all, mut single) = (vec![f32::NAN; by * width], vec![f32::NAN; by * width]);
            taps.filter_row(&row, &mut all);
            taps.filter_outputs(0..by * width, &row, &mut single);
            assert_eq!(all, single, "{width}, {by} times as wide");
        }
    }

    #[test]
    fn a_ramp_of_chroma_keeps_its_place_in_the_frame() {
        use ChromaLocation::{BottomLeft, Center, Left, TopLeft};
        for (from, to) in
            [(Left, Left), (Center, Center), (TopLeft, TopLeft), (Left, Center), (BottomLeft, Left)]
        {
            for name in ["yuv420p", "yuv444p", "yuv422p", "yuv410p"] {
                let mut lr = frame_format(160, 120, "yuv420p");
                let mut sr = frame_format(320, 240, name);
                (lr.color.chroma_location, sr.color.chroma_location) = (from, to);
                let (input, output) = (Grid::of(&lr, 1), Grid::of(&sr, 1));
                // The value of a sample is its position, in luma samples of its own frame.
                let place = |s: Samples, k: usize| (k as f64 * s.sub + s.offset) as f32;
                let plane: Vec<f32> = (0..input.len())
                    .map(|i| place(input.x, i % input.x.len) + 3.0 * place(input.y, i / input.x.len))
                    .collect();
                let resampled = run(&Resampler::new(input, output, (0.5, 0.5)), &plane);
                let inside = |k: usize, len: usize| k > len / 4 && k < 3 * len / 4;
                for (i, v) in resampled.iter().enumerate() {
                    let (x, y) = (i % output.x.len, i / output.x.len);
                    if inside(x, output.x.len) && inside(y, output.y.len) {
                        let expected = (place(output.x, x) + 3.0 * place(output.y, y)) / 2.0;
                        // Six Lanczos taps move a ramp by up to 0.02 samples, which are 8 high here. A
                        // wrong siting would move it by 0.25 samples or more.
                        assert!((v - expected).abs() < 0.16, "{from:?} {to:?} {name}: {v}, {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn downsampling_does_not_alias() {
        let (w, h) = (240, 96);
        let stripes: Vec<f32> = (0..w * h).map(|i| (i % w % 2) as f32).collect();
        let output = run(&scaled((w, h), (60, 24)), &stripes);
        for row in output.chunks(60) {
            assert!(row[6..54].iter().all(|v| (v - 0.5).abs() < 0.01), "{row:?}");
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let input = noise(211 * 97);
        let resampler = scaled((211, 97), (317, 205));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&resampler, &input))
        };
        assert_eq!(on(1), on(3));
    }
}
