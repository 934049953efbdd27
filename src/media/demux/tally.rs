//! Tally: what was read of each stream besides the video, to be compared when the source is read again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::media::packet::Packet;
use crate::media::stream::Trim;

/// Tallies by stream index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamTallies(BTreeMap<usize, StreamTally>);

/// Packets of a stream that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct StreamTally {
    packets: u64,
    bytes: u64,
    /// First and last time, in microseconds.
    times_us: Option<(i64, i64)>,
}

impl StreamTallies {
    /// Counts a packet, if it lies within `part`.
    pub(crate) fn count(&mut self, packet: &Packet, part: &Trim) {
        let time_us = packet.dts_us();
        if !part.contains(time_us) && !part.is_everything() {
            return;
        }
        let tally = self.0.entry(packet.stream).or_default();
        tally.packets += 1;
        tally.bytes += packet.size() as u64;
        let first_us = tally.times_us.map_or(time_us, |(first_us, _)| first_us);
        tally.times_us = Some((first_us, time_us));
    }

    /// Describes the first stream of which something else was read `now`.
    pub fn difference(&self, now: &StreamTallies) -> Option<String> {
        let mut streams: Vec<usize> = self.0.keys().chain(now.0.keys()).copied().collect();
        streams.sort_unstable();
        let tally = |of: &StreamTallies, stream: usize| of.0.get(&stream).cloned().unwrap_or_default();
        let differs = |&stream: &usize| tally(self, stream) != tally(now, stream);
        streams.into_iter().find(differs).map(|stream| {
            let (before, now) = (tally(self, stream), tally(now, stream));
            let at = |tally: &StreamTally| tally.times_us.map_or(0.0, |(_, last_us)| last_us as f64 / 1e6);
            let StreamTally { packets, bytes, .. } = before;
            format!(
                "stream {stream} gives {} packets, {} bytes up to {:.3} s, and gave {packets} packets, {bytes} bytes up \
                 to {:.3} s before",
                now.packets,
                now.bytes,
                at(&now),
                at(&before)
            )
        })
    }
}
