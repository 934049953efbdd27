//! Verify: the finished file is read back and compared with what was written. Packets are read, nothing is decoded.

use std::path::Path;
use std::time::Instant;

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, Rational, media};
use tracing::warn;

use crate::error::{Error, ErrorKind, Result};
use crate::media::demux::access::{Access, Playlists};
use crate::media::demux::open::open_by;
use crate::media::ffmpeg::{check, failure};
use crate::media::ffmpeg_log;
use crate::media::mux::language::same_language;
use crate::media::mux::summary::{DISPOSITIONS, StreamSummary, VerifiedStream};
use crate::media::output::Output;
use crate::media::path::url_of;
use crate::media::trial::same_codec;
use crate::media::watch::Watch;

/// Contents of the finished file.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Packets of the video stream.
    pub frames: u64,
    /// Seconds from the start of the first frame to the end of the last.
    pub duration_s: f64,
    /// pts of the first frame in seconds.
    pub first_pts_s: f64,
    /// pts of the last frame in seconds.
    pub last_pts_s: f64,
    /// Streams in the order of the file.
    pub streams: Vec<VerifiedStream>,
    /// Duration of the verification in seconds.
    pub seconds: f64,
}

/// The properties of a stream that survive in a container, as FFmpeg reads them back.
struct Preserved {
    timestamps: bool,
    languages: bool,
    dispositions: i32,
    packets: PreservedPackets,
}

/// The streams whose packets survive one to one, besides the video that was encoded.
#[derive(Clone, Copy, PartialEq)]
enum PreservedPackets {
    All,
    /// Those with packets of more than one sample: the demuxer regroups others, and MP4's text has packets for gaps.
    Compressed,
    /// None, as the demuxer parses them.
    None,
}

impl PreservedPackets {
    fn holds(self, stream: &StreamSummary) -> bool {
        match (self, stream.medium) {
            (PreservedPackets::None, _) => false,
            (PreservedPackets::All, media::Type::Subtitle) => true,
            (PreservedPackets::All, media::Type::Audio | media::Type::Video) => true,
            (PreservedPackets::Compressed, media::Type::Audio | media::Type::Video) => stream.is_compressed(),
            _ => false,
        }
    }
}

impl Preserved {
    fn by(output: &Output) -> Preserved {
        use ffi::{
            AV_DISPOSITION_COMMENT, AV_DISPOSITION_DEFAULT, AV_DISPOSITION_FORCED,
            AV_DISPOSITION_HEARING_IMPAIRED, AV_DISPOSITION_ORIGINAL, AV_DISPOSITION_VISUAL_IMPAIRED,
        };
        let (languages, dispositions) = match output.container() {
            "matroska" => (
                true,
                AV_DISPOSITION_DEFAULT
                    | AV_DISPOSITION_FORCED
                    | AV_DISPOSITION_HEARING_IMPAIRED
                    | AV_DISPOSITION_VISUAL_IMPAIRED
                    | AV_DISPOSITION_ORIGINAL
                    | AV_DISPOSITION_COMMENT,
            ),
            "webm" => (true, AV_DISPOSITION_DEFAULT | AV_DISPOSITION_FORCED),
            "mp4" | "mov" | "ipod" => (true, AV_DISPOSITION_DEFAULT),
            "mpegts" => (true, 0),
            _ => (false, 0),
        };
        // Other containers count frames, or are read back with some timestamps changed.
        let timestamps = output.is_mp4_family()
            || matches!(output.container(), "matroska" | "webm" | "mpegts" | "flv" | "nut");
        let packets = match output.container() {
            "matroska" | "webm" => PreservedPackets::All,
            "mp4" | "mov" | "ipod" | "nut" => PreservedPackets::Compressed,
            _ => PreservedPackets::None,
        };
        Preserved { timestamps, languages, dispositions, packets }
    }
}

/// Tolerance for timestamps: more than the rounding of any container, less than a packet of audio.
const TOLERANCE_US: i64 = 5_000;

/// What a user does about a file that differs from what was written, and about one that cannot be read.
const OTHER_CONTAINER: &str = "choose another container";
const CHECK_DISK: &str = "check the disk, and run the same command again";

/// Reads the file back; the error is the first difference from what was written.
pub(crate) fn verify(
    path: &Path,
    output: &Output,
    written: &[StreamSummary],
    video: usize,
    watch: &Watch,
) -> Result<Verification> {
    let started = Instant::now();
    let name = path.to_string_lossy();
    let (found, stated_us) = read(path, output, watch)?;
    let seen = compare(written, &found, video, &Preserved::by(output))
        .map_err(|problem| Error::new(&*name, problem, OTHER_CONTAINER).with_kind(ErrorKind::Unsupported))?;
    let s = |us: i64| us as f64 / 1e6;
    if let Some(end_us) = exceeded_end(written, stated_us).filter(|_| output.is_mp4_family()) {
        warn!("{name}: states {:.3} s, and its streams end at {:.3} s", s(stated_us), s(end_us));
    }
    let known = seen.first <= seen.last;
    Ok(Verification {
        frames: seen.packets,
        duration_s: if known { s(written[video].end - written[video].first) } else { 0.0 },
        first_pts_s: if known { s(seen.first) } else { 0.0 },
        last_pts_s: if known { s(seen.last) } else { 0.0 },
        streams: found.iter().map(StreamSummary::verified).collect(),
        seconds: (started.elapsed().as_secs_f64() * 1e3).round() / 1e3,
    })
}

/// The end of the streams, where the duration that the file states lies beyond it.
fn exceeded_end(written: &[StreamSummary], stated_us: i64) -> Option<i64> {
    /// More than any padding of audio.
    const PADDING_US: i64 = 100_000;
    let timed = || written.iter().filter(|stream| stream.first <= stream.last);
    let (start, end) = (timed().map(|stream| stream.first).min()?, timed().map(|stream| stream.end).max()?);
    // A container without negative timestamps begins at the first one.
    let end = end - start.min(0);
    (stated_us > end + PADDING_US).then_some(end)
}

/// Reads the file to its end; returns its streams and the duration that it states, in microseconds. Whatever the demuxer
/// complains about is an error.
fn read(path: &Path, output: &Output, watch: &Watch) -> Result<(Vec<StreamSummary>, i64)> {
    let name = path.to_string_lossy();
    // The name of an image is literal, no pattern.
    let options: ffmpeg::Dictionary = [("pattern_type", "none")].into_iter().collect();
    ffmpeg_log::take_demuxer_error();
    let url = url_of(path);
    let access = Access::of(&url.to_string_lossy(), Playlists::ByName);
    let mut context = open_by(None, &url, options, Some(access), &Watch::default()).map_err(|e| {
        let problem = format!("cannot be opened again: {e}");
        Error::new(&*name, problem, OTHER_CONTAINER).with_kind(ErrorKind::Unsupported).with_source(e)
    })?;
    let mut found: Vec<StreamSummary> = context.streams().map(|stream| StreamSummary::of(&stream)).collect();
    let mut clock = Unwrapped::new(output.container() == "mpegts");
    loop {
        if watch.is_stopped() {
            let problem = "its verification was interrupted";
            let error = Error::new(&*name, problem, "run the same command again");
            return Err(error.with_kind(ErrorKind::Interrupted));
        }
        // A new packet each time: reading into one leaks what it holds.
        let mut packet = ffmpeg::Packet::empty();
        match packet.read(&mut context) {
            Ok(()) => {
                let index = packet.stream();
                // Some demuxers add streams while they read.
                while let Some(next) = context.stream(found.len()).filter(|_| found.len() <= index) {
                    found.push(StreamSummary::of(&next));
                }
                let time_base = context.stream(index).map_or(Rational(1, 1), |stream| stream.time_base());
                packet.set_pts(packet.pts().map(|pts| clock.next(index, pts)));
                if packet.size() > 0 {
                    found[index].count(&packet, time_base, 0);
                }
            }
            Err(ffmpeg::Error::Eof) => break,
            Err(error) => return Err(failure(&*name, "cannot be read again", error, CHECK_DISK)),
        }
    }
    // The demuxers of some formats end a file at an error, or read on past it.
    // SAFETY: the context is alive; pb is null for demuxers that open files themselves.
    let code = unsafe { (*context.as_ptr()).pb.as_ref().map_or(0, |pb| pb.error) };
    check(code)
        .map_err(|e| failure(&*name, "cannot be read again", e, CHECK_DISK).with_kind(ErrorKind::Io))?;
    match ffmpeg_log::take_demuxer_error() {
        Some(line) => {
            let problem = format!("cannot be read again: {line}");
            Err(Error::new(&*name, problem, CHECK_DISK).with_kind(ErrorKind::Io))
        }
        None => Ok((found, context.duration())),
    }
}

/// The timestamps of a file, without the wrap of a transport stream's counter.
struct Unwrapped {
    wraps: bool,
    /// Last timestamp of each stream, and of any.
    last: Vec<Option<i64>>,
    newest: Option<i64>,
}

impl Unwrapped {
    /// Values of the counter: 33 bits (ISO/IEC 13818-1, 2.4.3.7).
    const PERIOD: i64 = 1 << 33;

    fn new(wraps: bool) -> Unwrapped {
        Unwrapped { wraps, last: Vec::new(), newest: None }
    }

    /// The timestamp, as many periods later as brings it nearest to the last one of its stream.
    fn next(&mut self, stream: usize, stated: i64) -> i64 {
        if !self.wraps {
            return stated;
        }
        if self.last.len() <= stream {
            self.last.resize(stream + 1, None);
        }
        let near = self.last[stream].or(self.newest).unwrap_or(stated);
        let periods = (near.saturating_sub(stated) + Self::PERIOD / 2).div_euclid(Self::PERIOD);
        let time = stated + periods * Self::PERIOD;
        (self.last[stream], self.newest) = (Some(time), Some(time));
        time
    }
}

/// Matches each written stream with one that was read. Returns the summary of the video, or the first difference.
fn compare<'a>(
    written: &[StreamSummary],
    found: &'a [StreamSummary],
    video: usize,
    preserved: &Preserved,
) -> std::result::Result<&'a StreamSummary, String> {
    let mut free: Vec<&StreamSummary> = found.iter().collect();
    let mut matched: Vec<&StreamSummary> = Vec::new();
    for (index, wanted) in written.iter().enumerate() {
        let alike = |seen: &&StreamSummary| {
            seen.is_attached() == wanted.is_attached()
                && (seen.medium == wanted.medium || wanted.is_attached())
                && same_codec(seen.id, wanted.id)
                && (!preserved.languages
                    || same_language(wanted.language.as_deref(), seen.language.as_deref()))
        };
        let Some(position) = free.iter().position(alike) else {
            let VerifiedStream { kind, codec, language, .. } = wanted.verified();
            let language = language.map_or(String::new(), |language| format!(", {language}"));
            return Err(format!("lacks stream {index} ({kind}, {codec}{language})"));
        };
        let seen = free.remove(position);
        let lost = wanted.disposition & preserved.dispositions & !seen.disposition;
        if let Some((_, name)) = DISPOSITIONS.iter().find(|(bit, _)| lost & bit != 0) {
            return Err(format!("lacks the disposition {name} of stream {index}"));
        }
        matched.push(seen);
    }
    let (wanted, seen) = (&written[video], matched[video]);
    if seen.packets != wanted.packets {
        return Err(format!("holds {} frames instead of {}", seen.packets, wanted.packets));
    }
    for (index, (wanted, seen)) in written.iter().zip(&matched).enumerate() {
        if preserved.packets.holds(wanted) && !wanted.is_attached() && seen.packets < wanted.packets {
            let (seen, wanted) = (seen.packets, wanted.packets);
            return Err(format!("holds {seen} packets of stream {index} instead of {wanted}"));
        }
    }
    if !preserved.timestamps || wanted.first > wanted.last || seen.first > seen.last {
        return Ok(seen);
    }
    // A container without negative timestamps shifts all streams alike.
    let shift = seen.first.saturating_sub(wanted.first);
    for (index, (wanted, seen)) in written.iter().zip(&matched).enumerate() {
        let timed = index == video || wanted.medium == media::Type::Audio;
        if !timed || wanted.first > wanted.last || seen.first > seen.last {
            continue;
        }
        // Demuxers cut audio of single samples anew.
        let ends = if wanted.mebibyte_us == 0 { (wanted.last, seen.last) } else { (wanted.end, seen.end) };
        for (verb, (wanted, seen)) in [("starts", (wanted.first, seen.first)), ("ends", ends)] {
            let wanted = wanted.saturating_add(shift);
            if wanted.abs_diff(seen) > TOLERANCE_US as u64 {
                let (seen, wanted) = (seen as f64 / 1e6, wanted as f64 / 1e6);
                return Err(format!("{verb} stream {index} at {seen:.3} s instead of {wanted:.3} s"));
            }
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use ffmpeg_next::codec;

    use super::*;

    fn summary(medium: media::Type, id: codec::Id, language: &str) -> StreamSummary {
        StreamSummary {
            medium,
            id,
            language: Some(language.to_owned()),
            disposition: ffi::AV_DISPOSITION_DEFAULT,
            mebibyte_us: 0,
            packets: 60,
            first: 0,
            last: 2_360_000,
            end: 2_400_000,
        }
    }

    #[test]
    fn packets_are_counted_where_they_survive() {
        use PreservedPackets::{All, Compressed, None};
        let stream = |medium, id| summary(medium, id, "und");
        let [aac, pcm] = [codec::Id::AAC, codec::Id::PCM_S16LE].map(|id| stream(media::Type::Audio, id));
        let text = stream(media::Type::Subtitle, codec::Id::SUBRIP);
        let held = |packets: PreservedPackets| [&aac, &pcm, &text].map(|stream| packets.holds(stream));
        assert_eq!(held(All), [true, true, true]);
        assert_eq!(held(Compressed), [true, false, false]);
        assert_eq!(held(None), [false, false, false]);
    }

    #[test]
    fn timestamps_of_a_transport_stream_are_unwrapped() {
        const DAY: i64 = 86_400 * 90_000;
        let mut clock = Unwrapped::new(true);
        let mut next =
            |stream: usize, time: i64| clock.next(stream, time.rem_euclid(Unwrapped::PERIOD)) - time;
        assert_eq!(next(0, DAY), 0);
        for quarter in [4, 5, 6, 5, 6, 7, 8, 9] {
            assert_eq!(next(0, quarter * DAY / 4), 0, "{quarter} quarters of a day");
        }
        assert_eq!(next(1, 2 * DAY), 0, "a stream that begins there");
        assert_eq!(Unwrapped::new(false).next(0, 5), 5);
    }

    #[test]
    fn it_is_interrupted() {
        crate::media::start();
        let file = tempfile::Builder::new().suffix(".y4m").tempfile().unwrap();
        let frame = [b"YUV4MPEG2 W2 H2 F25:1 C420jpeg\nFRAME\n".as_slice(), &[90; 6]].concat();
        std::fs::write(file.path(), frame).unwrap();
        let output = Output::new(file.path().to_str().unwrap(), "").unwrap();
        let stop = std::sync::Arc::new(true.into());
        let error = verify(file.path(), &output, &[], 0, &Watch::new(stop)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
    }

    #[test]
    fn a_stated_duration_beyond_the_end_is_found() {
        let mut written = [
            summary(media::Type::Video, codec::Id::H264, "und"),
            summary(media::Type::Audio, codec::Id::AAC, "und"),
        ];
        assert_eq!(exceeded_end(&written, 2_420_000), None);
        assert_eq!(exceeded_end(&written, 2_960_000), Some(2_400_000));
        // A file that states nothing.
        assert_eq!(exceeded_end(&written, i64::MIN), None);
        written[1].first = -500_000;
        assert_eq!(exceeded_end(&written, 2_960_000), None);
    }

    #[test]
    fn every_difference_is_found() {
        let written = [
            summary(media::Type::Audio, codec::Id::AAC, "ger"),
            summary(media::Type::Video, codec::Id::H264, "und"),
            summary(media::Type::Subtitle, codec::Id::ASS, "fre"),
        ];
        let preserved = Preserved {
            timestamps: true,
            languages: true,
            dispositions: ffi::AV_DISPOSITION_DEFAULT,
            packets: PreservedPackets::All,
        };
        let differs = |change: &dyn Fn(&mut Vec<StreamSummary>)| {
            let mut found = written.to_vec();
            change(&mut found);
            compare(&written, &found, 1, &preserved).err().unwrap_or_default()
        };
        assert_eq!(differs(&|_| ()), "");
        assert_eq!(differs(&|found| found.reverse()), "");
        assert_eq!(differs(&|found| found[0].language = Some("deu".into())), "");
        // All later, as in containers without negative timestamps.
        let later =
            |stream: &mut StreamSummary| (stream.first, stream.last) = (stream.first + 1, stream.last + 1);
        assert_eq!(differs(&|found| found.iter_mut().for_each(later)), "");
        assert_eq!(differs(&|found| found[1].packets = 59), "holds 59 frames instead of 60");
        assert_eq!(differs(&|found| found[0].packets = 59), "holds 59 packets of stream 0 instead of 60");
        assert_eq!(differs(&|found| found[2].packets = 0), "holds 0 packets of stream 2 instead of 60");
        assert_eq!(differs(&|found| found[0].packets = 61), "");
        assert_eq!(differs(&|found| drop(found.pop())), "lacks stream 2 (subtitle, ass, fre)");
        assert_eq!(differs(&|found| found[2].language = None), "lacks stream 2 (subtitle, ass, fre)");
        assert_eq!(differs(&|found| found[0].id = codec::Id::MP3), "lacks stream 0 (audio, aac, ger)");
        assert_eq!(differs(&|found| found[0].disposition = 0), "lacks the disposition default of stream 0");
        for (change, expected) in [
            ((0, 0, 50_000), "ends stream 0 at 2.410 s instead of 2.360 s"),
            ((0, 50_000, 0), "starts stream 0 at 0.050 s instead of 0.000 s"),
            ((1, 0, -40_000), "ends stream 1 at 2.320 s instead of 2.360 s"),
        ] {
            let (index, first, last) = change;
            let change = |found: &mut Vec<StreamSummary>| {
                (found[index].first, found[index].last) =
                    (found[index].first + first, found[index].last + last);
            };
            assert_eq!(differs(&change), expected);
        }
    }
}
