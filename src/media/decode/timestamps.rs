//! Timestamps of decoded frames: as their packets state them, repaired where they are missing or go back, and which packets
//! gave no frame.

use std::collections::BTreeMap;
use std::mem;

use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec};
use tracing::warn;

use crate::media::ffmpeg::MICROSECONDS;
use crate::media::stream::{Trim, VideoInfo};

/// Number of frames at an even pace after which a gap is reported.
const EVEN_FRAMES: u32 = 12;

/// The timestamps of one stream, from where it was opened or seeked to.
pub(crate) struct TimestampRepair {
    source: String,
    /// The wanted part: outside of it frames may be missing that are not read.
    part: Trim,
    time_base: Rational,
    is_constant: bool,
    /// Hidden frames of VP8 have packets of their own, which give no frame.
    has_hidden_frames: bool,
    /// Duration of a frame where neither its packet nor the next frame gives one.
    frame_ticks: i64,
    /// By pts, packets that were sent and gave no frame yet: FFmpeg before 6 does not carry the duration on the frame, and
    /// what never comes out is lost.
    pending: BTreeMap<i64, SentPacket>,
    packets: u64,
    /// pts of the first packet, if it is a keyframe.
    first_key: Option<i64>,
    /// Whether the first packet must be decodable, whatever its flags say: what damages a keyframe may clear them as well.
    starts_at_key: bool,
    /// Number of refused packets without pts, each of which is one of those pending.
    refused: u64,
    last_pts: Option<i64>,
    repaired: u64,
    even_frames: u32,
    gaps: u64,
}

/// A packet that was sent to the decoder.
struct SentPacket {
    duration: i64,
    checksum: u32,
}

/// The timestamps of a frame.
pub(crate) struct FrameTiming {
    pub pts: i64,
    pub duration: i64,
    /// CRC-32 of its packet; 0 if that is not known.
    pub checksum: u32,
    /// pts of packets before it that gave no frame.
    pub lost: Vec<i64>,
}

impl TimestampRepair {
    /// `starts_at_key`: not a broadcast, whose recordings start anywhere.
    pub fn new(
        source: &str,
        video: &VideoInfo,
        part: Trim,
        codec: codec::Id,
        starts_at_key: bool,
    ) -> TimestampRepair {
        TimestampRepair {
            source: source.to_owned(),
            part,
            time_base: video.time_base,
            is_constant: video.is_constant,
            has_hidden_frames: codec == codec::Id::VP8,
            frame_ticks: 1.rescale(video.frame_rate.invert(), video.time_base).max(1),
            pending: BTreeMap::new(),
            packets: 0,
            first_key: None,
            starts_at_key,
            refused: 0,
            last_pts: None,
            repaired: 0,
            even_frames: 0,
            gaps: 0,
        }
    }

    /// Restores the state before the first packet, which after a seek may be any.
    pub fn reset(&mut self) {
        self.starts_at_key = false;
        self.pending.clear();
        (self.packets, self.refused, self.repaired, self.gaps, self.even_frames) = (0, 0, 0, 0, 0);
        (self.first_key, self.last_pts) = (None, None);
    }

    /// pts of the last frame.
    pub fn last_pts(&self) -> Option<i64> {
        self.last_pts
    }

    /// Number of timestamps that were missing or went back.
    pub fn repaired(&self) -> u64 {
        self.repaired
    }

    /// Number of gaps in a stream of constant rate.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Usual duration of a frame, in microseconds.
    pub fn frame_us(&self) -> i64 {
        self.us(self.frame_ticks)
    }

    pub fn us(&self, pts: i64) -> i64 {
        pts.rescale(self.time_base, MICROSECONDS)
    }

    pub fn seconds(&self, pts: i64) -> f64 {
        pts as f64 * f64::from(self.time_base)
    }

    /// A packet is sent to the decoder; `is_shown`: the container does not discard its frame.
    pub fn sent(&mut self, packet: &ffmpeg::Packet, is_shown: bool) {
        if self.packets == 0 {
            self.first_key = packet.pts().filter(|_| packet.is_key());
        }
        self.packets += 1;
        if let Some(pts) = packet.pts().filter(|_| is_shown) {
            let checksum = crc32fast::hash(packet.data().unwrap_or_default());
            self.pending.insert(pts, SentPacket { duration: packet.duration(), checksum });
        }
    }

    /// The decoder refused a packet, of this pts if it is known. Returns whether that is damage: a recording that starts
    /// between two keyframes is complete.
    pub fn refused(&mut self, pts: Option<i64>) -> bool {
        let is_damage = self.last_pts.is_some() || self.first_key.is_some() || self.starts_at_key;
        match pts {
            Some(pts) => drop(self.pending.remove(&pts)),
            None => self.refused += u64::from(is_damage),
        }
        is_damage
    }

    /// The timing of the next frame, derived from the previous frame where the source states none or goes back.
    pub fn next(&mut self, av_frame: &AvFrame) -> FrameTiming {
        let next = self.last_pts.map_or(0, |last| last.saturating_add(self.frame_ticks));
        let stated = av_frame.timestamp();
        // A doubled timestamp is moved by one tick, so that the frames after it keep theirs.
        let pts = match (stated, self.last_pts) {
            (Some(stated), Some(last)) if stated <= last && last - stated < self.frame_ticks => last + 1,
            (Some(stated), Some(last)) if stated <= last => next,
            (stated, _) => stated.unwrap_or(next),
        };
        if stated != Some(pts) {
            self.repaired += 1;
            // The first is logged, the report counts.
            if self.repaired == 1 {
                let source = &self.source;
                match stated {
                    Some(stated) => {
                        warn!("{source}: timestamp {stated} goes back or repeats; it is set to {pts}")
                    }
                    None => warn!("{source}: a frame has no timestamp; it is set to {pts}"),
                }
            }
        }
        let packet = self.pending.remove(&pts).unwrap_or(SentPacket { duration: 0, checksum: 0 });
        let lost = self.lost_before(pts);
        // A repaired timestamp says nothing about others, and the second field of a frame has one of its own.
        let lost = if stated == Some(pts) && !av_frame.is_interlaced() { lost } else { Vec::new() };
        self.note_gap(pts);
        self.last_pts = Some(pts);
        let duration = if packet.duration > 0 { packet.duration } else { self.frame_ticks };
        FrameTiming { pts, duration, checksum: packet.checksum, lost }
    }

    /// Timestamps before `pts` that were sent and gave no frame. Those before the first frame that is decodable from the
    /// start of the file are not damage.
    pub fn lost_before(&mut self, pts: i64) -> Vec<i64> {
        let later = self.pending.split_off(&pts);
        let lost = mem::replace(&mut self.pending, later);
        let starts_here = self.first_key.map_or(self.starts_at_key, |key| lost.contains_key(&key));
        let is_leading = self.last_pts.is_none() && !starts_here;
        if is_leading || self.has_hidden_frames {
            return Vec::new();
        }
        let from = self.last_pts.map_or(i64::MIN, |last| last.saturating_add(1));
        let lost = lost.range(from..).map(|(&pts, _)| pts);
        // Refused packets are noted already.
        let known = usize::try_from(mem::take(&mut self.refused)).unwrap_or(usize::MAX);
        lost.skip(known).collect()
    }

    /// Counts gaps and logs the first. They are not damage: frames may be lost there, but a video may also stand still.
    fn note_gap(&mut self, pts: i64) {
        let Some(last) = self.last_pts.filter(|_| self.is_constant) else { return };
        if 2 * pts.saturating_sub(last) < 3 * self.frame_ticks {
            self.even_frames += 1;
            return;
        }
        let is_wanted = self.part.contains(self.us(last)) && self.part.contains(self.us(pts));
        if self.even_frames >= EVEN_FRAMES && is_wanted {
            self.gaps += 1;
            if self.gaps == 1 {
                let (from, to) = (self.seconds(last + self.frame_ticks), self.seconds(pts));
                let source = &self.source;
                warn!(
                    "{source}: there are no frames from {from:.3} to {to:.3} s; the previous frame is held"
                );
            }
        }
        self.even_frames = 0;
    }
}
