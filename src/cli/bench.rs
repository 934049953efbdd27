//! `hasn bench`: the speed of the network alone on this machine, and its share of the processor's peak; on a GPU, the speed
//! of frames with their copies; with a price, what an hour of video costs.

mod cuda;
mod price;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::args::{EngineName, PrecisionName, parse_size};
use super::console::{print, print_json};
use crate::engine::cpu::{Level, Net, Pool, Precision, StageTime, Weights, level};
use crate::engine::forward::{Forward, SIDE_MIN};
use crate::engine::memory::zeroed;
use crate::engine::reference::{Reference, ReferencePass};
use crate::engine::{EngineChoice, EngineKind, thread_count};
use crate::error::{Error, Result};
use crate::model::{Model, catalogue};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Engine that runs the network [default: cpu, with --price-per-hour auto]
    #[arg(long, value_enum)]
    engine: Option<EngineName>,
    /// Built-in model or safetensors file [default: hasn-lite-x2, with --price-per-hour each built-in model]
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
    /// Size of the LR frames [default: 320x180, or 540p, 720p and 1080p on a GPU]
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    size: Option<(usize, usize)>,
    /// Print the price of an hour of video instead, from file to file, where an hour of this machine costs X.
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = price::parse_price)]
    #[arg(conflicts_with_all = ["size", "runs"])]
    price_per_hour: Option<f64>,
    /// Video to upscale, of which some seconds are measured [default: generated, 540p and 1080p at 25 fps]
    #[arg(long, value_name = "FILE", requires = "price_per_hour")]
    input: Option<String>,
    /// Number of CPU threads [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Number format of the CPU engine's products.
    #[arg(long, value_enum, default_value = "auto")]
    precision: PrecisionName,
    /// Number of runs, whose median is reported.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), default_value = "7")]
    runs: u16,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    model: String,
    engine: &'static str,
    cpu_level: &'static str,
    precision: &'static str,
    width: usize,
    height: usize,
    threads: usize,
    runs: u16,
    frame_ms_median: f64,
    gflops: f64,
    /// Peak of one thread that only multiplies and adds, measured before and after.
    peak_gflops: f64,
    /// Share of `peak_gflops` times threads.
    peak_percent: f64,
    stages: Vec<StageFigures>,
}

#[derive(Serialize)]
struct StageFigures {
    name: &'static str,
    /// Share of the time of all stages.
    share_percent: f64,
    /// Share of the peak, counting the operations of convs alone: exp, rounding and layer norm count as lost time.
    peak_percent: f64,
}

impl Args {
    fn price_request(&self, price_per_hour: f64) -> price::Request<'_> {
        price::Request {
            price_per_hour,
            input: self.input.as_deref(),
            model: self.model.as_deref(),
            engine: self.engine.unwrap_or(EngineName::Auto).into(),
            precision: self.precision.precision(),
            threads: thread_count(self.threads.map(usize::from)),
            json: self.json,
        }
    }
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    if let Some(price) = args.price_per_hour {
        return price::run(&args.price_request(price));
    }
    let model = Arc::new(catalogue::open(args.model.as_deref().unwrap_or(catalogue::DEFAULT_IMAGE))?);
    if let Some((width, height)) = args.size
        && width.min(height) < SIDE_MIN
    {
        let problem = format!("is too small, HASN needs {SIDE_MIN}x{SIDE_MIN} at least");
        return Err(Error::new(format!("--size {width}x{height}"), problem, "give a larger size"));
    }
    let engine = EngineChoice::from(args.engine.unwrap_or(EngineName::Cpu)).resolve(
        args.precision.precision(),
        8,
        |_| Ok(()),
    )?;
    if engine == EngineKind::Cuda {
        cuda::measure(model, args.size, usize::from(args.runs), args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let figures = measure(&args, engine, model)?;
    match args.json {
        true => print_json(&figures)?,
        false => print(&figures.table())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Default size, at which a frame takes some milliseconds.
const SIZE: (usize, usize) = (320, 180);

fn measure(args: &Args, engine: EngineKind, model: Arc<Model>) -> Result<Figures> {
    let level = level::detect()?;
    let threads = thread_count(args.threads.map(usize::from));
    let (width, height) = args.size.unwrap_or(SIZE);
    let pool = Pool::new(threads)?;
    let x: Vec<f32> =
        (0..model.sizes.in_channels * height * width).map(|i| (i * 7919 % 256) as f32 / 255.0).collect();
    let mut y = vec![0.0; model.sizes.upsampler_channels() * height * width];
    let (median_ms, peak_flops, stages) = match engine {
        EngineKind::Cuda => unreachable!("cuda::measure measures it"),
        EngineKind::Reference => {
            let mut pass = ReferencePass { reference: Reference::new(model.clone()), size: (width, height) };
            let median_ms = median_ms(args.runs, || pool.install(|| pass.forward(&x, &mut y, &mut [])));
            (median_ms, peak_flops(&pool, level, Precision::F32), Vec::new())
        }
        EngineKind::Cpu(level, precision) => {
            let before = peak_flops(&pool, level, precision);
            let mut net = Net::new(Weights::new(&model, level, precision), (width, height), threads);
            let mut scratch = zeroed(net.scratch_len())?;
            pool.install(|| net.forward(&x, &mut y, &mut scratch));
            net.take_stage_times();
            let median_ms = median_ms(args.runs, || pool.install(|| net.forward(&x, &mut y, &mut scratch)));
            (median_ms, before.max(peak_flops(&pool, level, precision)), net.take_stage_times())
        }
    };
    let flop = 2.0 * (model.sizes.multiply_adds() * width * height) as f64;
    let flops = flop / (median_ms * 1e-3);
    Ok(Figures {
        model: model.name.clone(),
        engine: engine.name(),
        cpu_level: level.name(),
        precision: engine.precision_name(),
        width,
        height,
        threads,
        runs: args.runs,
        frame_ms_median: median_ms,
        gflops: flops * 1e-9,
        peak_gflops: peak_flops * 1e-9,
        peak_percent: 100.0 * flops / (peak_flops * threads as f64),
        stages: stage_figures(&stages, args.runs, peak_flops),
    })
}

/// Measures the peak of a thread while all threads are busy.
fn peak_flops(pool: &Pool, level: Level, precision: Precision) -> f64 {
    let threads = pool.on_each(|| level.peak_flops(precision));
    threads.iter().sum::<f64>() / threads.len() as f64
}

fn median_ms(runs: u16, mut frame: impl FnMut()) -> f64 {
    let mut times_ms: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            frame();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times_ms.sort_by(f64::total_cmp);
    times_ms[times_ms.len() / 2]
}

fn stage_figures(stages: &[StageTime], runs: u16, peak_flops: f64) -> Vec<StageFigures> {
    let all: f64 = stages.iter().map(|stage| stage.seconds).sum();
    let figures = |stage: &StageTime| StageFigures {
        name: stage.name,
        share_percent: 100.0 * stage.seconds / all,
        peak_percent: 100.0 * stage.flop * f64::from(runs) / (stage.seconds * peak_flops),
    };
    stages.iter().map(figures).collect()
}

impl Figures {
    fn table(&self) -> String {
        let Figures { model, engine, cpu_level, precision, width, height, threads, runs, .. } = self;
        let mut text = format!(
            "{model} {width}x{height}, engine {engine} ({cpu_level} {precision}), threads: {threads}\n\
             {:.2} ms per frame (median of {runs}), {:.1} GFLOP/s, {:.0} % of a peak of {:.1} per thread\n",
            self.frame_ms_median, self.gflops, self.peak_percent, self.peak_gflops,
        );
        if !self.stages.is_empty() {
            text += "stage     share  of peak\n";
        }
        for stage in &self.stages {
            text +=
                &format!("{:8} {:4.1} %   {:4.1} %\n", stage.name, stage.share_percent, stage.peak_percent);
        }
        text
    }
}
