//! What is to come out of a run, and what differs.

use super::{Walk, ffmpeg};
use crate::common::program::{Folder, Packet, Probe, Ran, Stream};

fn is_attached(stream: &Stream) -> bool {
    stream.codec_type == "attachment" || stream.disposition.get("attached_pic") == Some(&1)
}

/// Streams of a kind, without attached files.
fn of_kind<'a>(probe: &'a Probe, kind: &str) -> Vec<&'a Stream> {
    probe.streams.iter().filter(|stream| stream.codec_type == kind && !is_attached(stream)).collect()
}

/// Start and end of a stream in seconds, and the duration of its longest packet.
fn span(probe: &Probe, stream: &Stream) -> Option<(f64, f64, f64)> {
    let tick = stream.tick();
    let timed: Vec<(f64, f64)> = probe
        .packets_of(stream.index)
        .iter()
        .filter_map(|packet| {
            packet.pts.map(|pts| (pts as f64 * tick, packet.duration.unwrap_or_default() as f64 * tick))
        })
        .collect();
    let start = timed.iter().map(|(start, _)| *start).reduce(f64::min)?;
    // Packets whose duration is unknown last until the next one.
    let gap = timed.windows(2).map(|pair| pair[1].0 - pair[0].0).fold(0.0, f64::max);
    let longest = timed.iter().map(|(_, duration)| *duration).fold(0.0, f64::max);
    let end = timed.iter().map(|(start, duration)| start + duration).reduce(f64::max)?;
    Some((start, end, if longest == 0.0 { gap } else { longest }))
}

/// What is wrong with the output of a run that succeeded.
pub fn differences(folder: &Folder, walk: &Walk, ran: &Ran) -> Vec<String> {
    let mut wrong = Vec::new();
    let (before, after) = (folder.probe(&walk.input), folder.probe(&walk.output));
    let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).expect("a report");
    let listed = |key: &str, stream: &Stream| {
        let start = format!("stream {} (", stream.index);
        report[key]
            .as_array()
            .is_some_and(|all| all.iter().any(|text| text.as_str().unwrap().starts_with(&start)))
    };
    compare_frames(folder, walk, &before, &after, &mut wrong);
    if let Err(said) = ffmpeg(
        folder,
        &format!("-i {} -map 0:v -map 0:a? -fps_mode passthrough -enc_time_base:v -1 -f null -", walk.output),
    ) {
        wrong.push(format!("the output does not decode: {said}"));
    }

    let mut copied: Vec<(usize, &Stream)> = Vec::new();
    for kind in ["audio", "subtitle"] {
        let kept: Vec<&Stream> =
            of_kind(&before, kind).into_iter().filter(|stream| !listed("left_out", stream)).collect();
        let found = of_kind(&after, kind);
        if kept.len() != found.len() {
            wrong.push(format!("{} {kind} streams instead of {}: {}", found.len(), kept.len(), ran.stderr));
            continue;
        }
        for (old, new) in kept.into_iter().zip(found) {
            let was_converted = listed("converted", old);
            if kind == "audio" {
                compare_layout(old, new, &ran.stderr, &mut wrong);
                compare_audio(folder, walk, (&before, old), (&after, new), &mut wrong);
            }
            if !was_converted {
                copied.push((old.index, new));
            }
        }
    }
    compare_with_remux(folder, walk, &before, &after, &copied, &mut wrong);
    wrong
}

fn compare_frames(folder: &Folder, walk: &Walk, before: &Probe, after: &Probe, wrong: &mut Vec<String>) {
    let start: f64 = before.format.start_time.parse().unwrap_or(0.0);
    let tick = before.video().tick();
    let times: Option<Vec<f64>> = folder
        .frames(&walk.input)
        .iter()
        .map(|frame| frame.pts.map(|pts| pts as f64 * tick - start))
        .collect();
    let Some(times) = times else { return };
    let is_wanted = |time: &&f64| walk.part.is_none_or(|(from, to)| **time >= from && **time < to);
    let wanted: Vec<f64> = times.iter().filter(is_wanted).copied().collect();
    let found = match after.packets_of(after.video().index).iter().any(|packet| packet.pts.is_none()) {
        true => wanted.clone(),
        false => after.video_seconds(),
    };
    // FFmpeg's demuxer of Ogg leaves out repeated frames.
    let may_repeat = walk.output == "out.ogv" && found.len() < wanted.len();
    // In MXF, whose tick is a frame, each frame is repeated until the next one, and the last one for as long as it lasts.
    let is_even = walk.output == "out.mxf"
        && wanted.first().zip(wanted.last()).is_some_and(|(first, last)| {
            let expected = ((last - first) / after.video().tick()).round() as usize + 1;
            (expected..=expected + 2).contains(&found.len())
        });
    if found.len() != wanted.len() && !may_repeat && !is_even {
        wrong.push(format!("{} frames instead of {}", found.len(), wanted.len()));
        return;
    }
    // AVI and MXF count frames, Theora's granules as well.
    if matches!(walk.output.as_str(), "out.avi" | "out.mxf" | "out.ogv") {
        return;
    }
    let tolerance = before.video().tick().min(0.01) + after.video().tick() + 1e-6;
    for (index, (old, new)) in wanted.iter().zip(&found).enumerate() {
        let off = (new - found[0]) - (old - wanted[0]);
        if off.abs() > tolerance {
            wrong.push(format!("frame {index} is off by {off:.4} s"));
            break;
        }
    }
    let (old, new) = (before.video(), after.video());
    let aspect = |stream: &Stream| match stream.sample_aspect_ratio.as_str() {
        "" | "0:1" | "N/A" => "1:1".to_owned(),
        known => known.to_owned(),
    };
    let holds_aspect = matches!(walk.output.as_str(), "out.mkv" | "out.mp4" | "out.mov" | "out.ts");
    if holds_aspect && aspect(old) != aspect(new) {
        wrong.push(format!("sample aspect {} became {}", aspect(old), aspect(new)));
    }
    let is_rotated =
        |stream: &Stream| stream.side_data_list.iter().any(|side| side.get("rotation").is_some());
    if matches!(walk.output.as_str(), "out.mp4" | "out.mov") && is_rotated(old) != is_rotated(new) {
        wrong.push("the display matrix is lost".into());
    }
    if let (Ok(seconds), true) = (
        after.format.duration.parse::<f64>(),
        matches!(walk.output.as_str(), "out.mkv" | "out.mp4" | "out.mov" | "out.webm"),
    ) {
        let ends = after.streams.iter().filter_map(|stream| span(after, stream)).map(|(_, end, _)| end);
        let end = ends.fold(0.0, f64::max);
        let last = if wanted.len() > 1 { wanted[wanted.len() - 1] - wanted[wanted.len() - 2] } else { 0.1 };
        if (seconds - end).abs() > last.max(0.1) + 0.05 {
            wrong.push(format!("the container states {seconds} s, its packets end at {end:.3} s"));
        }
    }
}

/// Seconds of a stream's audio, decoded.
fn decoded_s(folder: &Folder, name: &str, stream: &Stream) -> f64 {
    let line = format!("-i {name} -map 0:{} -ac 1 -ar 8000 -f s16le decoded.raw", stream.index);
    if ffmpeg(folder, &line).is_err() {
        return 0.0;
    }
    folder.read("decoded.raw").len() as f64 / 16_000.0
}

fn compare_audio(
    folder: &Folder,
    walk: &Walk,
    (before, old): (&Probe, &Stream),
    (after, new): (&Probe, &Stream),
    wrong: &mut Vec<String>,
) {
    // MXF, Opus and AC-3 have rates of their own.
    let has_own_rates = walk.output == "out.mxf" || new.codec_name == "opus" || new.codec_name == "ac3";
    if !has_own_rates && old.sample_rate != new.sample_rate && old.codec_name != "opus" {
        wrong.push(format!("{} Hz became {} Hz in {}", old.sample_rate, new.sample_rate, new.codec_name));
    }
    let (Some(was), Some(is)) = (span(before, old), span(after, new)) else { return };
    let zero = |probe: &Probe| span(probe, probe.video()).map_or(0.0, |(start, ..)| start);
    let longest = was.2.max(is.2);
    if walk.part.is_some() {
        return;
    }
    // Counting containers write no start, AVI pads by silence to whole blocks.
    let tolerance = 0.04
        + if matches!(walk.output.as_str(), "out.avi" | "out.mxf" | "out.flv") {
            longest.max(0.1)
        } else {
            longest.min(0.03)
        };
    // FFmpeg's decoder of WMA gives its first samples with the second packet's time.
    let tolerance = tolerance + if old.codec_name.starts_with("wma") { 0.05 } else { 0.0 };
    // Silence stands for a later start.
    let starts_together = matches!(walk.output.as_str(), "out.avi" | "out.mxf" | "out.ogv");
    let (started, starts) = (was.0 - zero(before), is.0 - zero(after));
    if (started - starts).abs() > tolerance && !starts_together {
        wrong.push(format!(
            "{} started {started:.3} s after the video, {} starts {starts:.3} s",
            old.codec_name, new.codec_name
        ));
    }
    // Where packets tell no times or durations, the samples do.
    let ended = if was.2 == 0.0 { was.0 + decoded_s(folder, &walk.input, old) } else { was.1 } - zero(before);
    let ends = if starts_together { decoded_s(folder, &walk.output, new) } else { is.1 - zero(after) };
    if (ended - ends).abs() > tolerance.max(0.06) + longest {
        wrong.push(format!(
            "{} ended {ended:.3} s after the video's start, {} ends {ends:.3} s",
            old.codec_name, new.codec_name
        ));
    }
}

/// A layout changes only where that is logged. That of a source which states none is guessed.
fn compare_layout(old: &Stream, new: &Stream, logged: &str, wrong: &mut Vec<String>) {
    // Ogg's codecs have one layout of three channels.
    let is_known =
        !old.channel_layout.is_empty() && !new.channel_layout.is_empty() && new.channel_layout != "3.0";
    let is_other = is_known && plain(&old.channel_layout) != plain(&new.channel_layout);
    let is_logged = logged.lines().any(|line| {
        line.contains("cannot hold the channel layout")
            && line.contains(&format!(" of stream {}:", old.index))
    });
    if (old.channels != new.channels || is_other) && !is_logged {
        let [old, new] =
            [old, new].map(|it| format!("{} {} ({})", it.codec_name, it.channel_layout, it.channels));
        wrong.push(format!("{old} became {new} without a word"));
    }
}

/// Layouts that differ in the place of the surround channels only, which codecs and containers exchange.
fn plain(layout: &str) -> &str {
    layout.strip_suffix("(side)").unwrap_or(layout)
}

fn compare_with_remux(
    folder: &Folder,
    walk: &Walk,
    before: &Probe,
    after: &Probe,
    copied: &[(usize, &Stream)],
    wrong: &mut Vec<String>,
) {
    if copied.is_empty() || walk.part.is_some() || walk.output == "out.mxf" {
        return;
    }
    let name = walk.output.replace("out", "remux");
    let maps: String = copied.iter().map(|(index, _)| format!(" -map 0:{index}")).collect();
    if let Err(said) = ffmpeg(folder, &format!("-i {} {maps} -c copy -strict -2 {name}", walk.input)) {
        wrong.push(format!("FFmpeg does not copy what hasn has copied: {said}"));
        return;
    }
    let remux = folder.probe(&name);
    for (place, (index, new)) in copied.iter().enumerate() {
        let reference = &remux.streams[place];
        let codec = &new.codec_name;
        // FFmpeg's command loses languages in capitals.
        let [[title, language], [of_remux, _]] = [new.title_and_language(), reference.title_and_language()];
        let of_input = before.streams[*index].title_and_language()[1].map(str::to_ascii_lowercase);
        let is_of_input = title == of_remux && language == of_input.as_deref();
        if new.title_and_language() != reference.title_and_language() && !is_of_input {
            let (new, reference) = (new.title_and_language(), reference.title_and_language());
            wrong.push(format!(
                "stream {index} ({codec}) has title and language {new:?}, in FFmpeg's remux {reference:?}"
            ));
        }
        let hashes = |packets: Vec<&Packet>| {
            packets
                .into_iter()
                .filter(|packet| packet.size != "2")
                .map(|packet| packet.data_hash.clone())
                .collect::<Vec<_>>()
        };
        let (kept, all) = (hashes(after.packets_of(new.index)), hashes(remux.packets_of(reference.index)));
        // FFmpeg's command leaves out packets that end before its start.
        let was = hashes(before.packets_of(*index));
        if kept != all && kept != was {
            wrong.push(format!(
                "stream {index} ({codec}) has {} packets, in FFmpeg's remux {}, in the input {}",
                kept.len(),
                all.len(),
                was.len()
            ));
        }
        if new.codec_name != reference.codec_name {
            wrong.push(format!("stream {index} is {codec}, in FFmpeg's remux {}", reference.codec_name));
        }
        // FFmpeg's command guesses the layout of a source that states none.
        if !new.channel_layout.is_empty() && new.channel_layout != reference.channel_layout {
            let (new, reference) = (&new.channel_layout, &reference.channel_layout);
            wrong.push(format!("stream {index} ({codec}) is {new}, in FFmpeg's remux {reference}"));
        }
    }
    if !before.chapters.is_empty() && after.chapters.len() != remux.chapters.len() {
        wrong.push(format!("{} chapters, {} in FFmpeg's remux", after.chapters.len(), remux.chapters.len()));
    }
}
