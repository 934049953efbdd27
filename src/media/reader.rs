//! All pictures of a source one by one, without a pipeline.

use super::decode::{DecodeSpec, Decoder, Trim};
use super::filter::{Deinterlace, FilterSpec};
use super::input::Input;
use crate::error::Result;
use crate::picture::{Geometry, Picture};

/// All pictures of a source one by one, for those who need no pipeline.
pub struct PictureReader {
    input: Input,
    decoder: Decoder,
}

impl PictureReader {
    /// Opens the source and decodes its first picture.
    pub fn open(source: &str, threads: usize) -> Result<PictureReader> {
        let mut input = Input::open(source)?;
        let trim = Trim::new(&input, None, None);
        let filter = FilterSpec { deinterlace: Deinterlace::Off, graph: None };
        let decoder =
            Decoder::open(&mut input, DecodeSpec { trim, threads, filter, begin: None, transfer: None })?;
        Ok(PictureReader { input, decoder })
    }

    /// What the pictures are, by the first one: to be asked before that is taken.
    pub fn geometry(&self) -> Geometry {
        self.decoder.geometry()
    }

    /// The next picture; `None` after the last.
    pub fn next_picture(&mut self) -> Result<Option<Picture>> {
        loop {
            if let Some(picture) = self.decoder.receive()? {
                return Ok(Some(picture));
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
