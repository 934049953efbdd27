//! Size and format of frames: cropping in the bitstream, changes in mid-stream, formats that cannot hold everything.

use crate::common::program::Folder;

const TEST_FRAMES: &str = "-f lavfi -i testsrc2=s=64x48:r=25";
const AS_IS: &str = "--model none --scale 1 --encoder ffv1 -y";

#[test]
fn cropping_in_the_bitstream_is_applied() {
    let folder = Folder::new();
    let crop = "h264_metadata=crop_left=2:crop_right=6:crop_top=4:crop_bottom=2";
    for format in ["yuv420p", "yuv444p", "yuv420p10le"] {
        folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 6 -pix_fmt {format} -c:v libx264 whole.mkv"));
        folder.ffmpeg(&format!("-i whole.mkv -c copy -bsf:v {crop} in.mkv"));
        folder.ffmpeg("-i whole.mkv -vf crop=56:42:2:4:exact=1 -c:v ffv1 expected.mkv");
        folder.upscale(&format!("in.mkv out.mkv {AS_IS}"));
        assert_eq!(
            folder.frame_hashes("out.mkv", format),
            folder.frame_hashes("expected.mkv", format),
            "{format}"
        );
        folder.upscale("in.mkv out.mkv -y --model none");
        assert_eq!((folder.frames("out.mkv")[0].width, folder.frames("out.mkv")[0].height), (112, 84));
    }
}

#[test]
fn a_change_in_mid_stream_is_logged_and_the_output_keeps_its_format() {
    let folder = Folder::new();
    let clip = |size: &str, format: &str, offset: &str, name: &str| {
        folder.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s={size}:r=25 -frames:v 12 -pix_fmt {format} -c:v libx264 -bf 0 \
             -output_ts_offset {offset} {name}"
        ));
    };
    clip("64x48", "yuv420p", "0", "1.ts");
    clip("96x80", "yuv420p", "0.48", "2.ts");
    clip("96x80", "yuv422p10le", "0.96", "3.ts");
    folder.write("in.ts", [folder.read("1.ts"), folder.read("2.ts"), folder.read("3.ts")].concat());
    for deinterlace in ["", "--deinterlace bwdif"] {
        let ran = folder.upscale(&format!("in.ts out.mkv -y --model none {deinterlace}"));
        for logged in [
            "at frame 12, ",
            "64x48 yuv420p changes to 96x80 yuv420p",
            "at frame 24, ",
            "96x80 yuv420p changes to 96x80 yuv422p10le",
        ] {
            assert!(ran.stderr.contains(logged), "{deinterlace}: {}\nlacks {logged}", ran.stderr);
        }
        let frames = folder.frames("out.mkv");
        assert_eq!(frames.len(), 36, "{deinterlace}");
        assert!(frames.iter().all(|p| (p.width, p.height, p.pix_fmt.as_str()) == (128, 96, "yuv420p")));
        folder.assert_decodes("out.mkv");
    }
}

/// Black lines at the top and black columns at the left of a frame of these.
fn borders(frames: &[u8], (width, height): (usize, usize), frame: usize) -> [usize; 2] {
    let samples = &frames[frame * width * height..][..width * height];
    let is_black = |&sample: &u8| sample < 100;
    let column = samples.iter().skip(width / 2).step_by(width);
    let line = &samples[height / 2 * width..][..width];
    [
        column.take_while(|sample| is_black(sample)).count(),
        line.iter().take_while(|sample| is_black(sample)).count(),
    ]
}

#[test]
fn frames_whose_shape_changes_get_borders() {
    let folder = Folder::new();
    let parts = ["16/15", "64/45", "16/15"].map(|aspect| {
        let video = format!("-f lavfi -i color=white:s=72x56:r=25 -frames:v 12 -vf setsar={aspect}");
        folder.ffmpeg(&format!("{video} -c:v libx264 -bf 0 -f h264 -"))
    });
    folder.write("in.h264", parts.concat());
    folder.ffmpeg("-fflags +genpts -r 25 -i in.h264 -c copy in.ts");
    folder.ffmpeg("-i in.ts -c copy in.mkv");
    for (name, options, size, aspect, expected) in [
        ("in.ts", "", (72, 56), "16:15", [[0, 0], [7, 0], [0, 0]]),
        ("in.mkv", "", (72, 56), "16:15", [[0, 0], [7, 0], [0, 0]]),
        ("in.ts", "--deinterlace bwdif", (72, 56), "16:15", [[0, 0], [7, 0], [0, 0]]),
        ("in.ts", "--square", (76, 56), "1:1", [[0, 0], [7, 0], [0, 0]]),
        ("in.ts", "--filter crop=60:56", (60, 56), "16:15", [[0, 0], [7, 0], [0, 0]]),
        ("in.ts", "--from 0.48", (72, 56), "64:45", [[0, 0], [0, 9], [0, 9]]),
        ("in.mkv", "--from 0.48", (72, 56), "64:45", [[0, 0], [0, 9], [0, 9]]),
    ] {
        let ran = folder.upscale(&format!("{name} out.mkv {AS_IS} {options}"));
        assert!(ran.stderr.contains("of samples 16:15"), "{name} {options}: {}", ran.stderr);
        let probe = folder.probe("out.mkv");
        let video = probe.video();
        let found = (video.width, video.height, video.sample_aspect_ratio.as_str());
        assert_eq!(found, (size.0, size.1, aspect), "{name} {options}");
        let frames = folder.ffmpeg("-i out.mkv -f rawvideo -pix_fmt gray -");
        let last = frames.len() / (size.0 * size.1) - 1;
        let found = [0, 18.min(last), last].map(|frame| borders(&frames, size, frame));
        assert_eq!(found, expected, "{name} {options}");
    }
}

#[test]
fn what_a_format_cannot_hold_is_logged() {
    let folder = Folder::new();
    for (format, options, logged) in [
        ("bgra", "", "alpha"),
        ("yuva420p", "", "alpha left out"),
        ("yuv420p12le", "", "2 of 12 bits left out"),
        ("yuv444p", "--encoder mpeg4", "chroma resolution left out"),
        ("yuv420p10le", "--encoder mpeg2video", "2 of 10 bits left out"),
        ("yuva420p", "--encoder ffv1", ""),
        ("yuv420p10le", "", ""),
        // Asked for by the user.
        ("yuv420p10le", "--pix-fmt yuv420p", ""),
    ] {
        folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 2 -pix_fmt {format} -c:v ffv1 in.mkv"));
        let ran = folder.upscale(&format!("in.mkv out.mkv -y --model none --progress none {options}"));
        match logged {
            "" => assert_eq!(ran.stderr, "", "{format} {options}"),
            logged => assert!(ran.stderr.contains(logged), "{format} {options}: {}", ran.stderr),
        }
    }
}

#[test]
fn a_frame_beyond_ffmpegs_limit_is_refused_by_its_size() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i color=s=16x16 -frames:v 1 -update 1 in.png");
    let mut png = folder.read("in.png");
    png[16..24].copy_from_slice(&[30000_u32.to_be_bytes(), 30000_u32.to_be_bytes()].concat());
    folder.write("in.png", png);
    let line = "upscale in.png out.png --model none";
    folder
        .hasn(line)
        .assert_told("in.png: frames of 30000x30000 are beyond FFmpeg's limit on frame size", line);
}

#[test]
fn the_report_names_no_network_where_only_the_resampler_ran() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=32x32:r=25 -frames:v 2 -c:v ffv1 in.mkv");
    for (scale, model) in [("1", "none"), ("0.5", "none"), ("1.5", "hasn-lite-x2-video")] {
        let ran = folder.upscale(&format!("in.mkv out.mkv -y --scale {scale} --report out.json"));
        let report: serde_json::Value = serde_json::from_slice(&folder.read("out.json")).unwrap();
        assert_eq!(report["model"], model, "--scale {scale}");
        assert!(ran.stderr.contains(&format!(", {model} (")), "{}", ran.stderr);
    }
}
