//! Which frames are interlaced: by their flags, unless what moves in them contradicts.
//!
//! In: decoded frames in order. Out: the same frames some later, flagged as what they are. Frames with a flag are judged
//! apart from those without, each by the motion in the frames that follow it ([`AHEAD`]) and have the same flag. A
//! judgement holds until the motion contradicts it, so that still and black frames change nothing.

use std::collections::VecDeque;

use ffmpeg_next::ffi;
use ffmpeg_next::{Rational, codec};
use tracing::{info, warn};

use crate::media::av_frame::{fields_of, set_fields};
use crate::media::decode::fields::{Motion, motion};
use crate::media::decode::timed_frame::TimedFrame;
use crate::media::demux::input::Input;

/// Number of frames after a frame that are examined before it is returned: less than half a second, and enough for the two
/// frames in five that are combed in telecined video to be counted.
pub(crate) const AHEAD: usize = 10;
/// Of these, the least number with motion between fields, and the least number without.
const FIELDS_MIN: usize = 4;
const WHOLE_MIN: usize = 5;
/// How many times more frames must support a judgement than contradict it.
const MAJORITY: usize = 8;
/// Distance of the frames that are examined where nothing contradicts.
const SPARSE: u64 = 3;
/// No interlaced video has fewer lines than a quarter of NTSC, or more lines or fps than 1080i.
const LINES: std::ops::RangeInclusive<i32> = 200..=1152;
const RATE_MAX: f64 = 30.5;
/// Changes that are logged; the report counts all.
const LOGGED_MAX: u64 = 10;

/// Codecs without fields. Those of images call interlaced what is shown at several resolutions.
const FIELDLESS: [codec::Id; 7] = [
    codec::Id::VP8,
    codec::Id::VP9,
    codec::Id::AV1,
    codec::Id::GIF,
    codec::Id::PNG,
    codec::Id::APNG,
    codec::Id::WEBP,
];
/// Codecs whose frames state whether they are interlaced. For others the container does.
const WITH_FLAGS: [codec::Id; 8] = [
    codec::Id::MPEG1VIDEO,
    codec::Id::MPEG2VIDEO,
    codec::Id::H264,
    codec::Id::HEVC,
    codec::Id::VC1,
    codec::Id::DVVIDEO,
    codec::Id::PRORES,
    codec::Id::DNXHD,
];

/// What frames of a source are judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ScanSpec {
    /// Whether their motion is examined: those of some sources cannot be interlaced.
    is_examined: bool,
    /// Whether the top field comes first, where the container states a field order and the codec has no flags.
    pub container_top_first: Option<bool>,
    /// Number of frames before the first one, none of which was deinterlaced.
    before: u64,
}

impl ScanSpec {
    /// `before`: number of frames before the one where decoding starts.
    pub fn of(input: &Input, before: u64) -> ScanSpec {
        use ffi::AVFieldOrder::*;
        let parameters = input.video_parameters();
        // SAFETY: the parameters are owned and alive.
        let (height, field_order) = unsafe {
            let raw = &*parameters.as_ptr();
            (raw.height, raw.field_order)
        };
        let video = input.video();
        let has_fields = !is_fieldless(parameters.id());
        let is_examined = has_fields
            && LINES.contains(&height)
            && f64::from(video.frame_rate) <= RATE_MAX
            && video.frames_expected != 1;
        let container_top_first = match field_order {
            AV_FIELD_TT | AV_FIELD_TB => Some(true),
            AV_FIELD_BB | AV_FIELD_BT => Some(false),
            _ => None,
        };
        let is_needed = has_fields && !WITH_FLAGS.contains(&parameters.id());
        ScanSpec { is_examined, container_top_first: container_top_first.filter(|_| is_needed), before }
    }

    /// Number of frames that wait for those after them.
    pub fn ahead(&self) -> usize {
        if self.is_examined { AHEAD } else { 0 }
    }
}

/// Whether the frames of a codec have no fields, whatever their flags say.
pub(crate) fn is_fieldless(id: codec::Id) -> bool {
    FIELDLESS.contains(&id)
}

/// What frames with the same flag are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Judgement {
    AsFlagged,
    Interlaced { top_first: bool },
    Progressive,
}

/// Flags the frames of one source as what they are.
pub(crate) struct ScanDetector {
    source: String,
    time_base: Rational,
    spec: ScanSpec,
    waiting: VecDeque<Examined>,
    /// Motion in the frame that went out last.
    last: Option<Motion>,
    /// Of frames that are not flagged as interlaced, and of those that are.
    judgements: [Judgement; 2],
    /// Numbers of frames that came in, and that went out.
    frames_in: u64,
    frames_out: u64,
    was_interlaced: bool,
    changes: u64,
    may_differ: bool,
}

/// A frame and what was found in it.
struct Examined {
    timed: TimedFrame,
    /// By its flags.
    top_first: bool,
    is_flagged: bool,
    /// `None` where it was not examined.
    motion: Option<Motion>,
}

/// Numbers of waiting frames by the motion in them.
#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    top_first: usize,
    bottom_first: usize,
    whole: usize,
}

impl ScanDetector {
    pub fn new(source: &str, time_base: Rational, spec: ScanSpec) -> ScanDetector {
        let unflagged = match spec.container_top_first {
            Some(top_first) if spec.is_examined && spec.before == 0 => Judgement::Interlaced { top_first },
            _ => Judgement::AsFlagged,
        };
        // Decoding starts in mid-stream only where no frame is deinterlaced.
        let flagged = if spec.before > 0 { Judgement::Progressive } else { Judgement::AsFlagged };
        ScanDetector {
            source: source.to_owned(),
            time_base,
            spec,
            waiting: VecDeque::new(),
            last: None,
            judgements: [unflagged, flagged],
            frames_in: spec.before,
            frames_out: spec.before,
            was_interlaced: false,
            changes: 0,
            may_differ: false,
        }
    }

    /// How often deinterlacing began or ended.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether frames might be judged otherwise if decoding had started later.
    pub fn may_differ(&self) -> bool {
        self.may_differ
    }

    /// Takes a frame. Call [`ScanDetector::next`] until it returns `None`.
    pub fn push(&mut self, timed: TimedFrame) {
        let (is_flagged, top_first) = fields_of(&timed.av_frame);
        self.waiting.push_back(Examined { timed, top_first, is_flagged, motion: None });
        self.frames_in += 1;
        if self.spec.is_examined && self.waiting.len() >= 3 {
            self.examine_last();
        }
    }

    /// Examines the frame before the last one, or not all where nothing contradicts their flags.
    fn examine_last(&mut self) {
        let last = self.waiting.len() - 2;
        let is_suspect =
            |frame: &Examined| frame.is_flagged || matches!(frame.motion, Some(Motion::Fields { .. }));
        let is_suspected =
            matches!(self.judgements[0], Judgement::Interlaced { .. }) || self.waiting.iter().any(is_suspect);
        if is_suspected || self.frames_in.is_multiple_of(SPARSE) {
            self.examine(last);
        }
        if !is_suspected && is_suspect(&self.waiting[last]) {
            (1..last).for_each(|at| self.examine(at));
        }
    }

    fn examine(&mut self, at: usize) {
        if self.waiting[at].motion.is_none() {
            let frames = [at - 1, at, at + 1].map(|at| &self.waiting[at].timed.av_frame);
            self.waiting[at].motion = Some(motion(frames));
        }
    }

    /// The next frame, once those after it are known.
    pub fn next(&mut self) -> Option<TimedFrame> {
        if self.waiting.len() > self.spec.ahead() { self.judged() } else { None }
    }

    /// The next frame at the end of the stream; `None` after the last.
    pub fn finish(&mut self) -> Option<TimedFrame> {
        self.judged()
    }

    fn judged(&mut self) -> Option<TimedFrame> {
        let Examined { is_flagged, top_first: flagged_top_first, .. } = *self.waiting.front()?;
        if self.spec.is_examined {
            self.judge(is_flagged);
        }
        let Examined { mut timed, motion, .. } = self.waiting.pop_front()?;
        self.last = motion;
        let (is_interlaced, top_first) = match self.judgements[usize::from(is_flagged)] {
            Judgement::AsFlagged => (is_flagged, flagged_top_first),
            Judgement::Interlaced { top_first } => (true, top_first),
            Judgement::Progressive => (false, flagged_top_first),
        };
        if (is_interlaced, top_first) != (is_flagged, flagged_top_first) {
            set_fields(&mut timed.av_frame, is_interlaced, top_first);
        }
        if is_interlaced != self.was_interlaced {
            self.changes += u64::from(self.frames_out > self.spec.before);
            self.was_interlaced = is_interlaced;
        }
        self.may_differ |= is_interlaced;
        self.frames_out += 1;
        Some(timed)
    }

    /// Judges the first of the waiting frames by those with the same flag.
    fn judge(&mut self, is_flagged: bool) {
        let mut counts = Counts::default();
        for frame in self.waiting.iter().filter(|frame| frame.is_flagged == is_flagged) {
            match frame.motion {
                Some(Motion::Fields { top_first: true }) => counts.top_first += 1,
                Some(Motion::Fields { top_first: false }) => counts.bottom_first += 1,
                Some(Motion::Whole) => counts.whole += 1,
                Some(Motion::Unknown) | None => {}
            }
        }
        self.may_differ |= !is_flagged && counts.top_first.max(counts.bottom_first) >= FIELDS_MIN;
        // The frames on both sides of a cut look progressive, as half of what they are compared with is another scene.
        let [first, second] = [0, 1].map(|at| self.waiting.get(at).and_then(|frame| frame.motion));
        let is_fields = |motion: Option<Motion>| matches!(motion, Some(Motion::Fields { .. }));
        let starts_fields = is_fields(first) || is_fields(second);
        let starts_whole = match first {
            Some(Motion::Whole) => self.last == first && !is_fields(second),
            None => second == Some(Motion::Whole),
            _ => false,
        };
        let before = self.judgements[usize::from(is_flagged)];
        let judgement = counts.judge(before, is_flagged, [starts_fields, starts_whole]);
        if judgement != before {
            self.judgements[usize::from(is_flagged)] = judgement;
            self.log(before, judgement, is_flagged);
        }
    }

    fn log(&self, before: Judgement, judgement: Judgement, is_flagged: bool) {
        let Some(frame) = self.waiting.front() else { return };
        let order = |top_first: bool| if top_first { "top" } else { "bottom" };
        let what = match (judgement, is_flagged) {
            (Judgement::Interlaced { top_first }, false) => {
                format!("frames are interlaced, {} field first, but are not flagged so", order(top_first))
            }
            (Judgement::Interlaced { top_first }, true) if top_first != frame.top_first => {
                let (is, flagged) = (order(top_first), order(frame.top_first));
                format!("frames are interlaced, {is} field first, but are flagged as {flagged} field first")
            }
            (Judgement::Progressive, true) => "frames are flagged as interlaced, but are progressive".into(),
            (Judgement::Progressive, false) => "frames are progressive".into(),
            _ if before == Judgement::Progressive => "frames are interlaced as flagged".into(),
            _ => return,
        };
        let (source, index) = (&self.source, self.frames_out);
        let seconds = frame.timed.pts as f64 * f64::from(self.time_base);
        let is_first = index == self.spec.before;
        match judgement {
            _ if self.changes >= LOGGED_MAX => {}
            Judgement::Progressive if is_first => info!("{source}: {what}"),
            _ if is_first => warn!("{source}: {what}"),
            _ => warn!("{source}: from frame {index}, {seconds:.3} s, {what}"),
        }
    }
}

impl Counts {
    /// The judgement by these counts and the one before.
    fn judge(
        self,
        before: Judgement,
        is_flagged: bool,
        [starts_fields, starts_whole]: [bool; 2],
    ) -> Judgement {
        let Counts { top_first, bottom_first, whole } = self;
        let (more, less) = (top_first.max(bottom_first), top_first.min(bottom_first));
        // Of telecined video two frames in five are combed.
        let in_fields = more >= FIELDS_MIN && more >= MAJORITY * less && 2 * more >= whole;
        // A flag needs less support.
        let as_flagged = is_flagged && before == Judgement::Progressive && more + less >= 2;
        match () {
            () if starts_fields && in_fields => Judgement::Interlaced { top_first: top_first > bottom_first },
            () if starts_fields && as_flagged => Judgement::AsFlagged,
            () if starts_whole && whole >= WHOLE_MIN && whole >= MAJORITY * (more + less) => {
                Judgement::Progressive
            }
            () => before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Judgement::{AsFlagged, Interlaced, Progressive};

    #[test]
    fn flags_hold_unless_the_motion_of_several_frames_contradicts_them() {
        const TOP: Judgement = Interlaced { top_first: true };
        const BOTTOM: Judgement = Interlaced { top_first: false };
        for (is_flagged, before, [top_first, bottom_first, whole], expected) in [
            (false, AsFlagged, [0, 0, 10], Progressive),
            (false, AsFlagged, [9, 0, 1], TOP),
            (false, AsFlagged, [0, 8, 2], BOTTOM),
            (false, Progressive, [9, 0, 1], TOP),
            (false, BOTTOM, [9, 0, 1], TOP),
            // Telecine.
            (false, AsFlagged, [4, 0, 7], TOP),
            (false, TOP, [4, 0, 7], TOP),
            // Flicker, and too few frames.
            (false, AsFlagged, [5, 5, 0], AsFlagged),
            (false, AsFlagged, [3, 0, 0], AsFlagged),
            (false, Progressive, [3, 0, 4], Progressive),
            // Nothing moves.
            (false, TOP, [0, 0, 0], TOP),
            (false, TOP, [0, 0, 4], TOP),
            (false, TOP, [0, 0, 5], Progressive),
            (true, AsFlagged, [0, 0, 0], AsFlagged),
            (true, AsFlagged, [1, 0, 7], AsFlagged),
            (true, AsFlagged, [1, 0, 8], Progressive),
            (true, Progressive, [0, 0, 0], Progressive),
            (true, Progressive, [1, 0, 4], Progressive),
            (true, Progressive, [1, 1, 8], AsFlagged),
            (true, Progressive, [0, 9, 0], BOTTOM),
        ] {
            let counts = Counts { top_first, bottom_first, whole };
            let found = counts.judge(before, is_flagged, [true, true]);
            assert_eq!(found, expected, "{counts:?} after {before:?}, {is_flagged}");
        }
    }
}
