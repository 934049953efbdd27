//! The speed of a device, and its share of the device's peaks.
//!
//! In: a device, a model, frame formats. Out: seconds by the device's and the host's clocks, and the demand of the kernels.
//! Frames are copied in and out as in a run; there is no codec. It prints nothing.

use std::sync::Arc;

use super::demand::Demand;
use super::device::{Device, MemoryInfo};
use super::engine::{CudaEngine, TimedLaunch, part_of};
use super::kernels::{Launcher, Probe};
use crate::engine::{Engine, EngineKind, EngineSpec, Network, NetworkId};
use crate::error::{Error, Result};
use crate::frame::{Frame, FrameFormat};
use crate::model::Model;

/// The measurement to run.
pub(crate) struct Request {
    pub(crate) model: Arc<Model>,
    /// Formats of the LR and the SR frames.
    pub(crate) sizes: Vec<(FrameFormat, FrameFormat)>,
    /// Number of runs, whose median is reported.
    pub(crate) runs: usize,
    /// Frames of a run.
    pub(crate) frames: usize,
    /// Sizes of the probes of the device's peaks.
    pub(crate) probes: Probes,
}

/// The defaults take milliseconds on the largest GPUs and exceed their caches.
#[derive(Clone, Copy)]
pub(crate) struct Probes {
    pub(crate) copy_bytes: usize,
    pub(crate) blocks: usize,
    pub(crate) rounds: usize,
}

impl Default for Probes {
    fn default() -> Probes {
        Probes { copy_bytes: 512 << 20, blocks: 16_384, rounds: 512 }
    }
}

/// The result of a measurement.
pub(crate) struct Measured {
    pub(crate) device: String,
    /// Peaks per second, by the probes.
    pub(crate) ceilings: Demand,
    pub(crate) sizes: Vec<MeasuredSize>,
}

/// The result for frames of one size.
pub(crate) struct MeasuredSize {
    pub(crate) lr: FrameFormat,
    pub(crate) sr: FrameFormat,
    /// From an open device to the first collected frame.
    pub(crate) first_s: f64,
    /// Time per frame in a sequence.
    pub(crate) frame_s: f64,
    /// In the order of the first launch.
    pub(crate) kernels: Vec<MeasuredKernel>,
}

/// All launches of a kernel in one frame.
pub(crate) struct MeasuredKernel {
    /// Name without the size suffix.
    pub(crate) name: &'static str,
    pub(crate) launches: usize,
    /// Median of the runs.
    pub(crate) seconds: f64,
    pub(crate) demand: Demand,
}

pub(super) fn measure<D: Device>(device: &D, request: &Request) -> Result<Measured> {
    // The sizes come first, so that the first frame of the device is timed.
    let sizes =
        request.sizes.iter().map(|&(lr, sr)| measure_size(device, request, lr, sr)).collect::<Result<_>>()?;
    Ok(Measured { device: device.name(), ceilings: ceilings(device, request)?, sizes })
}

fn measure_size<D: Device>(
    device: &D,
    request: &Request,
    lr: FrameFormat,
    sr: FrameFormat,
) -> Result<MeasuredSize> {
    let networks = vec![Network::Hasn(request.model.clone())];
    let spec =
        EngineSpec { kind: EngineKind::Cuda, threads: 1, in_flight: 1, networks, memory_max: None, lr, sr };
    let pairs = || (noise(lr), Frame::new(sr));
    let mut free: Vec<_> = (0..4).map(|_| pairs()).collect();
    let start_s = device.now_s();
    let mut engine = CudaEngine::open(device.clone(), &spec)?;
    run(&mut engine, &mut free, 1)?;
    let first_s = device.now_s() - start_s;
    // Warm-up: clocks rise under load.
    run(&mut engine, &mut free, request.frames)?;
    let mut seconds = Vec::new();
    for _ in 0..request.runs {
        let start_s = device.now_s();
        run(&mut engine, &mut free, request.frames)?;
        seconds.push((device.now_s() - start_s) / request.frames as f64);
    }
    let launches =
        (0..request.runs).map(|_| engine.time_launches(NetworkId(0))).collect::<Result<Vec<_>>>()?;
    Ok(MeasuredSize { lr, sr, first_s, frame_s: median(seconds), kernels: by_kernel(&launches) })
}

/// Runs `frames` frames through the ring; `free` has more pairs than the ring holds.
fn run<D: Device>(engine: &mut CudaEngine<D>, free: &mut Vec<(Frame, Frame)>, frames: usize) -> Result<()> {
    for frame in 0..frames {
        if frame >= engine.depth() {
            free.push(engine.collect()?.expect("the ring is full"));
        }
        let (lr, sr) = free.pop().expect("there are more than the ring holds");
        engine.submit(lr, sr, NetworkId(0))?;
    }
    while let Some(pair) = engine.collect()? {
        free.push(pair);
    }
    Ok(())
}

/// A frame of random code values: a GPU that multiplies zeros needs less power and is faster.
fn noise(frame_format: FrameFormat) -> Frame {
    let mut frame = Frame::new(frame_format);
    let mut random = 1u64;
    for plane in 0..usize::from(frame_format.pixel_format.planes) {
        for byte in frame.buffer.plane_mut(plane) {
            // Knuth's linear congruential generator.
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (random >> 56) as u8;
        }
    }
    frame
}

fn by_kernel(runs: &[Vec<TimedLaunch>]) -> Vec<MeasuredKernel> {
    let stem = |name: &'static str| {
        ["_lite", "_paper", "_wide"].into_iter().find_map(|size| name.strip_suffix(size)).unwrap_or(name)
    };
    let mut kernels: Vec<MeasuredKernel> = Vec::new();
    for (index, launch) in runs[0].iter().enumerate() {
        let name = stem(launch.kernel);
        let at = kernels.iter().position(|kernel| kernel.name == name).unwrap_or_else(|| {
            kernels.push(MeasuredKernel { name, launches: 0, seconds: 0.0, demand: Demand::default() });
            kernels.len() - 1
        });
        kernels[at].launches += 1;
        kernels[at].seconds += median(runs.iter().map(|run| run[index].seconds).collect());
        kernels[at].demand += launch.demand;
    }
    kernels
}

fn ceilings<D: Device>(device: &D, request: &Request) -> Result<Demand> {
    let Probes { copy_bytes, blocks, rounds } = request.probes;
    let MemoryInfo { free, .. } = device.memory()?;
    let words = copy_bytes.min(free / 4) / 16;
    let of = |probe: Probe, what: fn(Demand) -> f64| {
        Ok::<f64, Error>(what(probe.demand()) / probe_s(device, probe, request.runs)?)
    };
    Ok(Demand {
        bytes: of(Probe::Copy { words }, |demand| demand.bytes)?,
        matrix: of(Probe::Matrix { blocks, rounds }, |demand| demand.matrix)?,
        f32: of(Probe::F32 { blocks, rounds }, |demand| demand.f32)?,
        special: of(Probe::Special { blocks, rounds }, |demand| demand.special)?,
    })
}

/// Seconds of the fastest of `runs` runs, after a cold one.
fn probe_s<D: Device>(device: &D, probe: Probe, runs: usize) -> Result<f64> {
    let (from, to) = (device.alloc(probe.in_len().max(1))?, device.alloc(probe.out_len())?);
    let stream = device.stream()?;
    let launcher = Launcher { device, stream: &stream, after_launch: &|_, _| Ok(()) };
    let (start, end) = (device.timer()?, device.timer()?);
    let mut best_s = f64::INFINITY;
    for run in 0..=runs {
        device.record(&stream, &start)?;
        launcher.probe(probe, part_of(&from), part_of(&to))?;
        device.record(&stream, &end)?;
        device.synchronize(&end)?;
        let seconds = device.elapsed_s(&start, &end)?;
        best_s = if run == 0 { best_s } else { best_s.min(seconds) };
    }
    Ok(best_s)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::super::device::{Buffer, Pinned};
    use super::super::emulated::{Emulated, Options, SpanKind, Traffic};
    use super::*;
    use crate::testing::frame_format;

    const BLOCKS: usize = 2;
    const ROUNDS: usize = 3;

    /// The output of a probe, and its counted traffic.
    fn run_probe(probe: Probe) -> (Vec<f32>, Traffic) {
        let device = Emulated::new(Options::default());
        let stream = device.stream().unwrap();
        let (from, to) =
            (device.alloc(probe.in_len().max(1)).unwrap(), device.alloc(probe.out_len()).unwrap());
        let mut pinned = device.alloc_pinned(from.len()).unwrap();
        pinned.bytes_mut().iter_mut().enumerate().for_each(|(i, byte)| *byte = (i % 61) as u8);
        let mut out = device.alloc_pinned(to.len()).unwrap();
        let event = device.event().unwrap();
        // SAFETY: all live until the event is seen.
        unsafe { device.copy_in(&stream, &from, &pinned).unwrap() };
        let launcher = Launcher { device: &device, stream: &stream, after_launch: &|_, _| Ok(()) };
        launcher.probe(probe, part_of(&from), part_of(&to)).unwrap();
        // SAFETY: as above.
        unsafe { device.copy_out(&stream, &mut out, &to).unwrap() };
        device.record(&stream, &event).unwrap();
        device.synchronize(&event).unwrap();
        if probe.in_len() > 0 {
            assert_eq!(out.bytes(), pinned.bytes(), "a copy");
        }
        let values = out.bytes().as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let trace = device.watch().trace();
        let span = trace.iter().find(|span| span.kind == SpanKind::Kernel("probe")).expect("a launch");
        (values, span.traffic)
    }

    #[test]
    fn a_probe_does_exactly_its_demand() {
        let (blocks, rounds) = (BLOCKS, ROUNDS);
        let of_rounds = |each: usize| (8 * each * ROUNDS) as f32;
        // 1, 2^-1, 2^-0.5.
        let special = 8.0 * (-0.5f32).exp2();
        for (probe, result) in [
            (Probe::Copy { words: 2500 }, None),
            (Probe::Matrix { blocks, rounds }, Some(of_rounds(4 * 16))),
            (Probe::F32 { blocks, rounds }, Some(of_rounds(8))),
            (Probe::Special { blocks, rounds }, Some(special)),
        ] {
            let (values, counted) = run_probe(probe);
            let demand = probe.demand();
            assert_eq!((32 * (counted.read + counted.written)) as f64, demand.bytes, "{probe:?}");
            assert_eq!(2.0 * counted.multiply_adds as f64, demand.matrix, "{probe:?}");
            assert_eq!(counted.special_functions as f64, demand.special, "{probe:?}");
            if let Some(result) = result {
                assert!(
                    values.iter().all(|value| (value - result).abs() <= 1e-5 * result),
                    "{probe:?}: {}",
                    values[0]
                );
            }
        }
    }

    /// A measurement with times of the virtual clock.
    fn measured(options: Options, runs: usize) -> (Measured, Vec<u64>) {
        let device = Emulated::new(options);
        let sizes = vec![
            (frame_format(32, 24, "yuv420p"), frame_format(64, 48, "yuv420p")),
            (frame_format(64, 48, "yuv420p"), frame_format(128, 96, "yuv420p")),
        ];
        let model = Arc::new(crate::model::catalogue::open("hasn-lite-x2").unwrap());
        let probes = Probes { copy_bytes: 1 << 20, blocks: 2, rounds: 2 };
        let measured = measure(&device, &Request { model, sizes, runs, frames: 8, probes }).unwrap();
        let copies = device.watch().trace().into_iter().filter(|span| span.kind == SpanKind::CopyOut);
        (measured, copies.map(|span| span.end_ns - span.start_ns).collect())
    }

    #[test]
    fn times_and_shares_follow_the_devices_clock() {
        let launch_ns = 1000;
        let options =
            Options { launch_ns: Some(launch_ns), copy_bytes_per_us: 100_000, ..Options::default() };
        let (measured, copies_out) = measured(options, 3);
        assert_eq!(measured.sizes.len(), 2);
        assert_eq!(copies_out.len(), 2 * (1 + 4 * 8), "a first frame, a warm-up run, three runs");
        for size in &measured.sizes {
            let launches: usize = size.kernels.iter().map(|kernel| kernel.launches).sum();
            let kernels_s: f64 = size.kernels.iter().map(|kernel| kernel.seconds).sum();
            let expected_s = (launches as u64 * launch_ns) as f64 * 1e-9;
            assert!((kernels_s - expected_s).abs() < 1e-12, "{kernels_s} of {launches} launches");
            for kernel in &size.kernels {
                let expected_s = kernel.launches as f64 * launch_ns as f64 * 1e-9;
                assert!((kernel.seconds - expected_s).abs() < 1e-12, "{}", kernel.name);
            }
            // Of eight frames, the copy in of the first and the copy out of the last overlap with nothing.
            assert!(size.frame_s >= kernels_s && size.frame_s < 1.1 * kernels_s, "{}", size.frame_s);
            assert!(size.first_s > size.frame_s);
            let names: Vec<_> = size.kernels.iter().map(|kernel| kernel.name).collect();
            assert!(names.contains(&"gate") && names.contains(&"egress"), "{names:?}");
        }
    }

    #[test]
    fn ceilings_are_the_probes_rates() {
        // A launch takes 2 us, and a sector of 32 bytes a 2 TB/s.
        let (measured, _) = measured(Options::default(), 1);
        let reached = |demand: f64, bytes: f64| demand / (2e-6 + bytes / 2e12);
        let (copied, sums) = ((2 << 20) as f64, (BLOCKS * 256 * 4) as f64);
        let Demand { bytes, matrix, f32, special } = measured.ceilings;
        for (name, actual, expected) in [
            ("bytes", bytes, reached(copied, copied)),
            ("matrix", matrix, reached((2 * 2 * 256 * 1024) as f64, sums)),
            ("f32", f32, reached((2 * 2 * 256 * 128) as f64, sums)),
            ("special", special, reached((2 * 2 * 256 * 8) as f64, sums)),
        ] {
            assert!((actual / expected - 1.0).abs() < 0.01, "{name}: {actual} and not {expected}");
        }
    }
}
