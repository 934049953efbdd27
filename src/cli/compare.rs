//! `hasn compare`: PSNR-Y and SSIM-Y of a video or image against a reference, frame by frame.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::console::{print, print_json};
use crate::engine::cpu::{Precision, level};
use crate::engine::{EngineKind, EngineSpec, Network, NetworkId, thread_count};
use crate::error::{Error, Result};
use crate::frame::{Frame, FrameFormat};
use crate::media::{FrameReader, Place, StillWriter, format_by_name, same_file};
use crate::quality::{FrameQuality, Quality};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Original video or image.
    reference: OsString,
    /// Video or image to compare, of the same size.
    distorted: OsString,
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Write the frame with the largest error, the reference on the left.
    #[arg(long, value_name = "FILE.png")]
    worst_frame: Option<PathBuf>,
}

/// An infinite PSNR, of equal frames, is null in JSON.
#[derive(Serialize)]
struct Figures<'a> {
    reference: Cow<'a, str>,
    distorted: Cow<'a, str>,
    frames: Vec<Row>,
    psnr_y_of_mean_mse_db: Option<f64>,
    psnr_y_mean_db: Option<f64>,
    ssim_y_mean: f64,
}

#[derive(Serialize)]
struct Row {
    frame: u64,
    mse_y: f64,
    psnr_y_db: Option<f64>,
    ssim_y: f64,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let is_input = |path: &&Path| {
        let inputs = [&args.reference, &args.distorted].map(|input| Place::of(input).path());
        inputs.into_iter().flatten().any(|input| input == *path || same_file(input, path))
    };
    if let Some(path) = args.worst_frame.as_deref().filter(is_input) {
        let remedy = "give the worst frame another name";
        return Err(Error::new(path.to_string_lossy(), "is one of the inputs", remedy));
    }
    let mut reference = FrameReader::open(&args.reference, thread_count(None))?;
    let mut distorted = FrameReader::open(&args.distorted, thread_count(None))?;
    let (size, other) = (reference.format(), distorted.format());
    if (size.width, size.height) != (other.width, other.height) {
        let problem = format!(
            "is {}x{}, and {} is {}x{}",
            other.width,
            other.height,
            args.reference.display(),
            size.width,
            size.height
        );
        return Err(Error::new(args.distorted.to_string_lossy(), problem, "compare frames of one size"));
    }
    let mut quality = Quality::default();
    let mut worst: Option<(FrameQuality, Frame, Frame)> = None;
    let count = loop {
        let count = quality.frames().len();
        match (reference.next_frame()?, distorted.next_frame()?) {
            (Some(original), Some(frame)) => {
                let found = quality.add(&frame, &original)?;
                if args.worst_frame.is_some()
                    && worst.as_ref().is_none_or(|(least, ..)| found.mse > least.mse)
                {
                    worst = Some((found, original, frame));
                }
            }
            (None, None) => break count,
            (left, _) => {
                let shorter = if left.is_none() { &args.reference } else { &args.distorted };
                let problem = format!("ends after {count} frames, and the other is longer");
                return Err(Error::new(
                    shorter.to_string_lossy(),
                    problem,
                    "compare files of the same frames",
                ));
            }
        }
    };
    match args.json {
        true => print_json(&figures(&args, &quality))?,
        false => print(&as_lines(&quality, count))?,
    }
    if let (Some(path), Some((_, original, frame))) = (&args.worst_frame, worst) {
        write_side_by_side(path, original, frame)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn figures<'a>(args: &'a Args, quality: &Quality) -> Figures<'a> {
    let finite = |db: f64| db.is_finite().then_some(db);
    let rows = quality.frames().iter().zip(0..).map(|(found, frame)| Row {
        frame,
        mse_y: found.mse,
        psnr_y_db: finite(found.psnr),
        ssim_y: found.ssim,
    });
    Figures {
        reference: args.reference.to_string_lossy(),
        distorted: args.distorted.to_string_lossy(),
        frames: rows.collect(),
        psnr_y_of_mean_mse_db: finite(quality.psnr_of_mean_mse()),
        psnr_y_mean_db: finite(quality.psnr_mean()),
        ssim_y_mean: quality.ssim_mean(),
    }
}

fn as_lines(quality: &Quality, count: usize) -> String {
    let mut text = String::from("frame  PSNR-Y dB  SSIM-Y\n");
    for (index, found) in quality.frames().iter().enumerate() {
        writeln!(text, "{index:7}  {:9.3}  {:.5}", found.psnr, found.ssim)
            .expect("writing to a String succeeds");
    }
    text + &format!(
        "frames             {count}\n\
         PSNR-Y of mean MSE   {:.3} dB\n\
         mean of PSNR-Y       {:.3} dB\n\
         mean of SSIM-Y       {:.5}\n",
        quality.psnr_of_mean_mse(),
        quality.psnr_mean(),
        quality.ssim_mean()
    )
}

/// Number of white columns between the two frames.
const GAP: usize = 4;

fn write_side_by_side(path: &Path, left: Frame, right: Frame) -> Result<()> {
    let rgb = format_by_name("rgb24").expect("FFmpeg always has rgb24");
    let FrameFormat { width, height, .. } = left.format;
    let writer =
        StillWriter::new(path, &FrameFormat { pixel_format: rgb, ..left.format }, (2 * width + GAP, height))?;
    let mut both = writer.frame()?;
    if both.format.pixel_format != rgb {
        return Err(Error::new(path.to_string_lossy(), "is of a format without rgb24", "name a .png"));
    }
    let (left, right) = (to_rgb(left)?, to_rgb(right)?);
    let linesize = both.buffer.linesize(0);
    for (y, row) in both.buffer.plane_mut(0).chunks_mut(linesize).enumerate() {
        let line = |frame: &Frame| {
            let buffer = &frame.buffer;
            buffer.plane(0)[y * buffer.linesize(0)..][..3 * width].to_vec()
        };
        row[..3 * width].copy_from_slice(&line(&left));
        row[3 * width..3 * (width + GAP)].fill(255);
        row[3 * (width + GAP)..][..3 * width].copy_from_slice(&line(&right));
    }
    writer.write(both)
}

/// Converts a frame to rgb24, with the resampler at scale 1.
fn to_rgb(frame: Frame) -> Result<Frame> {
    let lr = frame.format;
    let format = format_by_name("rgb24").expect("FFmpeg always has rgb24");
    let sr = FrameFormat { pixel_format: format, color: lr.color.as_rgb(), ..lr };
    let networks = vec![Network::Resample];
    let mut engine = EngineSpec {
        kind: EngineKind::Cpu(level::detect()?, Precision::F32),
        threads: thread_count(None),
        in_flight: 1,
        networks,
        memory_max: None,
        lr,
        sr,
    }
    .open()?;
    engine.submit(frame, Frame::try_new(sr)?, NetworkId(0))?;
    let (_, rgb) = engine.collect()?.expect("a frame was submitted");
    Ok(rgb)
}
