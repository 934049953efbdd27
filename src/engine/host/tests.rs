//! Frames through the host engine, with stand-ins for the network.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::color::{ChromaLocation, Matrix, Range};
use crate::engine::EngineKind;
use crate::testing::{format, frame_format};

/// Repeats every sample, and leaves NaN in its scratch.
struct Nearest {
    scale: usize,
    channels: usize,
    size: (usize, usize),
}

impl Forward for Nearest {
    fn scratch_len(&self) -> usize {
        3 * self.size.0 * self.size.1
    }

    fn forward(&mut self, x: &[f32], y: &mut [f32], scratch: &mut [f32]) {
        let (width, height) = self.size;
        let (s, wide) = (self.scale, width * self.scale);
        assert_eq!((x.len(), y.len()), (self.channels * height * width, s * s * x.len()));
        assert!(scratch.len() >= self.scratch_len());
        scratch.fill(f32::NAN);
        for (row, out) in y.chunks_exact_mut(wide).enumerate() {
            (0..wide).for_each(|i| out[i] = x[row / s * width + i / s]);
        }
    }
}

/// Opens stand-ins, which take a tenth of the memory without their trunk.
struct Opener<O>(O);

impl<O: Fn((usize, usize)) -> Box<dyn Forward>> OpenPass for Opener<O> {
    fn memory_len(&self, size: (usize, usize), _: usize, trunk: Trunk) -> Option<usize> {
        let kept = (self.0)(size).scratch_len();
        Some(if trunk == Trunk::Kept { kept } else { kept / 10 })
    }

    fn open(&self, size: (usize, usize), _: usize, _: Trunk) -> Box<dyn Forward> {
        (self.0)(size)
    }
}

/// The networks are the stand-ins of the test.
fn spec(lr: FrameFormat, sr: FrameFormat, threads: usize, in_flight: usize) -> EngineSpec {
    EngineSpec {
        kind: EngineKind::Reference,
        threads,
        in_flight,
        networks: Vec::new(),
        memory_max: None,
        lr,
        sr,
    }
}

/// Opens an engine of two threads for one frame at a time.
fn open(lr: FrameFormat, sr: FrameFormat, networks: &[HostNetwork]) -> Result<HostEngine> {
    HostEngine::open(&spec(lr, sr, 2, 1), networks)
}

fn net(scale: usize, in_channels: usize) -> HostNetwork {
    let open = move |size| -> Box<dyn Forward> { Box::new(Nearest { scale, channels: in_channels, size }) };
    HostNetwork::Net { shape: Shape { scale, in_channels }, open: Box::new(Opener(open)) }
}

/// Every path through the engine: the plain resampler, luma and R'G'B' networks of scale 2 and 3.
fn every_network() -> Vec<HostNetwork> {
    vec![HostNetwork::Resample, net(2, 1), net(2, 3), net(3, 1), net(3, 3)]
}

fn upscale(engine: &mut HostEngine, lr: Frame, network: usize) -> Frame {
    let sr = Frame::new(engine.sr);
    engine.submit(lr, sr, NetworkId(network)).unwrap();
    let (_, sr) = engine.collect().unwrap().unwrap();
    assert!(engine.collect().unwrap().is_none());
    sr
}

/// A frame whose components hold `value(component, x, y)`, as code values (as themselves in float).
fn painted(frame_format: FrameFormat, value: impl Fn(usize, usize, usize) -> f32) -> Frame {
    let mut frame = Frame::new(frame_format);
    for i in 0..frame_format.pixel_format.component_count() {
        let (width, height) = frame_format.component_size(i);
        let q = frame_format.quantization(i);
        let plane: Vec<f32> =
            (0..width * height).map(|n| (value(i, n % width, n / width) - q.zero) / q.unit).collect();
        write_component(&mut frame, i, &plane, Rounding::Nearest);
    }
    frame
}

/// The code values of a component.
fn codes(frame: &Frame, index: usize) -> Vec<f32> {
    let (width, height) = frame.format.component_size(index);
    let mut plane = vec![f32::NAN; width * height];
    read_component(frame, index, &mut plane);
    let q = frame.format.quantization(index);
    let code = |v: f32| if frame.format.pixel_format.float { v } else { v.round() };
    plane.iter().map(|v| code(v * q.unit + q.zero)).collect()
}

fn assert_constant(frame: &Frame, expected: &[f32], tolerance: f32, what: &str) {
    for (i, expected) in expected.iter().enumerate() {
        let codes = codes(frame, i);
        let near = codes.iter().all(|v| (v - expected).abs() <= tolerance);
        assert!(near, "{what}: component {i} is {} and not {expected}", codes[0]);
    }
}

#[test]
fn a_constant_frame_keeps_its_code_values_in_every_format() {
    // Colours no 8-bit rounding would give back by luck; alpha last.
    let formats: &[(&str, [f32; 4])] = &[
        ("gray", [77.0, 0.0, 0.0, 0.0]),
        ("gray16be", [31_001.0, 0.0, 0.0, 0.0]),
        ("grayf32le", [0.3, 0.0, 0.0, 0.0]),
        ("ya8", [77.0, 201.0, 0.0, 0.0]),
        ("yuv420p", [77.0, 90.0, 155.0, 0.0]),
        ("yuv422p", [77.0, 90.0, 155.0, 0.0]),
        ("yuv444p", [77.0, 90.0, 155.0, 0.0]),
        ("yuv411p", [77.0, 90.0, 155.0, 0.0]),
        ("yuv410p", [77.0, 90.0, 155.0, 0.0]),
        ("yuva420p", [77.0, 90.0, 155.0, 33.0]),
        ("yuv420p10le", [301.0, 401.0, 603.0, 0.0]),
        ("yuv422p10be", [301.0, 401.0, 603.0, 0.0]),
        ("yuv444p12le", [1203.0, 1901.0, 2203.0, 0.0]),
        ("yuva444p16le", [31_001.0, 30_001.0, 40_003.0, 50_001.0]),
        ("nv12", [77.0, 90.0, 155.0, 0.0]),
        ("p010le", [301.0, 401.0, 603.0, 0.0]),
        ("p016le", [31_001.0, 30_001.0, 40_003.0, 0.0]),
        ("y210le", [301.0, 401.0, 603.0, 0.0]),
        ("yuyv422", [77.0, 90.0, 155.0, 0.0]),
        ("uyvy422", [77.0, 90.0, 155.0, 0.0]),
        ("rgb24", [77.0, 90.0, 155.0, 0.0]),
        ("rgb48be", [31_001.0, 30_001.0, 40_003.0, 0.0]),
        ("rgba", [77.0, 90.0, 155.0, 33.0]),
        ("gbrp", [77.0, 90.0, 155.0, 0.0]),
        ("gbrp10le", [301.0, 401.0, 603.0, 0.0]),
        ("gbrp12be", [1203.0, 1901.0, 2203.0, 0.0]),
        ("gbrap16le", [31_001.0, 30_001.0, 40_003.0, 50_001.0]),
        ("gbrpf32le", [0.3, 1.25, -0.125, 0.0]),
    ];
    for (name, values) in formats {
        for range in [Range::Limited, Range::Full] {
            let (mut lr, mut sr) = (frame_format(25, 17, name), frame_format(50, 34, name));
            (lr.color.range, sr.color.range) = (range, range);
            let count = lr.pixel_format.component_count();
            let tolerance = if lr.pixel_format.float { 2e-6 } else { 0.0 };
            let mut engine = open(lr, sr, &every_network()).unwrap();
            for network in 0..every_network().len() {
                let sr = upscale(&mut engine, painted(lr, |i, _, _| values[i]), network);
                let what = format!("{name} {range:?} network {network}");
                assert_constant(&sr, &values[..count], tolerance, &what);
            }
        }
    }
}

#[test]
fn conversions_match_the_standards() {
    const N: Matrix = Matrix::IDENTITY;
    const HD: Matrix = Matrix::BT709;
    const SD: Matrix = Matrix::SMPTE170M;
    use Range::{Full, Limited};
    type Side = (&'static str, Matrix, Range, &'static [f32]);
    // The tolerance is 1 code where the input is itself rounded.
    let rows: &[(Side, Side, f32)] = &[
        // Depth, layout and range.
        (("yuv420p", HD, Limited, &[235., 16., 240.]), ("p010le", HD, Limited, &[940., 64., 960.]), 0.),
        (("yuv420p10le", HD, Limited, &[940., 64., 960.]), ("nv12", HD, Limited, &[235., 16., 240.]), 0.),
        (("yuv420p", SD, Limited, &[126., 16., 240.]), ("yuv444p", SD, Full, &[128., 0.5, 255.]), 0.5),
        (("rgb24", N, Full, &[255., 0., 51.]), ("gbrpf32le", N, Full, &[1.0, 0.0, 0.2]), 1e-6),
        (("gbrp10le", N, Full, &[1023., 0., 341.]), ("rgb48be", N, Full, &[65535., 0., 21845.]), 0.),
        // R'G'B' and Y'CbCr.
        (("rgb24", N, Full, &[255., 0., 0.]), ("yuv444p", HD, Limited, &[63., 102., 240.]), 0.),
        (("rgb24", N, Full, &[255., 0., 0.]), ("yuv420p", SD, Limited, &[81., 90., 240.]), 0.),
        (("gbrp", N, Full, &[0., 255., 0.]), ("yuyv422", SD, Full, &[150., 44., 21.]), 0.),
        (("yuv420p", HD, Limited, &[235., 128., 128.]), ("rgb24", N, Full, &[255., 255., 255.]), 0.),
        (("yuv420p", HD, Limited, &[63., 102., 240.]), ("bgr24", N, Full, &[255., 0., 0.]), 1.),
        (("yuv422p10le", SD, Limited, &[326., 361., 960.]), ("gbrp", N, Full, &[255., 0., 0.]), 1.),
        // One matrix and another, with the same numbers and with others.
        (
            ("yuv420p", Matrix::BT470BG, Limited, &[81., 91., 239.]),
            ("yuv420p", SD, Limited, &[81., 91., 239.]),
            0.,
        ),
        (("yuv420p", SD, Limited, &[81., 90., 240.]), ("nv12", HD, Limited, &[63., 102., 240.]), 1.),
        (("yuv420p", HD, Limited, &[63., 102., 240.]), ("yuv422p", SD, Full, &[76., 85., 255.]), 1.),
        // Gray and colour.
        (("gray", HD, Limited, &[126.]), ("yuv420p", HD, Limited, &[126., 128., 128.]), 0.),
        (("gray", HD, Full, &[51.]), ("rgb24", N, Full, &[51., 51., 51.]), 0.),
        (("yuv420p", HD, Limited, &[126., 30., 200.]), ("gray10le", HD, Limited, &[504.]), 0.),
        (("rgb24", N, Full, &[255., 0., 0.]), ("gray", SD, Full, &[76.]), 0.),
        // Alpha.
        (("ya8", HD, Full, &[51., 33.]), ("rgba", N, Full, &[51., 51., 51., 33.]), 0.),
        (("rgb24", N, Full, &[9., 8., 7.]), ("argb", N, Full, &[9., 8., 7., 255.]), 0.),
        (("yuva420p", HD, Full, &[9., 99., 199., 33.]), ("yuv420p", HD, Full, &[9., 99., 199.]), 0.),
    ];
    for (from, to, tolerance) in rows {
        let side = |(name, matrix, range, _): &Side, width, height| {
            let mut frame_format = frame_format(width, height, name);
            (frame_format.color.matrix, frame_format.color.range) = (*matrix, *range);
            frame_format
        };
        let (lr, sr) = (side(from, 32, 18), side(to, 64, 36));
        let mut engine = open(lr, sr, &every_network()).unwrap();
        for network in 0..every_network().len() {
            let sr = upscale(&mut engine, painted(lr, |i, _, _| from.3[i]), network);
            assert_constant(&sr, to.3, *tolerance, &format!("{} to {} network {network}", from.0, to.0));
        }
    }
}

/// Where chroma sample `k` of a direction lies in luma samples.
fn place(log2: u8, offset: f64, k: usize) -> f32 {
    (k as f64 * f64::from(1u32 << log2) + offset) as f32
}

#[test]
fn chroma_keeps_its_place_through_every_network() {
    use ChromaLocation::{Center, Left, TopLeft};
    let sitings = [(Left, Left), (Center, Center), (TopLeft, TopLeft), (Center, Left)];
    for ((from, to), target) in sitings.into_iter().flat_map(|s| [(s, "yuv420p16le"), (s, "yuv444p16le")]) {
        let (mut lr, mut sr) = (frame_format(107, 61, "yuv420p16le"), frame_format(214, 122, target));
        (lr.color.chroma_location, sr.color.chroma_location) = (from, to);
        let (log2, out_log2) = (1, sr.pixel_format.log2_chroma_w);
        let ((x0, y0), (out_x0, out_y0)) = (from.offset(log2, log2), to.offset(out_log2, out_log2));
        let value = |x: f32, y: f32| 30_000.0 + 40.0 * x + 20.0 * y;
        let mut engine = open(lr, sr, &every_network()).unwrap();
        for network in 0..every_network().len() {
            let painted = painted(lr, |i, x, y| match i {
                0 => 30_000.0,
                _ => value(place(log2, x0, x), place(log2, y0, y)),
            });
            let sr = upscale(&mut engine, painted, network);
            let (width, height) = sr.format.component_size(1);
            // The stand-in repeats samples, which an R'G'B' network does to chroma too: by up to a quarter
            // of an LR sample, and by turns to either side, so that pairs are right.
            let tolerance = if matches!(network, 2 | 4) { 30.0 } else { 3.0 };
            let codes = codes(&sr, 1);
            let mut sum = 0.0;
            let inside = |y: usize| (height / 4..height / 2).contains(&y);
            let samples = (0..codes.len()).filter(|n| inside(n / width) && inside(n % width));
            let count = samples.clone().count();
            for n in samples {
                let (x, y) = (place(out_log2, out_x0, n % width), place(out_log2, out_y0, n / width));
                let error = codes[n] - value(x / 2.0, y / 2.0);
                assert!(error.abs() < tolerance, "{from:?} {to:?} {target} network {network}: {error}");
                sum += error;
            }
            let mean = sum / count as f32;
            assert!(mean.abs() < 3.0, "{from:?} {to:?} {target} network {network}: mean {mean}");
        }
    }
}

#[test]
fn any_size_is_met_exactly() {
    type Size = (usize, usize);
    let cases: &[(Size, Size, usize, usize)] = &[
        ((853, 479), (1706, 958), 2, 1),
        ((853, 479), (1280, 720), 2, 1),
        ((85, 47), (255, 141), 2, 2),
        ((85, 47), (341, 95), 2, 3),
        ((85, 47), (86, 47), 2, 1),
        ((85, 47), (85, 47), 2, 0),
        ((85, 47), (40, 23), 2, 0),
        ((85, 47), (40, 94), 2, 1),
        ((85, 47), (765, 423), 3, 2),
    ];
    for &(from, to, scale, passes) in cases {
        for channels in [1, 3] {
            let (lr, sr) = (frame_format(from.0, from.1, "yuv420p"), frame_format(to.0, to.1, "yuv420p"));
            let networks = [net(scale, channels)];
            let in_step = |step: &Step| match step {
                Step::Network(passes) => passes.sizes.len(),
                _ => 0,
            };
            let worker = Worker::new(&spec(lr, sr, 1, 1), &networks, 1, Trunk::Kept).unwrap();
            let planned: usize = worker.networks[0].steps.iter().map(in_step).sum();
            assert_eq!(planned, passes, "{from:?} to {to:?}");
            let mut engine = open(lr, sr, &networks).unwrap();
            let sr = upscale(&mut engine, painted(lr, |i, _, _| [77.0, 90.0, 155.0][i]), 0);
            assert_constant(&sr, &[77.0, 90.0, 155.0], 0.0, &format!("{from:?} to {to:?}"));
        }
    }
}

#[test]
fn the_same_size_and_format_is_a_copy() {
    let frame_format = frame_format(53, 31, "yuv420p10le");
    let mut engine = open(frame_format, frame_format, &[HostNetwork::Resample]).unwrap();
    let noise = |i: usize, x: usize, y: usize| ((x * 7919 + y * 104_729 + i * 31) % 1024) as f32;
    let sr = upscale(&mut engine, painted(frame_format, noise), 0);
    let lr = painted(frame_format, noise);
    (0..3).for_each(|i| assert_eq!(codes(&sr, i), codes(&lr, i)));
}

#[test]
fn a_smaller_bit_depth_is_dithered_and_keeps_its_mean() {
    let (lr, sr) = (frame_format(64, 64, "yuv420p10le"), frame_format(128, 128, "yuv420p"));
    let mut engine = open(lr, sr, &[net(2, 1)]).unwrap();
    let sr = upscale(&mut engine, painted(lr, |i, _, _| [401.0, 502.0, 603.0][i]), 0);
    for (i, expected) in [100.25, 125.5, 150.75].into_iter().enumerate() {
        let codes = codes(&sr, i);
        let mean = codes.iter().sum::<f32>() / codes.len() as f32;
        assert!((mean - expected).abs() < 0.005, "component {i}: {mean}");
    }
}

#[test]
fn unsupported_frames_are_refused_with_a_remedy() {
    let open = |lr, sr, network| open(lr, sr, &[network]).err().map(|e| e.to_string());
    let small = open(frame_format(14, 14, "gray"), frame_format(28, 28, "gray"), net(2, 1));
    let expected = "frame: is 14x14; HASN needs 15x15 at least; use --model none";
    assert_eq!(small.as_deref(), Some(expected));
    assert_eq!(open(frame_format(14, 14, "gray"), frame_format(28, 28, "gray"), HostNetwork::Resample), None);

    let packed = open(frame_format(20, 20, "rgb24"), frame_format(40, 40, "rgb565le"), net(2, 1)).unwrap();
    assert!(packed.starts_with("output: rgb565le packs"), "{packed}");

    let mut lr = frame_format(20, 20, "yuv420p");
    lr.color.matrix = Matrix(8);
    let mut sr = frame_format(40, 40, "yuv420p");
    sr.color.matrix = Matrix(8);
    assert_eq!(open(lr, sr, net(2, 1)), None);
    for (sr, network) in [(frame_format(40, 40, "rgb24"), net(2, 1)), (sr, net(2, 3))] {
        let error = open(lr, sr, network).unwrap();
        assert!(error.starts_with("input: its colour matrix (YCgCo, code 8)"), "{error}");
    }
}

#[test]
fn an_rgb_input_may_share_words() {
    assert!(!format("rgb565le").writable());
    let (lr, sr) = (frame_format(20, 20, "rgb565le"), frame_format(40, 40, "rgb24"));
    let mut engine = open(lr, sr, &every_network()).unwrap();
    for network in 0..every_network().len() {
        let mut red = Frame::new(lr);
        red.buffer.plane_mut(0).as_chunks_mut::<2>().0.fill([0x00, 0xf8]);
        assert_constant(&upscale(&mut engine, red, network), &[255.0, 0.0, 0.0], 0.0, "red");
    }
}

#[test]
fn memory_of_hd_to_uhd_is_bounded() {
    let (lr, sr) = (frame_format(1920, 1080, "yuv420p"), frame_format(3840, 2160, "yuv420p"));
    let division = Division::choose(&spec(lr, sr, 2, 1), &[HostNetwork::Resample, net(2, 1)]).unwrap();
    // One LR plane and one SR plane: chroma passes through the memory of luma. Three more are the stand-in's scratch.
    let planes: u64 = 4 * ((1 + 3) * 1920 * 1080 + 3840 * 2160);
    let frames: u64 = 3 * (1920 * 1080 + 3840 * 2160) / 2;
    assert_eq!(division, Division { workers: 1, trunk: Trunk::Kept, bytes: planes + frames });
}

#[test]
fn less_memory_means_fewer_workers_then_no_trunk_then_an_error() {
    let (lr, sr) = (frame_format(100, 100, "gray"), frame_format(200, 200, "gray"));
    let divide = |max| {
        let spec = EngineSpec { memory_max: Some(max), ..spec(lr, sr, 4, 9) };
        Division::choose(&spec, &[net(2, 1)])
    };
    let frames = |in_flight: u64| in_flight * 50_000;
    let planes = |scratch: u64| 4 * (50_000 + scratch);
    for (workers, trunk, bytes) in [
        (4, Trunk::Kept, 4 * planes(30_000) + frames(6)),
        (2, Trunk::Kept, 2 * planes(30_000) + frames(3)),
        (1, Trunk::Kept, planes(30_000) + frames(2)),
        (1, Trunk::Recomputed, planes(3_000) + frames(2)),
    ] {
        assert_eq!(divide(bytes).unwrap(), Division { workers, trunk, bytes });
        assert_ne!(divide(bytes - 1).ok(), Some(Division { workers, trunk, bytes }));
    }
    let error = divide(300_000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    let line = "the engine: 100x100 to 200x200 takes 312 kB of memory, and 300 kB can be had beside the rest of the run; \
                raise the limit, choose a smaller size, or use a machine with more memory";
    assert_eq!(error.to_string(), line);
}

#[test]
fn the_number_of_workers_follows_frames_threads_and_memory() {
    let share = BYTES_PER_THREAD;
    assert_eq!(worker_count(2, usize::MAX, share), 2);
    assert_eq!(worker_count(2, usize::MAX, share + 1), 1, "memory for one");
    assert_eq!(worker_count(2, usize::MAX, 100 * share), 1, "one, whatever it takes");
    assert_eq!(worker_count(2, 1, 1), 1, "one frame");
    assert_eq!(worker_count(16, 5, 1), 4, "of four threads each");
    assert_eq!(
        worker_count(16, usize::MAX, 16 * share / 12),
        8,
        "of two threads each: 12 would be of one or two"
    );
    assert_eq!(worker_count(5, usize::MAX, 5 * share / 3), 2);
}

#[test]
fn frames_come_back_in_order_at_every_depth() {
    let (lr, sr) = (frame_format(25, 17, "gray"), frame_format(50, 34, "gray"));
    for (threads, in_flight, depth) in [(1, 1, 1), (1, 9, 2), (2, 2, 2), (3, usize::MAX, 4)] {
        let mut engine = HostEngine::open(&spec(lr, sr, threads, in_flight), &[net(2, 1)]).unwrap();
        assert_eq!(engine.depth(), depth);
        let collect = |engine: &mut HostEngine, expected: usize| {
            let (lr, sr) = engine.collect().unwrap().expect("it was submitted");
            assert_constant(&lr, &[expected as f32], 0.0, "LR frame");
            assert_constant(&sr, &[expected as f32], 0.0, "SR frame");
        };
        for value in 0..100 {
            let lr = painted(lr, |_, _, _| value as f32);
            engine.submit(lr, Frame::new(sr), NetworkId(0)).unwrap();
            if value + 1 >= depth {
                collect(&mut engine, value + 1 - depth);
            }
        }
        (101 - depth..100).for_each(|value| collect(&mut engine, value));
        assert!(engine.collect().unwrap().is_none());
    }
}

#[test]
fn a_panic_in_a_worker_reaches_the_caller_of_collect() {
    struct Panics;
    impl Forward for Panics {
        fn scratch_len(&self) -> usize {
            0
        }
        fn forward(&mut self, _: &[f32], _: &mut [f32], _: &mut [f32]) {
            panic!("on purpose");
        }
    }
    let shape = Shape { scale: 2, in_channels: 1 };
    let network =
        HostNetwork::Net { shape, open: Box::new(Opener(|_| -> Box<dyn Forward> { Box::new(Panics) })) };
    let (lr, sr) = (frame_format(25, 17, "gray"), frame_format(50, 34, "gray"));
    let mut engine = HostEngine::open(&spec(lr, sr, 2, 9), &[network, net(2, 1)]).unwrap();
    for network in 0..2 {
        engine.submit(Frame::new(lr), Frame::new(sr), NetworkId(network)).unwrap();
    }
    let panic = catch_unwind(AssertUnwindSafe(|| engine.collect())).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    assert!(engine.collect().unwrap().is_some(), "the other frame is done");
}

#[test]
fn dropping_an_engine_discards_queued_frames_and_frees_its_memory() {
    struct Slow(Arc<AtomicUsize>);
    impl Forward for Slow {
        fn scratch_len(&self) -> usize {
            0
        }
        fn forward(&mut self, _: &[f32], _: &mut [f32], _: &mut [f32]) {
            std::thread::sleep(Duration::from_millis(200));
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let done = Arc::new(AtomicUsize::new(0));
    let held = done.clone();
    let shape = Shape { scale: 2, in_channels: 1 };
    let network = HostNetwork::Net {
        shape,
        open: Box::new(Opener(move |_| -> Box<dyn Forward> { Box::new(Slow(held.clone())) })),
    };
    let (lr, sr) = (frame_format(25, 17, "gray"), frame_format(50, 34, "gray"));
    let mut engine = HostEngine::open(&spec(lr, sr, 2, 3), &[network]).unwrap();
    for _ in 0..3 {
        engine.submit(Frame::new(lr), Frame::new(sr), NetworkId(0)).unwrap();
    }
    drop(engine);
    assert_eq!(Arc::strong_count(&done), 1, "a worker is left");
    assert!(done.load(Ordering::Relaxed) < 3, "the queued frame was processed");
}
