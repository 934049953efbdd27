//! Colour is kept: HDR metadata, matrix, primaries, transfer, range, chroma location, on the stream and in the bitstream,
//! and the code values themselves.

use crate::common::program::Folder;
use serde_json::Value;

const TEST_FRAMES: &str = "-f lavfi -i testsrc2=s=64x64:r=25";
/// Mastering display of a real video: P3 within BT.2020, 0.005 to 1000 cd/m2.
const DISPLAY: &str = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)";
const LIGHT: &str = "1000,400";

/// A clip with HDR metadata in its bitstream alone.
fn hdr10(folder: &Folder, name: &str) {
    let pq = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc";
    let hdr = format!("log-level=error:hdr10=1:{pq}:master-display={DISPLAY}:max-cll={LIGHT}");
    folder.ffmpeg(&format!(
        "{TEST_FRAMES} -frames:v 6 -pix_fmt yuv420p10le -c:v libx265 -x265-params {hdr} {name}"
    ));
}

/// R, G, B, white, luminance, then content light level, as numbers: fractions differ.
fn light_of(side_data: &Value) -> Option<Vec<f64>> {
    let list = side_data.as_array()?;
    let entry = |name: &str| list.iter().find(|entry| entry["side_data_type"] == name);
    let display = entry("Mastering display metadata")?;
    let light = entry("Content light level metadata")?;
    let fraction = |key: &str| {
        let (num, den) = display[key].as_str().unwrap().split_once('/').unwrap();
        num.parse::<f64>().unwrap() / den.parse::<f64>().unwrap()
    };
    let colours =
        ["red_x", "red_y", "green_x", "green_y", "blue_x", "blue_y", "white_point_x", "white_point_y"];
    let values = colours.into_iter().chain(["min_luminance", "max_luminance"]).map(fraction);
    let levels = ["max_content", "max_average"].map(|key| light[key].as_f64().unwrap());
    Some(values.chain(levels).collect())
}

/// HDR metadata of the container, by `ffprobe`.
fn light_of_stream(folder: &Folder, name: &str) -> Option<Vec<f64>> {
    let json: Value = folder.ffprobe("-select_streams v -show_streams", name);
    light_of(&json["streams"][0]["side_data_list"])
}

/// HDR metadata of the first decoded frame, by `ffprobe`.
fn light_of_frame(folder: &Folder, name: &str) -> Option<Vec<f64>> {
    let json: Value = folder.ffprobe("-show_frames -read_intervals %+#1", name);
    light_of(&json["frames"][0]["side_data_list"])
}

fn assert_light(found: Option<Vec<f64>>, what: &str) {
    let expected = [0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329, 0.005, 1000.0, 1000.0, 400.0];
    let found = found.unwrap_or_else(|| panic!("{what}: no HDR metadata"));
    for (found, expected) in found.iter().zip(expected) {
        // AV1 counts luminance in steps of 1/16384.
        assert!((found - expected).abs() <= 2e-5 + expected * 1e-4, "{what}: {found}, not {expected}");
    }
}

#[test]
fn hdr10_metadata_is_on_the_stream_and_in_the_bitstream() {
    let folder = Folder::new();
    hdr10(&folder, "in.mkv");
    assert_light(light_of_frame(&folder, "in.mkv"), "the clip");
    for (encoder, bare) in [("libx265", "bare.hevc"), ("libsvtav1", "bare.obu"), ("libx264", "bare.h264")] {
        for extension in ["mkv", "mp4", "mov"] {
            // MOV has no AV1.
            if extension == "mov" && encoder == "libsvtav1" {
                continue;
            }
            let out = format!("{encoder}.{extension}");
            let ran = folder.upscale(&format!("in.mkv {out} --model none --encoder {encoder}"));
            assert!(!ran.stderr.contains("left out"), "{}", ran.stderr);
            assert_light(light_of_stream(&folder, &out), &out);
            let video = folder.probe(&out);
            let video = video.video();
            let tags = [&video.pix_fmt, &video.color_space, &video.color_transfer, &video.color_primaries];
            assert_eq!(tags, ["yuv420p10le", "bt2020nc", "smpte2084", "bt2020"], "{out}");
        }
        folder.ffmpeg(&format!("-i {encoder}.mkv -c copy {bare}"));
        match encoder {
            // FFmpeg's decoder of H.264 reads these messages from version 6 on; its parser does always.
            "libx264" => assert_h264_light(&folder, bare),
            _ => assert_light(light_of_frame(&folder, bare), bare),
        }
    }
    // What is in the container alone goes to the next container, with an encoder that has no place for it.
    folder.upscale("libx264.mkv out.mkv --model none --encoder ffv1");
    assert_light(light_of_stream(&folder, "out.mkv"), "ffv1 in Matroska");
    // Where neither has a place, it is logged.
    let ran = folder.upscale("in.mkv out.nut --model none --encoder ffv1");
    assert!(ran.stderr.contains("mastering display") && ran.stderr.contains("left out"), "{}", ran.stderr);
    // The user's own parameters override ours, and the others stay.
    folder.upscale(
        "in.mkv own.mkv --model none --encoder libx265 --encoder-opt x265-params=max-cll=7,5:log-level=none",
    );
    folder.ffmpeg("-i own.mkv -c copy own.hevc");
    let own = light_of_frame(&folder, "own.hevc").unwrap();
    assert_eq!((own[10], own[11], own[0]), (7.0, 5.0, 0.68));
}

fn assert_h264_light(folder: &Folder, name: &str) {
    let line = format!("-v trace -i {name} -c copy -frames:v 1 -bsf:v trace_headers -f null -");
    let mut ffmpeg = std::process::Command::new("ffmpeg");
    let output = ffmpeg.args(line.split_whitespace()).current_dir(folder.path("")).output().unwrap();
    let trace = String::from_utf8_lossy(&output.stderr);
    for (field, value) in [
        ("display_primaries_x[0]", 13250),
        ("display_primaries_y[2]", 16000),
        ("white_point_x", 15635),
        ("max_display_mastering_luminance", 10_000_000),
        ("min_display_mastering_luminance", 50),
        ("max_content_light_level", 1000),
        ("max_pic_average_light_level", 400),
    ] {
        let line = trace.lines().find(|line| line.contains(field));
        let line = line.unwrap_or_else(|| panic!("{name}: no {field}"));
        assert!(line.trim_end().ends_with(&format!("= {value}")), "{name}: {line}");
    }
}

/// Range, matrix, transfer, primaries, chroma location, as `ffprobe` names them.
fn tags(folder: &Folder, name: &str) -> [String; 5] {
    let json: Value = folder.ffprobe("-select_streams v -show_streams", name);
    ["color_range", "color_space", "color_transfer", "color_primaries", "chroma_location"]
        .map(|key| json["streams"][0][key].as_str().unwrap_or("unknown").to_owned())
}

#[test]
fn colour_tags_are_in_the_bitstream_itself() {
    let folder = Folder::new();
    // As `ffmpeg` names them: range, matrix, transfer, primaries, chroma location.
    let sources = [
        ["tv", "bt2020nc", "smpte2084", "bt2020", "topleft"],
        ["tv", "bt2020nc", "arib-std-b67", "bt2020", "left"],
        ["pc", "bt709", "bt709", "bt709", "left"],
        ["tv", "bt470bg", "bt470bg", "bt470bg", "center"],
        ["tv", "smpte170m", "smpte170m", "smpte170m", "left"],
    ];
    // Which of them each codec has a place for.
    let all = [true; 5];
    let encoders = [
        ("libx264", "h264", all),
        ("libx265", "hevc", all),
        ("libaom-av1", "obu", [true, true, true, true, false]),
        ("libsvtav1", "obu", [true, true, true, true, false]),
        ("libvpx-vp9", "ivf", [true, true, false, false, false]),
        ("mpeg2video", "m2v", [false, true, true, true, false]),
    ];
    for source in sources {
        let [range, matrix, transfer, primaries, place] = source;
        folder.ffmpeg(&format!(
            "{TEST_FRAMES} -frames:v 2 -vf format=yuv420p,setparams=range={range}:color_primaries={primaries}:\
             color_trc={transfer}:colorspace={matrix} -chroma_sample_location {place} -c:v libx264 in.mkv"
        ));
        let expected = tags(&folder, "in.mkv");
        assert_eq!(expected[1], matrix, "the clip has its tags");
        for (encoder, extension, holds) in encoders {
            let quick = if encoder == "libaom-av1" { "--encoder-opt cpu-used=8" } else { "" };
            folder.upscale(&format!("in.mkv out.mkv -y --model none --encoder {encoder} {quick}"));
            let on_stream = tags(&folder, "out.mkv");
            // MPEG-2 has limited range only, to which the values are converted.
            let from = usize::from(encoder == "mpeg2video");
            assert_eq!(on_stream[from..4], expected[from..4], "{encoder}, on the stream");
            let bare = format!("bare.{extension}");
            folder.ffmpeg(&format!("-i out.mkv -c copy {bare}"));
            let found = tags(&folder, &bare);
            for i in (0..5).filter(|&i| holds[i]) {
                assert_eq!(found[i], expected[i], "{encoder} of {source:?}, in the bitstream");
            }
        }
    }
}

/// R', G', B' of a sample of the first frame, as `ffmpeg` converts it.
fn patch(folder: &Folder, name: &str) -> [u8; 3] {
    let line = format!("-i {name} -frames:v 1 -vf format=rgb24,crop=1:1:20:20 -f rawvideo -");
    folder.ffmpeg(&line).try_into().expect("three bytes")
}

/// swscale rounds twice on the way through a filter; another matrix is 20 codes off.
fn assert_patch(folder: &Folder, name: &str, expected: [u8; 3], what: &str) {
    let found = patch(folder, name);
    let is_near = found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 8);
    assert!(is_near, "{what}: {found:?}, not {expected:?}");
}

const GREEN: [u8; 3] = [0x20, 0xc0, 0x40];

/// Writes two frames of green as Y'CbCr by this matrix, untagged.
fn green(folder: &Folder, name: &str, size: &str, matrix: &str) {
    folder.ffmpeg(&format!(
        "-f lavfi -i color=0x20C040:s={size}:r=25:d=0.08 -vf scale=out_color_matrix={matrix},format=yuv422p \
         -c:v ffv1 {name}"
    ));
}

#[test]
fn one_guess_holds_before_and_after_filters() {
    let folder = Folder::new();
    green(&folder, "hd.mkv", "1280x32", "bt709");
    green(&folder, "sd.mkv", "64x576", "bt601");
    folder.ffmpeg("-f lavfi -i color=0x20C040:s=1280x32 -frames:v 1 -pix_fmt rgb24 rgb.png");
    for (name, filter, matrix) in [
        ("hd.mkv", "format=gbrp", "bt709"),
        // From R'G'B', swscale makes BT.601.
        ("hd.mkv", "curves,format=yuv420p", "smpte170m"),
        ("hd.mkv", "crop=1240:24", "bt709"),
        ("sd.mkv", "scale=1280:600", "smpte170m"),
        ("rgb.png", "hqdn3d", "smpte170m"),
    ] {
        folder.upscale(&format!("{name} out.mkv -y --model none --scale 1 --filter {filter}"));
        assert_eq!(tags(&folder, "out.mkv")[1], matrix, "{name} through {filter}");
        assert_patch(&folder, "out.mkv", GREEN, filter);
        folder.upscale(&format!("{name} out.png -y --model none --scale 1 --filter {filter} --to 0.03"));
        assert_patch(&folder, "out.png", GREEN, filter);
    }
}

#[test]
fn matrix_transfer_and_primaries_are_tagged_together() {
    let folder = Folder::new();
    green(&folder, "hd.mkv", "1280x32", "bt709");
    green(&folder, "pal.mkv", "64x576", "bt601");
    green(&folder, "ntsc.mkv", "64x480", "bt601");
    folder.ffmpeg("-f lavfi -i color=0x20C040:s=1280x32 -frames:v 1 -pix_fmt rgb24 rgb.png");
    for (name, expected) in [
        ("hd.mkv", ["bt709", "bt709", "bt709"]),
        ("pal.mkv", ["smpte170m", "bt709", "bt470bg"]),
        ("ntsc.mkv", ["smpte170m", "bt709", "smpte170m"]),
        ("rgb.png", ["bt709", "bt709", "bt709"]),
    ] {
        for (out, encoder) in [("out.mov", "prores_ks"), ("out.mov", "v210"), ("out.mp4", "libx264")] {
            folder.upscale(&format!("{name} {out} -y --model none --scale 1 --encoder {encoder}"));
            assert_eq!(tags(&folder, out)[1..4], expected, "{name} by {encoder}");
            assert!(folder.read(out).windows(4).any(|bytes| bytes == b"colr"), "{name} by {encoder}");
        }
    }
    // Primaries of BT.2020 imply its matrix, and PQ stays what it is.
    let setparams = "setparams=color_primaries=bt2020:color_trc=smpte2084";
    for format in ["gbrp10", "yuv420p10"] {
        folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 2 -vf format={format},{setparams} -c:v ffv1 in.mkv"));
        for (out, encoder) in [("out.mov", "prores_ks"), ("out.mp4", "libx264"), ("out.mkv", "libx265")] {
            let yuv = if encoder == "libx265" { "--pix-fmt yuv420p10le" } else { "" };
            folder.upscale(&format!("in.mkv {out} -y --model none --encoder {encoder} {yuv}"));
            assert_eq!(
                tags(&folder, out)[1..4],
                ["bt2020nc", "smpte2084", "bt2020"],
                "{format} by {encoder}"
            );
        }
    }
}

#[test]
fn gray_images_are_full_range() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i color=white:s=64x64 -frames:v 1 -pix_fmt rgb24 white.png");
    folder.ffmpeg("-f lavfi -i color=white:s=64x64 -frames:v 1 -pix_fmt yuv420p -c:v libx264 yuv.mkv");
    folder.ffmpeg(
        "-f lavfi -i color=white:s=64x64 -frames:v 1 -vf scale=out_range=tv,format=gray -color_range tv \
         -c:v libx264 gray.mkv",
    );
    for extension in ["png", "tif", "bmp", "pgm", "tga"] {
        for source in ["white.png", "yuv.mkv", "gray.mkv"] {
            let out = format!("out.{extension}");
            folder.upscale(&format!("{source} {out} -y --model none --pix-fmt gray"));
            let line = format!("-i {out} -pix_fmt gray -f rawvideo -");
            let white = folder.ffmpeg(&line)[2000];
            assert!(white >= 254, "{source} in {extension}: {white}");
        }
    }
}

/// Formats of decoded video, by an encoder that keeps them without loss.
const LOSSLESS: [(&str, &str); 4] = [
    (
        "--encoder ffv1",
        "yuv420p yuv422p yuv444p yuv440p yuv411p yuv410p yuv420p9le yuv420p10le yuv420p12le yuv420p14le yuv420p16le \
         yuv422p10le yuv422p12le yuv422p16le yuv444p10le yuv444p12le yuv444p16le yuva420p yuva422p yuva444p \
         yuva444p10le gbrp gbrp10le gbrp12le gbrp16le gbrap gray gray10le gray12le gray16le bgra",
    ),
    (
        "--encoder libx264 --encoder-opt qp=0 --encoder-opt crf=-1",
        "yuv420p yuv422p yuv444p nv12 gray yuv420p10le yuv444p10le gray10le",
    ),
    (
        "--encoder libx265 --encoder-opt x265-params=lossless=1:log-level=none",
        "yuv420p yuv422p yuv444p gbrp yuv420p10le yuv422p10le yuv444p12le gbrp10le gray gray10le",
    ),
    (
        "--encoder rawvideo",
        "nv12 nv21 yuyv422 uyvy422 rgb24 bgr24 rgba argb rgb48le rgba64le gbrp gray16be ya8 \
         yuv420p10be",
    ),
];

#[test]
fn a_plain_colour_comes_out_as_the_same_code_values_in_every_format() {
    let folder = Folder::new();
    let mut wrong = Vec::new();
    for (encoder, formats) in LOSSLESS {
        let formats: Vec<&str> = formats.split_whitespace().collect();
        // Programs start slowly: one writes all videos, and one reads all. Sources end by themselves after two frames: of many
        // that do not, FFmpeg 5.1 reads one for ever, once in a hundred runs.
        let plain = |size: &str, name: &str| {
            let (mut inputs, mut outputs) = (String::new(), String::new());
            for (i, format) in formats.iter().enumerate() {
                inputs += &format!("-f lavfi -i color=c=0xC85A1E:s={size}:r=25:d=0.08,format={format} ");
                outputs += &format!("-map {i} -c:v rawvideo -strict -1 {name}-{format}.nut ");
            }
            folder.ffmpeg(&(inputs + &outputs));
        };
        plain("64x64", "in");
        plain("128x128", "expected");
        for format in &formats {
            folder.upscale(&format!("in-{format}.nut out-{format}.nut -y --model none {encoder}"));
        }
        let hashes =
            |name: &str| folder.hashes_of_all(formats.iter().map(|f| (format!("{name}-{f}.nut"), *f)));
        for (format, (found, expected)) in
            formats.iter().zip(hashes("out").into_iter().zip(hashes("expected")))
        {
            if found != expected {
                wrong.push(format!("{format} by {encoder}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
