//! Inputs by chance, of all that FFmpeg writes.

use std::fmt::Write;

use super::{Walk, ffmpeg};
use crate::common::Random;
use crate::common::program::Folder;

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

/// Draws inputs until FFmpeg writes one.
pub fn draw(random: &mut Random, folder: &Folder) -> Walk {
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
        let codec = random.choose(kind.audio);
        let layout = match (codec, random.choose(LAYOUTS)) {
            // FFmpeg's encoder of AAC describes this layout in its first packet alone, which a part does not have.
            ("aac", "2.1") => "3.0",
            (_, layout) => layout,
        };
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
        write!(options, " -c:a:{place} {codec}").unwrap();
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
