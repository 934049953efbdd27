//! Side data of frames: kept where the encoder takes it, else reported once.

use crate::common::program::Folder;

const TEST_FRAMES: &str = "-f lavfi -i testsrc2=s=64x64:r=25";

/// A UUID and four bytes.
const USER_DATA: [u8; 20] = [7; 20];

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
    let count = |i: usize| usize::from(stream[i + 5] & 31);
    places.map(|i| stream[i + 7..i + 7 + 3 * count(i)].to_vec()).collect()
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
fn captions_outlive_frames_that_filters_drop_and_are_not_repeated() {
    let folder = Folder::new();
    clip(&folder, "in.h264", |frame| t35(&captions(frame)));
    let wanted = captions_in(&folder.read("in.h264"));
    for (filter, count) in [("fps=10", 5), ("fps=50", 24), ("decimate", 10)] {
        let line = "--model none --scale 1 --encoder-opt bf=0 --strict";
        folder.upscale(&format!("in.h264 out.mkv -y {line} --filter {filter}"));
        folder.ffmpeg("-i out.mkv -c copy -y out.h264");
        assert!(folder.frames("out.mkv").len().abs_diff(count) <= 1, "{filter}");
        assert_eq!(captions_in(&folder.read("out.h264")).concat(), wanted.concat(), "{filter}");
    }
    // The first frame alone remains.
    let line = "in.h264 out.mkv -y --model none --filter select=eq(n\\,0) --report report.json";
    folder.upscale(line);
    let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    assert_eq!(report["left_out"], serde_json::json!(["closed captions of dropped frames"]));
    folder.hasn(&format!("upscale {line} --strict")).assert_told("closed captions", "--strict");
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
    for (name, expected) in
        [("afd.h264", "active format description"), ("plus.hevc", "HDR10+"), ("dolby.hevc", "Dolby Vision")]
    {
        let ran = folder.upscale(&format!("{name} out.mkv -y --model none"));
        assert_eq!(ran.stderr.matches(expected).count(), 1, "{name}: {}", ran.stderr);
        assert_eq!(folder.frames("out.mkv").len(), 12, "{name}");
    }
    // libvpx keeps HDR10+ of PQ alone, from FFmpeg 6.1 on.
    folder.hasn("upscale plus.hevc out.webm -y --model none --strict").assert_told("HDR10+", "--strict");
    // The container has a timecode for the stream.
    folder.upscale("timecode.hevc out.mkv -y --model none --strict");
    let probe = folder.probe("out.mkv");
    let tags = &probe.video().tags;
    assert!(tags.values().any(|value| value == "01:02:03:04"), "{tags:?}");
    let ran = folder.upscale("timecode.hevc out.ts -y --model none");
    assert_eq!(ran.stderr.matches("timecode of frames").count(), 1, "{}", ran.stderr);
    clip(&folder, "plain.h264", |_| Sei { payload_type: 5, payload: USER_DATA.to_vec() });
    folder.ffmpeg("-fflags +genpts -i plain.h264 -c copy plain.mp4");
    let ran = folder.upscale("plain.mp4 out.mkv -y --model none --progress none");
    assert_eq!(ran.stderr, "", "no warnings");
}

#[test]
fn user_data_stays_on_its_frames() {
    let folder = Folder::new();
    clip(&folder, "in.h264", |_| Sei { payload_type: 5, payload: USER_DATA.to_vec() });
    let count = |name: &str, wanted: &[u8]| {
        let stream = folder.read(name);
        stream.windows(wanted.len()).filter(|bytes| bytes == &wanted).count()
    };
    assert_eq!((count("in.h264", &USER_DATA), count("in.h264", b"x264 - core")), (12, 1));
    folder.upscale("in.h264 out.mkv --model none --strict");
    folder.ffmpeg("-i out.mkv -c copy -bsf:v h264_mp4toannexb out.h264");
    // The settings of the source's encoder are not those of the output's.
    assert_eq!((count("out.h264", &USER_DATA), count("out.h264", b"x264 - core")), (12, 1));
    folder.upscale("in.h264 lossless.mkv --model none --encoder ffv1 --report report.json");
    let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    assert_eq!(report["left_out"], serde_json::json!(["user data (SEI)"]));
    folder
        .hasn("upscale in.h264 strict.mkv --model none --encoder ffv1 --strict")
        .assert_told("user data (SEI)", "--strict");
}

/// A JPEG with the header of an ICC profile for this colour space.
fn jpeg_with_profile(jpeg: &[u8], space: &[u8; 4]) -> Vec<u8> {
    let mut profile = [0; 128];
    profile[3] = 128;
    profile[8] = 2;
    profile[12..16].copy_from_slice(b"mntr");
    profile[16..20].copy_from_slice(space);
    profile[20..24].copy_from_slice(b"XYZ ");
    profile[36..40].copy_from_slice(b"acsp");
    let segment = [b"ICC_PROFILE\0\x01\x01".as_slice(), &profile].concat();
    [&jpeg[..2], &[0xff, 0xe2, 0, segment.len() as u8 + 2], &segment, &jpeg[2..]].concat()
}

#[test]
fn an_icc_profile_is_kept_or_reported() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 1 plain.jpg"));
    let plain = folder.read("plain.jpg");
    folder.write("in.jpg", jpeg_with_profile(&plain, b"RGB "));
    folder.write("cmyk.jpg", jpeg_with_profile(&plain, b"CMYK"));
    let has_profile = |name: &str| {
        let frames: serde_json::Value = folder.ffprobe("-show_frames", name);
        frames["frames"][0]["side_data_list"].to_string().contains("ICC profile")
    };
    assert!(has_profile("in.jpg") && has_profile("cmyk.jpg"));
    for out in ["out.png", "out.jpg"] {
        folder.upscale(&format!("in.jpg {out} --model none --strict"));
        assert!(has_profile(out), "{out}");
    }
    // A filter that changes the primaries.
    folder.upscale("in.jpg p3.png --model none --strict --filter setparams=color_primaries=smpte432");
    assert!(!has_profile("p3.png"));
    // An encoder that has no place for it, and a profile that is not one for the frames.
    for (input, out) in [("in.jpg", "out.tif"), ("in.jpg", "out.mkv"), ("cmyk.jpg", "cmyk.png")] {
        let ran = folder.upscale(&format!("{input} {out} --model none --report report.json"));
        assert!(ran.stderr.contains("ICC profile"), "{out}: {}", ran.stderr);
        let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
        assert_eq!(report["left_out"], serde_json::json!(["ICC profile"]), "{out}");
        assert!(!has_profile(out), "{out}");
        folder
            .hasn(&format!("upscale {input} {out} -y --model none --strict"))
            .assert_told("ICC profile", "--strict");
    }
}

#[test]
fn stereo_is_kept_or_reported() {
    let folder = Folder::new();
    folder
        .ffmpeg(&format!("{TEST_FRAMES} -frames:v 3 -c:v ffv1 -metadata:s:v stereo_mode=left_right in.mkv"));
    for (out, is_held) in [("out.mkv", true), ("out.mp4", true), ("out.mov", false)] {
        folder.upscale(&format!("in.mkv {out} --model none --report report.json"));
        let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
        let expected: &[&str] = if is_held { &[] } else { &["stereoscopic 3D"] };
        assert_eq!(report["left_out"], serde_json::json!(expected), "{out}");
        let side_data = format!("{:?}", folder.probe(out).video().side_data_list);
        assert_eq!(side_data.contains("Stereo 3D"), is_held, "{out}: {side_data}");
    }
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

/// EXIF with nothing but an orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let directory = [0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0];
    [&b"MM\0*\0\0\0\x08"[..], &directory].concat()
}

fn jpeg_with_exif(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let exif = [b"Exif\0\0", exif(orientation).as_slice()].concat();
    [&jpeg[..2], &[0xff, 0xe1, 0, exif.len() as u8 + 2], &exif, &jpeg[2..]].concat()
}

/// The filters that turn EXIF's orientations from 1 on upright.
const UPRIGHT: [&str; 8] = [
    "null",
    "hflip",
    "hflip,vflip",
    "vflip",
    "transpose=cclock_flip",
    "transpose=clock",
    "transpose=clock_flip",
    "transpose=cclock",
];

#[test]
fn images_are_turned_upright_as_their_exif_says() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -vf crop=64:48 -frames:v 1 -pix_fmt yuvj444p plain.jpg"));
    folder.upscale("plain.jpg plain.png --model none --scale 1");
    let plain = folder.read("plain.jpg");
    let mut outputs = String::new();
    for (i, upright) in UPRIGHT.iter().enumerate() {
        folder.write(&format!("in{}.jpg", i + 1), jpeg_with_exif(&plain, i as u8 + 1));
        outputs += &format!("-vf {upright} ff{}.png ", i + 1);
    }
    folder.ffmpeg(&format!("-i plain.png {outputs}"));
    let line = "--model none --scale 1";
    for i in 1..=8 {
        folder.upscale(&format!("in{i}.jpg out{i}.png {line}"));
    }
    folder.upscale(&format!("in%d.jpg seq%d.png {line}"));
    let names = |of: &str| (1..=8).map(|i| (format!("{of}{i}.png"), "rgb24")).collect::<Vec<_>>();
    let expected = folder.hashes_of_all(names("ff"));
    assert_eq!(folder.hashes_of_all(names("out")), expected);
    // A sequence keeps the size of its first image.
    assert_eq!(folder.hashes_of_all(names("seq"))[..4], expected[..4]);
    // Matroska has no place for it, and MP4 none for that of a frame.
    folder.ffmpeg("-i in6.jpg -c copy in.mkv");
    for out in ["out.mkv", "out.mp4"] {
        folder.upscale(&format!("in.mkv {out} --model none"));
        let probe = folder.probe(out);
        assert_eq!((probe.video().width, probe.video().height), (96, 128), "{out}");
    }
}

#[test]
fn exif_is_read_where_the_decoder_does_not() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -vf crop=64:48 -frames:v 1 -pix_fmt rgb24 plain.png"));
    folder.ffmpeg("-i plain.png -lossless 1 plain.webp");
    folder.ffmpeg("-i plain.png -vf transpose=clock upright.png");
    let (png, webp) = (folder.read("plain.png"), folder.read("plain.webp"));
    let chunk = [b"eXIf", exif(6).as_slice()].concat();
    let (size, checksum) = ((chunk.len() as u32 - 4).to_be_bytes(), crc32fast::hash(&chunk).to_be_bytes());
    folder.write("in.png", [&png[..33], &size, &chunk, &checksum, &png[33..]].concat());
    // A WebP with EXIF has a header that says so (VP8X): flags, width and height less one.
    let header = [b"VP8X".as_slice(), &10u32.to_le_bytes(), &[8, 0, 0, 0, 63, 0, 0, 47, 0, 0]].concat();
    let exif_chunk = [b"EXIF", &26u32.to_le_bytes()[..], &exif(6)].concat();
    let body = [b"WEBP", header.as_slice(), &webp[12..], &exif_chunk].concat();
    folder.write("in.webp", [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat());
    let expected = folder.frame_hashes("upright.png", "rgb24");
    for input in ["in.png", "in.webp"] {
        folder.upscale(&format!("{input} out.png -y --model none --scale 1"));
        assert_eq!(folder.frame_hashes("out.png", "rgb24"), expected, "{input}");
    }
}

/// Puts a timecode and a rate of 25 fps into a DPX of FFmpeg, whose header ends before the place of both.
fn with_timecode(dpx: &[u8], timecode: u32) -> Vec<u8> {
    const HEADER: usize = 2048;
    let from = u32::from_be_bytes(dpx[4..8].try_into().unwrap()) as usize;
    let mut file = [&dpx[..from], &vec![0; HEADER - from], &dpx[from..]].concat();
    let size = file.len() as u32;
    for (at, word) in
        [(4, HEADER as u32), (16, size), (1920, timecode), (1724, 25f32.to_bits()), (1940, 25f32.to_bits())]
    {
        file[at..at + 4].copy_from_slice(&word.to_be_bytes());
    }
    file
}

#[test]
fn the_timecode_of_a_scan_is_that_of_the_video() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 4 -pix_fmt gbrp10be %d.dpx"));
    for number in 1..=4 {
        let name = format!("{number}.dpx");
        folder.write(&name, with_timecode(&folder.read(&name), 0x0102_0300 + number));
    }
    for (part, expected) in [("", "01:02:03:01"), ("--from 0.08", "01:02:03:03")] {
        folder.upscale(&format!("%d.dpx out.mov -y --model none --encoder prores_ks --strict {part}"));
        let probe = folder.probe("out.mov");
        assert_eq!(probe.video().tags.get("timecode").map(String::as_str), Some(expected), "{part}");
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
