//! Clips with audio of every codec that FFmpeg encodes.

use super::program::{Folder, Probe};

const VIDEO: &str = "-f lavfi -i testsrc2=s=32x32:r=25";
const SINE: &str = "-f lavfi -i sine=r=48000";

/// FFmpeg's encoders of audio, sample rate, channels, and a container in which the codec is read back.
#[rustfmt::skip]
pub const AUDIO: [(&str, u32, u32, &str); 56] = [
    ("aac", 48_000, 2, "mkv"), ("ac3", 48_000, 2, "mkv"), ("adpcm_g722", 48_000, 1, "mkv"), ("adpcm_ima_qt", 48_000, 2, "mov"),
    ("adpcm_ima_wav", 48_000, 2, "mkv"), ("adpcm_ms", 48_000, 2, "mkv"), ("adpcm_swf", 44_100, 1, "mkv"),
    ("adpcm_yamaha", 48_000, 2, "mkv"), ("alac", 48_000, 2, "mkv"), ("dca", 48_000, 2, "mkv"), ("dfpwm", 48_000, 2, "mkv"),
    ("eac3", 48_000, 2, "mkv"), ("flac", 48_000, 2, "mkv"), ("g723_1", 8_000, 1, "mkv"), ("libgsm", 8_000, 1, "mov"),
    ("libgsm_ms", 8_000, 1, "mkv"), ("libmp3lame", 48_000, 2, "mkv"), ("libopus", 48_000, 2, "mkv"),
    ("libspeex", 8_000, 1, "mkv"), ("libvorbis", 48_000, 2, "mkv"), ("mlp", 48_000, 2, "mkv"), ("mp2", 48_000, 2, "mkv"),
    ("nellymoser", 44_100, 1, "flv"), ("pcm_alaw", 8_000, 1, "mkv"), ("pcm_bluray", 48_000, 2, "m2ts"),
    ("pcm_dvd", 48_000, 2, "mpg"), ("pcm_f32be", 48_000, 2, "nut"), ("pcm_f32le", 48_000, 2, "mkv"),
    ("pcm_f64be", 48_000, 2, "nut"), ("pcm_f64le", 48_000, 2, "mkv"), ("pcm_mulaw", 8_000, 1, "mkv"),
    ("pcm_s16be", 48_000, 2, "mkv"), ("pcm_s16be_planar", 48_000, 2, "nut"), ("pcm_s16le", 48_000, 2, "mkv"),
    ("pcm_s16le_planar", 48_000, 2, "nut"), ("pcm_s24be", 48_000, 2, "mkv"), ("pcm_s24le", 48_000, 2, "mkv"),
    ("pcm_s24le_planar", 48_000, 2, "nut"), ("pcm_s32be", 48_000, 2, "mkv"), ("pcm_s32le", 48_000, 2, "mkv"),
    ("pcm_s64be", 48_000, 2, "nut"), ("pcm_s64le", 48_000, 2, "mkv"), ("pcm_s8", 48_000, 2, "nut"),
    ("pcm_u16be", 48_000, 2, "nut"), ("pcm_u16le", 48_000, 2, "nut"), ("pcm_u24be", 48_000, 2, "nut"),
    ("pcm_u32le", 48_000, 2, "nut"), ("pcm_u8", 48_000, 2, "mkv"), ("real_144", 8_000, 1, "mkv"), ("s302m", 48_000, 2, "ts"),
    ("truehd", 48_000, 2, "mkv"), ("tta", 48_000, 2, "mkv"), ("wavpack", 48_000, 2, "mkv"), ("wmav1", 48_000, 2, "mkv"),
    ("wmav2", 48_000, 2, "mkv"), ("comfortnoise", 8_000, 1, "nut"),
];

/// A clip with this audio; its name, and FFmpeg's name of the codec.
pub fn with_audio(
    folder: &Folder,
    (encoder, rate, channels, container): (&str, u32, u32, &str),
    seconds: f64,
) -> (String, String) {
    let name = format!("{encoder}.{container}");
    if !folder.path(&name).exists() {
        let video = match container {
            "mpg" => "mpeg2video",
            "m2ts" => "mpeg2video -f mpegts -mpegts_m2ts_mode 1",
            "flv" => "flv",
            _ => "mpeg4",
        };
        let codec = format!("-strict -2 -c:a {encoder} -ar {rate} -ac {channels}");
        folder.ffmpeg(&format!("{VIDEO} {SINE} -t {seconds} -c:v {video} {codec} {name}"));
    }
    let codec = audio_of(&folder.probe(&name)).expect("audio");
    (name, codec)
}

/// FFmpeg's name of the first audio's codec.
pub fn audio_of(probe: &Probe) -> Option<String> {
    let audio = probe.streams.iter().find(|stream| stream.codec_type == "audio");
    audio.map(|stream| stream.codec_name.clone())
}
