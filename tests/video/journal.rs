//! A run that is killed, interrupted or out of disk space resumes, and its file is that of an uninterrupted run.

use std::os::unix::fs::MetadataExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::common::Random;
use crate::common::program::{Folder, Ran, SmallDisk, project_file, say_skipped, signal, wait_for};

/// VFR timestamps, B frames, audio: what a join could get wrong. Fast enough to be killed often.
fn folder_with_video(frames: u32) -> Folder {
    let folder = Folder::new();
    folder.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=64x48:r=25,select='mod(n\\,7)' -f lavfi -i sine=r=48000 -frames:v {frames} \
         -shortest -fps_mode passthrough -c:v libx264 -preset ultrafast -bf 2 -g 90 -c:a aac video.mkv"
    ));
    folder
}

fn command(out: &str) -> String {
    format!("upscale video.mkv {out} --model none --progress none --threads 2 --encoder-opt bf=3")
}

fn start(folder: &Folder, line: &str) -> Child {
    folder.hasn_command(line).stderr(Stdio::piped()).spawn().unwrap()
}

/// Starts a run and waits until `segments` segments are complete.
fn start_and_wait(folder: &Folder, out: &str, segments: usize) -> Child {
    let mut child = start(folder, &command(out));
    wait_for("some segments", || {
        assert!(child.try_wait().unwrap().is_none(), "the run is over before {segments} segments");
        (segment_names(folder, out).len() >= segments).then_some(())
    });
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn segment_names(folder: &Folder, out: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path(&format!("{out}.hasn")));
    let names = entries.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".segment")).collect();
    names.sort();
    names
}

#[test]
fn a_run_killed_many_times_writes_the_same_file() {
    let folder = folder_with_video(3000);
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let mut random = Random(seed);
    let started = Instant::now();
    for out in ["whole.mkv", "whole.mp4"] {
        folder.hasn(&command(out)).assert_done();
        // Matroska does not store dts.
        let times = if out == "whole.mp4" { folder.probe(out).video_dts() } else { Vec::new() };
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{out}: dts rise across every cut");
    }
    let uninterrupted_ms = started.elapsed().as_millis() as u64 / 2;
    let (mut kills, mut at) = (0, Vec::new());
    while kills < 25 {
        for out in ["often.mkv", "often.mp4"] {
            // Longer after each kill: the run ends however slow the machine has become.
            for nth in 4.. {
                let wait_ms =
                    uninterrupted_ms / 20 + random.below((uninterrupted_ms * nth / 8) as usize) as u64;
                let mut child = start(&folder, &command(out));
                let started = Instant::now();
                let mut ended = None;
                while ended.is_none() && started.elapsed() < Duration::from_millis(wait_ms) {
                    std::thread::sleep(Duration::from_millis(3));
                    ended = child.try_wait().unwrap();
                }
                if let Some(status) = ended {
                    let ran = Ran::of(child.wait_with_output().unwrap());
                    // The previous kill came when the output was complete.
                    let was_done = ran.stderr.contains(&format!("{out}: already exists"));
                    assert!(status.success() || was_done, "seed {seed}, after {kills} kills: {}", ran.stderr);
                    break;
                }
                kill(child);
                kills += 1;
                at.push(segment_names(&folder, out).len());
            }
            let whole = out.replace("often", "whole");
            assert!(folder.read(out) == folder.read(&whole), "seed {seed}: {out}, killed at segments {at:?}");
            std::fs::remove_file(folder.path(out)).unwrap();
        }
    }
    assert!(at.iter().any(|&segments| segments > 0), "some kills were in the middle: {at:?}");
    assert_eq!(folder.names(), ["video.mkv", "whole.mkv", "whole.mp4"]);
}

#[test]
fn damaged_segments_are_encoded_again() {
    let folder = folder_with_video(1500);
    folder.hasn(&command("whole.mkv")).assert_done();
    kill(start_and_wait(&folder, "out.mkv", 3));
    let journal = |name: &str| format!("out.mkv.hasn/{name}");
    let names = segment_names(&folder, "out.mkv");
    // The last one is truncated, as by a power cut; a byte of a middle one is changed, as by a bad disk.
    let (last, middle) = (journal(names.last().unwrap()), journal(&names[1]));
    let bytes = folder.read(&last);
    folder.write(&last, &bytes[..bytes.len() - 5]);
    let mut bytes = folder.read(&middle);
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    folder.write(&middle, &bytes);
    folder.write(&journal(".writing-left"), "left by a killed run");
    let ran = folder.hasn(&command("out.mkv"));
    ran.assert_told("000001.segment: it is truncated or damaged", "a changed byte");
    assert!(ran.stderr.contains("is truncated, and is encoded again"), "{}", ran.stderr);
    folder.hasn(&command("out.mkv")).assert_done();
    assert!(folder.read("out.mkv") == folder.read("whole.mkv"));
    assert_eq!(folder.names(), ["out.mkv", "video.mkv", "whole.mkv"]);
}

/// The last step takes no name from a file that appeared meanwhile, and is all that is left to do.
#[test]
fn an_output_that_appears_during_a_run_stays_and_the_complete_one_only_lacks_its_name() {
    let folder = folder_with_video(1500);
    folder.hasn(&command("whole.mkv")).assert_done();
    let inode = |name: &str| std::fs::metadata(folder.path(name)).unwrap().ino();
    let refuse = || {
        let child = start_and_wait(&folder, "out.mkv", 1);
        folder.write("out.mkv", "another file");
        let ran = Ran::of(child.wait_with_output().unwrap());
        ran.assert_told("appeared while it was being encoded and is left as it is", "a new file");
        ran.assert_told(
            "the complete output is in out.partial.mkv: rename it, or run again with -y",
            "a new file",
        );
        assert_eq!(folder.read("out.mkv"), b"another file");
        assert!(folder.read("out.partial.mkv") == folder.read("whole.mkv"));
    };
    refuse();
    folder.hasn(&command("out.mkv")).assert_told("out.mkv: already exists; -y overwrites it", "no -y");
    let other = format!("{} -y --encoder-opt crf=30", command("out.mkv"));
    folder.hasn(&other).assert_told("was started with --encoder-opt bf=3, now bf=3 crf=30", &other);
    let partial = inode("out.partial.mkv");
    folder.hasn(&format!("{} -y", command("out.mkv"))).assert_done();
    assert_eq!(inode("out.mkv"), partial, "it is renamed, and not joined again");
    assert_eq!(folder.names(), ["out.mkv", "video.mkv", "whole.mkv"]);

    // A user renames it, or the run was cut off before it removed its journal. What is left of the journal is removed,
    // wherever that was cut off.
    std::fs::remove_file(folder.path("out.mkv")).unwrap();
    refuse();
    std::fs::rename(folder.path("out.partial.mkv"), folder.path("out.mkv")).unwrap();
    let segments = || segment_names(&folder, "out.mkv").into_iter();
    let joined = folder.read("out.mkv.hasn/joined");
    for left in segments().chain(["journal.json".into(), "joining".into(), "lock".into()]) {
        std::fs::remove_file(folder.path(&format!("out.mkv.hasn/{left}"))).unwrap();
        for more in ["", " -y"] {
            let kept = folder.path("kept");
            std::fs::create_dir(&kept).unwrap();
            for entry in std::fs::read_dir(folder.path("out.mkv.hasn")).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, kept.join(path.file_name().unwrap())).unwrap();
            }
            folder.hasn(&format!("{}{more}", command("out.mkv"))).assert_done();
            assert_eq!((inode("out.mkv"), folder.path("out.mkv.hasn").exists()), (inode("out.mkv"), false));
            std::fs::rename(kept, folder.path("out.mkv.hasn")).unwrap();
        }
    }
    assert_eq!(folder.read("out.mkv.hasn/joined"), joined);
    // The mark of another file means nothing.
    folder.write("out.mkv", "another file");
    folder.hasn(&command("out.mkv")).assert_told("out.mkv: already exists", "another file");
    assert_eq!(folder.read("out.mkv"), b"another file");
}

/// A join overwrites its own partial file and no other.
#[test]
fn a_partial_file_of_others_is_left_as_it_is() {
    let folder = folder_with_video(1500);
    let line = command("out.mkv");
    let child = start_and_wait(&folder, "out.mkv", 1);
    folder.write("out.partial.mkv", "another file");
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.assert_told("out.partial.mkv: already exists; it is not of this run: move it away", &line);
    ran.assert_told("out.mkv.hasn keeps the first 1500 frames", &line);
    folder.hasn(&line).assert_told("out.partial.mkv: already exists", &line);
    assert_eq!(folder.read("out.partial.mkv"), b"another file");
    std::fs::remove_file(folder.path("out.partial.mkv")).unwrap();
    // The mark of a join that was killed.
    folder.write("out.mkv.hasn/joining", "");
    folder.write("out.partial.mkv", "begun by a killed run");
    folder.hasn(&line).assert_done();
    assert_eq!(folder.names(), ["out.mkv", "video.mkv"]);
    // It goes with its journal.
    std::fs::remove_file(folder.path("out.mkv")).unwrap();
    kill(start_and_wait(&folder, "out.mkv", 1));
    folder.write("out.mkv.hasn/joining", "");
    folder.write("out.partial.mkv", "begun by a killed run");
    folder.hasn(&format!("{line} --restart")).assert_done();
    assert_eq!(folder.names(), ["out.mkv", "video.mkv"]);
}

#[test]
fn a_journal_can_be_read_by_other_users() {
    let folder = folder_with_video(1000);
    kill(start_and_wait(&folder, "out.mkv", 1));
    folder.write("other", "");
    let mode = |name: &str| std::fs::metadata(folder.path(name)).unwrap().mode();
    for name in ["journal.json", "lock", "000000.segment"] {
        assert_eq!(mode(&format!("out.mkv.hasn/{name}")), mode("other"), "{name}");
    }
}

/// FFmpeg's name of the protocol of files.
#[test]
fn a_file_named_by_its_protocol_is_a_file() {
    let folder = folder_with_video(1000);
    folder.hasn(&command("whole.mkv")).assert_done();
    let line = command("file:out.mkv").replace("video.mkv", "file:video.mkv");
    let mut child = start(&folder, &line);
    wait_for("a segment", || (!segment_names(&folder, "out.mkv").is_empty()).then_some(()));
    assert!(child.try_wait().unwrap().is_none(), "the run is over already");
    kill(child);
    let ran = folder.hasn(&line);
    ran.assert_done();
    assert!(ran.stderr.contains("resuming after"), "{}", ran.stderr);
    assert!(folder.read("out.mkv") == folder.read("whole.mkv"));
    let onto_itself = "upscale file:video.mkv video.mkv -y --model none";
    folder.hasn(onto_itself).assert_told("is the input itself", onto_itself);
}

#[test]
fn an_interrupted_run_reports_what_it_keeps_and_resumes() {
    let folder = folder_with_video(3000);
    folder.hasn(&command("whole.mp4")).assert_done();
    for name in ["-INT", "-TERM"] {
        let child = start_and_wait(&folder, "out.mp4", 1);
        signal(&child, name);
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!(ran.code, Some(130), "{}", ran.stderr);
        let frames = 240 * segment_names(&folder, "out.mp4").len();
        let told = format!("interrupted; out.mp4.hasn keeps the first {frames} frames");
        assert!(ran.stderr.contains(&told), "{}\nexpected: {told}", ran.stderr);
        assert!(!folder.path("out.mp4").exists() && !folder.path("out.partial.mp4").exists());
        let ran = folder.hasn(&format!("{} --resume --report report.json", command("out.mp4")));
        ran.assert_done();
        let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
        let figure = |name: &str| report[name].as_f64().unwrap();
        let encoded = figure("fps") * figure("seconds");
        let expected = (3000 - frames) as f64;
        assert!((encoded - expected).abs() < 0.01 * encoded, "{encoded} frames in this run");
        assert!(ran.stderr.contains(&format!("resuming after {frames} frames")), "{}", ran.stderr);
        assert!(folder.read("out.mp4") == folder.read("whole.mp4"));
        std::fs::remove_file(folder.path("out.mp4")).unwrap();
    }
}

#[test]
fn another_setting_or_video_is_refused_and_named() {
    let folder = folder_with_video(1500);
    kill(start_and_wait(&folder, "out.mkv", 1));
    let line = command("out.mkv");
    for (more, expected) in [
        ("--encoder-opt crf=30", "was started with --encoder-opt bf=3, now bf=3 crf=30"),
        ("--size 100x80", "was started with --size 128x96, now 100x80"),
        ("--encoder libx265", "was started with --encoder libx264, now libx265"),
        ("--deinterlace off", "--deinterlace"),
        ("--from 1", "--from"),
    ] {
        let line = format!("{line} {more}");
        folder.hasn(&line).assert_told(expected, &line);
    }
    // Another file of weights under the same name is another model.
    let weights = |name: &str| std::fs::read(project_file(&format!("models/{name}.safetensors"))).unwrap();
    let with_model = "upscale video.mkv model.mkv --progress none --threads 2 --model mine.safetensors";
    folder.write("mine.safetensors", weights("hasn-lite-x2"));
    let mut child = start(&folder, with_model);
    wait_for("a segment", || (!segment_names(&folder, "model.mkv").is_empty()).then_some(()));
    assert!(child.try_wait().unwrap().is_none(), "the run is over already");
    kill(child);
    folder.write("mine.safetensors", weights("hasn-lite-x2-video"));
    folder.hasn(with_model).assert_told("was started with model", with_model);
    std::fs::remove_dir_all(folder.path("model.mkv.hasn")).unwrap();
    std::fs::remove_file(folder.path("mine.safetensors")).unwrap();
    let video = folder.read("video.mkv");
    folder.write("video.mkv", &video[..video.len() - 1]);
    folder.hasn(&line).assert_told("was started with input size", "another video");
    folder.write("video.mkv", &video);
    folder.hasn(&line).assert_told("was started with input modification time", "a video that was touched");
    let fingerprint = folder.read("out.mkv.hasn/journal.json");
    folder.write("out.mkv.hasn/journal.json", &fingerprint[..fingerprint.len() / 2]);
    folder.hasn(&line).assert_told("is truncated or not a journal of hasn", "a truncated journal");
    folder.hasn(&format!("{line} --restart")).assert_done();
    assert_eq!(folder.names(), ["out.mkv", "video.mkv"]);
    std::fs::remove_file(folder.path("out.mkv")).unwrap();
    // A package manager may replace FFmpeg during a run of days.
    kill(start_and_wait(&folder, "out.mkv", 1));
    let fingerprint: serde_json::Value =
        serde_json::from_slice(&folder.read("out.mkv.hasn/journal.json")).unwrap();
    let version = fingerprint["entries"].as_array().unwrap().iter().find(|entry| entry["name"] == "FFmpeg");
    let version = version.unwrap()["value"].as_str().unwrap();
    folder.write("out.mkv.hasn/journal.json", fingerprint.to_string().replace(version, "4.0"));
    folder.hasn(&line).assert_told("was started with FFmpeg 4.0, now", "another FFmpeg");
    let ran = folder.hasn(&format!("{line} --resume"));
    ran.assert_done();
    assert!(ran.stderr.contains("was started with FFmpeg 4.0, and continues with"), "{}", ran.stderr);
    assert_eq!(folder.probe("out.mkv").video_pts().len(), 1500);
    assert_eq!(folder.names(), ["out.mkv", "video.mkv"]);
    let again = format!("{} --resume", command("new.mkv"));
    folder.hasn(&again).assert_told("there is no new.mkv.hasn", &again);
    let still = "upscale video.mkv - --resume";
    folder.hasn(still).assert_told("only a video that goes from file to file", still);
}

#[test]
fn two_runs_on_one_output_exclude_each_other() {
    let folder = folder_with_video(1500);
    let child = start_and_wait(&folder, "out.mkv", 1);
    signal(&child, "-STOP");
    for line in [command("out.mkv"), format!("{} --restart", command("out.mkv"))] {
        folder.hasn(&line).assert_told("another run is using it", &line);
    }
    signal(&child, "-CONT");
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.assert_done();
}

#[test]
fn a_run_waits_while_the_disk_is_full() {
    let folder = folder_with_video(1000);
    folder.hasn(&command("whole.mkv")).assert_done();
    let size = folder.read("whole.mkv").len() as u64;
    // Space for twice the video and the spare, most of which a file takes up.
    let Some(disk) = SmallDisk::mount(&folder, &format!("{}k", size * 3 / 1000 + 1200)) else {
        say_skipped("a full disk, for this user may not mount a small one");
        return;
    };
    folder.write("disk/filler", vec![0; (size * 5 / 2) as usize + 1_000_000]);
    let mut child = start(&folder, &command("disk/out.mkv"));
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut log = std::io::BufRead::lines(stderr).map(Result::unwrap);
    let line = log.next().unwrap_or_default();
    assert!(
        line.contains("the remaining segments need about")
            && line.contains("will wait when the disk is full"),
        "{line}"
    );
    let full = "the disk is full; waiting until";
    assert!(log.any(|line| line.contains(full)), "it logs: {full}");
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    std::fs::remove_file(folder.path("disk/filler")).unwrap();
    let status = wait_for("the end of the run", || child.try_wait().unwrap());
    assert!(status.success());
    assert!(folder.read("disk/out.mkv") == folder.read("whole.mkv"));
    drop(disk);
}

#[test]
fn segments_are_joined_in_another_container() {
    let folder = folder_with_video(600);
    folder.hasn(&command("whole.mov")).assert_done();
    folder.hasn(&command("out.mkv").replace("upscale", "plan")).assert_done();
    for segment in 0..3 {
        folder.hasn(&format!("segment out.mkv.hasn {segment}")).assert_done();
    }
    for (output, expected) in [
        ("out.ts", "out.ts: cannot be joined from segments for matroska"),
        ("out.png", "out.png: cannot be joined from segments for matroska"),
        ("out.webm", "webm takes no header for these streams"),
        ("whole.mov", "whole.mov: already exists"),
        ("video.mkv", "is the input itself"),
    ] {
        let line = format!("join out.mkv.hasn {output}");
        folder.hasn(&line).assert_told(expected, &line);
    }
    std::fs::create_dir(folder.path("elsewhere")).unwrap();
    let ran = folder.hasn("join out.mkv.hasn elsewhere/out.mov");
    ran.assert_done();
    assert!(ran.text().ends_with("elsewhere/out.mov: 600 frames\n"), "{}", ran.text());
    let [out, whole] = ["elsewhere/out.mov", "whole.mov"].map(|name| folder.frame_hashes(name, "yuv420p"));
    assert_eq!(out, whole);
    assert_eq!(folder.names(), ["elsewhere", "video.mkv", "whole.mov"]);
}

#[test]
fn segments_by_many_processes_in_any_order_give_the_same_video() {
    let folder = folder_with_video(1500);
    folder.ffmpeg("-i video.mkv -c copy video.ts");
    for video in ["video.mkv", "video.ts"] {
        let line = |out: &str| command(out).replace("video.mkv", video);
        folder.hasn(&line("whole.mkv -y")).assert_done();
        let ran = folder.hasn(&line("out.mkv").replace("upscale", "plan"));
        ran.assert_done();
        assert_eq!(ran.text(), "out.mkv.hasn: 1500 frames in segments 0 to 6\n");
        // A transport stream's clock is repaired while it is read, so that no timestamp leads to a frame.
        let plan: serde_json::Value = serde_json::from_slice(&folder.read("out.mkv.hasn/plan.json")).unwrap();
        assert_eq!(plan["random_access"], video == "video.mkv");
        let join = "join out.mkv.hasn";
        folder
            .hasn(join)
            .assert_told("7 segments are missing, the first is 0; hasn segment out.mkv.hasn 0", join);
        // From last to first, two at a time, and one that is killed and encoded again.
        kill(start(&folder, "segment out.mkv.hasn 3"));
        for pair in [[6, 5], [4, 3], [2, 1], [0, 6]] {
            let running = pair.map(|segment| start(&folder, &format!("segment out.mkv.hasn {segment}")));
            for child in running {
                Ran::of(child.wait_with_output().unwrap()).assert_done();
            }
        }
        let beyond = "segment out.mkv.hasn 7";
        folder.hasn(beyond).assert_told("they go from 0 to 6", beyond);
        folder.hasn(join).assert_done();
        assert!(folder.read("out.mkv") == folder.read("whole.mkv"), "{video}");
        assert!(!folder.path("out.mkv.hasn").exists());
        let ran = folder.hasn(join);
        assert_eq!((ran.code, ran.text()), (Some(0), "out.mkv.hasn: its video is already complete\n"));
        std::fs::remove_file(folder.path("out.mkv")).unwrap();
        assert_eq!(folder.hasn(join).code, Some(1));
    }
}
