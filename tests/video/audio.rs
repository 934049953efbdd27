//! Audio and captions that are converted: channel layouts and levels, sample depth, timestamps.

use serde::Deserialize;
use serde_json::Value;

use crate::common::program::Folder;
use crate::common::sweep;

const SMALL: &str = "-f lavfi -i testsrc2=s=32x32:r=25";

/// Layouts and the names of their channels, in FFmpeg's order.
const LAYOUTS: [(&str, &[&str]); 12] = [
    ("mono", &["FC"]),
    ("stereo", &["FL", "FR"]),
    ("2.1", &["FL", "FR", "LFE"]),
    ("3.0", &["FL", "FR", "FC"]),
    ("4.0", &["FL", "FR", "FC", "BC"]),
    ("quad", &["FL", "FR", "BL", "BR"]),
    ("5.0", &["FL", "FR", "FC", "BL", "BR"]),
    ("5.1", &["FL", "FR", "FC", "LFE", "BL", "BR"]),
    ("5.1(side)", &["FL", "FR", "FC", "LFE", "SL", "SR"]),
    ("6.1", &["FL", "FR", "FC", "LFE", "BC", "SL", "SR"]),
    ("7.1", &["FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"]),
    ("7.1(wide)", &["FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC"]),
];

/// Layouts that only AC-3 gives.
const AC3_LAYOUTS: [(&str, &[&str]); 2] =
    [("quad(side)", &["FL", "FR", "SL", "SR"]), ("5.0(side)", &["FL", "FR", "FC", "SL", "SR"])];

/// An encoder, and the layouts that are others in its streams.
#[derive(Clone, Copy)]
struct Converted {
    encoder: &'static str,
    /// Those that it holds, and FFmpeg's decoder has another name for.
    renamed: &'static [(&'static str, &'static str)],
    /// Those that it does not hold, and that become one in which every channel has its place.
    complete: &'static [(&'static str, &'static str)],
    /// Those of which channels are mixed.
    mixed: &'static [(&'static str, &'static str)],
}

const CONVERTED: [Converted; 4] = [
    Converted {
        encoder: "aac",
        renamed: &[],
        complete: &[("5.1(side)", "5.1")],
        mixed: &[("6.1", "7.1"), ("7.1(wide)", "5.1")],
    },
    Converted {
        encoder: "libopus",
        renamed: &[],
        complete: &[("2.1", "5.1"), ("5.0", "5.1"), ("5.1(side)", "5.1")],
        mixed: &[("4.0", "5.1"), ("6.1", "7.1"), ("7.1(wide)", "5.1")],
    },
    Converted { encoder: "flac", renamed: &[], complete: &[], mixed: &[] },
    Converted {
        encoder: "ac3",
        renamed: &[("quad", "quad(side)"), ("5.0", "5.0(side)"), ("5.1", "5.1(side)")],
        complete: &[],
        mixed: &[("6.1", "5.1(side)"), ("7.1", "5.1(side)"), ("7.1(wide)", "5.1(side)")],
    },
];

fn channels(layout: &str) -> &'static [&'static str] {
    let known = LAYOUTS.iter().chain(&AC3_LAYOUTS).find(|(name, _)| *name == layout);
    known.map(|&(_, names)| names).unwrap_or_else(|| panic!("{layout} is none of the expected layouts"))
}

/// RMS of each channel of an audio stream in dB.
fn levels_db(folder: &Folder, name: &str, place: usize, channels: usize) -> Vec<f64> {
    let bytes = folder.ffmpeg(&format!("-i {name} -map 0:a:{place} -f f32le -"));
    let samples: Vec<f64> =
        bytes.chunks_exact(4).map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap()))).collect();
    let power = |channel: usize| {
        let own = samples.iter().skip(channel).step_by(channels);
        own.clone().map(|sample| sample * sample).sum::<f64>() / own.count() as f64
    };
    (0..channels).map(|channel| 10.0 * power(channel).log10()).collect()
}

fn layouts(folder: &Folder, name: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Stream {
        channel_layout: String,
    }
    #[derive(Deserialize)]
    struct Streams {
        streams: Vec<Stream>,
    }
    let shown = "-select_streams a -show_entries stream=channel_layout";
    let streams = folder.ffprobe::<Streams>(shown, name).streams;
    streams.into_iter().map(|stream| stream.channel_layout).collect()
}

#[test]
fn sweep_channel_layouts_and_levels_are_kept() {
    let folder = Folder::new();
    let (mut inputs, mut maps) = (String::new(), String::new());
    for (place, (layout, names)) in LAYOUTS.iter().enumerate() {
        // Each channel is 3 dB softer than the one before, and low enough for the low-frequency one.
        let tone = |k: usize| format!("{}*sin(2*PI*{}*t)", 0.5 * 0.7_f64.powi(k as i32), 60 + 5 * k);
        let tones: Vec<String> = (0..names.len()).map(tone).collect();
        inputs += &format!(" -f lavfi -i aevalsrc={}:c={layout}:s=48000:d=0.5", tones.join("|"));
        maps += &format!(" -map {}", place + 1);
    }
    folder.ffmpeg(&format!("{SMALL}{inputs} -map 0{maps} -t 0.5 -c:v libx264 -c:a wavpack in.mkv"));
    let before: Vec<Vec<f64>> = LAYOUTS
        .iter()
        .enumerate()
        .map(|(place, (_, names))| levels_db(&folder, "in.mkv", place, names.len()))
        .collect();
    for Converted { encoder, renamed, complete, mixed } in
        sweep::sample("channel layouts", CONVERTED.to_vec(), 2)
    {
        folder.upscale(&format!("in.mkv out.mkv -y --model none --audio {encoder} --report out.json"));
        let report: Value = serde_json::from_slice(&folder.read("out.json")).unwrap();
        let seen = layouts(&folder, "out.mkv");
        for (place, (layout, names)) in LAYOUTS.iter().enumerate() {
            let (to, conversion) = (&seen[place], &report["converted"][place]);
            let named =
                |list: &[(&str, &'static str)]| list.iter().find(|(from, _)| from == layout).map(|row| row.1);
            let expected = named(renamed).or(named(complete)).or(named(mixed)).unwrap_or(layout);
            assert_eq!(to, expected, "{layout} in {encoder}");
            let is_reported =
                conversion.as_str().unwrap().contains(&format!(", channel layout {layout} to "));
            let is_changed = named(complete).or(named(mixed)).is_some();
            assert_eq!(is_reported, is_changed, "{layout} in {encoder}: {conversion}");
            if named(mixed).is_some() {
                continue;
            }
            let after_names = channels(to);
            let after = levels_db(&folder, "out.mkv", place, after_names.len());
            for (name, before) in names.iter().zip(&before[place]) {
                let other = match *name {
                    "SL" => "BL",
                    "SR" => "BR",
                    "BL" => "SL",
                    "BR" => "SR",
                    name => name,
                };
                let at = |name: &str| after_names.iter().position(|after| *after == name);
                let after = after[at(name).or_else(|| at(other)).expect("the channel")];
                assert!(
                    (after - before).abs() < 0.7,
                    "{layout} in {encoder}: {name} from {before} to {after} dB"
                );
            }
        }
        let lost = report["left_out"].as_array().unwrap();
        assert_eq!(lost.len(), mixed.len(), "{lost:?}");
        for ((from, _), lost) in mixed.iter().zip(lost) {
            assert!(lost.as_str().unwrap().contains(&format!("the channel layout {from} of")), "{lost}");
        }
    }
    folder
        .hasn("upscale in.mkv strict.mkv --model none --audio ac3 --strict")
        .assert_told("the channel layout 6.1", "");
}

#[test]
fn converted_audio_keeps_its_depth() {
    let folder = Folder::new();
    let noise = "-f lavfi -i aevalsrc=random(0)-0.5:s=48000:d=0.5";
    folder.ffmpeg(&format!("{SMALL} {noise} -t 0.5 -c:v libx264 -c:a pcm_s24le in.mkv"));
    folder.upscale("in.mkv out.mkv --model none --audio flac");
    let samples = |name: &str| folder.ffmpeg(&format!("-i {name} -map 0:a -f s32le -"));
    assert!(samples("in.mkv") == samples("out.mkv"), "24-bit samples are to be the same");
}

#[test]
fn frames_without_a_timestamp_follow_the_one_before() {
    let folder = Folder::new();
    for (codec, rate) in [("wmav1", 22_050), ("wmav2", 44_100), ("wmav2", 48_000)] {
        let sine = format!("-f lavfi -i sine=r={rate}");
        folder.ffmpeg(&format!("{SMALL} {sine} -t 2 -c:v wmv2 -c:a {codec} in.wmv"));
        let decoded =
            |name: &str| folder.ffmpeg(&format!("-i {name} -map 0:a -f s16le -")).len() as f64 / 2.0;
        let before_s = decoded("in.wmv") / f64::from(rate);
        for options in ["out.mp4", "out.mov", "out.mkv --audio flac"] {
            folder.upscale(&format!("in.wmv {options} -y --model none"));
            let name = options.split(' ').next().unwrap();
            let after_s = decoded(name) / f64::from(rate);
            assert!(
                (after_s - before_s).abs() < 0.05,
                "{codec} {rate} {options}: {before_s} s became {after_s} s"
            );
        }
    }
}

/// Times and text of a subtitle stream, as FFmpeg converts it to SubRip.
fn subrip(folder: &Folder, name: &str) -> String {
    let srt = String::from_utf8(folder.ffmpeg(&format!("-i {name} -map 0:s -f srt -"))).unwrap();
    srt.replace("\r\n", "\n")
}

#[test]
fn captions_of_a_track_are_shown_when_they_were() {
    let folder = Folder::new();
    folder.write(
        "in.scc",
        "Scenarist_SCC V1.0\n\n00:00:00:10\t94ae 94ae 9420 9420 9470 9470 c8e5 ecec ef80 942f 942f\n\n\
         00:00:01:00\t94ae 94ae 9420 9420 9470 9470 cdef f2e5 942f 942f\n\n00:00:02:00\t942c 942c\n\n",
    );
    folder.ffmpeg(&format!("{SMALL} -i in.scc -t 3 -map 0 -map 1 -c:v libx264 -c:s copy in.mov"));
    folder.upscale("in.mov out.mkv --model none --strict");
    let seen = subrip(&folder, "out.mkv");
    assert!(seen.contains("Hello") && seen.contains("More"), "{seen}");
    assert_eq!(seen, subrip(&folder, "in.mov"));
}

#[test]
fn text_that_overlaps_a_cut_is_shown_within_the_part() {
    let folder = Folder::new();
    folder.write(
        "in.srt",
        "1\n00:00:01,000 --> 00:00:02,000\nover\n\n2\n00:00:03,000 --> 00:00:13,000\nfirst\n\n\
         3\n00:00:12,200 --> 00:00:12,800\nsecond\n\n4\n00:00:13,500 --> 00:00:16,000\nthird\n",
    );
    folder.ffmpeg(
        "-f lavfi -i testsrc2=s=32x32:r=5 -i in.srt -t 16 -c:v libx264 -g 5 -c:s:0 srt in.mkv -t 16 -c:v libx264 -g 5 \
         -c:s mov_text in.mp4",
    );
    let expected = "1\n00:00:00,000 --> 00:00:01,000\nfirst\n\n2\n00:00:00,200 --> 00:00:00,800\nsecond\n\n\
                    3\n00:00:01,500 --> 00:00:02,000\nthird\n\n";
    // MP4 shows one text at a time.
    let one_at_a_time = expected.replacen("00:00:01,000", "00:00:00,200", 1);
    for (name, out, expected) in [
        ("in.mkv", "out.mkv", expected),
        ("in.mkv", "out.mp4", &one_at_a_time),
        ("in.mp4", "out.mkv", &one_at_a_time),
    ] {
        folder.upscale(&format!("{name} {out} -y --model none --from 12 --to 14"));
        assert_eq!(subrip(&folder, out), expected, "{name} to {out}");
    }
    // NUT has no negative timestamps, and its first packet decides how far all are moved: text must not come before frames
    // that are decoded earlier.
    folder.ffmpeg("-i in.mkv -c:v copy -c:s ass ass.mkv");
    folder.upscale("ass.mkv out.nut --model none --from 12 --to 14");
    assert_eq!(folder.frames("out.nut").len(), 10);
}

/// Encoders, the most bits of integers and of float samples that they keep; 0 for lossy ones.
const DEPTHS: [(&str, u32, u32); 14] = [
    ("flac", 24, 0),
    ("alac", 24, 0),
    ("wavpack", 32, 24),
    ("mlp", 24, 0),
    ("pcm_s16le", 16, 0),
    ("pcm_s24le", 24, 0),
    ("pcm_s32le", 32, 0),
    ("pcm_f32le", 24, 24),
    ("pcm_f64le", 32, 24),
    ("aac", 0, 0),
    ("ac3", 0, 0),
    ("libmp3lame", 0, 0),
    ("libopus", 0, 0),
    ("libvorbis", 0, 0),
];
const SOURCES: [(&str, u32, bool); 4] =
    [("pcm_s16le", 16, false), ("pcm_s24le", 24, false), ("pcm_s32le", 32, false), ("pcm_f32le", 24, true)];

fn samples_of(folder: &Folder, name: &str) -> Vec<f64> {
    let bytes = folder.ffmpeg(&format!("-i {name} -map 0:a -f f64le -"));
    bytes.chunks_exact(8).map(|eight| f64::from_le_bytes(eight.try_into().unwrap())).collect()
}

/// Signal to noise ratio in dB.
fn snr_db(source: &[f64], found: &[f64]) -> f64 {
    let power = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let noise = power(&mut source.iter().zip(found).map(|(a, b)| a - b));
    10.0 * (power(&mut source.iter().copied()) / noise).log10()
}

/// The same of a lossy codec whose delay is still in the samples.
fn snr_db_aligned(source: &[f64], found: &[f64]) -> f64 {
    let window = 8000..9000;
    let snr_at = |delay: &usize| snr_db(&source[window.clone()], &found[window.start + delay..]);
    let delay = (0..3000).max_by(|a, b| snr_at(a).total_cmp(&snr_at(b))).unwrap();
    snr_db(source, &found[delay..])
}

#[test]
fn sweep_of_audio_encoders_and_depths() {
    let folder = Folder::new();
    let all = DEPTHS.iter().flat_map(|&to| SOURCES.map(|from| (from, to))).collect();
    for ((source, bits, is_float), (encoder, integers, floats)) in sweep::sample("depths", all, 9) {
        let name = format!("{source}.mkv");
        if !folder.path(&name).exists() {
            // Noise has all bits of its samples; the tones are what lossy codecs are made for.
            let audio =
                "aevalsrc=0.3*sin(2000*t)+0.2*sin(5111*t)+0.1*sin(9001*t)+0.002*random(0):s=48000:d=0.5";
            folder.ffmpeg(&format!("{SMALL}:d=0.5 -f lavfi -i {audio} -c:v mpeg4 -c:a {source} {name}"));
        }
        let ran =
            folder.upscale(&format!("{name} out.mkv -y --model none --audio {encoder} --report out.json"));
        let (before, after) = (samples_of(&folder, &name), samples_of(&folder, "out.mkv"));
        let what = format!("{source} to {encoder}");
        let kept = if is_float { floats } else { integers };
        if integers == 0 {
            folder.ffmpeg(&format!("-i {name} -c:v copy -c:a {encoder} -b:a 96k -strict -2 ffmpeg.mkv"));
            let ffmpegs = snr_db_aligned(&before, &samples_of(&folder, "ffmpeg.mkv"));
            let ours = snr_db_aligned(&before, &after);
            println!("{what}: {ours:.1} dB, FFmpeg {ffmpegs:.1} dB");
            assert!(ours > ffmpegs - 0.1, "{what}: {ours:.1} dB, FFmpeg {ffmpegs:.1} dB");
        } else if kept >= bits {
            println!("{what}: exact");
            assert_eq!(before, after, "{what}");
        } else {
            let (ours, least) = (snr_db(&before, &after), 6.0 * f64::from(integers) - 15.0);
            println!("{what}: {ours:.1} dB");
            assert!(ours > least.min(120.0), "{what}: {ours:.1} dB");
            let report: Value = serde_json::from_slice(&folder.read("out.json")).unwrap();
            let conversion = report["converted"][0].as_str().unwrap();
            assert!(conversion.contains(&format!("{bits} bits to ")), "{what}: {conversion}\n{}", ran.stderr);
        }
        assert!(before.len().abs_diff(after.len()) <= 2048, "{what}: {} samples", after.len());
    }
}
