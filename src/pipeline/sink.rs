//! Where a run's packets go.

use super::resume::ResumeState;
use crate::error::Result;
use crate::frame::{Frame, Timestamp};
use crate::media::{Cut, Muxer, Packet, Transcoders};

/// Destination of a run's packets.
pub enum Sink {
    /// The output itself, which gets copied packets as well: for pipes, images, and outputs that cannot be joined from
    /// segments.
    Direct {
        /// Muxer whose header is written.
        muxer: Box<Muxer>,
        /// Transcoders of the streams that are not copied.
        transcoders: Transcoders,
    },
    /// Segments to be joined at the end, or the files of an image sequence.
    Segments {
        /// Writer of the segments.
        store: Box<dyn Store>,
        /// Transcoders of the streams that are not copied, where the store gets the packets of all streams because the input
        /// cannot be read twice; `None` where copied streams are read again for the join.
        transcoders: Option<Transcoders>,
        /// What earlier runs have finished.
        resume_state: ResumeState,
        /// Upscaled frames of segments that are not finished; `None` where none are kept.
        cache: Option<Box<dyn FrameCache>>,
    },
}

/// Upscaled frames of segments that are not finished. What it cannot keep or read is upscaled again.
pub trait FrameCache: Send {
    /// Whether an earlier run has kept the frame.
    fn has(&self, time: &Timestamp) -> bool;
    /// Reads a kept frame. Returns whether its samples are whole.
    fn restore(&mut self, time: &Timestamp, sr: &mut Frame) -> bool;
    /// Takes an upscaled frame, with the time of its source.
    fn keep(&mut self, frame: &Frame);
}

/// Writer of segments.
pub trait Store: Send {
    /// Writes the next packet of the segment.
    fn write(&mut self, packet: Packet) -> Result<()>;
    /// Closes the segment after its last packet.
    fn close(&mut self, cut: Cut) -> Result<()>;
}
