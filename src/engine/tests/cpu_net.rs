//! The fast network does what the reference does, on every CPU level, in dirty scratch, on any number of threads.

use std::sync::Arc;

use super::common::{GOLDEN, Random, Shape, golden, random_model, relative_error};
use crate::engine::cpu::{Level, Net, Passes, Pool, Precision, Weights, level};
use crate::engine::forward::{Forward, OpenPass, SIDE_MIN, Trunk};
use crate::engine::reference::{Reference, ReferencePass};
use crate::model::{Model, catalogue};

/// Returns the error and its limit. In f32 relative to the output's largest value: both sum in different orders, exp and erf differ by 3e-7 of their range,
/// and the layer norm of a nearly flat pixel multiplies what is there before it; 5e-6 is seen. In 16-bit words, root
/// mean squares: each operand of a dense map is off by up to 2^-9 of itself in bf16, by up to 2^-14 of its tensor's
/// largest in int16, and some twenty maps follow each other.
fn error(precision: Precision, actual: &[f32], expected: &[f32]) -> (f32, f32) {
    match precision {
        Precision::F32 => (relative_error(actual, expected), 1e-4),
        _ => {
            let energy = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>();
            let differences = &mut actual.iter().zip(expected).map(|(a, e)| a - e);
            let limit = if precision == Precision::Bf16 { 0.03 } else { 0.01 };
            ((energy(differences) / energy(&mut expected.iter().copied())).sqrt(), limit)
        }
    }
}

/// Runs in scratch full of NaN, exactly as long as required, into an output full of NaN.
fn run(network: &mut dyn Forward, model: &Model, x: &[f32], (width, height): (usize, usize)) -> Vec<f32> {
    let mut scratch = vec![f32::NAN; network.scratch_len()];
    let mut y = vec![f32::NAN; model.sizes.upsampler_channels() * height * width];
    network.forward(x, &mut y, &mut scratch);
    y
}

fn noise(model: &Model, (width, height): (usize, usize), random: &mut Random) -> Vec<f32> {
    (0..model.sizes.in_channels * height * width).map(|_| 0.5 + 0.5 * random.signed()).collect()
}

/// Every level of this machine in every precision.
fn kinds() -> impl Iterator<Item = (Level, Precision)> {
    let of = |level: Level| level.precisions().map(move |precision| (level, precision)).collect::<Vec<_>>();
    Level::available().into_iter().flat_map(of)
}

/// Every level and precision against the reference.
fn check(model: Model, size: (usize, usize), threads: usize, random: &mut Random) {
    let model = Arc::new(model);
    let x = noise(&model, size, random);
    let mut reference = ReferencePass { reference: Reference::new(model.clone()), size };
    let expected = run(&mut reference, &model, &x, size);
    for (level, precision) in kinds() {
        let actual =
            run(&mut Net::new(Weights::new(&model, level, precision), size, threads), &model, &x, size);
        let (name, sizes) = (level.name(), model.sizes);
        let (error, limit) = error(precision, &actual, &expected);
        // The layer norm of few channels is a step: it makes much of the least difference.
        let limit = if precision != Precision::F32 && sizes.dim < 8 { 50.0 * limit } else { limit };
        assert!(
            error < limit,
            "{name} {precision:?} is off by {error} at {size:?}, {threads} threads, {sizes:?}"
        );
    }
}

#[test]
fn agrees_with_pytorch_on_golden_files() {
    for name in GOLDEN {
        let golden = golden(name);
        let [_, height, width] = golden.input.shape[..] else { panic!("{name}: input is [in, H, W]") };
        for (level, precision) in kinds() {
            let mut net = Net::new(Weights::new(&golden.model, level, precision), (width, height), 1);
            let y = run(&mut net, &golden.model, &golden.input.values, (width, height));
            let (error, limit) = error(precision, &y, &golden.output.values);
            assert!(error < limit, "{} {precision:?} is off by {error} on {name}", level.name());
        }
    }
}

#[test]
fn agrees_with_the_reference_on_sizes_round_every_boundary() {
    let mut random = Random(1);
    let sides = [SIDE_MIN, SIDE_MIN + 1, 17, 31, 32, 33, 63, 64, 65, 97];
    for (i, width) in sides.into_iter().enumerate() {
        let height = sides[(3 * i + 1) % sides.len()];
        check(catalogue::open(catalogue::DEFAULT_IMAGE).unwrap(), (width, height), 1 + i % 3, &mut random);
    }
}

#[test]
fn agrees_with_the_reference_on_random_models_and_sizes() {
    let mut random = Random(2);
    for _ in 0..24 {
        let c = 1 + random.below(24);
        let shape = Shape {
            channels: [
                [1, 3][random.below(2)],
                c,
                1 + random.below(3 * c),
                1 + random.below(9),
                1 + random.below(c + 4),
                1 + random.below(5),
            ],
            scale: 2 + random.below(3),
            blocks: 1 + random.below(3),
        };
        let model = random_model(&shape, &mut random);
        let size = (SIDE_MIN + random.below(60), SIDE_MIN + random.below(90));
        check(model, size, 1 + random.below(4), &mut random);
    }
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    let model = catalogue::open(catalogue::DEFAULT_IMAGE).unwrap();
    let size = (71, 53);
    let x = noise(&model, size, &mut Random(3));
    for (level, precision) in kinds() {
        let bits = |threads: usize| {
            let mut net = Net::new(Weights::new(&model, level, precision), size, threads);
            let pool = Pool::new(threads).unwrap();
            let y = pool.install(|| run(&mut net, &model, &x, size));
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let one = bits(1);
        for threads in [2, 3, 7] {
            assert!(bits(threads) == one, "{} {precision:?} differs on {threads} threads", level.name());
        }
    }
}

/// hasn-lite-x2, and a model of other sizes whose tail has two steps.
fn two_models(random: &mut Random) -> [Arc<Model>; 2] {
    let shape = Shape { channels: [3, 9, 14, 5, 3, 4], scale: 4, blocks: 3 };
    [catalogue::open(catalogue::DEFAULT_IMAGE).unwrap(), random_model(&shape, random)].map(Arc::new)
}

#[test]
fn a_frame_without_its_trunk_has_the_same_bits() {
    let mut random = Random(6);
    for model in two_models(&mut random) {
        for (level, precision) in kinds() {
            let weights = Weights::new(&model, level, precision);
            for size in [(15, 15), (33, 16), (17, 149)] {
                let x = noise(&model, size, &mut random);
                let bits = |threads: usize, trunk: Trunk| {
                    let mut net = Net::with_trunk(weights.clone(), size, threads, trunk);
                    // Twice: the second frame finds what the first one has left.
                    let twice = || [(); 2].map(|()| run(&mut net, &model, &x, size));
                    let [first, second] = Pool::new(threads).unwrap().install(twice);
                    assert!(first.iter().map(|y| y.to_bits()).eq(second.iter().map(|y| y.to_bits())));
                    first.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let kept = bits(1, Trunk::Kept);
                for threads in [1, 3] {
                    let (name, sizes) = (level.name(), model.sizes);
                    assert!(
                        bits(threads, Trunk::Recomputed) == kept,
                        "{name} {precision:?} differs at {size:?}, {threads} threads, {sizes:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_memory_of_a_frame_without_its_trunk_grows_with_its_width_alone() {
    let level = level::detect().unwrap();
    for model in two_models(&mut Random(7)) {
        let sizes = model.sizes;
        let passes = Passes::new(model, level, Precision::F32);
        let len = |height: usize, trunk: Trunk| passes.memory_len((96, height), 2, trunk).unwrap();
        // The sums of rows are a float for each channel. The rings differ by some rows, as ESA's grid ends differently.
        let sums = 4000 * sizes.dim * sizes.blocks;
        let (low, high) = (len(4000, Trunk::Recomputed), len(8000, Trunk::Recomputed));
        assert!(high < low + 2 * sums, "{low} floats become {high}");
        assert!(len(8000, Trunk::Recomputed) < len(8000, Trunk::Kept) / 4);
        for trunk in [Trunk::Kept, Trunk::Recomputed] {
            let net = passes.open((96, 400), 2, trunk);
            assert_eq!(net.scratch_len(), len(400, trunk), "{trunk:?}");
        }
    }
}

#[test]
fn scratch_of_any_alignment_and_length_gives_the_same_result() {
    let model = catalogue::open(catalogue::DEFAULT_IMAGE).unwrap();
    let size = (40, 16);
    let x = noise(&model, size, &mut Random(4));
    let mut net = Net::new(Weights::new(&model, level::detect().unwrap(), Precision::F32), size, 1);
    let expected = run(&mut net, &model, &x, size);
    let mut scratch = vec![f32::NAN; net.scratch_len() + 64];
    for offset in 0..17 {
        let mut y = vec![f32::NAN; expected.len()];
        net.forward(&x, &mut y, &mut scratch[offset..]);
        assert_eq!(y, expected, "offset {offset}");
    }
}

#[test]
fn nan_in_the_frame_reaches_the_output() {
    let model = catalogue::open(catalogue::DEFAULT_IMAGE).unwrap();
    let mut x = noise(&model, (20, 20), &mut Random(5));
    x[210] = f32::NAN;
    for (level, precision) in kinds() {
        let y = run(&mut Net::new(Weights::new(&model, level, precision), (20, 20), 1), &model, &x, (20, 20));
        assert!(y.iter().any(|y| y.is_nan()), "{} {precision:?}", level.name());
    }
}

/// int16 values are clipped where a tensor becomes larger than on the calibration frame: no pattern of a video does that.
#[test]
fn int16_holds_the_values_of_every_pattern() {
    let Some(level) =
        Level::available().into_iter().rev().find(|level| level.precisions().any(|p| p == Precision::Int16))
    else {
        println!("SKIPPED: int16 on patterns, for no CPU level of this machine multiplies it");
        return;
    };
    // The lowest and the highest 8-bit code of limited range, beyond black and white.
    let (black, white) = (-16.0 / 219.0, 239.0 / 219.0);
    let size @ (width, height) = (96, 64);
    type Pattern = fn(usize, usize) -> bool;
    let patterns: [(&str, Pattern); 9] = [
        ("black", |_, _| false),
        ("white", |_, _| true),
        ("chequers", |x, y| (x + y) % 2 == 0),
        ("columns", |x, _| x % 2 == 0),
        ("rows", |_, y| y % 2 == 0),
        ("wide columns", |x, _| x / 4 % 2 == 0),
        ("edge", |x, y| 2 * x + y > 100),
        ("dots", |x, y| x % 9 == 4 && y % 9 == 4),
        ("holes", |x, y| x % 9 != 4 || y % 9 != 4),
    ];
    for built_in in catalogue::ALL {
        let model = catalogue::open(built_in.name).unwrap();
        let mut exact = Net::new(Weights::new(&model, level, Precision::F32), size, 1);
        let mut int16 = Net::new(Weights::new(&model, level, Precision::Int16), size, 1);
        for (name, pattern) in patterns {
            let x: Vec<f32> = (0..width * height)
                .map(|i| if pattern(i % width, i / width) { white } else { black })
                .collect();
            let exact = run(&mut exact, &model, &x, size);
            let int16 = run(&mut int16, &model, &x, size);
            let off = exact.iter().zip(&int16).map(|(e, w)| (e - w).abs()).fold(0.0, f32::max);
            // An 8-bit code, or that share of the output's largest value: chequers become four times as bright.
            let largest = exact.iter().fold(1.0, |largest: f32, x| largest.max(x.abs()));
            assert!(off < largest / 219.0, "{name} by {}: off by {off}", built_in.name);
        }
    }
}
