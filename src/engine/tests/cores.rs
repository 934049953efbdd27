//! What more cores than this machine has would give, simulated with costs that are measured here on one core: bands of one
//! frame, and frames side by side as the engine divides its threads. `make simulate-cores` prints it.

use std::sync::Arc;
use std::time::Instant;

use crate::engine::cpu::simulation::{Costs, SimulatedNet};
use crate::engine::cpu::{Level, Net, Passes, Pool, Precision, Weights, level};
use crate::engine::forward::{Forward, OpenPass, Trunk};
use crate::engine::host::{HostEngine, HostNetwork, depth};
use crate::engine::plan::{Shape, Step, plan};
use crate::engine::{Engine, EngineKind, EngineSpec, NetworkId};
use crate::frame::{Frame, FrameFormat};
use crate::model::{Model, catalogue};
use crate::testing::frame_format;

const CORES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const SIZES: [(usize, usize); 3] = [(640, 360), (1280, 720), (1920, 1080)];

/// Cache of a core: its own and its part of what it shares with others, on current servers 3 to 5 MB.
const CACHE_BYTES: f64 = 3e6;

/// Largest difference of a frame's time from the mean, as a part of it: beside x264's preset medium the times of the frames of
/// the clip differ by 0.31 of their mean, root mean square (Zen 4, two cores), as even ones between these limits do.
const UNEVEN: f64 = 0.54;

/// Bytes that a machine reads and writes in a second: two memory channels at least, a server's 300 GB/s with 64 cores.
fn bandwidth(cores: usize) -> f64 {
    (300e9 / 64.0 * cores as f64).max(50e9)
}

/// Opens the stand-ins of a network whose time is simulated.
struct OpenNothing(Passes);

impl OpenPass for OpenNothing {
    fn memory_len(&self, size: (usize, usize), threads: usize, trunk: Trunk) -> Option<usize> {
        self.0.memory_len(size, threads, trunk)
    }

    fn open(&self, size: (usize, usize), threads: usize, trunk: Trunk) -> Box<dyn Forward> {
        Box::new(Nothing { scratch_len: self.memory_len(size, threads, trunk).expect("it has one") })
    }
}

struct Nothing {
    scratch_len: usize,
}

impl Forward for Nothing {
    fn scratch_len(&self) -> usize {
        self.scratch_len
    }

    fn forward(&mut self, _: &[f32], _: &mut [f32], _: &mut [f32]) {}
}

/// A video on a number of cores, of which one was measured.
struct Video {
    model: Arc<Model>,
    level: Level,
    precision: Precision,
    size: (usize, usize),
    costs: Costs,
    /// Seconds of the conversion of a frame to planes and back.
    convert_s: f64,
    /// Bytes that it reads and writes.
    convert_bytes: f64,
}

/// Frames a second and what limits them.
struct Rate {
    fps: f64,
    is_bound_by_memory: bool,
}

impl Rate {
    fn speedup(&self, one: &Rate) -> String {
        format!("{:5.1}{}", self.fps / one.fps, if self.is_bound_by_memory { " m" } else { "  " })
    }
}

impl Video {
    fn measure(model: &Arc<Model>, level: Level, precision: Precision, size: (usize, usize)) -> Video {
        let (width, height) = size;
        let mut net = Net::new(Weights::new(model, level, precision), size, 1);
        let mut scratch = vec![0.0; net.scratch_len()];
        let x: Vec<f32> = (0..height * width).map(|i| (i * 7919 % 256) as f32 / 255.0).collect();
        let mut y = vec![0.0; model.sizes.upsampler_channels() * height * width];
        let frames = (0..4).map(|_| {
            let seconds = seconds(|| net.forward(&x, &mut y, &mut scratch));
            Costs::of_last_frame(&mut net, seconds)
        });
        // The first frame finds cold memory; the fastest one was disturbed least.
        let costs = frames.skip(1).min_by(|a, b| a.total().total_cmp(&b.total())).expect("frames were timed");
        let mut video = Video {
            model: model.clone(),
            level,
            precision,
            size,
            costs,
            convert_s: f64::NAN,
            convert_bytes: convert_bytes(model, size),
        };
        let mut engine = video.engine(1);
        let mut frames = Some(video.formats().map(Frame::new));
        let conversions = (0..6).map(|_| {
            let [lr, sr] = frames.take().expect("they were collected");
            let start = Instant::now();
            engine.submit(lr, sr, NetworkId(0)).unwrap();
            frames = engine.collect().unwrap().map(|(lr, sr)| [lr, sr]);
            start.elapsed().as_secs_f64()
        });
        video.convert_s = conversions.skip(1).fold(f64::INFINITY, f64::min);
        video
    }

    fn formats(&self) -> [FrameFormat; 2] {
        formats(&self.model, self.size)
    }

    fn net(&self, threads: usize) -> SimulatedNet {
        SimulatedNet::new(&self.model, self.level, self.precision, self.size, threads)
    }

    /// An engine as a run opens it, without its network.
    fn engine(&self, threads: usize) -> HostEngine {
        let [lr, sr] = self.formats();
        let open = Passes::new(self.model.clone(), self.level, self.precision);
        let network =
            HostNetwork::Net { shape: Shape::of(&self.model.sizes), open: Box::new(OpenNothing(open)) };
        let kind = EngineKind::Cpu(self.level, self.precision);
        let spec = EngineSpec {
            kind,
            threads,
            in_flight: usize::MAX,
            networks: Vec::new(),
            memory_max: None,
            lr,
            sr,
        };
        HostEngine::open(&spec, &[network]).unwrap()
    }

    /// Number of workers among which the engine divides its threads.
    fn workers(&self, threads: usize) -> usize {
        let engine = self.engine(threads);
        (1..=threads).find(|&workers| depth(workers) >= engine.depth()).expect("each has a thread")
    }

    /// One frame at a time, on cores that are `speed` times as fast as this one.
    fn one_frame(&self, cores: usize, speed: f64) -> Rate {
        self.rate(cores, 1, speed)
    }

    /// Frames side by side, as many as the engine has workers.
    fn side_by_side(&self, cores: usize, speed: f64) -> Rate {
        let workers = self.workers(cores);
        let rate = self.rate(cores, workers, speed);
        Rate { fps: rate.fps * busy(workers, depth(workers)), ..rate }
    }

    fn rate(&self, cores: usize, workers: usize, speed: f64) -> Rate {
        let mut fps = 0.0;
        let mut bytes_per_frame: f64 = 0.0;
        for threads in (0..workers).map(|worker| (cores + worker) / workers) {
            let net = self.net(threads);
            fps += speed / (net.frame_s(&self.costs) + self.convert_s / threads as f64);
            let bytes = net.memory_bytes(CACHE_BYTES * threads as f64) + self.convert_bytes;
            bytes_per_frame = bytes_per_frame.max(bytes);
        }
        let fps_of_memory = bandwidth(cores) / bytes_per_frame;
        Rate { fps: fps.min(fps_of_memory), is_bound_by_memory: fps_of_memory < fps }
    }
}

/// The part of the time in which workers have frames, where frames of uneven times are collected in order.
fn busy(workers: usize, depth: usize) -> f64 {
    const FRAMES: usize = 10_000;
    let (mut random, mut free_at, mut collected) = (1_u64, vec![0.0_f64; workers], Vec::<f64>::new());
    let mut work = 0.0;
    for frame in 0..FRAMES {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let takes = 1.0 + UNEVEN * ((random >> 33) as f64 / f64::from(1_u32 << 30) - 1.0);
        let submitted = frame.checked_sub(depth).map_or(0.0, |oldest| collected[oldest]);
        let worker = free_at.iter_mut().min_by(|a, b| a.total_cmp(b)).expect("there are workers");
        *worker = worker.max(submitted) + takes;
        collected.push(collected.last().map_or(*worker, |last| last.max(*worker)));
        work += takes;
    }
    work / (workers as f64 * collected[FRAMES - 1])
}

#[test]
fn frames_in_flight_keep_all_workers_busy() {
    for workers in [1, 2, 3, 8, 32, 64] {
        let share = busy(workers, depth(workers));
        assert!((0.96..=1.0).contains(&share), "{workers} workers are busy for {share} of the time");
    }
    assert!(busy(32, 33) < 0.9, "one frame more than workers is too few");
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// LR and SR frames in the format of most videos.
fn formats(model: &Model, (width, height): (usize, usize)) -> [FrameFormat; 2] {
    let scale = model.sizes.scale;
    [frame_format(width, height, "yuv420p"), frame_format(scale * width, scale * height, "yuv420p")]
}

/// Bytes of the planes that the steps around the network read and write.
fn convert_bytes(model: &Model, size: (usize, usize)) -> f64 {
    let [lr, sr] = formats(model, size);
    let samples = |format: &FrameFormat, component: usize| {
        let (width, height) = format.component_size(component);
        width * height
    };
    let bytes = |step: &Step| match step {
        Step::Read { component, .. } => 5 * samples(&lr, *component),
        Step::Write { component, .. } => 5 * samples(&sr, *component),
        Step::Resample { from, to, .. } => 4 * (from.1.len() + to.1.len()),
        _ => 0,
    };
    plan(&lr, &sr, Some(Shape::of(&model.sizes))).unwrap().iter().map(bytes).sum::<usize>() as f64
}

/// Milliseconds of a frame on two threads of this machine, and simulated.
fn two_threads_ms(video: &Video) -> [f64; 2] {
    let (model, (width, height)) = (&video.model, video.size);
    let mut net = Net::new(Weights::new(model, video.level, video.precision), video.size, 2);
    let mut scratch = vec![0.0; net.scratch_len()];
    let (x, pool) = (vec![0.5; height * width], Pool::new(2).unwrap());
    let mut y = vec![0.0; model.sizes.upsampler_channels() * height * width];
    let frames = (0..4).map(|_| seconds(|| pool.install(|| net.forward(&x, &mut y, &mut scratch))));
    [frames.fold(f64::INFINITY, f64::min), video.net(2).frame_s(&video.costs)].map(|seconds| 1e3 * seconds)
}

#[test]
#[ignore = "measures for minutes: make simulate-cores"]
fn more_cores() {
    let level = level::detect().unwrap();
    // Its tasks are the shortest, and its frames follow each other the fastest.
    let precision = level.precisions().last().expect("every level has one");
    for (name, size) in
        [catalogue::DEFAULT_IMAGE, "hasn-x2"].map(|name| SIZES.map(|size| (name, size))).concat()
    {
        let (model, (width, height)) = (Arc::new(catalogue::open(name).unwrap()), size);
        let video = Video::measure(&model, level, precision, size);
        let one = video.one_frame(1, 1.0);
        let [measured_ms, simulated_ms] = two_threads_ms(&video);
        println!(
            "\n{name} {} {width}x{height}: network {:.1} ms, conversion {:.1} ms on one core, {:.1} GB/s of memory\n\
             network on two cores: {measured_ms:.1} ms, simulated {simulated_ms:.1} ms\n\
             speedups (m: bound by memory)          cores twice as fast\n\
             cores  one frame  frames side by side  one frame  frames side by side",
            precision.name(),
            1e3 * video.costs.total(),
            1e3 * video.convert_s,
            1e-9 * one.fps * (video.net(1).memory_bytes(CACHE_BYTES) + video.convert_bytes),
        );
        let fast = video.one_frame(1, 2.0);
        for cores in CORES {
            println!(
                "{cores:5}    {}  {} {:8.1} fps    {}  {}",
                video.one_frame(cores, 1.0).speedup(&one),
                video.side_by_side(cores, 1.0).speedup(&one),
                video.side_by_side(cores, 1.0).fps,
                video.one_frame(cores, 2.0).speedup(&fast),
                video.side_by_side(cores, 2.0).speedup(&fast),
            );
        }
    }
}
