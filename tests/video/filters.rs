//! Deinterlacing and FFmpeg's filters before the network: frames, timestamps and counts.

use crate::common::program::{Folder, input_time_base};
use serde_json::Value;

const TEST_FRAMES: &str = "-f lavfi -i testsrc2=s=160x120:r=50,gblur=1.5";
/// Large and soft: sharp detail that moves looks interlaced to idet.
const SOFT_FRAMES: &str = "-f lavfi -i testsrc2=s=320x240:r=50,gblur=2.5";
/// Leaves frames as the filters return them, so that they can be compared.
const AS_IS: &str = "--model none --scale 1 --encoder ffv1 --report report.json -y";

/// The report of the run before.
fn report(folder: &Folder) -> Value {
    serde_json::from_slice(&folder.read("report.json")).unwrap()
}

/// decoded, duplicated, encoded, dropped.
fn counts(folder: &Folder) -> [u64; 4] {
    let report = report(folder);
    ["decoded", "duplicated", "encoded", "dropped"].map(|name| report["frames"][name].as_u64().unwrap())
}

/// Hashes of the frames that `ffmpeg` filters.
fn filtered(folder: &Folder, name: &str, filter: &str) -> Vec<String> {
    folder.ffmpeg(&format!("-i {name} -vf {filter} -fps_mode passthrough -c:v ffv1 by-ffmpeg.mkv"));
    folder.frame_hashes("by-ffmpeg.mkv", "yuv420p")
}

#[test]
fn interlaced_frames_are_detected_and_deinterlaced() {
    let folder = Folder::new();
    let x264 = "-frames:v 75 -c:v libx264 -bf 2";
    let fields = "-flags +ilme+ildct -x264opts";
    let interlace = |scan: &str| format!("format=yuv420p,interlace=scan={scan}:lowpass=1");
    for (name, line) in [
        ("top.mkv", format!("-vf {} {x264} {fields} tff=1", interlace("tff"))),
        ("bottom.mkv", format!("-vf {} {x264} {fields} bff=1", interlace("bff"))),
        (
            "mpeg2.ts",
            format!("-vf {} -frames:v 75 -c:v mpeg2video -flags +ilme+ildct -q:v 2", interlace("tff")),
        ),
        ("unflagged.mkv", format!("-vf {},setfield=prog {x264}", interlace("bff"))),
        // No flag of frames, but of the container.
        ("container.mkv", format!("-vf {} -frames:v 75 -c:v utvideo", interlace("bff"))),
        ("progressive.mkv", format!("-r 25 -pix_fmt yuv420p {x264}")),
        ("flagged.mkv", format!("-r 25 -vf format=yuv420p,setfield=tff {x264} {fields} tff=1")),
    ] {
        folder.ffmpeg(&format!("{SOFT_FRAMES} {line} {name}"));
    }
    let bwdif = |rest: &str| format!("bwdif=mode=send_frame:{rest}");
    for (name, options, expected, logged) in [
        ("top.mkv", "", bwdif("deint=interlaced"), "deinterlaced by bwdif"),
        ("bottom.mkv", "", bwdif("deint=interlaced"), "deinterlaced by bwdif"),
        ("mpeg2.ts", "", bwdif("deint=interlaced"), "deinterlaced by bwdif"),
        (
            "unflagged.mkv",
            "",
            bwdif("parity=bff:deint=all"),
            "interlaced, bottom field first, but are not flagged so",
        ),
        ("progressive.mkv", "", "null".into(), ""),
        ("flagged.mkv", "", "null".into(), "flagged as interlaced, but are progressive"),
        ("top.mkv", "--deinterlace off", "null".into(), ""),
        ("progressive.mkv", "--deinterlace bwdif", bwdif("deint=all"), ""),
        ("container.mkv", "--deinterlace bwdif", bwdif("parity=bff:deint=all"), ""),
        ("top.mkv", "--filter yadif", "yadif".into(), ""),
        (
            "top.mkv",
            "--filter hflip",
            format!("{},hflip", bwdif("deint=interlaced")),
            "deinterlaced by bwdif",
        ),
    ] {
        let ran = folder.upscale(&format!("-v {name} out.mkv {AS_IS} {options}"));
        assert!(ran.stderr.contains(logged), "{name} {options}: {}\nlacks {logged}", ran.stderr);
        if expected == "null" {
            assert!(!ran.stderr.contains("deinterlaced"), "{name} {options}: {}", ran.stderr);
        }
        let frames = folder.frame_hashes("out.mkv", "yuv420p");
        assert_eq!(frames, filtered(&folder, name, &expected), "{name} {options} is to be {expected}");
        assert_eq!(counts(&folder), [75, 0, 75, 0], "{name} {options}");
        if !name.ends_with(".ts") {
            assert_eq!(
                folder.probe("out.mkv").video_pts(),
                folder.probe(name).video_pts(),
                "{name} {options}"
            );
        }
    }
}

#[test]
fn filters_add_and_drop_frames_with_their_timestamps() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -r 25 -frames:v 60 -c:v libx264 -bf 2 in.mp4"));
    folder.ffmpeg(&format!("{TEST_FRAMES} -r 24000/1001 -vf telecine -frames:v 60 -c:v ffv1 telecined.mkv"));
    for (name, filter, expected) in [
        ("in.mp4", "fps=50", [60, 60, 120, 0]),
        ("in.mp4", "fps=12.5", [60, 0, 30, 30]),
        ("in.mp4", "select=not(eq(mod(n\\,5)\\,4))", [60, 0, 48, 12]),
        ("in.mp4", "setpts=PTS*2", [60, 0, 60, 0]),
        ("in.mp4", "bwdif=mode=send_field:deint=all", [60, 60, 120, 0]),
        ("telecined.mkv", "fieldmatch,decimate", [60, 0, 48, 12]),
    ] {
        for out in ["out.mkv", "out.mp4"] {
            folder.upscale(&format!("{name} {out} -y --model none --report report.json --filter {filter}"));
            assert_eq!(counts(&folder), expected, "{filter}");
            folder.ffmpeg(&format!(
                "-i {name} -vf {filter} -fps_mode passthrough -enc_time_base {} -c:v libx264 by-ffmpeg.mp4",
                input_time_base()
            ));
            let (found, expected) =
                (folder.probe(out).video_seconds(), folder.probe("by-ffmpeg.mp4").video_seconds());
            assert_eq!(found.len(), expected.len(), "{filter}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1.1e-3,
                    "{filter} in {out}: a frame at {found} s, by ffmpeg at {expected} s"
                );
            }
            folder.assert_decodes(out);
        }
    }
    // The last frame ends where the source ends.
    let length = |name: &str| {
        let probe = folder.probe(name);
        probe.video().duration_ts as f64 * probe.video().tick()
    };
    folder.upscale("in.mp4 out.mp4 -y --model none --filter fps=12.5");
    assert!(
        (length("out.mp4") - length("in.mp4")).abs() < 1e-3,
        "{} s, the source {} s",
        length("out.mp4"),
        length("in.mp4")
    );
}

#[test]
fn filters_change_size_and_sample_aspect() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES},setsar=16/15 -frames:v 5 -c:v libx264 in.mkv"));
    for (options, size, aspect) in [
        ("", (320, 240), "16:15"),
        ("--filter crop=100:80", (200, 160), "16:15"),
        ("--filter crop=100:80,setsar=1", (200, 160), "1:1"),
        ("--filter transpose", (240, 320), "15:16"),
        ("--square", (342, 240), "1:1"),
        ("--square --scale 1", (170, 120), "1:1"),
    ] {
        folder.upscale(&format!("in.mkv out.mkv -y --model none {options}"));
        let probe = folder.probe("out.mkv");
        let video = probe.video();
        assert_eq!(
            ((video.width, video.height), video.sample_aspect_ratio.as_str()),
            (size, aspect),
            "{options}"
        );
    }
    for filter in ["no_such", "scale=w=", "crop=9999:1", "split[a][b]", "anullsrc"] {
        let line = format!("upscale in.mkv bad.mkv --model none --filter {filter}");
        folder.hasn(&line).assert_told("--filter", &line);
    }
    assert!(!folder.names().iter().any(|name| name.starts_with("bad")));
}

#[test]
fn detail_that_flickers_or_moves_is_progressive() {
    let folder = Folder::new();
    let dither = "nullsrc=s=320x240:r=30,format=gray,geq=lum=(mod(X+N+Y\\,2)*120+60)\
                  /(1+eq(mod(floor((X+N)/32)+floor(Y/32)\\,2)\\,0))";
    for (name, frames) in [("dither.mkv", dither), ("pattern.mkv", "testsrc2=s=320x240:r=25")] {
        folder.ffmpeg(&format!("-f lavfi -i {frames} -frames:v 45 -pix_fmt yuv420p -c:v ffv1 {name}"));
        let ran = folder.upscale(&format!("-v {name} out.mkv {AS_IS}"));
        assert!(!ran.stderr.contains("interlaced"), "{name}: {}", ran.stderr);
        assert!(folder.frame_hashes("out.mkv", "yuv420p") == folder.frame_hashes(name, "yuv420p"), "{name}");
    }
}
