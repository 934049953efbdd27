//! Good files truncated and with bytes changed at random: every run ends, and every loss is reported.
//!
//! `HASN_DAMAGE_FILES` is the number of files and `HASN_DAMAGE_SEED` the seed; `make soak` tries a thousand.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::Random;
use serde_json::Value;

use crate::common::program::{Folder, Ran, ffmpeg_major};

const CLIP: &str = "-f lavfi -i testsrc2=s=64x48:r=25,gblur=1 -f lavfi -i sine=r=48000 -t 1.6";
const FRAMES: usize = 40;
const FILES: usize = 60;
/// Longer than any of these runs takes on a busy machine.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// Clips of common containers and codecs, and whether the container announces a length.
const CLIPS: [(&str, &str, bool); 10] = [
    ("h264.mp4", "-c:v libx264 -g 12 -c:a aac -movflags +faststart", true),
    ("h264.mkv", "-c:v libx264 -g 12 -c:a aac", true),
    ("h264.ts", "-c:v libx264 -g 12 -c:a mp2", false),
    ("hevc.mkv", "-c:v libx265 -g 12 -x265-params log-level=error -c:a libopus", true),
    ("mpeg2.ts", "-c:v mpeg2video -q:v 4 -c:a mp2", false),
    ("mpeg4.avi", "-c:v mpeg4 -q:v 4 -c:a mp2", true),
    ("prores.mov", "-c:v prores_ks -c:a pcm_s16le -movflags +faststart", true),
    ("ffv1.mkv", "-c:v ffv1 -level 3 -slicecrc 1 -c:a flac", true),
    ("vp9.webm", "-c:v libvpx-vp9 -cpu-used 8 -g 12 -c:a libopus", true),
    ("mjpeg.mov", "-c:v mjpeg -q:v 3 -c:a pcm_s16le -movflags +faststart", true),
];

/// Runs the program with a limit on time.
fn upscale(folder: &Folder, line: &str) -> Ran {
    let mut command = folder.hasn_command(&format!("upscale {line} --model none --progress none -y"));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || std::io::read_to_string(stderr));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > HANGS_AFTER {
            child.kill().unwrap();
            panic!("{line} hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let stderr = reader.join().unwrap().expect("messages are UTF-8");
    Ran { code: status.code(), stdout: Vec::new(), stderr }
}

/// Audio is copied, damaged or not, and probed whenever a file with it is opened: the video is decoded alone.
fn assert_frames_decode(folder: &Folder, name: &str) {
    folder.ffmpeg(&format!("-v quiet -i {name} -map 0:v -c copy alone.mkv"));
    // Without timestamps, which are uneven.
    folder.ffmpeg("-i alone.mkv -fps_mode passthrough -f rawvideo -pix_fmt gray -");
}

/// Whether frames are evenly spaced, to a tick.
fn has_no_gap(pts: &[i64]) -> bool {
    let step = pts[1] - pts[0];
    pts.windows(2).all(|pair| (pair[1] - pair[0] - step).abs() <= 1)
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Truncates the file, or changes some bytes or bits.
fn damage(good: &[u8], random: &mut Random) -> (String, Vec<u8>) {
    let mut below = |n: usize| random.below(n);
    let mut bytes = good.to_vec();
    match below(3) {
        0 => {
            let length = good.len() / 20 + below(good.len() * 19 / 20);
            bytes.truncate(length);
            (format!("truncated after {length} of {} bytes", good.len()), bytes)
        }
        1 => {
            let count = 1 + below(10);
            let places: Vec<usize> = (0..count).map(|_| below(good.len())).collect();
            for &place in &places {
                bytes[place] ^= 1 << below(8);
            }
            (format!("a bit flipped at {places:?}"), bytes)
        }
        _ => {
            let (start, length) = (below(good.len()), 1 + below(good.len() / 50));
            let end = (start + length).min(good.len());
            bytes[start..end].iter_mut().for_each(|byte| *byte = below(256) as u8);
            (format!("bytes {start} to {end} at random"), bytes)
        }
    }
}

#[test]
fn no_damage_ends_in_a_panic_a_hang_or_a_silent_loss() {
    let folder = Folder::new();
    for (name, line, _) in CLIPS {
        folder.ffmpeg(&format!("{CLIP} {line} {name}"));
        let ran = upscale(&folder, &format!("{name} out.mkv"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{name} is complete");
        assert_eq!(folder.frames("out.mkv").len(), FRAMES, "{name}");
    }
    let seed = number("HASN_DAMAGE_SEED", 1);
    let (mut reported, mut unnoticed) = (0, 0);
    for i in 0..number("HASN_DAMAGE_FILES", FILES) {
        let (name, _, announces) = CLIPS[i % CLIPS.len()];
        let mut random = Random((seed * 1_000_003 + i) as u64);
        let (how, bytes) = damage(&folder.read(name), &mut random);
        let bad = format!("bad-{name}");
        folder.write(&bad, &bytes);
        let what = format!("{name}, {how} (seed {seed}, file {i})");
        for out in ["out.mkv", "out.partial.mkv"] {
            let _ = std::fs::remove_file(folder.path(out));
        }
        let _ = std::fs::remove_dir_all(folder.path("out.mkv.hasn"));
        let ran = upscale(&folder, &format!("{bad} out.mkv"));
        match ran.code {
            Some(0) => {
                unnoticed += 1;
                let frames = folder.frames("out.mkv").len();
                // A transport stream announces no length: nothing in it shows what is missing at its ends.
                let is_truncated =
                    || how.starts_with("truncated") || has_no_gap(&folder.probe("out.mkv").video_pts());
                let may_lose = || !announces && is_truncated();
                assert!(
                    frames >= FRAMES || !ran.stderr.is_empty() || may_lose(),
                    "{what}: {frames} frames, and no message"
                );
                assert_frames_decode(&folder, "out.mkv");
            }
            _ => {
                ran.assert_told("", &what);
                reported += 1;
                assert!(!folder.path("out.mkv").exists(), "{what}");
                // Verification may find an impossible edit list, which --tolerate does not accept.
                let failed_verification = ran.stderr.contains("the file is left there to be looked at");
                if folder.path("out.partial.mkv").exists() && !failed_verification {
                    assert!(ran.stderr.contains("out.partial.mkv has the"), "{what}\n{}", ran.stderr);
                    let tolerant = upscale(&folder, &format!("{bad} out.mkv --tolerate 100000"));
                    assert_eq!(tolerant.code, Some(0), "{what}\n{}", tolerant.stderr);
                    assert_frames_decode(&folder, "out.mkv");
                }
            }
        }
    }
    assert!(reported > unnoticed / 4, "{reported} files reported as damaged, {unnoticed} not");
}

#[test]
fn damage_is_counted_and_reported_with_its_place() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} -map 0:v -c:v libx264 -g 12 -bf 0 -movflags +faststart in.mp4"));
    let mut bytes = folder.read("in.mp4");
    let middle = bytes.len() * 3 / 4;
    bytes[middle..middle + 100].fill(0x55);
    folder.write("bad.mp4", &bytes);
    let ran = folder.hasn("upscale bad.mp4 out.mkv --model none --report report.json");
    ran.assert_told("out.partial.mkv has the", "a damaged middle");
    let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    let damaged = report["damaged"].as_u64().unwrap();
    let places = report["damaged_places"].as_array().unwrap();
    assert!(damaged > 0 && places.len() as u64 == damaged, "{report}");
    assert!(places.iter().any(|place| place["frame"].is_u64() && place["pts"].is_i64()), "{report}");
    assert!(ran.stderr.contains(&format!("--tolerate {damaged}")), "{}", ran.stderr);
    assert_frames_decode(&folder, "out.partial.mkv");

    let less = folder.hasn(&format!("upscale bad.mp4 out.mkv -y --model none --tolerate {}", damaged - 1));
    assert_eq!(less.code, Some(1), "{}", less.stderr);
    let ran = folder.upscale(&format!("bad.mp4 out.mkv -y --model none --tolerate {damaged}"));
    assert!(ran.stderr.contains("decoding continues"), "{}", ran.stderr);
    assert_eq!(folder.names(), ["alone.mkv", "bad.mp4", "in.mp4", "out.mkv", "report.json"]);
}

/// FFV1 reports a wrong checksum in its log alone. The frames are looked at twice: first for fields, then to be upscaled.
#[test]
fn damage_that_is_only_logged_is_that_of_its_frame() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i smptebars=s=32x240:r=25 -t 2 -c:v ffv1 -level 3 -slicecrc 1 in.mkv");
    let packets: Value = folder.ffprobe("-show_packets", "in.mkv");
    let packet: usize = packets["packets"][30]["pos"].as_str().unwrap().parse().unwrap();
    let mut bytes = folder.read("in.mkv");
    bytes[packet + 300] ^= 0x10;
    folder.write("bad.mkv", bytes);
    let ran = upscale(&folder, "bad.mkv all.mkv --tolerate 1");
    ran.assert_done();
    assert!(ran.stderr.contains("(frame 30, pts 1200, 1.200 s)"), "{}", ran.stderr);
    // The same frame before the wanted part, and in it.
    let after = upscale(&folder, "bad.mkv after.mkv --from 1.4");
    after.assert_done();
    assert!(!after.stderr.contains("damaged"), "{}", after.stderr);
    let within = upscale(&folder, "bad.mkv within.mkv --from 1.0 --tolerate 1");
    within.assert_done();
    assert!(within.stderr.contains("(frame 5, pts 1200, 1.200 s)"), "{}", within.stderr);
}

#[test]
fn a_recording_that_starts_between_keyframes_is_complete() {
    let folder = Folder::new();
    for (codec, name) in [("libx264 -g 12", "h264.ts"), ("mpeg2video -g 12", "mpeg2.ts")] {
        folder.ffmpeg(&format!("{CLIP} -map 0:v -c:v {codec} all.ts"));
        let all = folder.read("all.ts");
        let half = all.len() / 2 / 188 * 188;
        folder.write(name, [&all[..3 * 188], &all[half..]].concat());
        let ran = upscale(&folder, &format!("{name} out.mkv"));
        assert_eq!(ran.code, Some(0), "{name}: {}", ran.stderr);
        let frames = folder.frames("out.mkv").len();
        assert!((8..FRAMES).contains(&frames), "{name}: {frames}");
    }
}

/// The first keyframe is none any more, and the decoder waits for the next one.
#[test]
fn a_first_keyframe_that_is_lost_is_reported() {
    let folder = Folder::new();
    for name in ["h264.mp4", "h264.mkv"] {
        folder.ffmpeg(&format!(
            "{CLIP} -map 0:v -c:v libx264 -g 12 -bf 0 -bsf:v filter_units=remove_types=6 {name}"
        ));
        let mut bytes = folder.read(name);
        // A slice of an IDR frame, and the first bytes of its header.
        let slice = bytes.windows(2).position(|two| two == [0x65, 0x88]).unwrap();
        bytes[slice..slice + 300].fill(0x6f);
        folder.write(name, &bytes);
        let ran = upscale(&folder, &format!("{name} out.mkv"));
        ran.assert_told("out.partial.mkv has the", name);
        assert!(folder.frames("out.partial.mkv").len() < FRAMES, "{name}");
        std::fs::remove_file(folder.path("out.partial.mkv")).unwrap();
        std::fs::remove_dir_all(folder.path("out.mkv.hasn")).unwrap();
    }
}

/// A cut between two blocks damages none, and less than a second is missing.
#[test]
fn a_matroska_file_that_is_truncated_between_two_blocks_is_reported() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} -map 0:v -c:v libx264 -g 12 -bf 0 in.mkv"));
    let packet = folder.ffprobe::<serde_json::Value>("-show_packets", "in.mkv")["packets"][30].clone();
    let content: usize = packet["pos"].as_str().unwrap().parse().unwrap();
    let bytes = folder.read("in.mkv");
    // A simple block begins with its ID and its size, some bytes before.
    let start = bytes[..content].iter().rposition(|&byte| byte == 0xa3).unwrap();
    assert!(content - start < 9, "the block's ID is found");
    folder.write("in.mkv", &bytes[..start]);
    upscale(&folder, "in.mkv out.mkv").assert_told("bytes", "cut before a block");
    assert_eq!(folder.frames("out.partial.mkv").len(), 30);
}

/// Number of frames that the demuxer marks as not to be shown. FFmpeg before 7 shows those of codecs without delay.
fn discarded(folder: &Folder, name: &str) -> usize {
    let packets: Value = folder.ffprobe("-select_streams v -show_packets", name);
    let packets = packets["packets"].as_array().expect("a list of packets");
    let is_discarded = |packet: &&Value| packet["flags"].as_str().is_some_and(|flags| flags.contains('D'));
    if ffmpeg_major() < 7 { 0 } else { packets.iter().filter(is_discarded).count() }
}

/// A wrong duration of a frame moves those after it out of the edit list: FFmpeg leaves them out without an error.
#[test]
fn frames_that_a_damaged_quicktime_index_hides_are_reported() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} -c:v mjpeg -c:a pcm_s16le in.mov"));
    let good = folder.read("in.mov");
    let find = |name: &[u8]| good.windows(4).position(|four| four == name).unwrap() + 4;
    let (mut as_damage, mut hidden) = (0, 0);
    // The first table of each kind is of the frames. All have a version and flags; of most a number of rows follows.
    for (name, bytes) in
        [(b"stts", 4..16), (b"stsc", 4..20), (b"stsz", 4..12), (b"elst", 4..16), (b"mdhd", 12..20)]
    {
        for byte in bytes {
            let mut bytes = good.clone();
            bytes[find(name) + byte] ^= 1 << (byte % 8);
            folder.write("bad.mov", bytes);
            let _ = std::fs::remove_file(folder.path("out.mkv"));
            let ran = upscale(&folder, "bad.mov out.mkv --restart");
            let what = format!("{}, byte {byte}", String::from_utf8_lossy(name));
            if ran.code != Some(0) {
                ran.assert_told("", &what);
                as_damage += u64::from(ran.stderr.contains("its index contradicts itself"));
            } else if folder.frames("out.mkv").len() + discarded(&folder, "bad.mov") < FRAMES {
                assert!(ran.stderr.contains("its edit list leaves out"), "{what}: {}", ran.stderr);
                hidden += 1;
            }
        }
    }
    assert!(as_damage >= 5, "{as_damage} reported as damage, {hidden} as hidden by an edit list");
}

/// A frame without references to it that lies in one transport packet: neither the continuity counter nor the decoder miss
/// it.
#[test]
fn a_transport_packet_that_cannot_be_read_is_reported() {
    const PACKET: usize = 188;
    let folder = Folder::new();
    let still = "-f lavfi -i color=s=64x48:r=25 -t 1.6 -c:v libx264 -g 12 -x264-params b-pyramid=none";
    folder.ffmpeg(&format!("{still} good.ts"));
    let mut bytes = folder.read("good.ts");
    let frames: Vec<usize> = (0..bytes.len() / PACKET)
        .map(|packet| packet * PACKET)
        .filter(|&at| bytes[at + 1] & 0x1f == 1 && bytes[at + 2] == 0)
        .collect();
    let is_start = |at: usize| bytes[at + 1] & 0x40 != 0;
    let in_one_packet =
        |pair: &&[usize]| is_start(pair[0]) && is_start(pair[1]) && bytes[pair[0] + 3] >> 4 == 3;
    let found: Vec<usize> = frames.windows(2).filter(in_one_packet).map(|pair| pair[0]).collect();
    bytes[found[found.len() / 2] + 4] = 0xff;
    folder.write("in.ts", &bytes);
    upscale(&folder, "in.ts out.mkv")
        .assert_told("1 transport packets of its video cannot be read", "an invalid packet");
    assert_eq!(folder.frames("out.partial.mkv").len(), FRAMES - 1);
}

#[test]
fn damage_at_the_start_of_a_file_is_reported() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} -c:v libx264 -g 12 -c:a aac in.mkv"));
    let mut bytes = folder.read("in.mkv");
    // The first block within the first cluster is longer than the cluster.
    let cluster = bytes.windows(4).position(|id| id == [0x1f, 0x43, 0xb6, 0x75]).unwrap();
    let block = cluster + bytes[cluster..].iter().position(|&byte| byte == 0xa3).unwrap();
    bytes[block + 1..block + 600].fill(0x25);
    folder.write("bad.mkv", bytes);
    let ran = folder.hasn("upscale bad.mkv out.mkv --model none --progress none");
    ran.assert_told("out.partial.mkv has the", "a damaged start");
}
