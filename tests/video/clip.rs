//! The complete clip of `examples/`, upscaled as a new user does: nothing is lost, and it is close to the original.

use crate::common::program::{Folder, project_file, say_skipped};

/// PSNR-Y of the lite model on this clip, measured when it was trained: 38.1 dB and more.
const PSNR_Y_MIN_DB: f64 = 38.10;
/// hasn and FFmpeg average alike but round differently.
const PSNR_Y_TOLERANCE_DB: f64 = 0.02;

#[test]
fn the_upscaled_clip_is_complete_and_close_to_the_original() {
    let folder = Folder::new();
    let clip = project_file("examples/bbb-360p.mp4");
    let clip = clip.to_str().unwrap();
    folder.upscale(&format!("{clip} upscaled.mp4 --model hasn-lite-x2 --progress none --report report.json"));

    let (before, after) = (folder.probe(clip), folder.probe("upscaled.mp4"));
    assert_eq!((after.video().width, after.video().height), (1280, 720));
    assert_eq!(after.video().time_base, before.video().time_base);
    assert_eq!(after.video_pts().len(), 132);
    assert_eq!(after.video_pts(), before.video_pts());
    assert_eq!(after.video().duration_ts, before.video().duration_ts);

    let audio =
        before.streams.iter().find(|stream| stream.codec_type == "audio").expect("the clip has audio");
    let (kept, original) = (after.packets_of(audio.index), before.packets_of(audio.index));
    assert!(!kept.is_empty());
    assert_eq!(kept, original, "timestamps and payloads of the audio");

    let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    assert_eq!(report["frames"]["encoded"], 132);
    check_quality(&folder);
}

/// Compares with the original that the clip was downscaled from, which is not part of the repository.
fn check_quality(folder: &Folder) {
    let Ok(reference) = std::env::var("HASN_CLIP_REFERENCE") else {
        return say_skipped("PSNR-Y of the clip, as HASN_CLIP_REFERENCE does not name its original");
    };
    let ran = folder.hasn(&format!("compare --json {reference} upscaled.mp4"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let figures: serde_json::Value = serde_json::from_str(ran.text()).unwrap();
    assert_eq!(figures["frames"].as_array().unwrap().len(), 132);
    let psnr_y = figures["psnr_y_of_mean_mse_db"].as_f64().unwrap();
    assert!(psnr_y >= PSNR_Y_MIN_DB, "{psnr_y:.3} dB");

    folder.ffmpeg(&format!("-i upscaled.mp4 -i {reference} -lavfi psnr=stats_file=psnr.log -f null -"));
    let log = String::from_utf8(folder.read("psnr.log")).unwrap();
    let mse = |line: &str| {
        let field = line.split_whitespace().find_map(|word| word.strip_prefix("mse_y:")).expect("a mse_y");
        field.parse::<f64>().unwrap()
    };
    let mses: Vec<f64> = log.lines().map(mse).collect();
    assert_eq!(mses.len(), 132);
    let by_ffmpeg = 10.0 * (255.0 * 255.0 * 132.0 / mses.iter().sum::<f64>()).log10();
    assert!((psnr_y - by_ffmpeg).abs() < PSNR_Y_TOLERANCE_DB, "{psnr_y:.3} and {by_ffmpeg:.3} dB");
}
