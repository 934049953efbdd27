//! One picture into a file of its own, without a pipeline.

use std::fs;

use ffmpeg_next::{self as ffmpeg, Rational};

use super::PicturePool;
use super::encode::dress;
use super::frame::FrameBuffer;
use super::input::VideoInfo;
use super::output::Output;
use super::target::{EncoderSpec, Target, open_context};
use crate::error::{Error, Result};
use crate::picture::{Geometry, Memory, Picture};

/// A PNG, JPEG or other still picture file to be written.
pub struct StillWriter {
    target: Target,
    path: String,
}

impl StillWriter {
    /// Chooses the format for a picture like `source`, of this size, by the name's ending. An existing file
    /// is replaced.
    pub fn new(path: &str, source: &Geometry, size: (usize, usize)) -> Result<StillWriter> {
        let output = Output::new(path, "")?;
        let spec = EncoderSpec { threads: 1, ..EncoderSpec::default() };
        let target = Target::choose(&spec, &output, source, size)?;
        Ok(StillWriter { target, path: path.to_owned() })
    }

    /// A picture to be filled.
    pub fn picture(&self) -> Result<Picture> {
        PicturePool::new(self.target.geometry).take()
    }

    /// Encodes the filled picture and writes the file.
    pub fn write(self, picture: Picture) -> Result<()> {
        let fail = |problem: String| Error::new(&self.path, problem, "choose another name or ending");
        let encoding = |e: ffmpeg::Error| fail(format!("cannot be encoded: {e}"));
        let Memory::Host(buffer) = picture.memory else { panic!("pools are in host memory") };
        let mut frame = buffer.into_any().downcast::<FrameBuffer>().expect("a picture of the pool").frame;
        let (rate, square) = (Rational(25, 1), Rational(1, 1));
        let video = VideoInfo {
            time_base: rate.invert(),
            frame_rate: rate,
            is_constant: true,
            sample_aspect: square,
            pictures_expected: 1,
        };
        let mut context = open_context(&self.target, &video, square, false, rate.invert())?;
        dress(&mut frame, &self.target.geometry, square, 0, None);
        let mut packet = ffmpeg::Packet::empty();
        context.send_frame(&frame).map_err(encoding)?;
        context.send_eof().map_err(encoding)?;
        context.receive_packet(&mut packet).map_err(encoding)?;
        fs::write(&self.path, packet.data().unwrap_or_default())
            .map_err(|e| fail(format!("cannot be written: {e}")))
    }
}
