//! What a container can hold, and how it reads back: audio codecs, languages, packets cut anew, the length of a file. What it
//! cannot hold is converted, left out or refused before any frame is upscaled, and never refused after.

use crate::common::audio::{AUDIO, audio_of, with_audio};
use crate::common::program::{Folder, Ran};
use crate::common::sweep::sample;

const SMALL: &str = "-f lavfi -i testsrc2=s=32x32:r=25";
const SINE: &str = "-f lavfi -i sine=r=48000";

const CONTAINERS: [&str; 12] =
    ["mkv", "mp4", "mov", "ts", "webm", "avi", "mxf", "ogg", "nut", "flv", "3gp", "mpg"];

/// Asserts that a run has either succeeded or was refused before it wrote a frame.
fn assert_not_late(ran: &Ran, line: &str) {
    let is_late = ran.stderr.contains(".partial.") || ran.stderr.contains(" keeps ");
    assert!(matches!(ran.code, Some(0 | 1)) && !is_late, "{line}\n{}", ran.stderr);
}

#[test]
fn sweep_of_audio_codecs_and_containers() {
    let folder = Folder::new();
    let pairs = AUDIO.iter().flat_map(|&audio| CONTAINERS.map(|container| (audio, container)));
    for (audio, container) in sample("audio codecs x containers", pairs.collect(), 9) {
        let (name, codec) = with_audio(&folder, audio, 0.4);
        // NUT has no negative timestamps, which packets of reordered frames have.
        let encoder = if container == "nut" { "--encoder ffv1" } else { "" };
        let line = format!("upscale {name} out.{container} -y --model none --threads 1 {encoder}");
        let ran = folder.hasn(&line);
        assert_not_late(&ran, &line);
        let became = match ran.code {
            Some(0) => audio_of(&folder.probe(&format!("out.{container}"))).unwrap_or("left out".into()),
            _ => "refused before work".into(),
        };
        println!("{codec:18} {container:5} {}", if became == codec { "kept" } else { &became });
        if became == "left out" {
            assert!(ran.stderr.contains("left out"), "{line}\n{}", ran.stderr);
        }
    }
}

/// FFmpeg's lists of codecs have pairs that none of its demuxers or decoders reads back.
#[test]
fn what_a_container_garbles_is_refused_before_anything_is_kept() {
    let folder = Folder::new();
    for (name, format) in [("yuv.mkv", "yuv420p"), ("rgb.mkv", "gbrp")] {
        folder.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s=176x144:r=25 -frames:v 3 -c:v ffv1 -pix_fmt {format} {name}"
        ));
    }
    for (source, encoder, out, problem) in [
        ("yuv.mkv", "h263", "flv", "flv does not keep its frames apart"),
        ("yuv.mkv", "mpeg4", "flv", "flv does not keep its frames apart"),
        ("yuv.mkv", "vc2", "ts", "mpegts does not keep its frames apart"),
        ("rgb.mkv", "rawvideo", "mov", "what it encodes is read from mov as none"),
        ("rgb.mkv", "rawvideo", "avi", "what it encodes is read from avi as none"),
        ("rgb.mkv", "qtrle", "mkv", "what it encodes is not decoded from matroska"),
    ] {
        let line = format!("upscale {source} out.{out} --model none --scale 1 --encoder {encoder}");
        let ran = folder.hasn(&line);
        assert_eq!(ran.code, Some(1), "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains(&format!("hasn: {encoder}: {problem}")), "{line}: {}", ran.stderr);
        assert_not_late(&ran, &line);
    }
    // What is read back in other terms is no loss.
    folder.upscale("yuv.mkv out.mkv --model none --scale 1 --encoder ljpeg");
    folder.ffmpeg("-f lavfi -i color=red:s=176x144:r=25 -frames:v 3 -c:v ffv1 still.mkv");
    folder.upscale("still.mkv out.nut --model none --scale 1 --encoder libtheora");
}

/// FFmpeg takes a transport stream of ten packets or fewer for a program stream.
#[test]
fn a_short_transport_stream_is_readable() {
    let folder = Folder::new();
    for frames in [1, 2, 3] {
        folder.ffmpeg(&format!("-f lavfi -i color=gray:s=64x48:r=25 -frames:v {frames} -c:v ffv1 in.mkv"));
        folder.upscale("in.mkv out.ts -y --model none --encoder libx264");
        assert_eq!(folder.probe("out.ts").video_seconds().len(), frames);
        folder.upscale("out.ts again.ts -y --model none --encoder mpeg2video");
    }
}

#[test]
fn audio_that_has_no_tag_is_converted() {
    let folder = Folder::new();
    for (encoder, source, out, codec) in [
        ("pcm_bluray", "m2ts", "mkv", "flac"),
        ("pcm_dvd", "mpg", "mkv", "flac"),
        ("adpcm_ima_qt", "mov", "mkv", "aac"),
        ("truehd", "mkv", "ts", "aac"),
        ("pcm_s16be_planar", "nut", "mov", "pcm_s16le"),
        ("libmp3lame", "mkv", "3gp", "aac"),
        // MP4 calls it MP3.
        ("mp2", "mp4", "flv", "mp3"),
    ] {
        let (name, _) = with_audio(&folder, (encoder, 48_000, 2, source), 0.4);
        let ran = folder.upscale(&format!("{name} out.{out} -y --model none --strict"));
        assert_eq!(
            audio_of(&folder.probe(&format!("out.{out}"))).as_deref(),
            Some(codec),
            "{encoder} in {out}"
        );
        assert!(ran.stderr.contains("cannot hold its codec"), "{encoder} in {out}\n{}", ran.stderr);
    }
}

/// Codes of languages: of both kinds of ISO 639-2, those of QuickTime's list and others, broadcasters' capitals, codes of
/// two letters, tags of BCP 47, and what is none of these.
const LANGUAGES: [&str; 40] = [
    "eng", "fra", "fre", "ger", "deu", "ita", "nld", "dut", "swe", "spa", "dan", "por", "nor", "nob", "nno",
    "heb", "jpn", "ara", "fin", "gre", "ell", "isl", "ice", "tur", "hrv", "srp", "slv", "zho", "chi", "kor",
    "hin", "qaa", "mul", "und", "ENG", "NAR", "de", "en-US", "x", "12",
];

#[test]
fn sweep_of_languages_and_containers() {
    let folder = Folder::new();
    let pairs = LANGUAGES
        .iter()
        .flat_map(|&language| ["mkv", "mp4", "mov", "webm", "ts"].map(|container| (language, container)));
    for (language, container) in sample("languages x containers", pairs.collect(), 10) {
        folder.ffmpeg(&format!(
            "{SMALL} {SINE} -t 0.2 -c:v mpeg4 -c:a libopus -metadata:s:a language={language} in.mkv"
        ));
        let ran = folder.upscale(&format!("in.mkv out.{container} -y --model none --threads 1"));
        let probe = folder.probe(&format!("out.{container}"));
        let audio = probe.streams.iter().find(|stream| stream.codec_type == "audio").expect("audio");
        let seen = audio.tags.get("language").map_or("und", String::as_str);
        println!("{language:6} {container:5} {seen}");
        let is_reported = ran.stderr.contains(&format!("cannot hold the language {language} of stream 1"));
        assert_eq!(seen == "und", is_reported || language == "und", "{language} in {container}: {seen}");
    }
}

#[test]
fn languages_are_read_back_as_the_container_has_them() {
    let folder = Folder::new();
    folder.ffmpeg(&format!(
        "{SMALL} {SINE} {SINE} {SINE} -map 0 -map 1 -map 2 -map 3 -t 0.2 -c:v mpeg4 -c:a aac -metadata:s:a:0 language=hrv \
         -metadata:s:a:1 language=isl -metadata:s:a:2 language=ENG in.mkv"
    ));
    let languages = |name: &str| -> Vec<String> {
        let probe = folder.probe(name);
        let audio = probe.streams.iter().filter(|stream| stream.codec_type == "audio");
        audio.map(|stream| stream.tags.get("language").cloned().unwrap_or("und".into())).collect()
    };
    for (out, expected) in [
        ("out.mkv", ["hrv", "isl", "ENG"]),
        ("out.mp4", ["hrv", "isl", "eng"]),
        ("out.mov", ["und", "ice", "eng"]),
        ("out.ts", ["hrv", "isl", "ENG"]),
    ] {
        folder.upscale(&format!("in.mkv {out} --model none"));
        assert_eq!(languages(out), expected, "{out}");
    }
    let ran = folder.hasn("upscale in.mkv strict.mov --model none --strict");
    ran.assert_told("mov cannot hold the language hrv of stream 1", "--strict");
}

#[test]
fn audio_that_quicktime_cuts_anew_is_complete() {
    let folder = Folder::new();
    folder.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=720x576:r=25 {SINE} -t 0.4 -c:v dvvideo -pix_fmt yuv420p -ac 2 in.dv"
    ));
    folder.ffmpeg(&format!("{SMALL} {SINE} -t 1 -c:v mpeg2video -c:a pcm_s24le in.mxf"));
    folder.ffmpeg(&format!("{SMALL} {SINE} -t 1 -c:v mpeg4 -af asetnsamples=4096 -c:a pcm_s16le in.nut"));
    let samples = |name: &str| folder.ffmpeg(&format!("-i {name} -map 0:a:0 -f s32le -"));
    for name in ["in.dv", "in.mxf", "in.nut"] {
        folder.upscale(&format!("{name} out.mov -y --model none --size 64x64"));
        assert!(samples("out.mov") == samples(name), "{name}: the samples differ");
    }
}

#[test]
fn the_last_packet_of_audio_lasts_where_its_source_states_no_duration() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} {SINE} -t 0.4 -c:v mpeg4 -c:a alac in.mkv"));
    for out in ["out.mp4", "out.mov"] {
        folder.upscale(&format!("in.mkv {out} --model none"));
        let packets = |name: &str| folder.probe(name).packets_of(1).len();
        assert_eq!(packets(out), packets("in.mkv"), "{out}");
    }
}

#[test]
fn the_length_of_an_uneven_video_is_kept() {
    let folder = Folder::new();
    folder.ffmpeg(&format!(
        "{SMALL}:d=8 -vf select='lt(n,50)+eq(n,100)+eq(n,150)+gte(n,198)' -fps_mode vfr -c:v ffv1 in.mkv"
    ));
    for out in ["out.mp4", "out.mov", "out.mkv"] {
        folder.upscale(&format!("in.mkv {out} --model none"));
        let probe = folder.probe(out);
        assert_eq!(probe.format.duration.parse::<f64>().unwrap(), 8.0, "{out}");
    }
}

#[test]
fn avi_counts_frames_that_it_does_not_hold() {
    let folder = Folder::new();
    folder.ffmpeg(&format!(
        "{SMALL}:d=2 -vf select='not(between(n,20,24)+gt(n,47))' -fps_mode vfr -c:v mjpeg in.avi"
    ));
    folder.upscale("in.avi out.mkv --model none");
    assert_eq!(folder.probe("out.mkv").packets.len(), 43);
    // A truncated file has neither the frames nor the chunks in their place.
    let file = folder.read("in.avi");
    folder.write("truncated.avi", &file[..file.len() * 2 / 3]);
    folder.hasn("upscale truncated.avi out.mkv -y --model none").assert_told("damaged", "a truncated file");
}

#[test]
fn frames_that_theora_repeats_are_no_difference() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=32x32:r=5:d=1 -vf fps=25 -c:v ffv1 in.mkv");
    for out in ["out.ogg", "out.ogv"] {
        folder.upscale(&format!("in.mkv {out} --model none"));
        let seconds = folder.probe(out).video_seconds();
        assert!((5..25).contains(&seconds.len()), "{out}: {seconds:?}");
        let expected = [0.0, 0.2, 0.4, 0.6, 0.8];
        let is_there = |time: &f64| seconds.iter().any(|seen| (seen - time).abs() < 0.001);
        assert!(expected.iter().all(is_there), "{out}: {seconds:?}");
    }
}

#[test]
fn hevc_in_mp4_is_hvc1_unless_asked() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} -t 0.2 -c:v mpeg4 in.mkv"));
    let hevc = "--model none --encoder libx265 --encoder-opt preset=ultrafast";
    for (out, options, tag) in
        [("out.mp4", "", "hvc1"), ("out.mov", "", "hvc1"), ("asked.mp4", "--encoder-opt tag=hev1", "hev1")]
    {
        folder.upscale(&format!("in.mkv {out} {hevc} {options}"));
        assert_eq!(folder.probe(out).video().codec_tag_string, tag, "{out}");
    }
    folder
        .hasn(&format!("upscale in.mkv bad.mp4 {hevc} --encoder-opt tag=five5"))
        .assert_told("codec tag", "five");
}

#[test]
fn files_that_cannot_be_verified_are_written_or_refused_before_work() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} -t 0.4 -vf format=gray -c:v ffv1 in.mkv"));
    folder.upscale("in.mkv out.webp --model none");
    assert_eq!(folder.read("out.webp").windows(4).filter(|bytes| *bytes == b"ANMF").count(), 10);
    folder
        .hasn("upscale in.mkv no.webp --model none --encoder libwebp_anim")
        .assert_told("libwebp", "one packet");
    folder.upscale("in.mkv one.apng --model none --to 0.04");
    folder.upscale("in.mkv out.yuv --model none --pix-fmt yuv420p --encoder rawvideo");
    assert_eq!(folder.read("out.yuv").len(), 10 * 64 * 64 * 3 / 2);
    for name in ["out.m3u8", "out.mpd"] {
        folder.hasn(&format!("upscale in.mkv {name} --model none")).assert_told("more than one file", name);
    }
    let ran = folder.hasn("upscale in.mkv out.ts --model none --encoder ffv1");
    ran.assert_told("mpegts cannot hold ffv1", "ffv1 in a transport stream");
    let left = folder.names();
    assert!(!left.iter().any(|name| name.contains("partial") || name.contains(".hasn")), "{left:?}");
}

#[test]
fn an_encoder_that_a_container_refuses_ends() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL}:d=0.2,scale=64:64 -c:v ffv1 in.mkv"));
    for out in ["out.mxf", "out.ogv"] {
        let line = format!("upscale in.mkv {out} --model none --encoder libsvtav1");
        folder.hasn(&line).assert_told("takes no header for these streams", &line);
    }
}
