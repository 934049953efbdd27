//! VMAF: FFmpeg's filter `libvmaf` compares two videos of one size. FFmpeg is often built without it.

use std::path::Path;

use ffmpeg_next::filter::{self, Graph};
use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg};
use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::frame::{Frame, FrameFormat};
use crate::media::av_frame::AvFrameBuffer;
use crate::media::ffmpeg::{failure, has_filter};
use crate::media::format::pixel_format;

const REMEDY: &str = "look at the messages of -vv";

/// The filter, and the file in which it leaves its scores.
pub(crate) struct Vmaf {
    pair: Pair,
    scores: NamedTempFile,
}

impl Vmaf {
    /// Opens the filter for frames of these formats; `None` where FFmpeg has none.
    pub fn open(distorted: &FrameFormat, reference: &FrameFormat, threads: usize) -> Result<Option<Vmaf>> {
        if !has_filter("libvmaf") {
            return Ok(None);
        }
        let failed = |e| Error::io("a temporary file", e, "set TMPDIR to a folder that can be written");
        let scores = NamedTempFile::new().map_err(failed)?;
        let path = plain_path(scores.path())?;
        let filter = format!("libvmaf=log_fmt=json:log_path={path}:n_threads={threads}");
        Ok(Some(Vmaf { pair: Pair::open(&filter, distorted, reference)?, scores }))
    }

    /// Compares the next frame of both.
    pub fn add(&mut self, distorted: &Frame, reference: &Frame) -> Result<()> {
        self.pair.add(distorted, reference)
    }

    /// The mean of all frames.
    pub fn finish(self) -> Result<f64> {
        self.pair.finish()?;
        let read = std::fs::read_to_string(self.scores.path());
        let text = read.map_err(|e| Error::io(self.scores.path().to_string_lossy(), e, REMEDY))?;
        mean_of(&text).ok_or_else(|| Error::new("libvmaf", "gave no score", REMEDY))
    }
}

/// A path that means the same in the description of a graph.
fn plain_path(path: &Path) -> Result<&str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    path.to_str().filter(|text| text.chars().all(is_plain)).ok_or_else(|| {
        Error::new(path.to_string_lossy(), "is no plain name for a filter", "set TMPDIR to another folder")
    })
}

/// The pooled mean in the filter's file.
fn mean_of(json: &str) -> Option<f64> {
    let scores: serde_json::Value = serde_json::from_str(json).ok()?;
    scores.pointer("/pooled_metrics/vmaf/mean")?.as_f64()
}

/// A filter of two inputs, whose frames are dropped.
struct Pair {
    graph: Graph,
    frames: i64,
}

impl Pair {
    fn open(filter: &str, distorted: &FrameFormat, reference: &FrameFormat) -> Result<Pair> {
        let build = || -> std::result::Result<Graph, ffmpeg::Error> {
            let named = |name: &str| filter::find(name).ok_or(ffmpeg::Error::FilterNotFound);
            let mut graph = Graph::new();
            for (name, format) in [("distorted", distorted), ("reference", reference)] {
                let pixel = pixel_format(format.pixel_format.name) as i32;
                let FrameFormat { width, height, .. } = format;
                let arguments = format!("video_size={width}x{height}:pix_fmt={pixel}:time_base=1/25");
                graph.add(&named("buffer")?, name, &arguments)?;
            }
            graph.add(&named("buffersink")?, "out", "")?;
            let chain = format!("[distorted][reference]{filter}[out]");
            graph.output("distorted", 0)?.output("reference", 0)?.input("out", 0)?.parse(&chain)?;
            graph.validate()?;
            Ok(graph)
        };
        Ok(Pair { graph: build().map_err(failed)?, frames: 0 })
    }

    fn add(&mut self, distorted: &Frame, reference: &Frame) -> Result<()> {
        for (name, frame) in [("distorted", distorted), ("reference", reference)] {
            let shared = frame.share().buffer.into_any().downcast::<AvFrameBuffer>();
            let mut av_frame = shared.expect("a frame of a decoder").av_frame;
            av_frame.set_pts(Some(self.frames));
            self.graph.get(name).expect("a graph has its sources").source().add(&av_frame).map_err(failed)?;
        }
        self.frames += 1;
        self.drain();
        Ok(())
    }

    /// The filter writes its file when it is closed.
    fn finish(mut self) -> Result<()> {
        for name in ["distorted", "reference"] {
            self.graph.get(name).expect("a graph has its sources").source().flush().map_err(failed)?;
        }
        self.drain();
        Ok(())
    }

    fn drain(&mut self) {
        let mut sink = self.graph.get("out").expect("a graph has its sink");
        while sink.sink().frame(&mut AvFrame::empty()).is_ok() {}
    }
}

fn failed(error: ffmpeg::Error) -> Error {
    failure("libvmaf", "cannot compare the frames", error, REMEDY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::FramePool;
    use crate::testing::frame_format;

    /// The filter `psnr`, which every FFmpeg has, takes its inputs and leaves its file in the same way.
    #[test]
    fn a_filter_of_two_inputs_gets_them_in_pairs_and_leaves_its_scores() {
        let format = frame_format(64, 48, "yuv420p");
        let scores = NamedTempFile::new().unwrap();
        let filter = format!("psnr=stats_file={}", plain_path(scores.path()).unwrap());
        let mut pair = Pair::open(&filter, &format, &format).unwrap();
        let pool = FramePool::new(format).unwrap();
        let flat = |value: u8| {
            let mut frame = pool.take().unwrap();
            (0..3).for_each(|plane| frame.buffer.plane_mut(plane).fill(value));
            frame
        };
        for off in [2, 4] {
            pair.add(&flat(100 + off), &flat(100)).unwrap();
        }
        pair.finish().unwrap();
        let text = std::fs::read_to_string(scores.path()).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("n:")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("mse_y:4.00") && lines[1].contains("mse_y:16.00"), "{text}");
    }

    #[test]
    fn the_mean_is_read_from_the_scores_of_libvmaf() {
        let json = r#"{"version": "3.0.0", "frames": [{"frameNum": 0, "metrics": {"vmaf": 91.5}}],
            "pooled_metrics": {"vmaf": {"min": 90.0, "max": 93.0, "mean": 91.25, "harmonic_mean": 91.2}}}"#;
        assert_eq!(mean_of(json), Some(91.25));
        assert_eq!(mean_of("{}"), None);
    }
}
