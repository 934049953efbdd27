//! Frames of every kind: pixel formats, sizes, colour tags, images.

use crate::common::program::{Folder, Stream};
use crate::common::{Random, Shape, random_weights};

const TEST_FRAMES: &str = "-f lavfi -i testsrc2=s=64x48:r=25,gblur=2";

/// A clip, and the pixel formats of input and output.
struct Row {
    name: &'static str,
    /// Options of `ffmpeg` that encode the clip.
    encoded_by: &'static str,
    /// Options of `hasn upscale`; empty for the default encoder.
    encoder: &'static str,
    /// Pixel formats of input and output.
    formats: [&'static str; 2],
}

const fn row(
    name: &'static str,
    encoded_by: &'static str,
    encoder: &'static str,
    formats: [&'static str; 2],
) -> Row {
    Row { name, encoded_by, encoder, formats }
}

/// The format is kept if the encoder has it, else the closest that loses nothing.
const ROWS: [Row; 23] = [
    row("10.mkv", "-pix_fmt yuv420p10le -c:v libx264", "", ["yuv420p10le"; 2]),
    row("422.mkv", "-pix_fmt yuv422p -c:v libx264", "", ["yuv422p"; 2]),
    row("444.mkv", "-pix_fmt yuv444p -c:v libx264", "", ["yuv444p"; 2]),
    row("full.mkv", "-pix_fmt yuvj422p -c:v mjpeg", "", ["yuvj422p"; 2]),
    row("411.nut", "-pix_fmt yuv411p -c:v ffv1", "", ["yuv411p", "yuv422p"]),
    row("rgb.nut", "-pix_fmt rgb24 -c:v rawvideo", "", ["rgb24", "yuv444p"]),
    row("rgb.avi", "-pix_fmt bgr24 -c:v rawvideo", "--encoder ffv1", ["bgr24", "bgr0"]),
    row("rgb.mov", "-pix_fmt rgb24 -c:v qtrle", "--encoder qtrle", ["rgb24"; 2]),
    row("argb.mov", "-pix_fmt argb -c:v qtrle", "--encoder qtrle", ["argb"; 2]),
    row("png.mov", "-pix_fmt rgb24 -c:v png", "--encoder png", ["rgb24"; 2]),
    row("gbrp.mkv", "-pix_fmt gbrp -c:v libx264rgb", "--encoder libx264rgb", ["gbrp"; 2]),
    row("gbrp10.mkv", "-pix_fmt gbrp10le -c:v ffv1", "--encoder ffv1", ["gbrp10le"; 2]),
    row("gbrap.mkv", "-pix_fmt bgra -c:v ffv1", "--encoder ffv1", ["bgra"; 2]),
    row("nv12.nut", "-pix_fmt nv12 -c:v rawvideo", "", ["nv12", "yuv420p"]),
    row("packed.nut", "-pix_fmt yuyv422 -c:v rawvideo", "", ["yuyv422", "yuv422p"]),
    row("uyvy.mov", "-pix_fmt uyvy422 -c:v rawvideo", "", ["uyvy422", "yuv422p"]),
    row("v210.mov", "-pix_fmt yuv422p10le -c:v v210", "", ["yuv422p10le"; 2]),
    row("gray.mkv", "-pix_fmt gray -c:v ffv1", "--encoder ffv1", ["gray"; 2]),
    row("gray10.mkv", "-pix_fmt gray10le -c:v ffv1", "--encoder ffv1", ["gray10le"; 2]),
    row("gray16.nut", "-pix_fmt gray16be -c:v rawvideo", "--encoder ffv1", ["gray16be", "gray16le"]),
    row("mono.nut", "-pix_fmt monow -c:v rawvideo", "--encoder ffv1", ["monow", "gray"]),
    row("palette.gif", "", "", ["bgra"; 2]),
    row("yuva.mkv", "-pix_fmt yuva420p -c:v ffv1", "--encoder ffv1", ["yuva420p"; 2]),
];

#[test]
fn every_pixel_format_is_kept_or_loses_nothing() {
    let folder = Folder::new();
    let mut wrong = Vec::new();
    for Row { name, encoded_by, encoder, formats } in &ROWS {
        folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 5 {encoded_by} {name}"));
        let out = format!("out-{}", name.replace("gif", "mkv"));
        let encoder = if name.ends_with("gif") { "--encoder ffv1" } else { encoder };
        folder.upscale(&format!("{name} {out} {encoder}"));
        let (before, after) = (folder.frames(name), folder.frames(&out));
        assert_eq!((before.len(), after.len()), (5, 5), "{name}");
        assert_eq!((after[0].width, after[0].height), (128, 96), "{name}");
        let found = [before[0].pix_fmt.as_str(), after[0].pix_fmt.as_str()];
        if found != *formats {
            wrong.push(format!("{name}: {found:?}, expected {formats:?}"));
        }
        let psnr_db = psnr_of_reduced(&folder, name, &out);
        if psnr_db.is_nan() || psnr_db < psnr_min_db(formats[0]) {
            wrong.push(format!("{name}: downscaled again, it is {psnr_db:.1} dB from the source"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The test frames are soft: with a wrong matrix, range or order of components they are some 25 dB from the source,
/// rightly upscaled above 38. Dithered ones are lines and dots; of 4:1:1 FFmpeg's scaler shifts the chroma.
fn psnr_min_db(format: &str) -> f64 {
    match format {
        "monow" => 15.0,
        "pal8" | "bgra" => 25.0,
        "yuv411p" => 27.0,
        _ => 38.0,
    }
}

/// PSNR of the upscaled frame, downscaled again, against the source, both as R'G'B' by FFmpeg.
fn psnr_of_reduced(folder: &Folder, before: &str, after: &str) -> f64 {
    let graph = "[0:v:0]scale=64:48:flags=area+accurate_rnd+full_chroma_int,format=rgb24,settb=1/25,setpts=N[a];\
                 [1:v:0]scale=flags=accurate_rnd+full_chroma_int,format=rgb24,settb=1/25,setpts=N[b];[a][b]psnr=stats_file=psnr.log";
    folder.ffmpeg(&format!("-i {after} -i {before} -lavfi {graph} -f null -"));
    let log = String::from_utf8(folder.read("psnr.log")).unwrap();
    let field = log.split_whitespace().find_map(|word| word.strip_prefix("psnr_avg:")).expect("a psnr_avg");
    field.parse().unwrap()
}

#[test]
fn sizes_are_as_requested() {
    let folder = Folder::new();
    let clip = |size: &str| {
        folder.ffmpeg(&format!(
            "-f lavfi -i testsrc=s={size} -frames:v 2 -c:v ffv1 -pix_fmt yuv420p in-{size}.mkv"
        ))
    };
    for size in ["853x479", "16x16", "64x48", "66x50"] {
        clip(size);
    }
    for (size, arguments, expected) in [
        ("853x479", "--encoder ffv1", (1706, 958)),
        ("853x479", "", (1706, 958)),
        ("16x16", "", (32, 32)),
        ("64x48", "--size 200x100", (200, 100)),
        ("64x48", "--size 161x121 --encoder ffv1", (161, 121)),
        ("64x48", "--size 64x48", (64, 48)),
        ("64x48", "--scale 1.5", (96, 72)),
        ("66x50", "--scale 1.5", (100, 76)),
        ("64x48", "--scale 3", (192, 144)),
        ("64x48", "--scale 0.5", (32, 24)),
        ("64x48", "--model none --scale 5", (320, 240)),
    ] {
        folder.upscale(&format!("in-{size}.mkv out.mkv -y {arguments}"));
        let frames = folder.frames("out.mkv");
        assert_eq!(frames.len(), 2);
        assert_eq!((frames[0].width, frames[0].height), expected, "{size} {arguments}");
    }
}

#[test]
fn without_model_and_scale_every_sample_is_kept() {
    let folder = Folder::new();
    for format in ["yuv420p", "yuv420p10le", "yuv422p", "yuv444p12le", "gbrp", "gray", "gray10le", "bgra"] {
        folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 4 -pix_fmt {format} -c:v ffv1 in.mkv"));
        folder.upscale("in.mkv out.mkv -y --model none --scale 1 --encoder ffv1");
        assert_eq!(folder.frame_hashes("out.mkv", format), folder.frame_hashes("in.mkv", format), "{format}");
    }
}

fn tags(stream: &Stream) -> [&str; 5] {
    let Stream { color_range, color_space, color_transfer, color_primaries, sample_aspect_ratio, .. } =
        stream;
    [color_range, color_space, color_transfer, color_primaries, sample_aspect_ratio]
}

#[test]
fn colour_tags_and_sample_aspect_are_kept() {
    let folder = Folder::new();
    let all = "setparams=range=tv:color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc";
    let pal = "setparams=range=tv:color_primaries=bt470bg:color_trc=bt470bg:colorspace=bt470bg";
    let full = "setparams=range=pc:color_primaries=bt709:color_trc=bt709:colorspace=bt709";
    for (line, options, expected) in [
        (
            format!("-vf {all},setsar=4/3 -c:v libx265 -x265-params log-level=error"),
            "",
            ["tv", "bt2020nc", "smpte2084", "bt2020", "4:3"],
        ),
        (
            format!("-vf {pal},setsar=16/15 -c:v libx264"),
            "",
            ["tv", "bt470bg", "bt470bg", "bt470bg", "16:15"],
        ),
        (format!("-vf {full} -c:v libx264"), "", ["pc", "bt709", "bt709", "bt709", "1:1"]),
        (
            format!("-vf {full},setsar=1 -c:v libx264"),
            "--size 256x96",
            ["pc", "bt709", "bt709", "bt709", "1:2"],
        ),
        // The size of the source decides, not that of the output.
        (
            "-c:v libx264".to_owned(),
            "--model none --size 1280x720",
            ["tv", "smpte170m", "bt709", "bt709", "3:4"],
        ),
        (
            "-vf scale=1280:32 -c:v libx264".to_owned(),
            "--model none --size 64x48",
            ["tv", "bt709", "bt709", "bt709", ""],
        ),
    ] {
        for extension in ["mkv", "mp4"] {
            folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 3 {line} in.{extension}"));
            folder.upscale(&format!("in.{extension} out.{extension} -y {options}"));
            let probe = folder.probe(&format!("out.{extension}"));
            let mut found = tags(probe.video());
            if found[4].is_empty() || expected[4].is_empty() {
                found[4] = expected[4];
            }
            let unknown = found.map(|tag| if tag == "unknown" { "" } else { tag });
            assert_eq!(unknown, expected, "{line} in {extension}");
        }
    }
}

#[test]
fn an_image_becomes_an_image() {
    let folder = Folder::new();
    let shape = Shape { channels: [3, 8, 8, 4, 4, 2], scale: 2, blocks: 1 };
    folder.write("rgb.safetensors", random_weights(&shape, &mut Random(5)));
    for (encoded_by, name, out, format) in [
        ("-pix_fmt rgb24", "in.png", "out.png", "rgb24"),
        ("-pix_fmt rgb48be", "in.png", "out.png", "rgb48be"),
        ("-pix_fmt rgba", "in.png", "out.png", "rgba"),
        ("-pix_fmt gray", "in.png", "out.png", "gray"),
        ("-pix_fmt gray16be", "in.png", "out.png", "gray16be"),
        ("-pix_fmt ya8", "in.png", "out.png", "ya8"),
        ("-pix_fmt pal8", "in.png", "out.png", "rgba"),
        ("-pix_fmt yuvj420p", "in.jpg", "out.jpg", "yuvj420p"),
        ("-pix_fmt yuvj444p", "in.jpg", "out.jpg", "yuvj444p"),
        ("-pix_fmt yuvj420p", "in.jpg", "out.png", "rgb24"),
        ("-pix_fmt rgb24", "in.png", "out.jpg", "yuvj444p"),
        ("-pix_fmt rgb24", "in.tiff", "out.tiff", "rgb24"),
        ("-pix_fmt bgr24", "in.bmp", "out.bmp", "bgr24"),
    ] {
        folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 1 {encoded_by} -update 1 {name}"));
        for model in ["hasn-lite-x2", "rgb.safetensors", "none"] {
            folder.upscale(&format!("{name} {out} -y --model {model} --progress none"));
            let seen = folder.path("seen").with_extension(out.rsplit('.').next().unwrap());
            std::fs::copy(folder.path(out), &seen).unwrap();
            let seen = seen.file_name().unwrap().to_str().unwrap().to_owned();
            let frames = folder.frames(&seen);
            assert_eq!(frames.len(), 1);
            assert_eq!(
                (frames[0].width, frames[0].height),
                (128, 96),
                "{encoded_by} {name} to {out} by {model}"
            );
            assert_eq!(frames[0].pix_fmt, format, "{encoded_by} {name} to {out} by {model}");
            if model != "rgb.safetensors" {
                let psnr_db = psnr_of_reduced(&folder, name, &seen);
                let min_db = psnr_min_db(encoded_by.split_whitespace().last().unwrap());
                assert!(psnr_db >= min_db, "{encoded_by} {name} to {out} by {model}: {psnr_db:.1} dB");
            }
        }
    }
}
