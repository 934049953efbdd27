//! Whether frames are interlaced, where their flags lie: the first ones of a source are looked at by FFmpeg's idet.
//!
//! The packets that are read for it are put back and decoded again by whoever comes next.

use ffmpeg_next::filter::{self, Graph};
use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, codec};
use tracing::{info, warn};

use crate::error::Result;
use crate::media::demux::input::Input;
use crate::media::packet::Packet;

/// What is known of a source's fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nothing against the flags of each frame.
    AsFlagged,
    /// Whatever the flags say.
    Interlaced { top_first: bool },
    /// Whatever the flags say: both fields are of one moment.
    Progressive,
}

/// Two seconds and a little: enough for something to move.
const FRAMES: u32 = 60;
/// Packets are held for so long; a second of uncompressed HD is more.
const BYTES_MAX: usize = 64 << 20;
/// Nothing interlaced is lower than a quarter of NTSC, or higher or faster than 1080i.
const LINES: std::ops::RangeInclusive<i32> = 200..=1152;
const RATE_MAX: f64 = 30.5;

/// Frames by what idet takes them for.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct Seen {
    frames: u32,
    flagged: u32,
    top_first: u32,
    bottom_first: u32,
    progressive: u32,
}

/// Looks at the first frames, if they can be interlaced at all.
pub(crate) fn look(input: &mut Input) -> Result<Verdict> {
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
        return Ok(Verdict::AsFlagged);
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
    // A source that cannot be decoded so is told of by the decoder itself.
    let verdict = seen(parameters, videos).map_or(Verdict::AsFlagged, judge);
    for packet in packets {
        input.put_back(packet)?;
    }
    match verdict {
        Verdict::Interlaced { top_first } => {
            let order = if top_first { "top" } else { "bottom" };
            let name = input.name();
            warn!("{name}: frames are not flagged so, but are interlaced, {order} field first (by idet)");
        }
        Verdict::Progressive => {
            info!(
                "{}: frames are flagged as interlaced, but both fields are of one moment (by idet)",
                input.name()
            );
        }
        Verdict::AsFlagged => {}
    }
    Ok(verdict)
}

fn judge(seen: Seen) -> Verdict {
    let Seen { frames, flagged, top_first, bottom_first, progressive } = seen;
    let (more, less) = (top_first.max(bottom_first), top_first.min(bottom_first));
    // Sharp detail that moves is taken for interlaced as well, in both orders; a telecined video is so in two of five.
    let combed = more >= 8 && more >= 19 * less && 2 * more >= progressive;
    let whole = progressive >= 20 && progressive >= 20 * (top_first + bottom_first);
    match () {
        () if combed && 2 * flagged < frames => Verdict::Interlaced { top_first: top_first > bottom_first },
        () if whole && 10 * flagged >= 9 * frames => Verdict::Progressive,
        () => Verdict::AsFlagged,
    }
}

fn seen<'a>(
    parameters: codec::Parameters,
    packets: impl Iterator<Item = &'a Packet>,
) -> std::result::Result<Seen, ffmpeg::Error> {
    let mut decoder = codec::Context::from_parameters(parameters)?.decoder().video()?;
    let mut seen = Seen::default();
    let mut graph: Option<((u32, u32), Graph)> = None;
    let mut av_frame = AvFrame::empty();
    let packets: Vec<Option<&ffmpeg::Packet>> =
        packets.map(|coded| Some(&coded.packet)).chain([None]).collect();
    for packet in packets {
        // A damaged packet tells nothing; what comes after it may.
        let _ = match packet {
            Some(packet) => decoder.send_packet(packet),
            None => decoder.send_eof(),
        };
        while decoder.receive_frame(&mut av_frame).is_ok() {
            let size = (av_frame.width(), av_frame.height());
            let graph = match &mut graph {
                Some((opened, graph)) if *opened == size => graph,
                graph => &mut graph.insert((size, open(&av_frame)?)).1,
            };
            seen.frames += 1;
            seen.flagged += u32::from(av_frame.is_interlaced());
            av_frame.set_pts(Some(i64::from(seen.frames)));
            graph.get("in").expect("a graph has its source").source().add(&av_frame)?;
            count(graph, &mut seen);
        }
    }
    if let Some((_, graph)) = &mut graph {
        graph.get("in").expect("a graph has its source").source().flush()?;
        count(graph, &mut seen);
    }
    Ok(seen)
}

fn open(av_frame: &AvFrame) -> std::result::Result<Graph, ffmpeg::Error> {
    // SAFETY: the frame was just filled by the decoder.
    let format = unsafe { (*av_frame.as_ptr()).format };
    let (width, height) = (av_frame.width(), av_frame.height());
    let arguments = format!("video_size={width}x{height}:pix_fmt={format}:time_base=1/25:pixel_aspect=1/1");
    let named = |name: &str| filter::find(name).ok_or(ffmpeg::Error::FilterNotFound);
    let mut graph = Graph::new();
    graph.add(&named("buffer")?, "in", &arguments)?;
    graph.add(&named("buffersink")?, "out", "")?;
    graph.output("in", 0)?.input("out", 0)?.parse("idet")?;
    graph.validate()?;
    Ok(graph)
}

/// What idet wrote on the frames that are ready.
fn count(graph: &mut Graph, seen: &mut Seen) {
    let mut av_frame = AvFrame::empty();
    while graph.get("out").expect("a graph has its sink").sink().frame(&mut av_frame).is_ok() {
        match av_frame.metadata().get("lavfi.idet.multiple.current_frame") {
            Some("tff") => seen.top_first += 1,
            Some("bff") => seen.bottom_first += 1,
            Some("progressive") => seen.progressive += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_believed_unless_the_frames_say_otherwise() {
        let seen = |flagged, top_first, bottom_first, progressive| {
            judge(Seen { frames: 60, flagged, top_first, bottom_first, progressive })
        };
        for (seen, expected) in [
            (seen(0, 0, 0, 58), Verdict::AsFlagged),
            (seen(0, 50, 0, 2), Verdict::Interlaced { top_first: true }),
            (seen(0, 1, 40, 2), Verdict::Interlaced { top_first: false }),
            // Telecine, unflagged.
            (seen(0, 24, 0, 34), Verdict::Interlaced { top_first: true }),
            // Flicker, and too few to tell.
            (seen(0, 15, 12, 3), Verdict::AsFlagged),
            (seen(0, 5, 0, 0), Verdict::AsFlagged),
            (seen(60, 50, 0, 2), Verdict::AsFlagged),
            (seen(60, 0, 0, 0), Verdict::AsFlagged),
            (seen(60, 0, 1, 50), Verdict::Progressive),
            (seen(60, 20, 0, 35), Verdict::AsFlagged),
        ] {
            assert_eq!(seen, expected);
        }
    }
}
