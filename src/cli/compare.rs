//! `hasn compare`: two videos or pictures, picture by picture.

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;

use super::{json, print, thread_count};
use crate::engine::cpu::Precision;
use crate::engine::{EngineKind, EngineSpec, Network, NetworkId};
use crate::error::{Error, Result};
use crate::media::{PictureReader, StillWriter, format_by_name};
use crate::picture::{Geometry, Picture};
use crate::quality::{PictureQuality, Quality};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The original.
    reference: String,
    /// What was made of it, of the same size.
    distorted: String,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Write the picture that differs most, the reference on the left.
    #[arg(long, value_name = "FILE.png")]
    picture: Option<String>,
}

/// PSNR of equal pictures is infinite, which JSON has no number for: null.
#[derive(Serialize)]
struct Figures<'a> {
    reference: &'a str,
    distorted: &'a str,
    pictures: Vec<Row>,
    psnr_y_of_mean_mse_db: Option<f64>,
    psnr_y_mean_db: Option<f64>,
    ssim_y_mean: f64,
}

#[derive(Serialize)]
struct Row {
    picture: u64,
    mse_y: f64,
    psnr_y_db: Option<f64>,
    ssim_y: f64,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    if let Some(path) = args.picture.as_ref().filter(|path| [&args.reference, &args.distorted].contains(path))
    {
        return Err(Error::new(path, "is one of the inputs", "give the picture another name"));
    }
    let mut reference = PictureReader::open(&args.reference, thread_count(None))?;
    let mut distorted = PictureReader::open(&args.distorted, thread_count(None))?;
    let (size, other) = (reference.geometry(), distorted.geometry());
    if (size.width, size.height) != (other.width, other.height) {
        let problem = format!(
            "is {}x{}, and {} is {}x{}",
            other.width, other.height, args.reference, size.width, size.height
        );
        return Err(Error::new(args.distorted, problem, "compare pictures of one size"));
    }
    let mut quality = Quality::default();
    let mut worst: Option<(PictureQuality, Picture, Picture)> = None;
    let count = loop {
        let count = quality.pictures().len();
        match (reference.next_picture()?, distorted.next_picture()?) {
            (Some(original), Some(picture)) => {
                let found = quality.add(&picture, &original)?;
                if args.picture.is_some() && worst.as_ref().is_none_or(|(least, ..)| found.mse > least.mse) {
                    worst = Some((found, original, picture));
                }
            }
            (None, None) => break count,
            (left, _) => {
                let shorter = if left.is_none() { &args.reference } else { &args.distorted };
                let problem = format!("ends after {count} pictures, and the other goes on");
                return Err(Error::new(shorter, problem, "compare files of the same pictures"));
            }
        }
    };
    print(&if args.json { as_json(&args, &quality) + "\n" } else { as_lines(&quality, count) })?;
    if let (Some(path), Some((_, original, picture))) = (&args.picture, worst) {
        write_side_by_side(path, original, picture)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(args: &Args, quality: &Quality) -> String {
    let finite = |db: f64| db.is_finite().then_some(db);
    let rows = quality.pictures().iter().zip(0..).map(|(found, picture)| Row {
        picture,
        mse_y: found.mse,
        psnr_y_db: finite(found.psnr),
        ssim_y: found.ssim,
    });
    json(&Figures {
        reference: &args.reference,
        distorted: &args.distorted,
        pictures: rows.collect(),
        psnr_y_of_mean_mse_db: finite(quality.psnr_of_mean_mse()),
        psnr_y_mean_db: finite(quality.psnr_mean()),
        ssim_y_mean: quality.ssim_mean(),
    })
}

fn as_lines(quality: &Quality, count: usize) -> String {
    let mut text = String::from("picture  PSNR-Y dB  SSIM-Y\n");
    for (index, found) in quality.pictures().iter().enumerate() {
        writeln!(text, "{index:7}  {:9.3}  {:.5}", found.psnr, found.ssim)
            .expect("a String takes everything");
    }
    text + &format!(
        "pictures             {count}\n\
         PSNR-Y of mean MSE   {:.3} dB\n\
         mean of PSNR-Y       {:.3} dB\n\
         mean of SSIM-Y       {:.5}\n",
        quality.psnr_of_mean_mse(),
        quality.psnr_mean(),
        quality.ssim_mean()
    )
}

/// Rows of white between the two.
const GAP: usize = 4;

fn write_side_by_side(path: &str, left: Picture, right: Picture) -> Result<()> {
    let rgb = format_by_name("rgb24").expect("FFmpeg always has rgb24");
    let Geometry { width, height, .. } = left.geometry;
    let writer =
        StillWriter::new(path, &Geometry { format: rgb, ..left.geometry }, (2 * width + GAP, height))?;
    let mut both = writer.picture()?;
    if both.geometry.format != rgb {
        return Err(Error::new(path, "is of a kind that holds no rgb24", "name a .png"));
    }
    let (left, right) = (to_rgb(left)?, to_rgb(right)?);
    let linesize = both.host().linesize(0);
    for (y, row) in both.host_mut().plane_mut(0).chunks_mut(linesize).enumerate() {
        let line = |picture: &Picture| {
            let buffer = picture.host();
            buffer.plane(0)[y * buffer.linesize(0)..][..3 * width].to_vec()
        };
        row[..3 * width].copy_from_slice(&line(&left));
        row[3 * width..3 * (width + GAP)].fill(255);
        row[3 * (width + GAP)..][..3 * width].copy_from_slice(&line(&right));
    }
    writer.write(both)
}

/// The resampler at scale 1 is the conversion.
fn to_rgb(picture: Picture) -> Result<Picture> {
    let lr = picture.geometry;
    let format = format_by_name("rgb24").expect("FFmpeg always has rgb24");
    let sr = Geometry { format, color: lr.color.as_rgb(), ..lr };
    let networks = vec![Network::Resample];
    let mut engine = EngineSpec {
        kind: EngineKind::Cpu(Precision::F32),
        threads: thread_count(None),
        in_flight: 1,
        networks,
        lr,
        sr,
    }
    .open()?;
    engine.submit(picture, Picture::new(sr), NetworkId(0))?;
    let (_, rgb) = engine.collect()?.expect("a picture was submitted");
    Ok(rgb)
}
