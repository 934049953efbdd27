//! The engine and every kernel on the emulated device, against the CPU engine and the reference.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use super::args::ARGS_LEN;
use super::check::common::{GOLDEN, Golden, Random, Shape, golden, random_model};
use super::check::{check_engine, check_layers, check_layers_on_noise, open, rms_error, spec};
use super::emulated::{CopyMode, Emulated, LaneOrder, Library, Options, Span, SpanKind, Watch};
use super::engine::CudaEngine;
use crate::engine::{Engine, Network, NetworkId};
use crate::error::Result;
use crate::frame::Frame;
use crate::model::Model;
use crate::testing::frame_format;

/// Options of a device with an order of work of its own.
fn options(seed: u64) -> Options {
    let lanes = [LaneOrder::Forward, LaneOrder::Reverse, LaneOrder::Random];
    let copies = [CopyMode::Eager, CopyMode::Late];
    let (lanes, copies) = (lanes[seed as usize % 3], copies[seed as usize / 3 % 2]);
    Options { seed, lanes, copies, ..Options::default() }
}

/// Number of combinations of lane orders and copy modes.
const ORDERS: u64 = 6;

fn device(seed: u64) -> Emulated {
    Emulated::new(options(seed))
}

#[test]
fn arguments_match_the_kernels_layout() {
    let kernels = device(0).kernels();
    assert!(kernels.len() >= ARGS_LEN.len());
    for kernel in kernels {
        let stem = kernel.name.trim_end_matches("_lite").trim_end_matches("_paper").trim_end_matches("_wide");
        let name = |args: &str| args.trim_end_matches("Args").to_lowercase() == stem.replace('_', "");
        let (_, len) = ARGS_LEN.iter().find(|(args, _)| name(args)).expect(&kernel.name);
        assert_eq!(kernel.args_len, *len, "{}", kernel.name);
    }
}

#[test]
fn every_layer_agrees_with_the_reference_and_the_output_with_pytorch() {
    for (name, seed) in GOLDEN.into_iter().zip(0..) {
        let Golden { model, input, output, .. } = golden(name);
        let [_, height, width] = input.shape[..] else { panic!("{name}: input is [in, H, W]") };
        let out = check_layers(&model, (width, height), device(seed), input.values);
        let error = rms_error(&out, &output.values);
        // The tolerance of the last layer of six blocks, see `check_layers`.
        assert!(error < 0.005, "{name} is off PyTorch by {error}");
    }
}

#[test]
fn every_layer_agrees_with_the_reference_in_every_order() {
    let mut random = Random(2);
    for seed in 0..ORDERS {
        check_layers_on_noise(&open("hasn-lite-x2"), (37, 19), device(seed), &mut random);
    }
    check_layers_on_noise(&open("hasn-x2"), (21, 17), device(7), &mut random);
}

#[test]
fn every_layer_agrees_with_the_reference_on_random_sizes_and_models() {
    let mut random = Random(3);
    for seed in 0..8 {
        let mut between = |low: usize, high: usize| low + random.below(high - low + 1);
        let dim = between(8, 64);
        let channels =
            [1 + 2 * between(0, 1), dim, between(8, 128), between(1, 32), between(1, dim), between(1, 8)];
        let shape = Shape { channels, scale: between(2, 4), blocks: between(1, 2) };
        let size = (between(15, 40), between(15, 40));
        let model = random_model(&shape, &mut random);
        check_layers_on_noise(&model, size, device(seed), &mut random);
    }
}

#[test]
fn frames_of_every_format_match_the_cpu() {
    let mut random = Random(4);
    let model = open("hasn-lite-x2");
    let formats = [
        ("gray", "gray"),
        ("gray16be", "gray10le"),
        ("grayf32le", "grayf32be"),
        ("ya8", "ya8"),
        ("yuv420p", "yuv420p"),
        ("yuv420p", "nv12"),
        ("nv12", "yuv420p10le"),
        ("p010le", "p010le"),
        ("p010le", "yuv420p"),
        ("yuv422p10be", "yuv422p10le"),
        ("yuv444p12le", "yuva444p16le"),
        ("yuv411p", "yuv411p"),
        ("yuv410p", "yuv420p"),
        ("yuyv422", "uyvy422"),
        ("y210le", "y210le"),
        ("rgb24", "rgb24"),
        ("rgb48be", "yuv420p"),
        ("argb", "gbrap16le"),
        ("yuv420p", "rgb0"),
        ("gbrpf32le", "gbrpf32be"),
    ];
    for (seed, (from, to)) in formats.into_iter().enumerate() {
        let networks = vec![Network::Resample, Network::Hasn(model.clone())];
        let (lr, sr) = (frame_format(25, 17, from), frame_format(50, 34, to));
        check_engine(device(seed as u64), &spec(networks, lr, sr), 2, 0.01, &mut random);
    }
}

#[test]
fn other_sizes_and_rgb_models_match_the_cpu() {
    let mut random = Random(5);
    let shape = Shape { channels: [3, 12, 20, 5, 6, 2], scale: 2, blocks: 1 };
    let rgb: Arc<Model> = random_model(&shape, &mut random).into();
    let networks = vec![Network::Resample, Network::Hasn(open("hasn-lite-x2")), Network::Hasn(rgb)];
    for (seed, (width, height)) in [(38, 34), (47, 31), (76, 68)].into_iter().enumerate() {
        let (lr, sr) = (frame_format(19, 17, "yuv420p"), frame_format(width, height, "yuv420p"));
        // Random weights give values several times as large as a frame's.
        check_engine(device(seed as u64), &spec(networks.clone(), lr, sr), 3, 0.05, &mut random);
    }
}

/// An engine for frames of 64 x 48 by the light model.
fn ring(options: Options) -> Result<(CudaEngine<Emulated>, Watch)> {
    let device = Emulated::new(options);
    let watch = device.watch();
    let (lr, sr) = (frame_format(64, 48, "yuv420p"), frame_format(128, 96, "yuv420p"));
    let spec = spec(vec![Network::Hasn(open("hasn-lite-x2"))], lr, sr);
    Ok((CudaEngine::open(device, &spec)?, watch))
}

fn try_submit(engine: &mut CudaEngine<Emulated>) -> Result<()> {
    let (lr, sr) = (frame_format(64, 48, "yuv420p"), frame_format(128, 96, "yuv420p"));
    engine.submit(Frame::new(lr), Frame::new(sr), NetworkId(0))
}

fn submit(engine: &mut CudaEngine<Emulated>) {
    try_submit(engine).unwrap();
}

/// Copies as long as the launches of a frame, three quarters as long, and negligible ones.
#[test]
fn copies_of_neighbours_overlap_the_launches() {
    for copy_bytes_per_us in [460, 614, 100_000] {
        let options = Options { launch_ns: Some(1000), copy_bytes_per_us, ..Options::default() };
        let (mut engine, watch) = ring(options).unwrap();
        let opened = watch.trace().len();
        let frames = 100;
        for frame in 0..frames {
            if frame >= engine.depth() {
                engine.collect().unwrap().unwrap();
            }
            submit(&mut engine);
        }
        while engine.collect().unwrap().is_some() {}
        let trace = &watch.trace()[opened..];
        let of = |is: &dyn Fn(&SpanKind) -> bool| -> Vec<Span> {
            trace.iter().filter(|span| is(&span.kind)).cloned().collect()
        };
        let engines = [
            of(&|kind| *kind == SpanKind::CopyIn),
            of(&|kind| matches!(kind, SpanKind::Kernel(_))),
            of(&|kind| *kind == SpanKind::CopyOut),
        ];
        let launches = engines[1].len() / frames;
        let busiest: u64 =
            engines.iter().map(|spans| spans.iter().map(|s| s.end_ns - s.start_ns).sum()).max().unwrap();
        let start = trace.iter().map(|span| span.start_ns).min().unwrap();
        let end = trace.iter().map(|span| span.end_ns).max().unwrap();
        assert!(
            (end - start) as f64 <= 1.05 * busiest as f64,
            "{} ns, and {busiest} of the busiest, at {copy_bytes_per_us}",
            end - start
        );
        for frame in 2..frames - 1 {
            let (start, end) =
                (engines[1][launches * frame].start_ns, engines[1][launches * (frame + 1) - 1].end_ns);
            let others = (frame - 2..frame + 2).filter(|other| *other != frame);
            let beside = |copy: &Span| copy.start_ns < end && copy.end_ns > start;
            let overlaps = others.flat_map(|other| [&engines[0][other], &engines[2][other]]).any(beside);
            assert!(overlaps, "frame {frame} at {copy_bytes_per_us}");
        }
    }
}

#[test]
fn nothing_is_allocated_after_open_and_everything_is_freed() {
    let (mut engine, watch) = ring(Options::default()).unwrap();
    let used = watch.used();
    for _ in 0..2 * engine.depth() {
        submit(&mut engine);
        engine.collect().unwrap().unwrap();
    }
    submit(&mut engine);
    assert_eq!(watch.used(), used);
    drop(engine);
    assert_eq!(watch.used(), 0);
}

#[test]
#[should_panic = "full ring"]
fn a_full_ring_takes_no_frame() {
    let (mut engine, _) = ring(Options { launch_ns: Some(1), ..Options::default() }).unwrap();
    for _ in 0..=engine.depth() {
        submit(&mut engine);
    }
}

#[test]
fn a_failed_launch_is_reported_and_ends_cleanly() {
    let (mut engine, watch) = ring(Options { fail_launch: Some(30), ..Options::default() }).unwrap();
    let mut collected = 0;
    let error = loop {
        submit(&mut engine);
        match engine.collect() {
            Ok(pair) => collected += usize::from(pair.is_some()),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("launch failed"), "{error}");
    assert_eq!(collected, 1, "there are some twenty launches a frame");
    submit(&mut engine);
    assert!(engine.collect().is_err(), "a device that failed has failed");
    drop(engine);
    assert_eq!(watch.used(), 0);
}

#[test]
fn an_engine_waits_for_a_frame_whose_start_failed() {
    let (mut engine, watch) = ring(Options { fail_replay: true, ..Options::default() }).unwrap();
    let copies = || watch.trace().iter().filter(|span| span.kind == SpanKind::CopyIn).count();
    let before = copies();
    let error = try_submit(&mut engine).unwrap_err();
    assert!(error.to_string().contains("replay failed"), "{error}");
    drop(engine);
    assert_eq!((copies() - before, watch.used()), (1, 0));
}

#[test]
fn frames_of_more_rows_than_a_grid_are_refused() {
    let (lr, sr) = (frame_format(16, 32_768, "gray"), frame_format(32, 65_536, "gray"));
    let error = CudaEngine::check(&device(0), &spec(vec![Network::Resample], lr, sr)).unwrap_err();
    let text = "frame: a GPU takes at most 65535 rows, and a plane has 65536; use --engine cpu";
    assert_eq!(error.to_string(), text);
}

#[test]
fn too_little_memory_is_a_shorter_ring_or_an_error_before_the_first_frame() {
    let full = {
        let (engine, watch) = ring(Options { launch_ns: Some(1), ..Options::default() }).unwrap();
        assert_eq!(engine.depth(), 3);
        watch.used()
    };
    let slot = (64 * 48 + 128 * 96) * 3 / 2;
    let reserve = 128 << 20;
    let with = |memory| ring(Options { memory, launch_ns: Some(1), ..Options::default() });
    assert_eq!(with(full + reserve).unwrap().0.depth(), 3);
    assert_eq!(with(full + reserve - slot).unwrap().0.depth(), 2);
    assert_eq!(with(full + reserve - 2 * slot).unwrap().0.depth(), 1);
    let error = with(full + reserve - 3 * slot).err().expect("not one frame fits").to_string();
    assert!(error.contains("1 MB are missing"), "{error}");
}

/// Whether a fault shows in one of the orders.
fn caught(orders: u64, check: impl Fn(u64)) -> bool {
    let fails = |seed| std::panic::catch_unwind(AssertUnwindSafe(|| check(seed))).is_err();
    (0..orders).any(fails)
}

#[test]
fn faults_planted_into_kernels_are_caught() {
    let barrier = ("BARRIER();", "");
    let faults = [
        ("norm.cu", 1, barrier),
        ("esa.cu", 1, barrier),
        ("gate.cu", 0, barrier),
        ("cab.cu", 1, barrier),
        ("leave.cu", 4, barrier),
        ("cab.cu", 0, ("copy_async_wait();", "")),
        // An index past the end, and a last row that is never written.
        ("dense.cuh", 0, ("x < width && y < height) {", "x < width) {")),
        ("dense.cuh", 0, ("x < width && y < height) {", "x < width && y + 1 < height) {")),
    ];
    let is_caught = |file, occurrence, (from, to)| {
        let library = Library::with_fault(file, from, occurrence, to);
        let check = |seed| {
            let device = Emulated::new(Options { library: library.clone(), ..options(seed) });
            check_layers_on_noise(&open("hasn-lite-x2"), (21, 19), device, &mut Random(6));
        };
        caught(ORDERS, check)
    };
    assert!(!is_caught("norm.cu", 1, ("BARRIER();", "BARRIER();")), "nothing is wrong without a fault");
    for (file, occurrence, fault) in faults {
        assert!(is_caught(file, occurrence, fault), "{file}: {fault:?}");
    }
}

#[test]
fn a_missing_wait_between_streams_is_caught() {
    let (lr, sr) = (frame_format(25, 17, "gray"), frame_format(50, 34, "gray"));
    let spec = spec(vec![Network::Resample], lr, sr);
    let run = |forget_wait, seed| {
        let device = Emulated::new(Options { forget_wait, ..options(seed) });
        check_engine(device, &spec, 4, 0.0, &mut Random(7));
    };
    // Two per frame: the launches wait for the copy in, the copy out for the launches.
    for wait in 0..8 {
        assert!(caught(100, |seed| run(Some(wait), seed)), "wait {wait}");
    }
    assert!(!caught(100, |seed| run(None, seed)));
}
