//! `hasn compare`: PSNR-Y and SSIM-Y of a video or image against a reference, frame by frame.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use font8x8::{BASIC_FONTS, UnicodeFonts};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::console::{print, print_json};
use super::frames;
use crate::engine::thread_count;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Frame, FrameFormat};
use crate::job::{Interrupt, check_report_writable};
use crate::media::{FrameReader, Place, StillWriter, Vmaf, format_by_name, same_file};
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
    /// Write the frame with the largest error with its scores, the reference on the left.
    #[arg(long, value_name = "FILE.png")]
    worst_frame: Option<PathBuf>,
    /// Add the difference of both, 8 times as large, to the image of --worst-frame.
    #[arg(long, requires = "worst_frame")]
    difference: bool,
}

/// An infinite PSNR, of equal frames, is null in JSON.
#[derive(Serialize)]
struct Figures<'a> {
    reference: Cow<'a, str>,
    distorted: Cow<'a, str>,
    frames: Vec<Row>,
    worst_frame: Option<u64>,
    psnr_y_of_mean_mse_db: Option<f64>,
    psnr_y_mean_db: Option<f64>,
    ssim_y_mean: f64,
    /// `None` where FFmpeg has no libvmaf.
    vmaf_mean: Option<f64>,
}

#[derive(Serialize)]
struct Row {
    frame: u64,
    mse_y: f64,
    psnr_y_db: Option<f64>,
    ssim_y: f64,
}

/// The frame with the largest error so far.
struct Worst {
    found: FrameQuality,
    index: usize,
    seconds: f64,
    /// The reference and the other frame, where an image of them is asked for.
    frames: Option<(Frame, Frame)>,
}

pub(super) fn run(args: Args, is_quiet: bool) -> Result<ExitCode> {
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
    let image = args.worst_frame.as_deref().map(|path| {
        let folder = path.parent().filter(|folder| *folder != Path::new("") && !folder.is_dir());
        if let Some(folder) = folder {
            let remedy = "create it, or check the name";
            let error = Error::new(folder.to_string_lossy(), "there is no such folder", remedy);
            return Err(error.with_kind(ErrorKind::NotFound));
        }
        check_report_writable(path, &Interrupt::default())?;
        WorstImage::new(path, &size, if args.difference { 3 } else { 2 })
    });
    let image = image.transpose()?;
    let bar = bar(reference.frames_expected(), is_quiet);
    let mut quality = Quality::default();
    let mut vmaf = Vmaf::open(&other, &size, thread_count(None))?;
    let mut worst: Option<Worst> = None;
    let count = loop {
        let index = quality.frames().len();
        match (reference.next_frame()?, distorted.next_frame()?) {
            (Some(original), Some(frame)) => {
                let found = quality.add(&frame, &original)?;
                vmaf.as_mut().map_or(Ok(()), |vmaf| vmaf.add(&frame, &original))?;
                if worst.as_ref().is_none_or(|worst| found.mse > worst.found.mse) {
                    let seconds = original.time.seconds();
                    let frames = image.is_some().then_some((original, frame));
                    worst = Some(Worst { found, index, seconds, frames });
                }
                bar.inc(1);
            }
            (None, None) => break index,
            (left, _) => {
                let shorter = if left.is_none() { &args.reference } else { &args.distorted };
                let problem = format!("ends after {index} frames, and the other is longer");
                return Err(Error::new(
                    shorter.to_string_lossy(),
                    problem,
                    "compare files of the same frames",
                ));
            }
        }
    };
    bar.finish_and_clear();
    let vmaf = vmaf.map(Vmaf::finish).transpose()?;
    match args.json {
        true => print_json(&figures(&args, &quality, worst.as_ref(), vmaf))?,
        false => print(&as_lines(&quality, count, worst.as_ref(), vmaf))?,
    }
    if let (Some(mut image), Some(Worst { found, index, frames: Some((original, frame)), .. })) =
        (image, worst)
    {
        let name = |source: &OsString| {
            Path::new(source).file_name().unwrap_or(source).to_string_lossy().into_owned()
        };
        let (left, right) = (frames::convert(original, "rgb24")?, frames::convert(frame, "rgb24")?);
        image.put(0, &left, &format!("{}, frame {index}", name(&args.reference)));
        image.put(1, &right, &format!("{:.2} dB, {:.4}, {}", found.psnr, found.ssim, name(&args.distorted)));
        if args.difference {
            image.put(2, &difference(&left, &right)?, &format!("difference x{GAIN}"));
        }
        image.writer.write(image.frame)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A bar on a terminal, else nothing.
fn bar(frames_expected: u64, is_quiet: bool) -> ProgressBar {
    let bar = match frames_expected {
        _ if is_quiet => return ProgressBar::hidden(),
        0 => ProgressBar::no_length(),
        frames => ProgressBar::new(frames),
    };
    let template = "{bar:24} {pos}/{len} frames, {per_sec}, ETA {eta}";
    bar.with_style(ProgressStyle::with_template(template).expect("a template of ours"))
}

fn figures<'a>(args: &'a Args, quality: &Quality, worst: Option<&Worst>, vmaf: Option<f64>) -> Figures<'a> {
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
        worst_frame: worst.map(|worst| worst.index as u64),
        psnr_y_of_mean_mse_db: finite(quality.psnr_of_mean_mse()),
        psnr_y_mean_db: finite(quality.psnr_mean()),
        ssim_y_mean: quality.ssim_mean(),
        vmaf_mean: vmaf,
    }
}

fn as_lines(quality: &Quality, count: usize, worst: Option<&Worst>, vmaf: Option<f64>) -> String {
    let mut text = String::from("frame  PSNR-Y dB  SSIM-Y\n");
    for (index, found) in quality.frames().iter().enumerate() {
        writeln!(text, "{index:7}  {:9.3}  {:.5}", found.psnr, found.ssim)
            .expect("writing to a String succeeds");
    }
    let worst = worst.map_or(String::new(), |Worst { found, index, seconds, .. }| {
        format!("worst frame        {index}, at {seconds:.3} s: {:.3} dB, {:.5}\n", found.psnr, found.ssim)
    });
    text + &format!(
        "frames             {count}\n\
         {worst}\
         PSNR-Y of mean MSE   {:.3} dB\n\
         mean of PSNR-Y       {:.3} dB\n\
         mean of SSIM-Y       {:.5}\n\
         mean of VMAF         {}\n",
        quality.psnr_of_mean_mse(),
        quality.psnr_mean(),
        quality.ssim_mean(),
        vmaf.map_or("not measured: this FFmpeg is built without libvmaf".to_owned(), |vmaf| format!(
            "{vmaf:.3}"
        ))
    )
}

/// Number of white columns between two frames.
const GAP: usize = 4;
/// How often a sample of the font is repeated in each direction.
const ZOOM: usize = 2;
/// Rows of the labels above the frames.
const LABEL: usize = 8 * ZOOM + 8;
/// Factor of the difference, which is too small to be seen.
const GAIN: i32 = 8;

/// The image of the worst frame, which is checked before the first frame is compared.
struct WorstImage {
    writer: StillWriter,
    frame: Frame,
}

impl WorstImage {
    /// Room for `count` frames of `format` side by side.
    fn new(path: &Path, format: &FrameFormat, count: usize) -> Result<WorstImage> {
        let rgb = format_by_name("rgb24").expect("FFmpeg always has rgb24");
        let source = FrameFormat { pixel_format: rgb, color: format.color.as_rgb(), ..*format };
        let size = (count * (format.width + GAP) - GAP, format.height + LABEL);
        let writer = StillWriter::new(path, &source, size)?;
        let mut frame = writer.frame()?;
        if frame.format.pixel_format != rgb {
            let error = Error::new(path.to_string_lossy(), "is of a format without rgb24", "name a .png");
            return Err(error.with_kind(ErrorKind::Unsupported));
        }
        frame.buffer.plane_mut(0).fill(255);
        Ok(WorstImage { writer, frame })
    }

    /// Puts a frame and its label into the column `number`.
    fn put(&mut self, number: usize, frame: &Frame, label: &str) {
        let FrameFormat { width, height, .. } = frame.format;
        let x = number * (width + GAP);
        frames::paste(frame, (0, 0), &mut self.frame, (x, LABEL), (width, height));
        let linesize = self.frame.buffer.linesize(0);
        let samples = self.frame.buffer.plane_mut(0);
        for (place, character) in label.chars().take(width / (8 * ZOOM)).enumerate() {
            let rows =
                BASIC_FONTS.get(character).or_else(|| BASIC_FONTS.get('?')).expect("an ASCII character");
            for (y, x_of_row) in (0..8 * ZOOM).flat_map(|y| (0..8 * ZOOM).map(move |x| (y, x))) {
                if rows[y / ZOOM] >> (x_of_row / ZOOM) & 1 == 1 {
                    let at = (y + 4) * linesize + 3 * (x + place * 8 * ZOOM + x_of_row);
                    samples[at..at + 3].fill(0);
                }
            }
        }
    }
}

/// The difference of two frames in rgb24, times [`GAIN`], around gray.
fn difference(left: &Frame, right: &Frame) -> Result<Frame> {
    let mut difference = Frame::try_new(left.format)?;
    let linesize = difference.buffer.linesize(0);
    let (a, b) =
        ((left.buffer.plane(0), left.buffer.linesize(0)), (right.buffer.plane(0), right.buffer.linesize(0)));
    let row_len = 3 * left.format.width;
    for (y, row) in difference.buffer.plane_mut(0).chunks_mut(linesize).enumerate() {
        let of = |(samples, linesize): (&[u8], usize)| samples[y * linesize..][..row_len].to_vec();
        for ((to, a), b) in row.iter_mut().zip(of(a)).zip(of(b)) {
            *to = (128 + GAIN * (i32::from(b) - i32::from(a))).clamp(0, 255) as u8;
        }
    }
    Ok(difference)
}
