//! Side data of frames: kept where the encoder takes it, else reported once.

use crate::common::program::Folder;

const TEST_FRAMES: &str = "-f lavfi -i testsrc2=s=64x64:r=25";

/// An SEI message of H.264 or HEVC, to be inserted before a frame.
struct Sei {
    payload_type: u8,
    payload: Vec<u8>,
}

/// A message registered by ITU-T T.35, such as captions, AFD and HDR10+.
fn t35(bytes: &[u8]) -> Sei {
    Sei { payload_type: 4, payload: bytes.to_vec() }
}

/// Metadata of SMPTE 2094-40, application 4 version 1: one window, no percentile, no curve.
fn hdr10_plus() -> Sei {
    let number = |value: u32, bits: usize| format!("{value:0bits$b}");
    let fields = [
        (1, 2),
        (400, 27),
        (0, 1),
        (100, 17),
        (100, 17),
        (100, 17),
        (50, 17),
        (0, 4),
        (0, 10),
        (0, 1),
        (0, 1),
        (0, 1),
    ];
    let bits: String = fields.into_iter().map(|(value, bits)| number(value, bits)).collect();
    let bytes = bits
        .as_bytes()
        .chunks(8)
        .map(|byte| u8::from_str_radix(&format!("{:0<8}", std::str::from_utf8(byte).unwrap()), 2).unwrap());
    t35(&[&[0xb5, 0x00, 0x3c, 0x00, 0x01, 4, 1][..], &bytes.collect::<Vec<_>>()].concat())
}

/// Adds Dolby Vision metadata to an HEVC stream: a NAL unit of type 62 at the end of each frame.
fn with_dolby_vision(stream: &[u8]) -> Vec<u8> {
    let first = |&i: &usize| stream[i..].starts_with(&[0, 0, 0, 1, 2, 1]) && stream[i + 6] & 0x80 != 0;
    let frames: Vec<usize> = (0..stream.len().saturating_sub(7)).filter(first).collect();
    let mut out = stream[..frames[0]].to_vec();
    for (k, &frame) in frames.iter().enumerate() {
        out.extend([&[0, 0, 0, 1, 62 << 1, 1, 25][..], &[0x5a; 20]].concat());
        out.extend(&stream[frame..frames.get(k + 1).copied().unwrap_or(stream.len())]);
    }
    out
}

/// CEA-708 byte pairs of two types, different for each frame.
fn captions(frame: u8) -> Vec<u8> {
    let pairs = [0xfc, 0x20 + frame, 0x41 + frame, 0xfe, 0x61 + frame, 0x7f];
    [&[0xb5, 0x00, 0x31], b"GA94".as_slice(), &[0x03, 0xc2, 0xff], &pairs, &[0xff]].concat()
}

/// Inserts the message of `sei` before each frame. Access units start with a slice that has the first macroblock.
fn with_sei(stream: &[u8], hevc: bool, sei: impl Fn(u8) -> Sei) -> Vec<u8> {
    let starts: Vec<usize> = (0..stream.len().saturating_sub(4))
        .filter(|&i| stream[i..].starts_with(&[0, 0, 1]))
        .map(|i| i + 3)
        .collect();
    let mut out = Vec::new();
    let mut frames = 0;
    for (k, &start) in starts.iter().enumerate() {
        let end = starts.get(k + 1).map_or(stream.len(), |next| next - 3);
        let nal = &stream[start..end];
        let first_slice = if hevc {
            (nal[0] >> 1) & 63 < 32 && nal[2] & 0x80 != 0
        } else {
            matches!(nal[0] & 31, 1 | 5) && nal[1] & 0x80 != 0
        };
        if first_slice {
            let Sei { payload_type, payload } = sei(frames);
            out.extend([0, 0, 0, 1]);
            out.extend(if hevc { &[39 << 1, 1][..] } else { &[6][..] });
            out.extend([payload_type, payload.len() as u8]);
            // Emulation prevention: no three bytes look like a start code.
            for (i, &byte) in payload.iter().enumerate() {
                if i >= 2 && byte <= 3 && payload[i - 2..i] == [0, 0] {
                    out.push(3);
                }
                out.push(byte);
            }
            out.push(0x80);
            frames += 1;
        }
        out.extend([0, 0, 0, 1]);
        out.extend(nal);
    }
    out
}

fn clip(folder: &Folder, name: &str, sei: impl Fn(u8) -> Sei) {
    let hevc = name.ends_with(".hevc");
    let encoder = if hevc {
        "libx265 -x265-params log-level=error:bframes=0"
    } else {
        "libx264 -bf 0 -x264-params slices=1"
    };
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 12 -c:v {encoder} plain-{name}"));
    folder.write(name, with_sei(&folder.read(&format!("plain-{name}")), hevc, sei));
}

/// Caption bytes in a stream, frame by frame.
fn captions_in(stream: &[u8]) -> Vec<Vec<u8>> {
    let places = (0..stream.len()).filter(|&i| stream[i..].starts_with(b"GA94"));
    places.map(|i| stream[i + 7..i + 13].to_vec()).collect()
}

#[test]
fn closed_captions_stay_on_their_frames() {
    let folder = Folder::new();
    clip(&folder, "in.h264", |frame| t35(&captions(frame)));
    let wanted = captions_in(&folder.read("in.h264"));
    assert_eq!(wanted.len(), 12, "the clip has captions");
    for (encoder, bare) in [("libx264", "out.h264"), ("mpeg2video", "out.m2v")] {
        let ran = folder
            .upscale(&format!("in.h264 out.mkv -y --model none --encoder {encoder} --encoder-opt bf=0"));
        assert!(!ran.stderr.contains("captions"), "{}", ran.stderr);
        folder.ffmpeg(&format!("-i out.mkv -c copy {bare}"));
        assert_eq!(captions_in(&folder.read(bare)), wanted, "{encoder}");
    }
    let ran = folder.upscale("in.h264 out.mkv -y --model none --encoder ffv1 --report report.json");
    assert_eq!(ran.stderr.matches("closed captions").count(), 1, "{}", ran.stderr);
    let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    assert_eq!(report["left_out"][0], "closed captions (A53)");
}

#[test]
fn side_data_that_no_encoder_takes_is_reported_once() {
    let folder = Folder::new();
    let timecode = |_| {
        // One clock timestamp, 01:02:03:04, with all fields.
        let bits =
            ["01", "1", "0", "00000", "1", "0", "0", "000000100", "000011", "000010", "00001", "00000"]
                .concat();
        let bytes = bits.as_bytes().chunks(8).map(|byte| {
            let byte = format!("{:0<8}", std::str::from_utf8(byte).unwrap());
            u8::from_str_radix(&byte, 2).unwrap()
        });
        Sei { payload_type: 136, payload: bytes.collect() }
    };
    clip(&folder, "afd.h264", |_| t35(&[&[0xb5, 0x00, 0x31], b"DTG1".as_slice(), &[0x41, 0xfa]].concat()));
    clip(&folder, "timecode.hevc", timecode);
    clip(&folder, "plus.hevc", |_| hdr10_plus());
    folder.write("dolby.hevc", with_dolby_vision(&folder.read("plain-plus.hevc")));
    for (name, expected) in [
        ("afd.h264", "active format description"),
        ("timecode.hevc", "timecode of frames"),
        ("plus.hevc", "HDR10+"),
        ("dolby.hevc", "Dolby Vision"),
    ] {
        let ran = folder.upscale(&format!("{name} out.mkv -y --model none"));
        assert_eq!(ran.stderr.matches(expected).count(), 1, "{name}: {}", ran.stderr);
        assert_eq!(folder.frames("out.mkv").len(), 12, "{name}");
    }
    clip(&folder, "plain.h264", |_| Sei { payload_type: 5, payload: vec![7; 20] });
    folder.ffmpeg("-fflags +genpts -i plain.h264 -c copy plain.mp4");
    let ran = folder.upscale("plain.mp4 out.mkv -y --model none --progress none");
    assert_eq!(ran.stderr, "", "no warnings");
}

#[test]
fn the_display_matrix_is_kept() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 5 -c:v libx264 plain.mp4"));
    folder.ffmpeg("-i plain.mp4 -c copy -metadata:s:v rotate=90 in.mp4");
    for out in ["out.mp4", "out.mov"] {
        folder.upscale(&format!("in.mp4 {out} --model none"));
        let [before, after] = ["in.mp4", out].map(|name| folder.probe(name).video().side_data_list.clone());
        assert!(!before.is_empty(), "the clip has a display matrix");
        assert_eq!(after, before, "{out}");
    }
}

#[test]
fn a_video_keeps_its_timecode() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 5 -c:v libx264 -timecode 01:02:03:04 in.mov"));
    for (out, has_track) in [("out.mov", true), ("out.mp4", true), ("out.mkv", false)] {
        folder.upscale(&format!("in.mov {out} --model none"));
        let probe = folder.probe(out);
        let timecode = probe.video().tags.iter().find(|(key, _)| key.eq_ignore_ascii_case("timecode"));
        assert_eq!(timecode.map(|(_, value)| value.as_str()), Some("01:02:03:04"), "{out}");
        assert_eq!(probe.streams.iter().any(|stream| stream.codec_type == "data"), has_track, "{out}");
    }
}
