//! Checks of the machine's first GPU against the reference and the CPU engine: `cargo test cuda::gpu -- --ignored`, which
//! `gpu-check/run` runs.

use super::check::common::{GOLDEN, Golden, Random, Shape, golden, random_model};
use super::check::{check_engine, check_layers, check_layers_on_noise, open, rms_error, spec};
use super::driver::Driver;
use crate::engine::Network;
use crate::testing::frame_format;

/// Opens the driver.
fn driver() -> Driver {
    Driver::open().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
#[ignore = "needs a GPU"]
fn every_layer_agrees_with_the_reference_and_the_output_with_pytorch() {
    let device = driver();
    for name in GOLDEN {
        let Golden { model, input, output, .. } = golden(name);
        let [_, height, width] = input.shape[..] else { panic!("{name}: input is [in, H, W]") };
        let out = check_layers(&model, (width, height), device.clone(), input.values);
        let error = rms_error(&out, &output.values);
        assert!(error < 0.005, "{name} is off PyTorch by {error}");
    }
}

#[test]
#[ignore = "needs a GPU"]
fn every_layer_agrees_with_the_reference_on_random_sizes_and_models() {
    let device = driver();
    let mut random = Random(12);
    for (name, size) in [("hasn-lite-x2", (321, 181)), ("hasn-x2", (160, 97)), ("hasn-x2", (15, 16))] {
        check_layers_on_noise(&open(name), size, device.clone(), &mut random);
    }
    for _ in 0..12 {
        let mut between = |low: usize, high: usize| low + random.below(high - low + 1);
        let dim = between(8, 64);
        let channels =
            [1 + 2 * between(0, 1), dim, between(8, 128), between(1, 32), between(1, dim), between(1, 8)];
        let shape = Shape { channels, scale: between(2, 4), blocks: between(1, 2) };
        let size = (between(15, 60), between(15, 60));
        let model = random_model(&shape, &mut random);
        check_layers_on_noise(&model, size, device.clone(), &mut random);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn frames_match_the_cpu() {
    let device = driver();
    let mut random = Random(13);
    let networks =
        || vec![Network::Resample, Network::Hasn(open("hasn-lite-x2")), Network::Hasn(open("hasn-x2"))];
    for (from, to) in [
        ("gray", "gray16be"),
        ("yuv420p", "yuv420p"),
        ("nv12", "yuv420p10le"),
        ("p010le", "yuv420p"),
        ("yuv422p10be", "yuva444p16le"),
        ("yuyv422", "uyvy422"),
        ("rgb24", "gbrap16le"),
        ("gbrpf32le", "gbrpf32be"),
        ("yuv420p", "rgb0"),
    ] {
        let spec = spec(networks(), frame_format(95, 67, from), frame_format(190, 134, to));
        check_engine(device.clone(), &spec, 4, 0.01, &mut random);
    }
    // A size that is not a multiple of a pass, and a typical video.
    for (lr, sr) in [((64, 48), (200, 150)), ((640, 360), (1280, 720))] {
        let spec = spec(networks(), frame_format(lr.0, lr.1, "yuv420p"), frame_format(sr.0, sr.1, "yuv420p"));
        check_engine(device.clone(), &spec, 5, 0.01, &mut random);
    }
}
