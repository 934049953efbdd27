//! A frame that equals the one before gets its result: the video is the same, and the network runs less often.

use crate::common::program::Folder;

/// Runs `hasn upscale` and returns the hashes of its frames and how many of them did not run the network.
fn upscale(folder: &Folder, arguments: &str) -> (Vec<String>, u64) {
    folder.upscale(&format!("{arguments} out.mkv -y --encoder ffv1 --threads 2 --report report.json"));
    let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    (folder.frame_hashes("out.mkv", "yuv420p"), report["reused"].as_u64().expect("a count"))
}

#[test]
fn a_video_of_repeated_frames_is_the_same_with_and_without_reuse() {
    let folder = Folder::new();
    // 5 fps, each frame shown five times.
    folder.ffmpeg("-f lavfi -i testsrc2=s=64x48:r=5:d=2 -vf fps=25 -c:v ffv1 in.mkv");
    for (model, encoded) in [("hasn-lite-x2", 50), ("none", 50)] {
        let (with, reused) = upscale(&folder, &format!("in.mkv --model {model}"));
        let (without, none) = upscale(&folder, &format!("in.mkv --model {model} --no-reuse"));
        assert_eq!((with.len(), reused, none), (encoded, 40, 0), "{model}");
        assert_eq!(with, without, "{model}");
    }
}

#[test]
fn encoders_that_look_ahead_get_every_repeated_frame() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=64x48:r=5:d=2 -vf fps=25 -c:v ffv1 in.mkv");
    let packets = |reuse: &str| {
        folder.upscale(&format!("in.mkv out.mkv -y --threads 1 {reuse}"));
        let probe = folder.probe("out.mkv");
        probe.packets.iter().map(|packet| packet.data_hash.clone()).collect::<Vec<_>>()
    };
    let with = packets("");
    assert_eq!(with.len(), 50);
    assert_eq!(with, packets("--no-reuse"));
}

#[test]
fn a_change_of_one_code_value_in_the_last_row_is_another_frame() {
    let folder = Folder::new();
    let (width, height) = (32, 24);
    let frame = |last: u8| {
        let mut samples = vec![100u8; width * height * 3 / 2];
        *samples.last_mut().unwrap() = last;
        samples
    };
    let mut y4m = format!("YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg\n").into_bytes();
    for last in [128, 128, 140, 140, 128] {
        y4m.extend_from_slice(b"FRAME\n");
        y4m.extend(frame(last));
    }
    folder.write("in.y4m", y4m);
    let (hashes, reused) = upscale(&folder, "in.y4m");
    assert_eq!(reused, 2);
    assert!(hashes[0] == hashes[1] && hashes[2] == hashes[3] && hashes[4] == hashes[0], "{hashes:?}");
    assert_ne!(hashes[1], hashes[2]);
}
