//! `hasn bench --engine cuda`: frames through the machine's first GPU, and their share of its peaks.

use std::sync::Arc;

use serde::Serialize;

use super::super::console::{print, print_json};
use crate::color::{ChromaLocation, ColorSpec, Matrix, Primaries, Range, Transfer};
use crate::engine::EngineKind;
use crate::engine::cuda::{self, MeasuredSize, Probes, Request};
use crate::error::Result;
use crate::frame::FrameFormat;
use crate::media;
use crate::model::Model;

/// Default sizes: 540p, 720p, 1080p.
const SIZES: [(usize, usize); 3] = [(960, 540), (1280, 720), (1920, 1080)];

/// Frames of a run: half a second of 1080p.
const FRAMES: usize = 48;

/// Frame rate of a stream.
const STREAM_FPS: f64 = 30.0;

#[derive(Serialize)]
struct Figures {
    model: String,
    engine: &'static str,
    device: String,
    precision: &'static str,
    runs: usize,
    /// Peaks of the device, each measured alone by a small kernel.
    peak_gb_per_second: f64,
    peak_gflops: f64,
    peak_f32_gflops: f64,
    peak_special_per_second: f64,
    /// From an open device to the first frame: loads the kernels, opens the engine, copies a frame in and out.
    first_frame_ms: f64,
    /// The same, including the start of the driver.
    first_frame_with_driver_ms: f64,
    sizes: Vec<SizeFigures>,
}

#[derive(Serialize)]
struct SizeFigures {
    width: usize,
    height: usize,
    to_width: usize,
    to_height: usize,
    frame_ms_median: f64,
    fps: f64,
    /// Number of 30 fps streams.
    streams: u64,
    gb_per_second: f64,
    /// Operations by the network's definition, without padding.
    gflops: f64,
    /// Share of `peak_gflops`.
    peak_percent: f64,
    of_peaks: OfPeaks,
    stages: Vec<StageFigures>,
}

/// Percent of each peak, padding and margins counted as work.
#[derive(Serialize)]
struct OfPeaks {
    bytes: f64,
    matrix: f64,
    f32: f64,
    special: f64,
}

#[derive(Serialize)]
struct StageFigures {
    name: &'static str,
    launches: usize,
    ms: f64,
    /// Share of the time of all kernels, run one by one.
    share_percent: f64,
    /// Share of the peak of its limiting resource.
    peak_percent: f64,
    /// Limiting resource: bytes, matrix, f32 or special.
    limit: &'static str,
    of_peaks: OfPeaks,
}

pub(super) fn measure(
    model: Arc<Model>,
    size: Option<(usize, usize)>,
    runs: usize,
    as_json: bool,
) -> Result<()> {
    let scale = model.sizes.scale;
    let formats = |(width, height): (usize, usize)| {
        (frame_format(width, height), frame_format(width * scale, height * scale))
    };
    let sizes = size.map_or(SIZES.to_vec(), |size| vec![size]).into_iter().map(formats).collect();
    let request = Request { model, sizes, runs, frames: FRAMES, probes: Probes::default() };
    let (opening, measured) = cuda::bench(&request)?;
    let first_s = opening.kernels_s + measured.sizes[0].first_s;
    let peaks = measured.ceilings;
    let figures = Figures {
        model: request.model.name.clone(),
        engine: EngineKind::Cuda.name(),
        device: measured.device,
        precision: EngineKind::Cuda.precision_name(),
        runs,
        peak_gb_per_second: peaks.bytes * 1e-9,
        peak_gflops: peaks.matrix * 1e-9,
        peak_f32_gflops: peaks.f32 * 1e-9,
        peak_special_per_second: peaks.special,
        first_frame_ms: first_s * 1e3,
        first_frame_with_driver_ms: (opening.driver_s + first_s) * 1e3,
        sizes: measured.sizes.iter().map(|size| size_figures(size, &request.model, peaks)).collect(),
    };
    if as_json { print_json(&figures) } else { print(&figures.table()) }
}

/// The format of most videos.
fn frame_format(width: usize, height: usize) -> FrameFormat {
    let color = ColorSpec {
        matrix: Matrix::BT709,
        primaries: Primaries::UNSPECIFIED,
        transfer: Transfer::UNSPECIFIED,
        range: Range::Limited,
        chroma_location: ChromaLocation::Left,
    };
    let format = media::format_by_name("yuv420p").expect("FFmpeg has it");
    FrameFormat { width, height, pixel_format: format, color }
}

fn size_figures(size: &MeasuredSize, model: &Model, peaks: cuda::Demand) -> SizeFigures {
    let MeasuredSize { lr, sr, frame_s, kernels, .. } = size;
    let mut demand = cuda::Demand::default();
    kernels.iter().for_each(|kernel| demand += kernel.demand);
    let all_s: f64 = kernels.iter().map(|kernel| kernel.seconds).sum();
    let flops = 2.0 * (model.sizes.multiply_adds() * lr.width * lr.height) as f64 / frame_s;
    let stage = |kernel: &cuda::MeasuredKernel| {
        let of_peaks = OfPeaks::new(kernel.demand, peaks, kernel.seconds);
        let (limit, peak_percent) = of_peaks.largest();
        StageFigures {
            name: kernel.name,
            launches: kernel.launches,
            ms: kernel.seconds * 1e3,
            share_percent: 100.0 * kernel.seconds / all_s,
            peak_percent,
            limit,
            of_peaks,
        }
    };
    SizeFigures {
        width: lr.width,
        height: lr.height,
        to_width: sr.width,
        to_height: sr.height,
        frame_ms_median: frame_s * 1e3,
        fps: frame_s.recip(),
        streams: (frame_s * STREAM_FPS).recip() as u64,
        gb_per_second: demand.bytes / frame_s * 1e-9,
        gflops: flops * 1e-9,
        peak_percent: 100.0 * flops / peaks.matrix,
        of_peaks: OfPeaks::new(demand, peaks, *frame_s),
        stages: kernels.iter().map(stage).collect(),
    }
}

impl OfPeaks {
    fn new(demand: cuda::Demand, peaks: cuda::Demand, seconds: f64) -> OfPeaks {
        let percent = |of: f64, peak: f64| 100.0 * of / seconds / peak;
        OfPeaks {
            bytes: percent(demand.bytes, peaks.bytes),
            matrix: percent(demand.matrix, peaks.matrix),
            f32: percent(demand.f32, peaks.f32),
            special: percent(demand.special, peaks.special),
        }
    }

    fn all(&self) -> [(&'static str, f64); 4] {
        let OfPeaks { bytes, matrix, f32, special } = *self;
        [("bytes", bytes), ("matrix", matrix), ("f32", f32), ("special", special)]
    }

    fn largest(&self) -> (&'static str, f64) {
        self.all().into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are four")
    }
}

impl Figures {
    fn table(&self) -> String {
        let Figures { model, device, runs, .. } = self;
        let mut text = format!(
            "{model}, {device}, f16; 8-bit 4:2:0, copies in and out included, no codec; medians of {runs}\n\
             peaks: {:.0} GB/s, {:.1} TFLOP/s of matrices, {:.1} of f32, {:.2} T special functions per second\n\
             first frame: {:.0} ms, {:.0} with the start of the driver\n",
            self.peak_gb_per_second,
            self.peak_gflops * 1e-3,
            self.peak_f32_gflops * 1e-3,
            self.peak_special_per_second * 1e-12,
            self.first_frame_ms,
            self.first_frame_with_driver_ms,
        );
        self.sizes.iter().for_each(|size| text += &size.table());
        text
    }
}

impl SizeFigures {
    fn table(&self) -> String {
        let SizeFigures { width, height, to_width, to_height, streams, .. } = self;
        let percents = |of: &OfPeaks| of.all().map(|(_, percent)| format!("{percent:7.1}")).concat();
        let mut text = format!(
            "\n{width}x{height} to {to_width}x{to_height}: {:.2} ms per frame, {:.1} fps, {streams} streams at 30 fps\n\
             {:.0} GB/s, {:.1} TFLOP/s, {:.0} % of the matrix peak\n\
             kernel     launches      ms  share  percent of: bytes matrix    f32 special\n",
            self.frame_ms_median,
            self.fps,
            self.gb_per_second,
            self.gflops * 1e-3,
            self.peak_percent,
        );
        for stage in &self.stages {
            text += &format!(
                "{:10} {:8} {:7.3} {:4.1} %           {}\n",
                stage.name,
                stage.launches,
                stage.ms,
                stage.share_percent,
                percents(&stage.of_peaks)
            );
        }
        text += &format!("{:37}{}\n", "all frames, with overlap", percents(&self.of_peaks));
        text
    }
}
