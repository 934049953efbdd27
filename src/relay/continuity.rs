//! Continuity: packets of a source whose clock jumps keep the times that are expected of them.
//!
//! In: the time of each packet of video and audio, and about which time it should have. Out: its time on one clock for all
//! streams. It has no clock of its own.
//!
//! Streams of one source do not jump at the same packet, and one of them may have a clock of its own: there are two offsets,
//! and each packet gets the one that brings it closer to what is expected.

/// The clock of one connection. All times are in microseconds.
pub(super) struct Continuity {
    /// How far a packet may be behind and ahead of what is expected.
    behind_us: i64,
    ahead_us: i64,
    /// Added to the source's times; the one that was used last comes first.
    offsets_us: [i64; 2],
    /// No packet had a time yet.
    is_new: bool,
}

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub time_us: i64,
    /// What was added to its time.
    pub offset_us: i64,
    /// No offset so far brings it close to what is expected: the clock has jumped.
    pub has_jumped: bool,
}

impl Continuity {
    pub fn new(behind_us: i64, ahead_us: i64) -> Continuity {
        Continuity { behind_us, ahead_us, offsets_us: [0; 2], is_new: true }
    }

    /// Places a packet. After a jump it gets the time `expected_us`, and so does the first one.
    pub fn place(&mut self, time_us: i64, expected_us: i64) -> Placed {
        let is_first = std::mem::take(&mut self.is_new);
        if is_first {
            self.offsets_us = [expected_us - time_us; 2];
        }
        let off_us = |offset_us: &i64| time_us.saturating_add(*offset_us).saturating_sub(expected_us);
        let is_near = |offset: &i64| (-self.behind_us..=self.ahead_us).contains(&off_us(offset));
        let near = self.offsets_us.into_iter().filter(is_near).min_by_key(|offset| off_us(offset).abs());
        let offset_us = near.unwrap_or(expected_us - time_us);
        let [last, other] = self.offsets_us;
        self.offsets_us = [offset_us, if offset_us == last { other } else { last }];
        Placed { time_us: time_us + offset_us, offset_us, has_jumped: near.is_none() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// Places packets of a second each, which are expected at 0, 1, 2 and so on. Returns their times in seconds and the jumps.
    fn placed(times: &[(i64, i64)]) -> (Vec<i64>, usize) {
        let mut continuity = Continuity::new(5 * SECOND, 3 * SECOND);
        let place = |&(expected, time): &(i64, i64)| continuity.place(time * SECOND, expected * SECOND);
        let placed: Vec<Placed> = times.iter().map(place).collect();
        let jumps = placed.iter().filter(|placed| placed.has_jumped).count();
        (placed.iter().map(|placed| placed.time_us / SECOND).collect(), jumps)
    }

    #[test]
    fn streams_that_jump_one_after_the_other_stay_in_step() {
        for jump in [-90_000, -7, 4, 100_000] {
            // Video and audio in turn; the audio jumps two packets later.
            let video = (0..10).map(|at| (at, 500 + at + if at >= 4 { jump } else { 0 }));
            let audio = (0..10).map(|at| (at, 500 + at + if at >= 6 { jump } else { 0 }));
            let both: Vec<_> = video.zip(audio).flat_map(|(video, audio)| [video, audio]).collect();
            let expected: Vec<i64> = (0..10).flat_map(|at| [at, at]).collect();
            assert_eq!(placed(&both), (expected, 1), "{jump}");
        }
    }

    #[test]
    fn a_stream_with_a_clock_of_its_own_is_one_jump() {
        let both: Vec<_> = (0..100).flat_map(|at| [(at, 500 + at), (at, 90_000 + at)]).collect();
        assert_eq!(placed(&both), ((0..100).flat_map(|at| [at, at]).collect(), 1));
    }

    #[test]
    fn a_stream_that_was_away_is_where_it_was() {
        let times: Vec<_> = [0, 1, 2, 40, 41].map(|at| (at, 700 + at)).into();
        assert_eq!(placed(&times), (vec![0, 1, 2, 40, 41], 0));
        // Stray packets of other clocks do not move it.
        let times = [(0, 10), (1, 11), (2, 5_000), (3, 13), (4, -80), (5, 15)];
        assert_eq!(placed(&times), (vec![0, 1, 2, 3, 4, 5], 2));
    }
}
