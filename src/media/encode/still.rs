//! Images: one frame is written to a file, without a pipeline.

use std::fs;
use std::path::{Path, PathBuf};

use ffmpeg_next::{self as ffmpeg, Rational};

use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Frame, FrameFormat};
use crate::media::av_frame::{AvFrameBuffer, FramePool};
use crate::media::encode::frame_properties::set_frame_properties;
use crate::media::encode::target::{EncoderSpec, Target, open_context};
use crate::media::ffmpeg::{failure, start};
use crate::media::output::Output;
use crate::media::stream::VideoInfo;

/// Quality of WebP, at which its loss is not seen beside that of a resampler.
const PAGE_QUALITY: &str = "92";

/// A PNG, JPEG or other image file to be written.
pub struct StillWriter {
    target: Target,
    path: PathBuf,
}

impl StillWriter {
    /// Chooses the format by the name's extension, for a frame like `source` of `size` (width, height). An existing file
    /// is overwritten.
    pub fn new(path: impl AsRef<Path>, source: &FrameFormat, size: (usize, usize)) -> Result<StillWriter> {
        start();
        let output = Output::new(path.as_ref(), "")?;
        let spec = EncoderSpec { threads: 1, ..EncoderSpec::default() };
        let target = Target::choose(&spec, &output, source, size)?;
        let path = output.path().ok_or_else(|| {
            Error::new(output.name(), "takes no image", "name a file").with_kind(ErrorKind::Unsupported)
        })?;
        Ok(StillWriter { target, path: path.to_owned() })
    }

    /// An image for a web page, to be [encoded](StillWriter::encode): a WebP where FFmpeg has its encoder, else a PNG. Returns
    /// its media type as well.
    pub(crate) fn for_page(
        source: &FrameFormat,
        size: (usize, usize),
    ) -> Result<(StillWriter, &'static str)> {
        start();
        let is_webp = ffmpeg::encoder::find_by_name("libwebp").is_some();
        let (name, format, media_type) =
            if is_webp { ("a.webp", "bgra", "image/webp") } else { ("a.png", "rgb24", "image/png") };
        let output = Output::new(name, "")?;
        let mut spec =
            EncoderSpec { threads: 1, pixel_format: Some(format.into()), ..EncoderSpec::default() };
        if is_webp {
            spec.options.push(("quality".into(), PAGE_QUALITY.into()));
        }
        let target = Target::choose(&spec, &output, source, size)?;
        Ok((StillWriter { target, path: name.into() }, media_type))
    }

    /// Returns a frame to fill.
    pub fn frame(&self) -> Result<Frame> {
        FramePool::new(self.target.format)?.take()
    }

    /// Encodes the filled frame and writes the file.
    pub fn write(self, frame: Frame) -> Result<()> {
        let image = self.encode(frame)?;
        fs::write(&self.path, image).map_err(|e| {
            Error::io(self.path.to_string_lossy(), e, "choose another name, and check the folder")
        })
    }

    /// Encodes the filled frame.
    pub(crate) fn encode(&self, frame: Frame) -> Result<Vec<u8>> {
        let remedy = "choose another name or extension";
        let encoding =
            |e: ffmpeg::Error| failure(self.path.to_string_lossy(), "cannot be encoded", e, remedy);
        let buffer = frame.buffer;
        let mut av_frame =
            buffer.into_any().downcast::<AvFrameBuffer>().expect("a frame of the pool").av_frame;
        let (rate, square) = (Rational(25, 1), Rational(1, 1));
        let video = VideoInfo {
            time_base: rate.invert(),
            frame_rate: rate,
            is_constant: true,
            sample_aspect: square,
            frames_expected: 1,
        };
        let mut context = open_context(&self.target, &video, square, false, rate.invert())?;
        set_frame_properties(&mut av_frame, &self.target, square, 0, None);
        let mut packet = ffmpeg::Packet::empty();
        if let Some(mut palette) = self.target.palette(rate.invert())? {
            palette.send(Some(&av_frame)).and_then(|()| palette.send(None)).map_err(encoding)?;
            av_frame = palette.receive().map_err(encoding)?.unwrap_or(av_frame);
        }
        context.send_frame(&av_frame).map_err(encoding)?;
        context.send_eof().map_err(encoding)?;
        context.receive_packet(&mut packet).map_err(encoding)?;
        self.target.complete(&mut packet);
        Ok(packet.data().unwrap_or_default().to_vec())
    }
}
