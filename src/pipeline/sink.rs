//! Where a run's packets go.

use super::resume::ResumeState;
use crate::error::Result;
use crate::media::{Cut, Muxer, Packet, Transcoders};

/// Where packets go.
pub enum Sink {
    /// Into the output as they come, among those that are copied: for pipes, still frames and what else cannot be
    /// joined from parts, and for what cannot be read twice.
    Direct {
        /// Its header written.
        muxer: Box<Muxer>,
        /// Of streams that are not copied as they are.
        transcoders: Transcoders,
    },
    /// Into segments, to be joined when all are there, or into files of their own.
    Segments {
        /// Who keeps them.
        store: Box<dyn Store>,
        /// Which ones are wanted.
        resume_state: ResumeState,
    },
}

/// Who keeps segments.
pub trait Store: Send {
    /// The next packet of the segment.
    fn write(&mut self, packet: Packet) -> Result<()>;
    /// The segment has all its packets.
    fn close(&mut self, cut: Cut) -> Result<()>;
}
