//! Captions on the way through filters that drop and repeat frames. Those of a dropped frame go to the next one that is
//! returned, and a repeated frame has its captions once.
//!
//! In: decoded frames, and those that leave the filters. Out: the same frames with other captions. Frames are numbered in
//! their `opaque` field, which filters copy like every property.

use std::collections::VecDeque;

use ffmpeg_next::ffi::AVFrameSideDataType::AV_FRAME_DATA_A53_CC;
use ffmpeg_next::frame::Video as AvFrame;

use crate::media::side_data::{add_to_frame, take};

/// Bytes of a caption: its type and a pair of characters.
const CAPTION_BYTES: usize = 3;
/// Captions that a frame can have (CEA-708, 5 bits).
const CAPTIONS_MAX: usize = 31;

/// Captions of the frames that are inside of the filters.
#[derive(Default)]
pub(crate) struct Captions {
    /// Number of the last frame that was sent, counted from 1.
    sent: usize,
    /// Captions by the number of their frame.
    waiting: VecDeque<(usize, [u8; CAPTION_BYTES])>,
}

impl Captions {
    /// Takes the captions of a frame that is sent to the filters.
    pub fn send(&mut self, av_frame: &mut AvFrame) {
        self.sent += 1;
        let bytes = take(av_frame, AV_FRAME_DATA_A53_CC).unwrap_or_default();
        let captions = bytes.as_chunks().0.iter();
        self.waiting.extend(captions.map(|caption| (self.sent, *caption)));
        // SAFETY: the frame is owned, and nothing reads the address that its number is.
        unsafe { (*av_frame.as_mut_ptr()).opaque = std::ptr::without_provenance_mut(self.sent) };
    }

    /// Gives a frame that left the filters its captions, and those of the frames before it that did not.
    pub fn receive(&mut self, av_frame: &mut AvFrame) {
        // SAFETY: the frame is owned.
        let opaque = unsafe { &mut (*av_frame.as_mut_ptr()).opaque };
        let number = std::mem::replace(opaque, std::ptr::null_mut()).addr();
        let due = self.waiting.iter().take_while(|(of, _)| *of <= number).count().min(CAPTIONS_MAX);
        if due > 0 {
            let bytes: Vec<u8> = self.waiting.drain(..due).flat_map(|(_, caption)| caption).collect();
            add_to_frame(av_frame, AV_FRAME_DATA_A53_CC, &bytes);
        }
    }

    /// Number of captions for which there was no frame.
    pub fn left(&self) -> usize {
        self.waiting.len()
    }
}
