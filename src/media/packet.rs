//! A packet between demuxer and muxer, with the stream and the clock that it belongs to.

use ffmpeg_next::{self as ffmpeg, Rescale, ffi};

use crate::frame::TimeBase;
use crate::media::demux::sequence::Numbering;
use crate::media::ffmpeg::MICROSECONDS;

/// A packet on its way to the muxer.
pub struct Packet {
    pub(crate) packet: ffmpeg::Packet,
    /// Index among the input's streams, which says where it goes in the output.
    pub(crate) stream: usize,
    pub(crate) time_base: ffmpeg::Rational,
    /// Of the frame that was coded; 0 of what is copied.
    pub(crate) index: u64,
}

impl Packet {
    /// Bytes of payload.
    pub fn size(&self) -> usize {
        self.packet.size()
    }

    /// Of the frame that was coded, in the sequence it goes into.
    pub fn number(&self, numbering: Numbering) -> u64 {
        numbering.number(self.index, self.packet.pts().unwrap_or_default())
    }

    /// Where the frame that was coded ends, in seconds of its source's clock.
    pub fn end_s(&self) -> f64 {
        let end = self.packet.pts().unwrap_or_default().saturating_add(self.packet.duration());
        TimeBase::from(self.time_base).seconds(end)
    }

    /// When it is to be decoded, in microseconds; before everything where nobody knows.
    pub fn dts_us(&self) -> i64 {
        let dts = self.packet.dts().or(self.packet.pts());
        dts.map_or(i64::MIN, |dts| dts.rescale(self.time_base, MICROSECONDS))
    }

    /// Whether this packet is to be written before `other`.
    pub fn precedes(&self, other: &Packet) -> bool {
        let (mine, theirs) = (self.packet.dts().unwrap_or(i64::MIN), other.packet.dts().unwrap_or(i64::MIN));
        // SAFETY: av_compare_ts computes with its arguments only.
        unsafe { ffi::av_compare_ts(mine, self.time_base.into(), theirs, other.time_base.into()) < 0 }
    }
}
