//! Interlaced and progressive frames in one video: each is treated as what it is, whatever came before.

use crate::common::program::Folder;
use serde_json::Value;

/// Frames of a part of the videos below, one second of them.
const PART: usize = 25;
/// Frames at the border of two parts that may be treated as the other part; half a second are 12.
const BORDER: usize = 4;
const AS_IS: &str =
    "--model none --scale 1 --encoder ffv1 --threads 1 --progress none --report report.json -y";

/// Writes a clip of each kind. Only the frames of F are flagged as interlaced.
fn write_clips(folder: &Folder) {
    let soft = |rate: &str| format!("testsrc2=s=224x208:r={rate},gblur=2.5,format=yuv420p");
    for (name, frames) in [
        ("P", soft("25")),
        ("I", soft("50") + ",interlace=scan=tff:lowpass=1,setfield=prog"),
        ("F", soft("50") + ",interlace=scan=tff:lowpass=1,setfield=tff"),
        // Two frames in five are combed.
        ("T", soft("20") + ",telecine,setfield=prog"),
        ("B", "color=black:s=224x208:r=25,format=yuv420p".into()),
        // A small disc that moves.
        ("L", "color=black:s=224x208:r=25,format=gray,geq=lum='255*lt(hypot(X-60-N,Y-90-N),9)',gblur=1,format=yuv420p".into()),
    ] {
        folder.ffmpeg(&format!(
            "-f lavfi -i {frames} -frames:v {PART} -c:v ffv1 -level 3 {name}.mkv"
        ));
    }
}

/// Joins clips into in.mkv, whose frames are flagged by these filters.
fn join(folder: &Folder, parts: &str, flags: &str) {
    let inputs: String = parts.chars().map(|part| format!("-i {part}.mkv ")).collect();
    let frames = format!("concat=n={},settb=1/25,setpts=N{flags}", parts.len());
    folder.ffmpeg(&format!("{inputs}-filter_complex {frames} -c:v ffv1 -level 3 in.mkv"));
}

#[test]
fn the_parts_of_a_plan_are_treated_as_in_a_single_run() {
    let folder = Folder::new();
    write_clips(&folder);
    // The second segment begins within the last part, or among frames whose flags are wrong.
    for (parts, flags, can_start_there) in [("PPPPPPPPPI", "", false), ("PPPPPPPPPP", ",setfield=tff", true)]
    {
        join(&folder, parts, flags);
        folder.upscale(&format!("in.mkv whole.mkv {AS_IS}"));
        let options = "--model none --scale 1 --encoder ffv1 --threads 1";
        folder.hasn(&format!("plan in.mkv out.mkv {options}")).assert_done();
        let plan: Value = serde_json::from_slice(&folder.read("out.mkv.hasn/plan.json")).unwrap();
        assert_eq!(plan["random_access"], can_start_there, "{parts}");
        for line in ["segment out.mkv.hasn 1", "segment out.mkv.hasn 0", "join out.mkv.hasn"] {
            folder.hasn(line).assert_done();
        }
        assert_eq!(
            folder.frame_hashes("out.mkv", "yuv420p"),
            folder.frame_hashes("whole.mkv", "yuv420p"),
            "{parts}"
        );
        std::fs::remove_file(folder.path("out.mkv")).unwrap();
    }
}

#[test]
fn the_field_order_is_stated_where_fields_are_kept() {
    let folder = Folder::new();
    let fields = "-f lavfi -i testsrc2=s=320x240:r=50 -vf format=yuv422p,interlace=scan";
    for (name, order) in [("top.mkv", "tff"), ("bottom.mkv", "bff")] {
        folder.ffmpeg(&format!("{fields}={order} -frames:v 12 -c:v ffv1 -level 3 {name}"));
    }
    let off = "--deinterlace off --scale 1";
    for (line, order, is_interlaced) in [
        (format!("top.mkv out.mov --encoder prores_ks {off}"), "tb", true),
        (format!("bottom.mkv out.mov --encoder prores_ks {off}"), "bt", true),
        (format!("top.mkv out.mkv --encoder mpeg2video {off}"), "tb", true),
        (format!("top.mkv out.mkv --encoder ffv1 {off}"), "tb", true),
        (format!("top.mkv out.mov --encoder mjpeg {off}"), "tt", false),
        ("top.mkv out.mov --encoder prores_ks".into(), "progressive", false),
        ("top.mkv out.mkv --encoder ffv1".into(), "progressive", false),
        ("top.mkv out.mkv --encoder ffv1 --deinterlace off".into(), "progressive", false),
    ] {
        let ran = folder.upscale(&format!("{line} --model none --threads 1 --progress none -y"));
        let is_blended = line.ends_with("--deinterlace off");
        assert_eq!(ran.stderr.contains("fields of interlaced frames"), is_blended, "{line}: {}", ran.stderr);
        let out = if line.contains("out.mov") { "out.mov" } else { "out.mkv" };
        let shown: Value = folder.ffprobe("-show_streams -show_frames", out);
        let found = (&shown["streams"][0]["field_order"], &shown["frames"][5]["interlaced_frame"]);
        assert_eq!(found, (&Value::from(order), &Value::from(u8::from(is_interlaced))), "{line}");
    }
    let strict = "upscale top.mkv bad.mkv --encoder ffv1 --model none --deinterlace off --strict";
    folder.hasn(strict).assert_told("fields of interlaced frames", strict);
}

fn report(folder: &Folder) -> Value {
    serde_json::from_slice(&folder.read("report.json")).unwrap()
}

/// For each frame of out.mkv whether it was deinterlaced.
fn deinterlaced(folder: &Folder, skipped: usize) -> Vec<bool> {
    let (source, found) =
        (folder.frame_hashes("in.mkv", "yuv420p"), folder.frame_hashes("out.mkv", "yuv420p"));
    assert_eq!(found.len(), source.len() - skipped);
    found.iter().zip(&source[skipped..]).map(|(found, source)| found != source).collect()
}

#[test]
fn every_part_is_treated_as_what_it_is_whatever_comes_before() {
    let folder = Folder::new();
    write_clips(&folder);
    for (parts, flags, from_frame) in [
        // All flagged: a logo, a trailer, a black start.
        ("LI", ",setfield=tff", 0),
        ("PIP", ",setfield=tff", 0),
        ("BPIB", ",setfield=tff", 0),
        // None flagged: a black start, an interlaced title, a telecined part.
        ("BIP", "", 0),
        ("IPLI", "", 0),
        ("PTP", "", 0),
        ("PIP", "", 17),
        // Flagged as they are.
        ("PFBP", "", 0),
    ] {
        let of = format!("{parts}{flags} from {from_frame}");
        join(&folder, parts, flags);
        let from =
            if from_frame > 0 { format!("--from {}", from_frame as f64 / 25.0) } else { String::new() };
        folder.upscale(&format!("in.mkv out.mkv {AS_IS} {from}"));
        let treated = deinterlaced(&folder, from_frame);
        let counted = report(&folder)["frames"]["deinterlaced"].as_u64().unwrap() as usize;
        let changed = treated.iter().filter(|is| **is).count();
        assert!(counted >= changed, "{of}: {counted} frames are counted, {changed} have changed");
        for (at, &is_deinterlaced) in (from_frame..).zip(&treated) {
            let (part, frame) = (parts.as_bytes()[at / PART], at % PART);
            let is_inside = (BORDER..PART - BORDER).contains(&frame);
            let is_combed = matches!(part, b'I' | b'F') || part == b'T' && matches!(frame % 5, 2 | 3);
            assert!(is_deinterlaced || !is_combed, "{of}: frame {at} is combed");
            let is_whole = matches!(part, b'P' | b'L');
            assert!(!(is_deinterlaced && is_whole && is_inside), "{of}: frame {at} is deinterlaced");
        }
    }
}
