//! Whether frames are interlaced, where their flags are wrong: FFmpeg's idet examines the first frames of a source, and
//! what it takes for interlaced has to move as fields do.
//!
//! The packets that are read for it are put back and decoded again.

use ffmpeg_next::filter::{self, Graph};
use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, Rational, codec};
use tracing::{info, warn};

use crate::error::Result;
use crate::media::decode::open::decoder_of;
use crate::media::demux::input::Input;
use crate::media::packet::Packet;

/// The scan type of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ScanType {
    /// As the flags of each frame say.
    AsFlagged,
    /// Interlaced, whatever the flags say.
    Interlaced { top_first: bool },
    /// Progressive, whatever the flags say.
    Progressive,
}

/// About two seconds: enough for something to move.
const FRAMES: u32 = 60;
/// Bytes of packets that are examined at most; a second of uncompressed HD is more.
const BYTES_MAX: usize = 64 << 20;
/// No interlaced video has fewer lines than a quarter of NTSC, or more lines or fps than 1080i.
const LINES: std::ops::RangeInclusive<i32> = 200..=1152;
const RATE_MAX: f64 = 30.5;

/// Numbers of frames by what idet classifies them as, and of those whose fields are in motion.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct FieldCounts {
    frames: u32,
    flagged: u32,
    top_first: u32,
    bottom_first: u32,
    progressive: u32,
    /// Those of `top_first` and of `bottom_first` whose motion fields explain.
    in_fields: [u32; 2],
}

/// Examines the first frames, if they can be interlaced at all.
pub(crate) fn detect(input: &mut Input) -> Result<ScanType> {
    let parameters = input.video_parameters();
    // SAFETY: the parameters are owned and alive.
    let height = unsafe { (*parameters.as_ptr()).height };
    let fieldless =
        [codec::Id::VP8, codec::Id::VP9, codec::Id::AV1, codec::Id::GIF, codec::Id::APNG, codec::Id::WEBP];
    let too_fast = f64::from(input.video().frame_rate) > RATE_MAX;
    if !LINES.contains(&height)
        || too_fast
        || fieldless.contains(&parameters.id())
        || input.video().frames_expected == 1
    {
        return Ok(ScanType::AsFlagged);
    }
    let mut packets = Vec::new();
    let (mut bytes, mut frames) = (0, 0);
    while frames < FRAMES && bytes < BYTES_MAX {
        let Some(packet) = input.read()? else { break };
        bytes += packet.size();
        frames += u32::from(input.is_video(&packet));
        packets.push(packet);
    }
    let videos = packets.iter().filter(|packet| input.is_video(packet));
    // The decoder itself reports a source that cannot be decoded.
    let scan =
        count_fields(parameters, input.video().time_base, videos).map_or(ScanType::AsFlagged, classify);
    for packet in packets {
        input.put_back(packet)?;
    }
    match scan {
        ScanType::Interlaced { top_first } => {
            let order = if top_first { "top" } else { "bottom" };
            let name = input.name();
            warn!("{name}: frames are interlaced, {order} field first, but are not flagged so (by idet)");
        }
        ScanType::Progressive => {
            info!("{}: frames are flagged as interlaced, but are progressive (by idet)", input.name());
        }
        ScanType::AsFlagged => {}
    }
    Ok(scan)
}

fn classify(counts: FieldCounts) -> ScanType {
    let FieldCounts { frames, flagged, top_first, bottom_first, progressive, in_fields: [top, bottom] } =
        counts;
    let (more, less) = (top.max(bottom), top.min(bottom));
    // Of telecined video two frames in five are combed.
    let combed = more >= 8 && more >= 19 * less && 2 * more >= progressive;
    let is_progressive = progressive >= 20 && progressive >= 20 * (top_first + bottom_first);
    match () {
        () if combed && 2 * flagged < frames => ScanType::Interlaced { top_first: top > bottom },
        () if is_progressive && 10 * flagged >= 9 * frames => ScanType::Progressive,
        () => ScanType::AsFlagged,
    }
}

fn count_fields<'a>(
    parameters: codec::Parameters,
    time_base: Rational,
    packets: impl Iterator<Item = &'a Packet>,
) -> std::result::Result<FieldCounts, ffmpeg::Error> {
    let mut decoder = decoder_of(parameters, time_base)?.video()?;
    let mut counts = FieldCounts::default();
    let mut graph: Option<((u32, u32), Graph)> = None;
    let mut recent = Vec::new();
    let mut av_frame = AvFrame::empty();
    let packets: Vec<Option<&ffmpeg::Packet>> =
        packets.map(|packet| Some(&packet.packet)).chain([None]).collect();
    for packet in packets {
        // A damaged packet gives no frame; the next may.
        let _ = match packet {
            Some(packet) => decoder.send_packet(packet),
            None => decoder.send_eof(),
        };
        while decoder.receive_frame(&mut av_frame).is_ok() {
            let size = (av_frame.width(), av_frame.height());
            let graph = match &mut graph {
                Some((opened, graph)) if *opened == size => graph,
                graph => {
                    recent.clear();
                    &mut graph.insert((size, open_idet(&av_frame)?)).1
                }
            };
            counts.frames += 1;
            counts.flagged += u32::from(av_frame.is_interlaced());
            av_frame.set_pts(Some(i64::from(counts.frames)));
            graph.get("in").expect("a graph has its source").source().add(&av_frame)?;
            count(graph, &mut recent, &mut counts);
        }
    }
    if let Some((_, graph)) = &mut graph {
        graph.get("in").expect("a graph has its source").source().flush()?;
        count(graph, &mut recent, &mut counts);
    }
    Ok(counts)
}

fn open_idet(av_frame: &AvFrame) -> std::result::Result<Graph, ffmpeg::Error> {
    // SAFETY: the frame was just filled by the decoder.
    let format = unsafe { (*av_frame.as_ptr()).format };
    let (width, height) = (av_frame.width(), av_frame.height());
    let arguments = format!("video_size={width}x{height}:pix_fmt={format}:time_base=1/25:pixel_aspect=1/1");
    let named = |name: &str| filter::find(name).ok_or(ffmpeg::Error::FilterNotFound);
    let mut graph = Graph::new();
    graph.add(&named("buffer")?, "in", &arguments)?;
    graph.add(&named("buffersink")?, "out", "")?;
    graph.output("in", 0)?.input("out", 0)?.parse("idet,format=gray")?;
    graph.validate()?;
    Ok(graph)
}

/// Counts what idet wrote on the frames that are ready. `recent` holds the last two of them.
fn count(graph: &mut Graph, recent: &mut Vec<AvFrame>, counts: &mut FieldCounts) {
    let mut av_frame = AvFrame::empty();
    while graph.get("out").expect("a graph has its sink").sink().frame(&mut av_frame).is_ok() {
        match verdict(&av_frame) {
            Verdict::TopFirst => counts.top_first += 1,
            Verdict::BottomFirst => counts.bottom_first += 1,
            Verdict::Progressive => counts.progressive += 1,
            Verdict::Undetermined => {}
        }
        recent.push(std::mem::replace(&mut av_frame, AvFrame::empty()));
        let [before, frame, after] = &recent[..] else { continue };
        let frames = [before, frame, after];
        match verdict(frame) {
            Verdict::TopFirst => counts.in_fields[0] += u32::from(is_in_fields(frames, true)),
            Verdict::BottomFirst => counts.in_fields[1] += u32::from(is_in_fields(frames, false)),
            Verdict::Progressive | Verdict::Undetermined => {}
        }
        recent.remove(0);
    }
}

/// What idet classifies a frame as.
enum Verdict {
    TopFirst,
    BottomFirst,
    Progressive,
    Undetermined,
}

fn verdict(av_frame: &AvFrame) -> Verdict {
    match av_frame.metadata().get("lavfi.idet.multiple.current_frame") {
        Some("tff") => Verdict::TopFirst,
        Some("bff") => Verdict::BottomFirst,
        Some("progressive") => Verdict::Progressive,
        _ => Verdict::Undetermined,
    }
}

/// Whether fields explain the motion of the middle of three gray frames. A field that comes later in its frame is as near
/// to the other field of the next frame as to that of its own: combing with both is alike, and less than with that of
/// the frame before. In a progressive frame it is combed least with its own; detail that flickers from line to line,
/// such as dither, combs most there.
fn is_in_fields([before, frame, after]: [&AvFrame; 3], top_first: bool) -> bool {
    // How much less the own frame may be combed than the near one, and how much more in telecined video, whose near
    // frame shows the same moment; as parts of the difference between the near and the far one.
    const OWN: std::ops::RangeInclusive<f64> = -0.5..=1.25;
    let (mut own, mut near, mut far) = (0, 0, 0);
    for y in 1..frame.height() as usize - 1 {
        let is_first_field = (y % 2 == 0) == top_first;
        // Where this line is three fields away from those around it, and where one.
        let (distant, close) = if is_first_field { (before, after) } else { (after, before) };
        let (above, below) = (line(frame, y - 1), line(frame, y + 1));
        far += combing(above, line(distant, y), below);
        near += combing(above, line(close, y), below);
        own += combing(above, line(frame, y), below);
    }
    far > near && OWN.contains(&((own as f64 - near as f64) / (far - near) as f64))
}

/// A line of a gray frame.
fn line(av_frame: &AvFrame, y: usize) -> &[u8] {
    &av_frame.data(0)[y * av_frame.stride(0)..][..av_frame.width() as usize]
}

/// How far a line is from the mean of the two around it, summed up and doubled.
fn combing(above: &[u8], between: &[u8], below: &[u8]) -> u64 {
    let around = above.iter().zip(below);
    let distance =
        |((&a, &c), &b): ((&u8, &u8), &u8)| (u32::from(a) + u32::from(c)).abs_diff(2 * u32::from(b));
    around.zip(between).map(distance).sum::<u32>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_hold_unless_the_frames_contradict_them() {
        let seen = |flagged, top_first, bottom_first, progressive| {
            let in_fields = [top_first, bottom_first];
            classify(FieldCounts { frames: 60, flagged, top_first, bottom_first, progressive, in_fields })
        };
        for (seen, expected) in [
            (seen(0, 0, 0, 58), ScanType::AsFlagged),
            (seen(0, 50, 0, 2), ScanType::Interlaced { top_first: true }),
            (seen(0, 1, 40, 2), ScanType::Interlaced { top_first: false }),
            // Telecine, unflagged.
            (seen(0, 24, 0, 34), ScanType::Interlaced { top_first: true }),
            // Flicker, and too few frames.
            (seen(0, 15, 12, 3), ScanType::AsFlagged),
            (seen(0, 5, 0, 0), ScanType::AsFlagged),
            (seen(60, 50, 0, 2), ScanType::AsFlagged),
            (seen(60, 0, 0, 0), ScanType::AsFlagged),
            (seen(60, 0, 1, 50), ScanType::Progressive),
            (seen(60, 20, 0, 35), ScanType::AsFlagged),
        ] {
            assert_eq!(seen, expected);
        }
    }
}
