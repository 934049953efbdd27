//! Reads the frames of a source one by one, without a pipeline.

use std::ffi::OsStr;

use crate::error::Result;
use crate::frame::{Frame, FrameFormat};
use crate::media::decode::decoder::{DecodeSpec, Decoder};
use crate::media::decode::filter::{Deinterlace, FilterSpec};
use crate::media::demux::access::Playlists;
use crate::media::demux::input::Input;
use crate::media::ffmpeg::start;
use crate::media::watch::Watch;

/// Reads all frames of a source one by one, without a pipeline.
pub struct FrameReader {
    input: Input,
    decoder: Decoder,
}

impl FrameReader {
    /// Opens the source and decodes its first frame.
    pub fn open(source: impl AsRef<OsStr>, threads: usize) -> Result<FrameReader> {
        start();
        let mut input = Input::open(source, Playlists::ByName, &Watch::default())?;
        let trim = input.trim(None, None);
        let filter = FilterSpec { deinterlace: Deinterlace::Off, ..FilterSpec::default() };
        let spec =
            DecodeSpec { trim, threads, filter, start: None, transfer: None, holds_display_matrix: false };
        let decoder = Decoder::open(&mut input, spec)?;
        Ok(FrameReader { input, decoder })
    }

    /// Format of the first frame. Call it before the first [`next_frame`](FrameReader::next_frame).
    pub fn format(&self) -> FrameFormat {
        self.decoder.format()
    }

    /// Number of frames by the container; 0 where it does not state one.
    pub(crate) fn frames_expected(&self) -> u64 {
        self.input.video().frames_expected
    }

    /// The next frame; `None` after the last.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.decoder.receive()? {
                return Ok(Some(frame));
            }
            if self.decoder.ended {
                return self.decoder.damage().error().map_or(Ok(None), Err);
            }
            match self.input.next_packet()? {
                Some(packet) if self.input.is_video(&packet) => self.decoder.send(packet)?,
                Some(_) => {}
                None => self.decoder.finish()?,
            }
        }
    }
}
