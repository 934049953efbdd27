//! Checks of a device's kernels against the reference and of its engine against the CPU engine: on the emulated device and
//! on a GPU.

use std::sync::Arc;

use ndarray::{Array3, Axis as NdAxis};

use super::device::{Buffer, Device, Pinned};
use super::engine::CudaEngine;
use super::kernels::Launcher;
use super::maps::{MAPS, Maps, Part};
use super::weights::{Blob, Weights};
use crate::engine::reference::Reference;
use crate::engine::{Engine, EngineKind, EngineSpec, Network, NetworkId, cpu};
use crate::frame::{Frame, FrameFormat};
use crate::model::{Model, catalogue};
use crate::pixel::read::read_component;
use crate::pixel::write::{Rounding, write_component};
use crate::testing::padded;
use common::Random;

pub(super) use crate::engine::tests::common;

pub(super) fn open(name: &str) -> Arc<Model> {
    catalogue::open(name).unwrap().into()
}

/// Root mean square of the difference, relative to that of the expected values. NaN anywhere gives NaN.
pub(super) fn rms_error(actual: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    let energy = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let pairs = actual.iter().zip(expected);
    let differences = energy(&mut pairs.map(|(a, e)| f64::from(*a) - f64::from(*e)));
    (differences / energy(&mut expected.iter().map(|v| f64::from(*v))).max(f64::MIN_POSITIVE)).sqrt() as f32
}

fn noise(len: usize, random: &mut Random) -> Vec<f32> {
    (0..len).map(|_| 0.5 + 0.5 * random.signed()).collect()
}

/// A network on a device, without an engine.
struct Bench<D: Device> {
    device: D,
    stream: D::Stream,
    buffers: Vec<D::Buffer>,
    weights: Weights,
    maps: Maps,
    x: Part,
    out: Part,
}

impl<D: Device> Bench<D> {
    fn new(device: D, model: &Model, (width, height): (usize, usize), x: &[f32]) -> Bench<D> {
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

    fn launcher(&self) -> Launcher<'_, D> {
        Launcher { device: &self.device, stream: &self.stream, after_launch: &|_, _| Ok(()) }
    }

    fn buffer(&self, part: Part) -> &D::Buffer {
        self.buffers.iter().find(|buffer| buffer.address() == part.address).expect("a complete buffer")
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

    /// Reads a map of `padded` channels as [channels, pixels]. The padding must be zero.
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

/// Checks every stage against the reference's module. f16 rounds to 2^-12 of a value at most, 1.4e-4 of its size in the mean of
/// squares; a stage rounds its input, its weights and its output, and inherits the errors of the stages before, which a
/// layer norm does not enlarge in proportion: some 2.5e-4 · √stages, five of them a block, and up to three times as much
/// where values cancel, as in the layer norm and in the sums of depthwise convs.
pub(super) fn check_layers<D: Device>(
    model: &Model,
    (width, height): (usize, usize),
    device: D,
    x: Vec<f32>,
) -> Vec<f32> {
    let sizes = model.sizes;
    let mut modules = std::collections::BTreeMap::new();
    let reference = Reference::new(Arc::new(model.clone()));
    let expected = reference.forward_probed(&x, (width, height), &mut |name, _, values| {
        modules.insert(name.to_owned(), values.to_vec());
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
        (scale, maps) = (maps.scale, maps.swapped());
        let scales = bench.floats(scale);
        let z = bench.map(maps.trunk, size.c, sizes.dim);
        let z: Vec<f32> = z.iter().enumerate().map(|(k, v)| v * scales[k / (width * height)]).collect();
        check("cab", &z, module("cab"));
    }
    launcher.leave(size, &maps, &weights.tail, (bench.x, bench.out), (scale, weights.ones)).unwrap();
    let out = bench.floats(bench.out);
    check("output", &out, &expected.values);
    out
}

/// Checks every stage on a random frame.
pub(super) fn check_layers_on_noise<D: Device>(
    model: &Model,
    size: (usize, usize),
    device: D,
    random: &mut Random,
) {
    let x = noise(model.sizes.in_channels * size.0 * size.1, random);
    check_layers(model, size, device, x);
}

/// Normalises over channels, without the affine.
fn normalised(values: &[f32], channels: usize) -> Vec<f32> {
    let mut map = Array3::from_shape_vec((channels, 1, values.len() / channels), values.to_vec()).unwrap();
    for mut pixel in map.lanes_mut(NdAxis(0)) {
        let mean = pixel.sum() / channels as f32;
        let variance = pixel.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / channels as f32;
        pixel.mapv_inplace(|v| (v - mean) / (variance + 1e-5).sqrt());
    }
    map.into_raw_vec_and_offset().0
}

pub(super) fn spec(networks: Vec<Network>, lr: FrameFormat, sr: FrameFormat) -> EngineSpec {
    let kind = EngineKind::Cpu(cpu::level::detect().expect("the default level"), cpu::Precision::F32);
    EngineSpec { kind, threads: 1, in_flight: 1, networks, memory_max: None, lr, sr }
}

/// A frame with padded rows and random values of 0 to 1 in every component.
fn painted(frame_format: FrameFormat, random: &mut Random) -> Frame {
    let mut frame = padded(frame_format);
    for component in 0..frame_format.pixel_format.component_count() {
        let (width, height) = frame_format.component_size(component);
        write_component(&mut frame, component, &noise(width * height, random), Rounding::Nearest);
    }
    frame
}

fn values(frame: &Frame, component: usize) -> Vec<f32> {
    let (width, height) = frame.format.component_size(component);
    let mut plane = vec![f32::NAN; width * height];
    read_component(frame, component, &mut plane);
    plane
}

/// Compares frames through the ring with those of the CPU engine, one by one: code values differ by one where a number lies
/// between two, and by `tolerance` for f16.
pub(super) fn check_engine<D: Device>(
    device: D,
    spec: &EngineSpec,
    frames: usize,
    tolerance: f32,
    random: &mut Random,
) {
    let mut cuda = CudaEngine::open(device, spec).unwrap();
    let mut host = spec.open().unwrap();
    for network in (0..spec.networks.len()).map(NetworkId) {
        let mut expected = Vec::new();
        let mut actual = Vec::new();
        for _ in 0..frames {
            let lr = painted(spec.lr, random);
            host.submit(lr, Frame::new(spec.sr), network).unwrap();
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
        assert_eq!(actual.len(), frames);
        for (index, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
            for component in 0..spec.sr.pixel_format.component_count() {
                let unit = spec.sr.quantization(component).unit;
                let limit = if spec.sr.pixel_format.float { tolerance } else { 1.01 / unit + tolerance };
                let worst = worst(&values(actual, component), &values(expected, component));
                assert!(
                    worst < limit,
                    "{} to {}: component {component} of frame {index}, network {network:?}, is off by {worst}",
                    spec.lr.pixel_format.name,
                    spec.sr.pixel_format.name
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
