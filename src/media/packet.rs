//! A packet between demuxer and muxer, with its stream and time base.

use ffmpeg_next::packet::{Mut, Ref};
use ffmpeg_next::{self as ffmpeg, Rescale, ffi, format};

use crate::media::ffmpeg::{MICROSECONDS, check, time_base_of};
use crate::media::pattern::Numbering;

/// A demuxed or encoded packet.
pub struct Packet {
    pub(crate) packet: ffmpeg::Packet,
    /// Index among the input's streams, which determines the output's stream.
    pub(crate) stream: usize,
    pub(crate) time_base: ffmpeg::Rational,
    /// Index of the encoded frame; 0 for copied packets.
    pub(crate) index: u64,
}

impl Packet {
    /// A packet of this size, with a time in microseconds.
    #[cfg(test)]
    pub fn of_test(time_us: i64, size: usize, is_key: bool) -> Packet {
        let mut packet = ffmpeg::Packet::new(size);
        packet.set_pts(Some(time_us));
        packet.set_dts(Some(time_us));
        if is_key {
            packet.set_flags(ffmpeg::packet::Flags::KEY);
        }
        Packet { packet, stream: 0, time_base: MICROSECONDS, index: 0 }
    }

    /// The payload.
    pub fn data(&self) -> &[u8] {
        self.packet.data().unwrap_or_default()
    }

    /// Payload in bytes.
    pub fn size(&self) -> usize {
        self.packet.size()
    }

    /// Number of the encoded frame in an image sequence.
    pub fn number(&self, numbering: Numbering) -> u64 {
        numbering.number(self.index, self.packet.pts().unwrap_or_default())
    }

    /// End of the encoded frame, in seconds of its source's clock.
    pub fn end_s(&self) -> f64 {
        let end = self.packet.pts().unwrap_or_default().saturating_add(self.packet.duration());
        time_base_of(self.time_base).seconds(end)
    }

    /// dts in microseconds; `i64::MIN` if unknown.
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

    /// Duration in microseconds; 0 if unknown.
    pub fn duration_us(&self) -> i64 {
        self.packet.duration().rescale(self.time_base, MICROSECONDS)
    }

    /// pts plus duration, in microseconds.
    pub fn end_us(&self) -> i64 {
        self.pts_us().saturating_add(self.duration_us())
    }

    /// pts in ticks of its time base; `i64::MIN` if unknown.
    pub fn pts(&self) -> i64 {
        self.packet.pts().unwrap_or(i64::MIN)
    }

    /// pts in microseconds; `i64::MIN` if unknown.
    pub fn pts_us(&self) -> i64 {
        self.packet.pts().map_or(i64::MIN, |pts| pts.rescale(self.time_base, MICROSECONDS))
    }

    /// The packet with timestamps in microseconds, shifted by `offset_us`.
    pub fn shifted_by_us(mut self, offset_us: i64) -> Packet {
        let us = |time: i64| time.rescale(self.time_base, MICROSECONDS) + offset_us;
        let (pts, dts) = (self.packet.pts().map(us), self.packet.dts().map(us));
        let duration = self.packet.duration().rescale(self.time_base, MICROSECONDS);
        self.packet.set_pts(pts.or(dts));
        self.packet.set_dts(dts.or(pts));
        self.packet.set_duration(duration);
        Packet { time_base: MICROSECONDS, ..self }
    }

    /// Whether it is a keyframe.
    pub fn is_key(&self) -> bool {
        self.packet.is_key()
    }

    /// A second reference to the same payload.
    pub fn share(&self) -> Packet {
        let mut packet = ffmpeg::Packet::empty();
        // SAFETY: both packets are alive; the new one references the payload of the other.
        let code = unsafe { ffi::av_packet_ref(packet.as_mut_ptr(), self.packet.as_ptr()) };
        check(code).expect("no memory for a packet");
        Packet { packet, stream: self.stream, time_base: self.time_base, index: self.index }
    }
}
/// Hands a packet to the muxer, even one without payload, which ffmpeg-next's own call refuses.
pub(crate) fn write_packet(
    packet: &ffmpeg::Packet,
    context: &mut format::context::Output,
) -> Result<(), ffmpeg::Error> {
    // SAFETY: both are alive; the muxer makes references to the packet and changes nothing in it.
    check(unsafe { ffi::av_write_frame(context.as_mut_ptr(), packet.as_ptr().cast_mut()) }).map(drop)
}
