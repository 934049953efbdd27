//! When decoded frames are shown: what their packets said, what is made up where they said nothing, and which packets
//! no frame came of.

use std::collections::BTreeMap;
use std::mem;

use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec};
use tracing::warn;

use crate::media::ffmpeg::MICROSECONDS;
use crate::media::stream::VideoInfo;

/// So many frames at an even pace make a gap after them worth a word.
const EVEN_FRAMES: u32 = 12;

/// The times of one stream, from where it was opened or seeked to.
pub(crate) struct Times {
    source: String,
    time_base: Rational,
    is_constant: bool,
    /// Hidden frames of VP8 have packets of their own, of which no frame comes.
    has_hidden: bool,
    /// Length of a frame where neither its packet nor its successor tells.
    usual_duration: i64,
    /// pts -> duration of packets that went in and did not come out yet: FFmpeg before 6 does not carry it on the
    /// frame, and what never comes out is lost.
    awaited: BTreeMap<i64, i64>,
    packets: u64,
    /// pts of the first packet, if decoding can begin with it.
    first_key: Option<i64>,
    /// Whether decoding is to begin with the first packet, whatever is said of that: what damages a keyframe may take the
    /// word for it as well.
    begins_whole: bool,
    /// Packets refused that stand for one of those awaited, it is not known which.
    refused: u64,
    last_pts: Option<i64>,
    repaired: u64,
    even: u32,
    gaps: u64,
}

impl Times {
    /// `begins_whole`: not a broadcast, whose recordings begin anywhere.
    pub fn new(source: &str, video: &VideoInfo, codec: codec::Id, begins_whole: bool) -> Times {
        Times {
            source: source.to_owned(),
            time_base: video.time_base,
            is_constant: video.is_constant,
            has_hidden: codec == codec::Id::VP8,
            usual_duration: 1.rescale(video.frame_rate.invert(), video.time_base).max(1),
            awaited: BTreeMap::new(),
            packets: 0,
            first_key: None,
            begins_whole,
            refused: 0,
            last_pts: None,
            repaired: 0,
            even: 0,
            gaps: 0,
        }
    }

    /// As before a first packet, which may be any.
    pub fn forget(&mut self) {
        self.begins_whole = false;
        self.awaited.clear();
        (self.packets, self.refused, self.repaired, self.gaps, self.even) = (0, 0, 0, 0, 0);
        (self.first_key, self.last_pts) = (None, None);
    }

    /// Of the last frame.
    pub fn last_pts(&self) -> Option<i64> {
        self.last_pts
    }

    /// Times that were missing or went back.
    pub fn repaired(&self) -> u64 {
        self.repaired
    }

    /// How often no frame came for a while where they had come evenly.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    pub fn usual_us(&self) -> i64 {
        self.us(self.usual_duration)
    }

    pub fn us(&self, pts: i64) -> i64 {
        pts.rescale(self.time_base, MICROSECONDS)
    }

    pub fn seconds(&self, pts: i64) -> f64 {
        pts as f64 * f64::from(self.time_base)
    }

    /// A packet goes in; `shown` is whether the container wants a frame of it.
    pub fn sent(&mut self, packet: &ffmpeg::Packet, shown: bool) {
        if self.packets == 0 {
            self.first_key = packet.pts().filter(|_| packet.is_key());
        }
        self.packets += 1;
        if let Some(pts) = packet.pts().filter(|_| shown) {
            self.awaited.insert(pts, packet.duration());
        }
    }

    /// The decoder refused a packet, of this time if that is known. Whether that is damage: a recording that begins
    /// between two keyframes is whole.
    pub fn refused(&mut self, pts: Option<i64>) -> bool {
        let counts = self.last_pts.is_some() || self.first_key.is_some() || self.begins_whole;
        match pts {
            Some(pts) => drop(self.awaited.remove(&pts)),
            None => self.refused += u64::from(counts),
        }
        counts
    }

    /// (pts, duration) of the next frame, made up from the one before where the source has none or goes back; and the
    /// times of lost ones before it.
    pub fn of(&mut self, av_frame: &AvFrame) -> (i64, i64, Vec<i64>) {
        let next = self.last_pts.map_or(0, |last| last.saturating_add(self.usual_duration));
        let told = av_frame.timestamp();
        // A doubled time goes a tick further, so that the frames after it keep theirs.
        let pts = match (told, self.last_pts) {
            (Some(told), Some(last)) if told <= last && last - told < self.usual_duration => last + 1,
            (Some(told), Some(last)) if told <= last => next,
            (told, _) => told.unwrap_or(next),
        };
        if told != Some(pts) {
            self.repaired += 1;
            // One line tells, the report counts.
            if self.repaired == 1 {
                let (source, last) = (&self.source, self.last_pts);
                warn!(
                    "{source}: a frame has time {told:?}, which does not follow {last:?}; it is given {pts}"
                );
            }
        }
        let duration = self.awaited.remove(&pts).filter(|&duration| duration > 0);
        let lost = self.lost_before(pts);
        // Where times are made up nothing is known of others, and the second field of a frame has one of its own.
        let lost = if told == Some(pts) && !av_frame.is_interlaced() { lost } else { Vec::new() };
        self.tell_gap(pts);
        self.last_pts = Some(pts);
        (pts, duration.unwrap_or(self.usual_duration), lost)
    }

    /// Times before `pts` that went in and did not come out. Those before the first frame that can be decoded from
    /// where the file begins are no damage.
    pub fn lost_before(&mut self, pts: i64) -> Vec<i64> {
        let later = self.awaited.split_off(&pts);
        let lost = mem::replace(&mut self.awaited, later);
        let begins_here = self.first_key.map_or(self.begins_whole, |key| lost.contains_key(&key));
        let leading = self.last_pts.is_none() && !begins_here;
        if leading || self.has_hidden {
            return Vec::new();
        }
        let from = self.last_pts.map_or(i64::MIN, |last| last.saturating_add(1));
        let lost = lost.range(from..).map(|(&pts, _)| pts);
        // What was refused is told already.
        let known = usize::try_from(mem::take(&mut self.refused)).unwrap_or(usize::MAX);
        lost.skip(known).collect()
    }

    /// A container that lost some of its frames does not say so. A video may stand still as well: it is told, and
    /// not taken for damage.
    fn tell_gap(&mut self, pts: i64) {
        let Some(last) = self.last_pts.filter(|_| self.is_constant) else { return };
        if 2 * pts.saturating_sub(last) < 3 * self.usual_duration {
            self.even += 1;
            return;
        }
        if self.even >= EVEN_FRAMES {
            self.gaps += 1;
            if self.gaps == 1 {
                let (from, to) = (self.seconds(last + self.usual_duration), self.seconds(pts));
                let source = &self.source;
                warn!("{source}: there are no frames from {from:.3} to {to:.3} s; the one before stays");
            }
        }
        self.even = 0;
    }
}
