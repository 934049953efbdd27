//! The engine and every kernel, on the emulated device, held to the CPU engine and to the reference.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use common::{GOLDEN, Golden, Random, Shape, golden, random_model};
use ndarray::{Array3, Axis as NdAxis};

use super::device::{Buffer, Device, Pinned};
use super::emulated::{CopyMode, Emulated, LaneOrder, Library, Options, Span, SpanKind, Watch};
use super::engine::CudaEngine;
use super::kernels::{ARGS_LEN, Launcher};
use super::maps::{MAPS, Maps, Part};
use super::weights::{Blob, Weights};
use crate::engine::cpu::egress::{Rounding, write_component};
use crate::engine::cpu::ingest::read_component;
use crate::engine::reference::Reference;
use crate::engine::{Engine, EngineKind, EngineSpec, Network, NetworkId, cpu};
use crate::error::Result;
use crate::model::{Model, catalogue};
use crate::picture::{Geometry, Picture};
use crate::testing::{geometry, padded};

#[path = "../../../tests/common/networks.rs"]
#[allow(dead_code, reason = "integration tests use the rest")]
mod common;

/// A device that does what it does in an order of its own.
fn options(seed: u64) -> Options {
    let lanes = [LaneOrder::Forward, LaneOrder::Reverse, LaneOrder::Random];
    let copies = [CopyMode::Eager, CopyMode::Late];
    let (lanes, copies) = (lanes[seed as usize % 3], copies[seed as usize / 3 % 2]);
    Options { seed, lanes, copies, ..Options::default() }
}

/// As many as there are orders of lanes by modes of copies.
const ORDERS: u64 = 6;

fn device(seed: u64) -> Emulated {
    Emulated::new(options(seed))
}

fn open(name: &str) -> Arc<Model> {
    catalogue::open(name).unwrap().into()
}

/// Root mean square of the difference, over that of what is expected. NaN anywhere gives NaN.
fn rms_error(actual: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    let energy = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let pairs = actual.iter().zip(expected);
    let differences = energy(&mut pairs.map(|(a, e)| f64::from(*a) - f64::from(*e)));
    (differences / energy(&mut expected.iter().map(|v| f64::from(*v))).max(f64::MIN_POSITIVE)).sqrt() as f32
}

fn noise(len: usize, random: &mut Random) -> Vec<f32> {
    (0..len).map(|_| 0.5 + 0.5 * random.signed()).collect()
}

#[test]
fn arguments_are_laid_out_as_the_kernels_have_them() {
    let kernels = device(0).kernels();
    assert!(kernels.len() >= ARGS_LEN.len());
    for kernel in kernels {
        let stem = kernel.name.trim_end_matches("_lite").trim_end_matches("_paper").trim_end_matches("_wide");
        let name = |args: &str| args.trim_end_matches("Args").to_lowercase() == stem.replace('_', "");
        let (_, len) = ARGS_LEN.iter().find(|(args, _)| name(args)).expect(&kernel.name);
        assert_eq!(kernel.args_len, *len, "{}", kernel.name);
    }
}

/// A network on a device, by itself.
struct Bench {
    device: Emulated,
    stream: <Emulated as Device>::Stream,
    buffers: Vec<<Emulated as Device>::Buffer>,
    weights: Weights,
    maps: Maps,
    x: Part,
    out: Part,
}

impl Bench {
    fn new(device: Emulated, model: &Model, (width, height): (usize, usize), x: &[f32]) -> Bench {
        let stream = device.stream().unwrap();
        let mut buffers = Vec::new();
        let mut take = |len: usize| {
            buffers.push(device.alloc(len).unwrap());
            let buffer = &buffers[buffers.len() - 1];
            Part { address: buffer.address(), len: buffer.len() }
        };
        let mut counted = Blob::default();
        Weights::new(model, &mut counted).unwrap();
        let weights_part = take(counted.bytes.len());
        let mut blob = Blob::at(weights_part.address);
        let weights = Weights::new(model, &mut blob).unwrap();
        let lens = Maps::lens(width, height, weights.size);
        let parts: [Part; MAPS] = lens.map(&mut take);
        let maps = Maps::new(width, height, parts);
        let x_part = take(4 * x.len());
        let out = take(4 * x.len() * model.sizes.scale * model.sizes.scale);
        let bench = Bench { device, stream, buffers, weights, maps, x: x_part, out };
        bench.write(weights_part, &blob.bytes);
        bench.write(x_part, bytemuck::cast_slice(x));
        bench
    }

    fn launcher(&self) -> Launcher<'_, Emulated> {
        Launcher { device: &self.device, stream: &self.stream }
    }

    fn buffer(&self, part: Part) -> &<Emulated as Device>::Buffer {
        self.buffers.iter().find(|buffer| buffer.address() == part.address).expect("a whole buffer")
    }

    fn finish(&self) {
        let event = self.device.event().unwrap();
        self.device.record(&self.stream, &event).unwrap();
        self.device.synchronize(&event).unwrap();
    }

    fn write(&self, part: Part, bytes: &[u8]) {
        let mut pinned = self.device.alloc_pinned(bytes.len()).unwrap();
        pinned.bytes_mut().copy_from_slice(bytes);
        // SAFETY: both live until the stream has finished.
        unsafe { self.device.copy_in(&self.stream, self.buffer(part), &pinned).unwrap() };
        self.finish();
    }

    fn read(&self, part: Part) -> Vec<u8> {
        let mut pinned = self.device.alloc_pinned(part.len).unwrap();
        // SAFETY: both live until the stream has finished.
        unsafe { self.device.copy_out(&self.stream, &mut pinned, self.buffer(part)).unwrap() };
        self.finish();
        pinned.bytes().to_vec()
    }

    fn floats(&self, part: Part) -> Vec<f32> {
        self.read(part).as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }

    /// A map of so many channels with its padding to [channels, pixels]. What it is padded by must be zero.
    fn map(&self, part: Part, padded: usize, channels: usize) -> Vec<f32> {
        let bytes = self.read(part);
        let halves = bytes.as_chunks().0;
        let value = |i: usize| half::f16::from_le_bytes(halves[i]).to_f32();
        let pixels = halves.len() / padded;
        for i in (0..halves.len()).filter(|i| i % padded >= channels) {
            assert_eq!(value(i), 0.0, "padding");
        }
        (0..channels * pixels).map(|i| value(i % pixels * padded + i / pixels)).collect()
    }
}

/// Every stage against the reference's module. f16 rounds to 2^-12 of a value at most, 1.4e-4 of its size in the mean of
/// squares; a stage rounds its input, its weights and its output, and gets what the stages before have done, which a
/// layer norm makes no larger in proportion: some 2.5e-4 · √stages, five of them a block, and up to three times as much
/// where values cancel, as in the layer norm and in the sums of depthwise convs.
fn check_layers(model: &Model, (width, height): (usize, usize), device: Emulated, x: Vec<f32>) -> Vec<f32> {
    let sizes = model.sizes;
    let mut modules = std::collections::BTreeMap::new();
    let picture = Array3::from_shape_vec((sizes.in_channels, height, width), x.clone()).unwrap();
    let expected = Reference::new(Arc::new(model.clone())).forward_probed(&picture, &mut |name, values| {
        modules.insert(name.to_owned(), values.as_standard_layout().iter().copied().collect::<Vec<f32>>());
    });
    let bench = Bench::new(device, model, (width, height), &x);
    let (launcher, weights, mut maps) = (bench.launcher(), &bench.weights, bench.maps);
    let size = weights.size;
    let stages = std::cell::Cell::new(0.0f32);
    let check = |name: &str, actual: &[f32], expected: &[f32]| {
        stages.set(stages.get() + 1.0);
        let (error, limit) = (rms_error(actual, expected), 3.0 * 2.5e-4 * stages.get().sqrt());
        assert!(error < limit, "{name} is off by {error}, over {limit}, at {width}x{height}, {sizes:?}");
    };
    launcher.enter(size, bench.x, &maps, weights.conv_1, sizes.in_channels).unwrap();
    check("conv_1", &bench.map(maps.trunk, size.c, sizes.dim), &modules["conv_1"]);
    let mut scale = weights.ones;
    for (i, block) in weights.blocks.iter().enumerate() {
        let module = |name: &str| &modules[&format!("block_{}.{name}", i + 1)];
        launcher.norm(size, &maps, scale, block, sizes.dim).unwrap();
        check("norm", &bench.map(maps.n, size.c, sizes.dim), &normalised(module("dwconv"), sizes.dim));
        check("esa.conv1", &bench.map(maps.c1, size.e, sizes.esa_channels), module("esa.conv1"));
        launcher.esa(size, &maps, block).unwrap();
        check("esa.conv3", &bench.map(maps.grid, size.e, sizes.esa_channels), module("esa.conv3"));
        launcher.gate(size, &maps, block).unwrap();
        check("g", &bench.map(maps.n, size.c, sizes.dim), module("g"));
        launcher.cab(size, &maps, scale, block).unwrap();
        (scale, maps) = (maps.scale, maps.turned());
        let scales = bench.floats(scale);
        let z = bench.map(maps.trunk, size.c, sizes.dim);
        let z: Vec<f32> = z.iter().enumerate().map(|(k, v)| v * scales[k / (width * height)]).collect();
        check("cab", &z, module("cab"));
    }
    launcher.leave(size, &maps, &weights.tail, (bench.x, bench.out), (scale, weights.ones)).unwrap();
    let out = bench.floats(bench.out);
    check("output", &out, expected.as_slice().unwrap());
    out
}

/// On a picture by chance.
fn check_layers_on_noise(model: &Model, size: (usize, usize), device: Emulated, random: &mut Random) {
    let x = noise(model.sizes.in_channels * size.0 * size.1, random);
    check_layers(model, size, device, x);
}

/// Over channels, without the affine.
fn normalised(values: &[f32], channels: usize) -> Vec<f32> {
    let mut map = Array3::from_shape_vec((channels, 1, values.len() / channels), values.to_vec()).unwrap();
    for mut pixel in map.lanes_mut(NdAxis(0)) {
        let mean = pixel.sum() / channels as f32;
        let variance = pixel.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / channels as f32;
        pixel.mapv_inplace(|v| (v - mean) / (variance + 1e-5).sqrt());
    }
    map.into_raw_vec_and_offset().0
}

#[test]
fn every_layer_agrees_with_the_reference_and_the_output_with_pytorch() {
    for (name, seed) in GOLDEN.into_iter().zip(0..) {
        let Golden { model, input, output, .. } = golden(name);
        let [_, height, width] = input.shape[..] else { panic!("{name}: input is [in, H, W]") };
        let out = check_layers(&model, (width, height), device(seed), input.values);
        let error = rms_error(&out, &output.values);
        // As of the last layer of six blocks, see above.
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
fn every_layer_agrees_with_the_reference_on_sizes_and_models_by_chance() {
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

fn spec(networks: Vec<Network>, lr: Geometry, sr: Geometry) -> EngineSpec {
    EngineSpec { kind: EngineKind::Cpu(cpu::Precision::F32), threads: 1, networks, lr, sr }
}

/// Numbers of 0 to 1 in every component, at the start of rows that are longer.
fn painted(geometry: Geometry, random: &mut Random) -> Picture {
    let mut picture = padded(geometry);
    for component in 0..geometry.format.component_count() {
        let (width, height) = geometry.component_size(component);
        write_component(&mut picture, component, &noise(width * height, random), Rounding::Nearest);
    }
    picture
}

fn values(picture: &Picture, component: usize) -> Vec<f32> {
    let (width, height) = picture.geometry.component_size(component);
    let mut plane = vec![f32::NAN; width * height];
    read_component(picture, component, &mut plane);
    plane
}

/// Pictures through the ring and one by one through the CPU engine: code values differ by one where a number lies
/// between two, and by what `tolerance` makes of f16.
fn check_engine(device: Emulated, spec: &EngineSpec, pictures: usize, tolerance: f32, random: &mut Random) {
    let mut cuda = CudaEngine::open(device, spec).unwrap();
    let mut host = spec.open().unwrap();
    for network in (0..spec.networks.len()).map(NetworkId) {
        let mut expected = Vec::new();
        let mut actual = Vec::new();
        for _ in 0..pictures {
            let lr = painted(spec.lr, random);
            host.submit(lr, Picture::new(spec.sr), network).unwrap();
            let (lr, sr) = host.collect().unwrap().unwrap();
            if expected.len() - actual.len() == cuda.depth() {
                actual.push(cuda.collect().unwrap().unwrap().1);
            }
            expected.push(sr);
            cuda.submit(lr, padded(spec.sr), network).unwrap();
        }
        while let Some((_, sr)) = cuda.collect().unwrap() {
            actual.push(sr);
        }
        assert_eq!(actual.len(), pictures);
        for (index, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
            for component in 0..spec.sr.format.component_count() {
                let unit = spec.sr.quantization(component).unit;
                let limit = if spec.sr.format.float { tolerance } else { 1.01 / unit + tolerance };
                let worst = worst(&values(actual, component), &values(expected, component));
                assert!(
                    worst < limit,
                    "{} to {}: component {component} of picture {index}, network {network:?}, is off by {worst}",
                    spec.lr.format.name,
                    spec.sr.format.name
                );
            }
        }
    }
}

/// The largest difference, which NaN makes infinite.
fn worst(actual: &[f32], expected: &[f32]) -> f32 {
    let differences = actual.iter().zip(expected).map(|(a, e)| (a - e).abs());
    differences.fold(0.0, |worst, d| if d.is_nan() { f32::INFINITY } else { worst.max(d) })
}

#[test]
fn pictures_of_every_format_come_out_as_on_the_cpu() {
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
        let (lr, sr) = (geometry(25, 17, from), geometry(50, 34, to));
        check_engine(device(seed as u64), &spec(networks, lr, sr), 2, 0.01, &mut random);
    }
}

#[test]
fn other_sizes_and_rgb_models_come_out_as_on_the_cpu() {
    let mut random = Random(5);
    let shape = Shape { channels: [3, 12, 20, 5, 6, 2], scale: 2, blocks: 1 };
    let rgb: Arc<Model> = random_model(&shape, &mut random).into();
    let networks = vec![Network::Resample, Network::Hasn(open("hasn-lite-x2")), Network::Hasn(rgb)];
    for (seed, (width, height)) in [(38, 34), (47, 31), (76, 68)].into_iter().enumerate() {
        let (lr, sr) = (geometry(19, 17, "yuv420p"), geometry(width, height, "yuv420p"));
        // Weights by chance make numbers that are several times as large as a picture's.
        check_engine(device(seed as u64), &spec(networks.clone(), lr, sr), 3, 0.05, &mut random);
    }
}

/// An engine for pictures of 64 x 48 by the light model.
fn ring(options: Options) -> Result<(CudaEngine<Emulated>, Watch)> {
    let device = Emulated::new(options);
    let watch = device.watch();
    let (lr, sr) = (geometry(64, 48, "yuv420p"), geometry(128, 96, "yuv420p"));
    let spec = spec(vec![Network::Hasn(open("hasn-lite-x2"))], lr, sr);
    Ok((CudaEngine::open(device, &spec)?, watch))
}

fn submit(engine: &mut CudaEngine<Emulated>) {
    let (lr, sr) = (geometry(64, 48, "yuv420p"), geometry(128, 96, "yuv420p"));
    engine.submit(Picture::new(lr), Picture::new(sr), NetworkId(0)).unwrap();
}

/// Copies that take as long as the launches of a picture, some three quarters of it, or next to nothing.
#[test]
fn copies_of_neighbours_overlap_the_launches() {
    for copy_bytes_per_us in [460, 614, 100_000] {
        let options = Options { launch_ns: Some(1000), copy_bytes_per_us, ..Options::default() };
        let (mut engine, watch) = ring(options).unwrap();
        let opened = watch.trace().len();
        let pictures = 100;
        for picture in 0..pictures {
            if picture >= engine.depth() {
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
        let launches = engines[1].len() / pictures;
        let busiest: u64 =
            engines.iter().map(|spans| spans.iter().map(|s| s.end_ns - s.start_ns).sum()).max().unwrap();
        let start = trace.iter().map(|span| span.start_ns).min().unwrap();
        let end = trace.iter().map(|span| span.end_ns).max().unwrap();
        assert!(
            (end - start) as f64 <= 1.05 * busiest as f64,
            "{} ns, and {busiest} of the busiest, at {copy_bytes_per_us}",
            end - start
        );
        for picture in 2..pictures - 1 {
            let (start, end) =
                (engines[1][launches * picture].start_ns, engines[1][launches * (picture + 1) - 1].end_ns);
            let others = (picture - 2..picture + 2).filter(|other| *other != picture);
            let beside = |copy: &Span| copy.start_ns < end && copy.end_ns > start;
            let overlaps = others.flat_map(|other| [&engines[0][other], &engines[2][other]]).any(beside);
            assert!(overlaps, "picture {picture} at {copy_bytes_per_us}");
        }
    }
}

#[test]
fn nothing_is_allocated_after_open_and_all_is_given_back() {
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
fn a_full_ring_takes_no_picture() {
    let (mut engine, _) = ring(Options { launch_ns: Some(1), ..Options::default() }).unwrap();
    for _ in 0..=engine.depth() {
        submit(&mut engine);
    }
}

#[test]
fn a_launch_that_fails_is_told_and_ends_cleanly() {
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
    assert_eq!(collected, 1, "there are some twenty launches a picture");
    submit(&mut engine);
    assert!(engine.collect().is_err(), "a device that failed has failed");
    drop(engine);
    assert_eq!(watch.used(), 0);
}

#[test]
fn too_little_memory_is_a_shorter_ring_or_an_error_before_the_first_picture() {
    let whole = {
        let (engine, watch) = ring(Options { launch_ns: Some(1), ..Options::default() }).unwrap();
        assert_eq!(engine.depth(), 3);
        watch.used()
    };
    let slot = (64 * 48 + 128 * 96) * 3 / 2;
    let reserve = 128 << 20;
    let with = |memory| ring(Options { memory, launch_ns: Some(1), ..Options::default() });
    assert_eq!(with(whole + reserve).unwrap().0.depth(), 3);
    assert_eq!(with(whole + reserve - slot).unwrap().0.depth(), 2);
    assert_eq!(with(whole + reserve - 2 * slot).unwrap().0.depth(), 1);
    let error = with(whole + reserve - 3 * slot).err().expect("not one picture fits").to_string();
    assert!(error.contains("1 MB are missing"), "{error}");
}

/// That a fault shows in one of so many orders.
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
        // An index past the end, and a last row that nobody writes.
        ("dense.cuh", 0, ("x < width && y < height) {", "x < width) {")),
        ("dense.cuh", 0, ("x < width && y < height) {", "x < width && y + 1 < height) {")),
    ];
    for (file, occurrence, (from, to)) in faults {
        let library = Library::with_fault(file, from, occurrence, to);
        let check = |seed| {
            let device = Emulated::new(Options { library: library.clone(), ..options(seed) });
            check_layers_on_noise(&open("hasn-lite-x2"), (21, 19), device, &mut Random(6));
        };
        assert!(caught(ORDERS, check), "{file}: {from:?} -> {to:?}");
    }
}

#[test]
fn a_missing_wait_between_streams_is_caught() {
    let (lr, sr) = (geometry(25, 17, "gray"), geometry(50, 34, "gray"));
    let spec = spec(vec![Network::Resample], lr, sr);
    let run = |forget_wait, seed| {
        let device = Emulated::new(Options { forget_wait, ..options(seed) });
        check_engine(device, &spec, 4, 0.0, &mut Random(7));
    };
    // Two of every picture: the launches behind the copy in, the copy out behind the launches.
    for wait in 0..8 {
        assert!(caught(100, |seed| run(Some(wait), seed)), "wait {wait}");
    }
    assert!(!caught(100, |seed| run(None, seed)));
}
