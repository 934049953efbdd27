//! A random walk through what users have: inputs of random containers, codecs, frame rates, channel layouts, languages,
//! subtitles, chapters and cuts go into random containers. The output is compared with its input, and its copied
//! streams with FFmpeg's own remux.
//!
//! `HASN_WALK_RUNS` is the count of runs, `HASN_WALK_SEED` the seed of the first one: the seed of a failed run with a
//! count of 1 repeats it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::{Command, Stdio};

use crate::common::program::{Folder, Packet, Probe, Ran, Stream};
use crate::common::random::{Random, count};

const RUNS: usize = 12;
const SEED: usize = 1;

/// A container, and what FFmpeg writes into it.
struct Kind {
    extension: &'static str,
    video: &'static [&'static str],
    audio: &'static [&'static str],
    text: &'static [&'static str],
}

const INPUTS: &[Kind] = &[
    Kind {
        extension: "mkv",
        video: &[
            "libx264 -preset ultrafast -bf 2",
            "libx264 -preset ultrafast -bf 2 -pix_fmt yuv422p10",
            "libx265 -preset ultrafast -x265-params log-level=none",
            "mpeg4 -bf 1",
            "mpeg2video",
            "ffv1",
            "mjpeg",
            "libvpx -deadline realtime",
            "libvpx-vp9 -deadline realtime -cpu-used 8",
            "prores_ks",
            "huffyuv",
            "wmv2",
            "libtheora",
        ],
        audio: &[
            "aac",
            "ac3",
            "eac3",
            "flac",
            "libopus",
            "libvorbis",
            "pcm_s16le",
            "pcm_s16be",
            "pcm_s24le",
            "pcm_f32le",
            "libmp3lame",
            "mp2",
            "dca -strict -2",
            "truehd -strict -2",
            "alac",
            "tta",
            "wavpack",
            "wmav2",
            "pcm_alaw",
            "adpcm_ms",
        ],
        text: &["srt", "ass", "webvtt"],
    },
    Kind {
        extension: "mp4",
        video: &[
            "libx264 -preset ultrafast -bf 2",
            "mpeg4",
            "libx265 -preset ultrafast -x265-params log-level=none",
            "mjpeg",
        ],
        audio: &["aac", "ac3", "alac", "libmp3lame", "flac", "libopus", "mp2"],
        text: &["mov_text"],
    },
    Kind {
        extension: "mov",
        video: &[
            "libx264 -preset ultrafast -bf 2",
            "prores_ks",
            "mjpeg",
            "png",
            "qtrle",
            "rawvideo -pix_fmt uyvy422",
        ],
        audio: &[
            "aac",
            "pcm_s16be",
            "pcm_s24le",
            "pcm_s16le",
            "alac",
            "adpcm_ima_qt",
            "pcm_mulaw",
            "pcm_f32le",
        ],
        text: &["mov_text"],
    },
    Kind {
        extension: "ts",
        video: &[
            "libx264 -preset ultrafast -bf 2",
            "mpeg2video -bf 2",
            "libx265 -preset ultrafast -x265-params log-level=none",
        ],
        audio: &["aac", "ac3", "mp2", "libmp3lame", "libopus", "eac3", "s302m -strict -2"],
        text: &[],
    },
    Kind {
        extension: "avi",
        video: &[
            "mpeg4",
            "mjpeg",
            "ffv1",
            "huffyuv",
            "rawvideo",
            "msmpeg4",
            "libx264 -preset ultrafast -bf 0",
        ],
        audio: &["libmp3lame", "pcm_s16le", "ac3", "mp2", "adpcm_ms", "pcm_u8", "pcm_alaw"],
        text: &[],
    },
    Kind {
        extension: "webm",
        video: &["libvpx -deadline realtime", "libvpx-vp9 -deadline realtime -cpu-used 8"],
        audio: &["libopus", "libvorbis"],
        text: &["webvtt"],
    },
    Kind {
        extension: "flv",
        video: &["libx264 -preset ultrafast -bf 2", "flv"],
        audio: &["aac", "libmp3lame"],
        text: &[],
    },
    Kind {
        extension: "nut",
        video: &["libx264 -preset ultrafast -bf 2", "ffv1", "mpeg4", "rawvideo"],
        audio: &["aac", "flac", "pcm_s16le", "pcm_s24be", "libvorbis", "libopus"],
        text: &[],
    },
    Kind { extension: "mxf", video: &["mpeg2video"], audio: &["pcm_s24le", "pcm_s16le"], text: &[] },
    Kind {
        extension: "wmv",
        video: &["wmv2", "msmpeg4", "wmv1"],
        audio: &["wmav2", "wmav1", "libmp3lame"],
        text: &[],
    },
    Kind { extension: "3gp", video: &["mpeg4", "libx264 -preset ultrafast"], audio: &["aac"], text: &[] },
    Kind { extension: "ogv", video: &["libtheora"], audio: &["libvorbis", "libopus", "flac"], text: &[] },
    Kind { extension: "mpg", video: &["mpeg2video", "mpeg1video"], audio: &["mp2", "ac3"], text: &[] },
    Kind { extension: "gif", video: &["gif"], audio: &[], text: &[] },
];

const OUTPUTS: &[&str] = &["mkv", "mp4", "mov", "ts", "avi", "webm", "nut", "flv", "mxf", "ogv"];
const RATES: &[&str] = &["24", "25", "30000/1001", "12", "50", "60000/1001"];
const LAYOUTS: &[&str] =
    &["mono", "stereo", "stereo", "stereo", "2.1", "3.0", "quad", "5.0", "5.1", "5.1(side)", "7.1"];
const SAMPLE_RATES: &[&str] = &["48000", "48000", "44100", "32000", "22050"];
const LANGUAGES: &[&str] =
    &["eng", "ger", "deu", "hrv", "jpn", "nob", "ENG", "fr", "qaa", "mul", "chi", "por"];

/// What one run was given.
struct Walk {
    input: String,
    output: String,
    /// The command that wrote the input.
    written_by: String,
    /// Options of `hasn`, and the part of the input that they select, in seconds after its start.
    options: String,
    part: Option<(f64, f64)>,
}

/// Runs a command of FFmpeg's, which may fail; returns what it has said.
fn ffmpeg(folder: &Folder, line: &str) -> Result<(), String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-xerror", "-y"]).args(line.split_whitespace());
    let output =
        command.current_dir(folder.path("")).stdin(Stdio::null()).output().expect("ffmpeg is installed");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Draws inputs until FFmpeg writes one.
fn draw(random: &mut Random, folder: &Folder) -> Walk {
    loop {
        let kind = &INPUTS[random.below(INPUTS.len())];
        let input = format!("in.{}", kind.extension);
        let written_by = draw_input(random, kind, &input, folder);
        let output = format!("out.{}", random.choose(OUTPUTS));
        let part = random
            .once(4)
            .then(|| (0.0133 + random.below(30) as f64 / 100.0, 0.4733 + random.below(40) as f64 / 100.0));
        let options = part.map_or(String::new(), |(from, to)| format!(" --from {from} --to {to}"));
        let decodes = || ffmpeg(folder, &format!("-i {input} -map 0:v -map 0:a? -f null -"));
        if ffmpeg(folder, &written_by).and_then(|()| decodes()).is_ok() {
            return Walk { input, output, written_by, options, part };
        }
    }
}

fn draw_input(random: &mut Random, kind: &Kind, input: &str, folder: &Folder) -> String {
    let seconds = 0.6 + random.below(10) as f64 / 10.0;
    let (width, height) = (32 + 2 * random.below(9), 24 + 2 * random.below(9));
    let rate = random.choose(RATES);
    let mut inputs = format!("-f lavfi -i testsrc2=s={width}x{height}:r={rate}:d={seconds}");
    let (mut maps, mut options) = (String::from(" -map 0"), String::new());
    let mut filters = Vec::new();
    if random.once(4) {
        filters.push("select=not(eq(mod(n\\,7)\\,3)+eq(mod(n\\,7)\\,4))");
        options += " -fps_mode vfr";
    }
    if random.once(4) {
        filters.push("setsar=16/11");
    }
    if !filters.is_empty() {
        write!(options, " -vf {}", filters.join(",")).unwrap();
    }
    let mut next = 1;
    let audio_streams = if kind.audio.is_empty() { 0 } else { random.below(3) };
    for place in 0..audio_streams {
        let layout = random.choose(LAYOUTS);
        let tones: Vec<String> =
            (0..channels(layout)).map(|n| format!("0.3*sin({}*t)", 1000 + 300 * n)).collect();
        let length = seconds + random.below(3) as f64 / 10.0 - 0.1;
        if random.once(5) {
            inputs += " -itsoffset 0.2";
        }
        write!(
            inputs,
            " -f lavfi -i aevalsrc={}:c={layout}:s={}:d={length}",
            tones.join("|"),
            random.choose(SAMPLE_RATES)
        )
        .unwrap();
        write!(maps, " -map {next}").unwrap();
        write!(options, " -c:a:{place} {}", random.choose(kind.audio)).unwrap();
        if random.once(2) {
            write!(options, " -metadata:s:a:{place} language={}", random.choose(LANGUAGES)).unwrap();
        }
        if random.once(3) {
            write!(options, " -metadata:s:a:{place} title=Title{place}").unwrap();
        }
        next += 1;
    }
    let texts = if kind.text.is_empty() { 0 } else { random.below(3) };
    for place in 0..texts {
        folder.write(
            "text.srt",
            "1\n00:00:00,100 --> 00:00:00,350\nOne\n\n2\n00:00:00,400 --> 00:00:00,550\nTwo <i>words</i>\n",
        );
        inputs += " -i text.srt";
        write!(maps, " -map {next}").unwrap();
        write!(options, " -c:s:{place} {}", random.choose(kind.text)).unwrap();
        write!(options, " -metadata:s:s:{place} language={}", random.choose(LANGUAGES)).unwrap();
        next += 1;
    }
    if random.once(4) {
        folder.write(
            "meta.txt",
            ";FFMETADATA1\ntitle=A video\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=300\ntitle=One\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=300\nEND=600\ntitle=Two\n",
        );
        inputs += " -i meta.txt";
        write!(maps, " -map_metadata {next} -map_chapters {next}").unwrap();
    }
    if matches!(kind.extension, "mkv") && random.once(6) {
        folder.write("font.ttf", b"not really a font, but bytes to be kept");
        options += " -attach font.ttf -metadata:s:t:0 mimetype=application/x-truetype-font";
    }
    if matches!(kind.extension, "mp4" | "mov") && random.once(4) {
        options += " -metadata:s:v:0 rotate=90";
    }
    if matches!(kind.extension, "ts" | "mkv" | "mp4") && random.once(5) {
        options += " -output_ts_offset 1.4";
    }
    format!("{inputs}{maps} -c:v {}{options} {input}", random.choose(kind.video))
}

fn channels(layout: &str) -> usize {
    match layout {
        "mono" => 1,
        "stereo" => 2,
        "2.1" | "3.0" => 3,
        "quad" => 4,
        "5.0" => 5,
        "7.1" => 8,
        _ => 6,
    }
}

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
fn differences(folder: &Folder, walk: &Walk, ran: &Ran) -> Vec<String> {
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
                compare_audio(walk, (&before, old), (&after, new), &mut wrong);
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
    if found.len() != wanted.len() && !may_repeat {
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

fn compare_audio(
    walk: &Walk,
    (before, old): (&Probe, &Stream),
    (after, new): (&Probe, &Stream),
    wrong: &mut Vec<String>,
) {
    // MXF has one sample rate.
    let holds_rate = walk.output != "out.mxf";
    if holds_rate
        && old.sample_rate != new.sample_rate
        && new.codec_name != "opus"
        && old.codec_name != "opus"
    {
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
    let (ended, ends) = (was.1 - zero(before), is.1 - zero(after));
    // AVI tells no times of packets of some codecs; MXF ends its audio with the video.
    let tells_end = !matches!(walk.output.as_str(), "out.avi" | "out.mxf") && was.2 > 0.0;
    if tells_end && (ended - ends).abs() > tolerance.max(0.06) + longest {
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
        if new.title_and_language() != reference.title_and_language() {
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
        let was = before.packets_of(*index).len();
        if kept != all && kept.len() != was {
            wrong.push(format!(
                "stream {index} ({codec}) has {} packets, in FFmpeg's remux {}, in the input {was}",
                kept.len(),
                all.len()
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

#[test]
fn random_inputs_come_out_whole() {
    let runs = count("HASN_WALK_RUNS", RUNS) as u64;
    let first = count("HASN_WALK_SEED", SEED) as u64;
    let (mut failed, mut refused) = (Vec::new(), BTreeMap::<String, Vec<u64>>::new());
    for seed in first..first + runs {
        let folder = Folder::new();
        let walk = draw(&mut Random::from_seed(seed), &folder);
        let Walk { input, output, written_by, options, .. } = &walk;
        let line = format!("upscale {input} {output} --model none --report report.json{options}");
        let ran = folder.hasn(&line);
        let mut wrong = match ran.code {
            Some(0) => differences(&folder, &walk, &ran),
            Some(1) => {
                let said = ran.stderr.lines().last().unwrap_or_default().to_owned();
                refused.entry(said.clone()).or_insert_with(Vec::new).push(seed);
                let left = folder.names().into_iter().filter(|name| name.starts_with("out"));
                left.map(|name| format!("refused, and {name} is left: {said}")).collect()
            }
            _ => vec![format!("ends with {:?}: {}", ran.code, ran.stderr)],
        };
        let repeat = format!("HASN_WALK_SEED={seed} HASN_WALK_RUNS=1\n  ffmpeg {written_by}\n  hasn {line}");
        if runs == 1 {
            println!("{repeat}\n{}", ran.stderr);
        }
        if !wrong.is_empty() {
            wrong.insert(0, repeat);
            failed.push(wrong.join("\n    "));
        }
    }
    println!("{runs} runs from seed {first}; refused before the work:");
    refused.iter().for_each(|(said, seeds)| println!("  {said} (seeds {seeds:?})"));
    assert!(failed.is_empty(), "{} of {runs} runs failed\n{}", failed.len(), failed.join("\n"));
}
