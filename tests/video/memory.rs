//! Memory does not grow with the length of a video.

use crate::common::program::Folder;

/// The encoder's look-ahead is full after 60 frames; the rest is the allocator's fragmentation.
const GROWTH_MAX_BYTES: u64 = 8 << 20;

#[test]
fn five_times_the_frames_take_no_more_memory() {
    let folder = Folder::new();
    let peak_bytes = |frames: u64| {
        let audio = "-f lavfi -i sine=r=48000 -c:a pcm_s16le -shortest";
        folder.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s=160x120:r=25 {audio} -frames:v {frames} -c:v libx264 -preset ultrafast in.mkv"
        ));
        folder.upscale("in.mkv out.mkv -y --threads 2 --progress none --report report.json");
        let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
        assert_eq!(report["frames"]["encoded"], frames);
        report["peak_memory_bytes"].as_u64().filter(|&bytes| bytes > 0).expect("this system reports the peak")
    };
    let (short, long) = (peak_bytes(60), peak_bytes(300));
    assert!(long < short + GROWTH_MAX_BYTES, "{short} bytes for 60 frames, {long} for 300");
}
