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
