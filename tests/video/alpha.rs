//! Alpha and palettes: kept where codec and container have a place for them, else reported.

use crate::common::program::Folder;

/// A frame whose alpha rises from left to right.
const TRANSPARENT: &str =
    "-f lavfi -i testsrc2=s=64x48:r=10,format=rgba,geq=r=r(X\\,Y):g=g(X\\,Y):b=b(X\\,Y):a=X*4";
const OPAQUE: &str = "-f lavfi -i testsrc2=s=64x48:r=10";

/// Samples of all frames in this format, decoded by `decoder`.
fn samples(folder: &Folder, decoder: &str, name: &str, filter: &str) -> Vec<u8> {
    folder.ffmpeg(&format!("{decoder} -i {name} -vf {filter} -f rawvideo -"))
}

/// Mean squared difference.
fn error(one: &[u8], other: &[u8]) -> f64 {
    assert_eq!(one.len(), other.len());
    let squares = one.iter().zip(other).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
    squares.sum::<f64>() / one.len() as f64
}

fn left_out(folder: &Folder) -> Vec<String> {
    let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    serde_json::from_value(report["left_out"].clone()).unwrap()
}

fn has_alpha_tag(folder: &Folder, name: &str) -> bool {
    folder.probe(name).video().tags.keys().any(|key| key.eq_ignore_ascii_case("alpha_mode"))
}

#[test]
fn alpha_beside_the_frames_is_written() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TRANSPARENT} -frames:v 5 -c:v ffv1 in.mkv"));
    let alpha = "alphaextract,format=gray";
    let expected = samples(&folder, "", "in.mkv", alpha);
    for (encoder, out) in [("libvpx-vp9", "out.webm"), ("libvpx-vp9", "out.mkv"), ("libvpx", "vp8.webm")] {
        let line = "--model none --scale 1 --strict --report report.json";
        folder.upscale(&format!("in.mkv {out} --encoder {encoder} {line} -y"));
        assert!(has_alpha_tag(&folder, out), "{out}");
        let found = samples(&folder, &format!("-c:v {encoder}"), out, alpha);
        assert!(error(&found, &expected) < 20.0, "{out}: {}", error(&found, &expected));
        assert!(left_out(&folder).is_empty(), "{out}");
    }
}

#[test]
fn alpha_beside_the_frames_is_read() {
    let folder = Folder::new();
    let vp8 = "-c:v libvpx -auto-alt-ref 0 -pix_fmt yuva420p vp8.webm";
    folder.ffmpeg(&format!("{TRANSPARENT} -frames:v 5 -c:v libvpx-vp9 -pix_fmt yuva420p vp9.mkv"));
    folder.ffmpeg(&format!("{TRANSPARENT} -frames:v 5 {vp8}"));
    for (decoder, name) in [("libvpx-vp9", "vp9.mkv"), ("libvpx", "vp8.webm")] {
        folder.upscale(&format!("{name} out.mkv -y --model none --scale 1 --strict --encoder ffv1"));
        let expected = samples(&folder, &format!("-c:v {decoder}"), name, "format=yuva420p");
        assert!(samples(&folder, "", "out.mkv", "format=yuva420p") == expected, "{name}");
    }
    for (line, out) in
        [("", "out.mp4"), ("--encoder libvpx-vp9", "vp9.mp4"), ("--encoder libx264", "x264.mkv")]
    {
        let ran = folder.upscale(&format!("vp9.mkv {out} --model none {line} --report report.json"));
        assert!(ran.stderr.contains("alpha left out"), "{out}: {}", ran.stderr);
        assert_eq!(left_out(&folder), ["alpha"], "{out}");
        assert!(!has_alpha_tag(&folder, out), "{out}");
    }
    folder.hasn("upscale vp9.mkv strict.mp4 --model none --strict").assert_told("alpha", "--strict");
}

#[test]
fn alpha_of_opaque_frames_is_no_loss() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{OPAQUE} -frames:v 3 -pix_fmt bgra -c:v ffv1 in.mkv"));
    folder.upscale("in.mkv out.mp4 --model none --strict --report report.json");
    assert!(left_out(&folder).is_empty());
}

#[test]
fn gif_has_colours() {
    let folder = Folder::new();
    // Blurred, it has more than 256 colours.
    folder.ffmpeg(&format!("{OPAQUE},gblur=3 -frames:v 10 -pix_fmt gbrp -c:v ffv1 in.mkv"));
    folder.ffmpeg("-i in.mkv ff.gif");
    let expected = samples(&folder, "", "in.mkv", "format=rgb24");
    folder.upscale("in.mkv out.gif --model none --scale 1");
    folder.upscale("out.gif again.gif --model none --scale 1 --strict");
    let ffmpeg = error(&samples(&folder, "", "ff.gif", "format=rgb24"), &expected);
    for name in ["out.gif", "again.gif"] {
        let ours = error(&samples(&folder, "", name, "format=rgb24"), &expected);
        assert!(ours < ffmpeg / 4.0, "{name}: {ours}, ffmpeg {ffmpeg}");
    }
    assert_eq!(folder.probe("out.gif").video_pts(), folder.probe("ff.gif").video_pts());
}

#[test]
fn a_palette_keeps_transparency() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TRANSPARENT} -frames:v 3 -c:v ffv1 in.mkv"));
    folder.ffmpeg("-i in.mkv -lavfi split[a][b];[a]palettegen[p];[b][p]paletteuse in.gif");
    folder.upscale("in.gif out.gif --model none --scale 1");
    let [expected, found] =
        ["in.gif", "out.gif"].map(|name| samples(&folder, "", name, "format=bgra,alphaextract"));
    assert!(expected.contains(&0) && expected.contains(&255) && found == expected);
    // Images of their own may have palettes; frames of an animation, which has one palette, may not.
    folder.ffmpeg(&format!("{OPAQUE} -frames:v 1 -pix_fmt rgb24 in.png"));
    let expected = samples(&folder, "", "in.png", "format=rgb24");
    for out in ["out.png", "out.bmp", "out.tif"] {
        folder.upscale(&format!("in.png {out} --model none --scale 1 --pix-fmt pal8"));
        assert_eq!(folder.frames(out)[0].pix_fmt, "pal8", "{out}");
        let difference = error(&samples(&folder, "", out, "format=rgb24"), &expected);
        assert!(difference < 60.0, "{out}: {difference}");
    }
    folder
        .hasn("upscale in.png out.apng --model none --pix-fmt pal8")
        .assert_told("pal8", "choose another one");
}

/// Adds the attribute `chromaticities`, x and y of R, G, B and white, to an EXR of this height without compression.
fn with_chromaticities(exr: &[u8], values: [f32; 8], height: usize) -> Vec<u8> {
    const HEAD: usize = 8;
    let attribute =
        [&b"chromaticities\0chromaticities\0\x20\0\0\0"[..], &values.map(f32::to_le_bytes).concat()].concat();
    let offset_at = |at: usize| u64::from_le_bytes(exr[at..at + 8].try_into().unwrap());
    let table = (HEAD..exr.len() - 8).find(|&at| offset_at(at) == (at + 8 * height) as u64).unwrap();
    let offsets = (0..height).map(|i| offset_at(table + 8 * i) + attribute.len() as u64);
    let offsets: Vec<u8> = offsets.flat_map(u64::to_le_bytes).collect();
    [&exr[..HEAD], &attribute, &exr[HEAD..table], &offsets, &exr[table + 8 * height..]].concat()
}

#[test]
fn colours_of_exr_are_premultiplied_and_those_of_others_are_not() {
    const SIDE: usize = 32;
    let folder = Folder::new();
    // G, B, R, alpha: red light of 0.25, half of which is let through.
    let planes = [0.125f32, 0.0, 0.25, 0.5].map(|value| value.to_le_bytes().repeat(SIDE * SIDE)).concat();
    folder.write("in.raw", planes);
    let raw = format!("-f rawvideo -pix_fmt gbrapf32le -s {SIDE}x{SIDE}");
    folder.ffmpeg(&format!("{raw} -i in.raw -compression none in.exr"));
    let line = "-y --model none --exr-transfer";
    // sRGB of 0.5 and 0.25.
    let straight = [188, 137, 0, 128];
    for out in ["out.png", "out.tif", "out.mov"] {
        let encoder = if out == "out.mov" { "--encoder qtrle" } else { "" };
        folder.upscale(&format!("in.exr {out} {line} linear {encoder}"));
        let found = samples(&folder, "", out, "format=rgba");
        assert_eq!(found.len(), 4 * 4 * SIDE * SIDE);
        let is_near = |pixel: &[u8]| pixel.iter().zip(straight).all(|(&a, b)| a.abs_diff(b) <= 1);
        assert!(found.chunks(4).all(is_near), "{out}: {:?}", &found[..4]);
    }
    let floats = |name: &str| -> Vec<f32> {
        let bytes = samples(&folder, "", name, "format=gbrapf32le");
        bytes.chunks(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
    };
    let first = |name: &str| {
        let values = floats(name);
        let plane = values.len() / 4;
        [0, 1, 2, 3].map(|i| values[i * plane + plane / 2])
    };
    folder.upscale(&format!("in.exr out.exr {line} linear"));
    let expected = [0.125, 0.0, 0.25, 0.5];
    assert!(
        first("out.exr").iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3),
        "{:?}",
        first("out.exr")
    );
    folder.upscale("in.exr out.png -y --model none --scale 1 --exr-transfer linear --pix-fmt rgba64be");
    // zscale takes alpha for limited range, which adds 2 %.
    let filter = "--filter zscale=tin=iec61966-2-1:t=linear,format=gbrapf32le";
    folder.upscale(&format!("out.png out.exr {line} linear {filter}"));
    assert!(
        first("out.exr").iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-2),
        "{:?}",
        first("out.exr")
    );
    // Primaries of EXR: P3 has a number, those of ACES have none.
    let exr = folder.read("in.exr");
    let p3 = [0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329];
    let aces = [0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767];
    for (values, primaries, lost) in [(p3, Some("smpte432"), 0), (aces, None, 1)] {
        folder.write("primaries.exr", with_chromaticities(&exr, values, SIDE));
        folder.upscale(&format!("primaries.exr out.mkv {line} linear --encoder ffv1 --report report.json"));
        let found: serde_json::Value = folder.ffprobe("-show_streams", "out.mkv");
        assert_eq!(found["streams"][0]["color_primaries"].as_str(), primaries);
        assert_eq!(left_out(&folder).iter().filter(|name| name.contains("chromaticities")).count(), lost);
        folder.upscale(&format!("primaries.exr out.exr {line} linear --report report.json"));
        let has_p3 = p3.map(f32::to_le_bytes).concat();
        let is_p3 = folder.read("out.exr").windows(has_p3.len()).any(|bytes| bytes == has_p3);
        assert_eq!(is_p3, primaries.is_some(), "{values:?}");
        // Its blocks are where it says.
        assert!(first("out.exr").iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3));
    }
}
