//! The fast network does what the reference does, on every CPU level, in dirty scratch, on any number of threads.

mod common;

use std::sync::Arc;

use common::{GOLDEN, Random, Shape, golden, random_model, relative_error};
use hasn::engine::cpu::{Level, Net, Pool};
use hasn::engine::forward::{Forward, SIDE_MIN};
use hasn::engine::reference::Reference;
use hasn::model::{Model, catalogue};

/// Of the output's largest value. Both sum in f32 in different orders, exp and erf differ by 2e-7 of their range,
/// and the layer norm of a nearly flat pixel multiplies what is there before it; 5e-6 is seen.
const TOLERANCE: f32 = 1e-4;

/// A run in scratch full of NaN, into an output full of NaN, with not a float more than was asked for.
fn run(network: &dyn Forward, model: &Model, x: &[f32], height: usize, width: usize) -> Vec<f32> {
    let mut scratch = vec![f32::NAN; network.scratch_len(height, width)];
    let mut y = vec![f32::NAN; model.sizes.upsampler_channels() * height * width];
    network.forward(x, &mut y, height, width, &mut scratch);
    y
}

fn noise(model: &Model, height: usize, width: usize, random: &mut Random) -> Vec<f32> {
    (0..model.sizes.in_channels * height * width).map(|_| 0.5 + 0.5 * random.signed()).collect()
}

/// Every level against the reference.
fn check(model: Model, height: usize, width: usize, random: &mut Random) {
    let model = Arc::new(model);
    let x = noise(&model, height, width, random);
    let expected = run(&Reference::new(model.clone()), &model, &x, height, width);
    for level in Level::available() {
        let actual = run(&Net::new(&model, level), &model, &x, height, width);
        let error = relative_error(&actual, &expected);
        let sizes = model.sizes;
        assert!(error < TOLERANCE, "{} is off by {error} at {width}x{height}, {sizes:?}", level.name());
    }
}

#[test]
fn agrees_with_pytorch_on_golden_files() {
    for name in GOLDEN {
        let golden = golden(name);
        let [_, height, width] = golden.input.shape[..] else { panic!("{name}: input is [in, H, W]") };
        for level in Level::available() {
            let net = Net::new(&golden.model, level);
            let y = run(&net, &golden.model, &golden.input.values, height, width);
            let error = relative_error(&y, &golden.output.values);
            assert!(error < TOLERANCE, "{} is off by {error} on {name}", level.name());
        }
    }
}

#[test]
fn agrees_with_the_reference_on_sizes_round_every_boundary() {
    let mut random = Random(1);
    let sides = [SIDE_MIN, SIDE_MIN + 1, 17, 31, 32, 33, 63, 64, 65, 97];
    for (i, width) in sides.into_iter().enumerate() {
        let height = sides[(3 * i + 1) % sides.len()];
        check(catalogue::open(catalogue::DEFAULT_CPU).unwrap(), height, width, &mut random);
    }
}

#[test]
fn agrees_with_the_reference_on_models_and_sizes_by_chance() {
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
        let (height, width) = (SIDE_MIN + random.below(40), SIDE_MIN + random.below(60));
        check(model, height, width, &mut random);
    }
}

#[test]
fn every_number_of_threads_gives_the_same_bits() {
    let model = catalogue::open(catalogue::DEFAULT_CPU).unwrap();
    let (height, width) = (53, 71);
    let x = noise(&model, height, width, &mut Random(3));
    for level in Level::available() {
        let net = Net::new(&model, level);
        let bits = |threads: usize| {
            let pool = Pool::new(threads).unwrap();
            let y = pool.install(|| run(&net, &model, &x, height, width));
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let one = bits(1);
        for threads in [2, 3] {
            assert!(bits(threads) == one, "{} differs on {threads} threads", level.name());
        }
    }
}

#[test]
fn scratch_may_lie_anywhere_and_be_longer() {
    let model = catalogue::open(catalogue::DEFAULT_CPU).unwrap();
    let (height, width) = (16, 40);
    let x = noise(&model, height, width, &mut Random(4));
    let net = Net::new(&model, Level::detect().unwrap());
    let expected = run(&net, &model, &x, height, width);
    let mut scratch = vec![f32::NAN; net.scratch_len(height, width) + 64];
    for offset in 0..17 {
        let mut y = vec![f32::NAN; expected.len()];
        net.forward(&x, &mut y, height, width, &mut scratch[offset..]);
        assert_eq!(y, expected, "offset {offset}");
    }
}

#[test]
fn not_a_number_in_the_picture_is_not_hidden() {
    let model = catalogue::open(catalogue::DEFAULT_CPU).unwrap();
    let mut x = noise(&model, 20, 20, &mut Random(5));
    x[210] = f32::NAN;
    for level in Level::available() {
        let y = run(&Net::new(&model, level), &model, &x, 20, 20);
        assert!(y.iter().any(|y| y.is_nan()), "{}", level.name());
    }
}
