//! A failure is reported in one line that helps, and leaves no file behind that looks complete.

use std::fs::OpenOptions;
use std::io::Read;
use std::process::{Command, Stdio};

use crate::common::program::{Folder, Ran, SmallDisk, say_skipped, signal, wait_for};

const TEST_FRAMES: &str = "-f lavfi -i testsrc2=s=64x48:r=25";
const SINE: &str = "-f lavfi -i sine=r=48000";

/// Returns a folder with a good clip and damaged, truncated and foreign files.
fn folder_of_bad_files() -> Folder {
    let folder = Folder::new();
    let clip = format!("{TEST_FRAMES} {SINE} -t 4 -c:v libx264 -bf 0 -g 10");
    for name in ["good.mp4", "good.mkv"] {
        folder.ffmpeg(&format!("{clip} -c:a aac {name}"));
    }
    folder.ffmpeg("-i good.mp4 -c copy -movflags +faststart fast.mp4");
    folder.ffmpeg(&format!("{clip} -c:a mp2 good.avi"));
    folder.ffmpeg("-i good.mp4 -map 0:v -frames:v 20 good.y4m");
    folder.ffmpeg(&format!("{SINE} -t 1 audio.wav"));
    folder.ffmpeg("-f lavfi -i testsrc2=s=14x14 -frames:v 3 -c:v ffv1 tiny.mkv");
    folder.write("text.mp4", "This is no video.\n".repeat(100));
    folder.write("empty.mkv", "");
    folder.write("there.mkv", "another file");
    folder.write("lies.safetensors", {
        let mut bytes = 40u64.to_le_bytes().to_vec();
        bytes.extend(br#"{"conv_1.weight":{"dtype":"F32","shape":"#);
        bytes
    });
    for (source, cut, share) in [
        ("good.mp4", "cut.mp4", 0.6),
        ("fast.mp4", "cut-fast.mp4", 0.6),
        ("good.mkv", "cut.mkv", 0.6),
        ("good.avi", "cut.avi", 0.6),
        ("good.y4m", "cut.y4m", 0.62),
    ] {
        let bytes = folder.read(source);
        folder.write(cut, &bytes[..(bytes.len() as f64 * share) as usize]);
    }
    std::os::unix::fs::symlink(folder.path("good.mkv"), folder.path("link.mkv")).unwrap();
    folder
}

#[test]
fn every_failure_is_one_line_and_leaves_no_file() {
    let folder = folder_of_bad_files();
    let before = folder.names();
    for (line, expected) in [
        ("missing.mp4 out.mkv", "missing.mp4: No such file or directory; check the name"),
        ("text.mp4 out.mkv", "not a media file"),
        ("empty.mkv out.mkv", "empty.mkv"),
        ("audio.wav out.mkv", "no video stream"),
        ("cut.mp4 out.mkv", "get a complete copy"),
        ("tiny.mkv out.mkv --model hasn-lite-x2", "14x14"),
        ("good.mkv out.mkv --encoder no_such", "no video encoder 'no_such'"),
        ("good.mkv out.mkv --encoder hevc", "no video encoder 'hevc'; write libx265"),
        ("good.mkv out.mkv --encoder av1", "write libsvtav1"),
        ("good.mkv out.mkv --encoder ffv1 --crf 18", "--crf: encoder ffv1 has no such option"),
        ("good.mkv out.mkv --encoder ffv1 --encoder-preset slow", "--encoder-preset: encoder ffv1 has no"),
        (". out.mkv", "name an image sequence in it by its pattern"),
        ("scan/*.dpx out.mkv", "name an image sequence by its pattern"),
        ("missing.png out.png", "missing.png: No such file or directory; check the name"),
        ("good.mkv out.mkv --encoder aac", "no video encoder 'aac'"),
        ("good.mkv out.mkv --encoder-opt no_such=1", "no option 'no_such'"),
        ("good.mkv out.mkv --encoder-opt preset=no_such", "--encoder"),
        ("good.mkv out.mkv --pix-fmt rgb24", "does not take rgb24"),
        ("good.mkv out.mkv --pix-fmt no_such", "no_such is not a format"),
        ("good.mkv out.webm --encoder libx264", "out.webm: webm cannot hold h264"),
        ("good.mkv out.mkv --size 100000x100", "larger than"),
        ("good.mkv out.mkv --from 3 --to 2", "not after --from"),
        ("good.mkv out.mkv --from 100", "no frame in that part"),
        ("good.mkv good.mkv -y", "is the input itself"),
        ("link.mkv good.mkv -y", "is the input itself"),
        ("good.mkv link.mkv -y", "is the input itself"),
        ("good.mkv there.mkv", "already exists"),
        ("good.mkv nowhere/out.mkv", "nowhere: there is no such folder; create it, or check the name"),
        ("good.mkv /", "/: is a folder; name a file in it"),
        ("good.mkv out.wav", "out.wav: its extension is that of files without video; use e.g. .mkv"),
        ("good.mkv out.mp3", "files without video"),
        ("good.mkv out.srt", "files without video"),
        ("good.mkv out.xyz", "names no container"),
        ("good.mkv out.png", "holds one frame"),
        ("good.mkv out.mkv --model no_such", "neither a built-in model nor a file"),
        ("good.mkv out.mkv --model list", "hasn model list shows them"),
        ("good.mkv out.mkv --model lies.safetensors", "lies.safetensors"),
        ("good.mkv out.mkv --model good.mkv", "good.mkv"),
        ("good.mkv out.mkv --report nowhere/report.json", "nowhere: is not a folder"),
    ] {
        let line = format!("upscale {line} --model none");
        // A line that names a model keeps it.
        let line =
            if line.matches("--model").count() > 1 { line.trim_end_matches(" --model none") } else { &line };
        let ran = folder.hasn(line);
        ran.assert_told(expected, line);
        assert_eq!(folder.names(), before, "{line} leaves something behind");
    }
    assert_eq!(folder.read("there.mkv"), b"another file");
    folder.assert_decodes("good.mkv");
}

#[test]
fn usage_errors_have_a_code_of_their_own() {
    let folder = Folder::new();
    for line in [
        "upscale",
        "upscale in.mkv",
        "upscale -i in.mkv",
        "upscale -i in.mkv -o out.mkv more.mkv",
        "upscale in.mkv out.mkv -q -v",
        "upscale in.mkv out.mkv --no-such",
        "upscale in.mkv out.mkv --size 0x10",
        "upscale in.mkv out.mkv --size 10x10 --scale 2",
        "upscale in.mkv out.mkv --scale 0",
        "upscale in.mkv out.mkv --threads 0",
        "upscale in.mkv out.mkv --engine abacus",
        "upscale in.mkv out.mkv --from yesterday",
        "upscale in.mkv out.mkv --encoder-opt crf",
        "no-such",
    ] {
        let ran = folder.hasn(line);
        assert_eq!(ran.code, Some(2), "{line}\n{}", ran.stderr);
        assert!(ran.stderr.starts_with("error: "), "{line}\n{}", ran.stderr);
    }
}

#[test]
fn names_may_be_options_as_in_ffmpeg() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=32x32:r=25 -frames:v 3 -c:v ffv1 in.mkv");
    for line in ["in.mkv out.mkv", "-i in.mkv -o out.mkv", "-i in.mkv out.mkv", "in.mkv --output out.mkv"] {
        let ran = folder.hasn(&format!("upscale {line} --overwrite --quiet --model none --scale 2x"));
        ran.assert_done();
        assert_eq!(ran.stderr, "", "{line}");
        assert_eq!(folder.probe("out.mkv").video().width, 64, "{line}");
    }
}

#[test]
fn quality_and_speed_are_the_encoders_own_options() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=64x64:r=25 -frames:v 10 -c:v ffv1 in.mkv");
    for (encoder, [low, high], speed) in [
        ("libx264", ["40", "10"], "ultrafast"),
        ("libx265", ["40", "10"], "ultrafast"),
        ("libsvtav1", ["60", "10"], "12"),
        ("libvpx-vp9", ["60", "10"], "8"),
    ] {
        let bytes = [low, high].map(|crf| {
            let options = format!("--encoder {encoder} --crf {crf} --encoder-preset {speed}");
            folder.upscale(&format!("in.mkv out.mkv -y --model none {options}"));
            folder.read("out.mkv").len()
        });
        assert!(2 * bytes[0] < bytes[1], "{encoder}: {bytes:?}");
    }
}

#[test]
fn completions_and_manual_pages_have_every_command() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = folder.hasn(&format!("completions {shell}"));
        for word in ["upscale", "relay", "encoder-preset"] {
            assert!(ran.text().contains(word), "{shell}: {word}");
        }
    }
    std::fs::create_dir(folder.path("man")).unwrap();
    folder.hasn("man man").assert_done();
    let page = String::from_utf8(folder.read("man/hasn-upscale.1")).unwrap();
    assert!(page.contains("encoder\\-preset") && page.contains("Examples"), "{page}");
    folder.hasn("man nowhere").assert_told("nowhere: ", "man");
}

#[test]
fn a_truncated_file_is_reported_and_its_frames_are_kept() {
    let folder = folder_of_bad_files();
    for cut in ["cut-fast.mp4", "cut.mkv", "cut.avi", "cut.y4m"] {
        let line = format!("upscale {cut} out.mkv -y --model none");
        let ran = folder.hasn(&line);
        ran.assert_told("get a complete copy, or accept it with --tolerate", &line);
        ran.assert_told("out.partial.mkv has the", &line);
        folder.assert_decodes("out.partial.mkv");
        assert!(!folder.path("out.mkv").exists(), "{cut}");
        folder.upscale(&format!("{cut} out.mkv -y --model none --tolerate 3"));
        assert!(!folder.path("out.partial.mkv").exists(), "{cut}");
        std::fs::remove_file(folder.path("out.mkv")).unwrap();
    }
}

#[test]
fn a_truncated_pipe_is_reported() {
    let folder = folder_of_bad_files();
    let pipe = OpenOptions::new().read(true).open(folder.path("cut.y4m")).unwrap();
    let output = folder.hasn_command("upscale - out.mkv --model none").stdin(pipe).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let empty = folder.hasn("upscale - out.mkv -y --model none");
    empty.assert_told("pipe y4m into it", "an empty pipe");
    assert!(!folder.path("out.mkv").exists());
}

/// What came from a pipe cannot be read again: the run waits, and keeps what is finished when it is ended.
#[test]
fn a_full_disk_loses_nothing_of_a_pipe() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 2400 in.y4m"));
    let Some(disk) = SmallDisk::mount(&folder, "1m") else {
        say_skipped("a full disk, for this user may not mount a small one");
        return;
    };
    let line = "upscale - disk/out.mkv --model none --threads 1 --encoder-opt crf=1 --progress none";
    let pipe = || std::fs::File::open(folder.path("in.y4m")).unwrap();
    let errors = std::fs::File::create(folder.path("errors")).unwrap();
    let mut child = folder.hasn_command(line).stdin(pipe()).stderr(errors).spawn().unwrap();
    let told = || String::from_utf8(folder.read("errors")).unwrap();
    wait_for("the disk to be full", || Some(()).filter(|()| told().contains("the disk is full; waiting")));
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130), "{}", told());
    let names = std::fs::read_dir(folder.path("disk/out.mkv.hasn")).unwrap();
    let segments = names.filter(|name| {
        name.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "segment")
    });
    let frames = 240 * segments.count();
    assert!(frames > 0 && told().contains(&format!("keeps the first {frames} frames")), "{}", told());
    disk.resize("16m");
    let ran = Ran::of(folder.hasn_command(line).stdin(pipe()).output().unwrap());
    ran.assert_told("disk/out.partial.mkv has them now", "the next start");
    assert_eq!(folder.probe("disk/out.partial.mkv").video_pts().len(), frames);
    folder.assert_decodes("disk/out.partial.mkv");
}

#[test]
fn an_interrupted_pipe_leaves_a_playable_part_and_reports_how_to_continue() {
    let folder = Folder::new();
    for (extension, name) in [("mkv", "-INT"), ("mp4", "-TERM")] {
        let (out, partial) = (format!("out.{extension}"), format!("out.partial.{extension}"));
        let mut source = Command::new("ffmpeg");
        let frames = "-v error -f lavfi -i testsrc2=s=160x120:r=25 -t 600 -pix_fmt yuv420p -f yuv4mpegpipe -";
        source.args(frames.split(' ')).stdin(Stdio::null()).stderr(Stdio::null());
        let mut source = source.stdout(Stdio::piped()).spawn().unwrap();
        let line =
            format!("upscale - {out} --progress none --encoder-opt preset=ultrafast --encoder-opt bf=2");
        let mut hasn = folder.hasn_command(&line);
        let child = hasn.stdin(source.stdout.take().unwrap()).stderr(Stdio::piped()).spawn().unwrap();
        let segment = folder.path(&format!("{out}.hasn/000000.segment"));
        wait_for("a segment", || Some(()).filter(|()| segment.exists()));
        signal(&child, name);
        let ran = Ran::of(child.wait_with_output().unwrap());
        source.kill().unwrap();
        source.wait().unwrap();
        assert_eq!(ran.code, Some(130), "{}", ran.stderr);
        assert!(!folder.path(&out).exists());
        folder.assert_decodes(&partial);
        let part = folder.probe(&partial);
        let frames = part.video_pts().len();
        assert!(frames > 10 && frames < 15_000, "{frames}");
        let told = format!("interrupted after {frames} frames");
        assert!(ran.stderr.contains(&told), "{}\nexpected: {told}", ran.stderr);
        let reached = ran.stderr.split("--from ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let end = part.video_seconds()[frames - 1] + 0.04;
        let reached: f64 = reached.expect("--from T").parse().unwrap();
        assert!((reached - end).abs() < 2e-3, "{reached} s reported, {end} s in the file");
        std::fs::remove_file(folder.path(&partial)).unwrap();
    }
}

/// Whatever a run reads or writes is refused as its report, under any of its names.
#[test]
fn a_report_never_overwrites_a_file_of_the_run() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("in")).unwrap();
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 5 -c:v libx264 in/a.mkv"));
    folder.ffmpeg("-i in/a.mkv in/%03d.png");
    std::fs::hard_link(folder.path("in/a.mkv"), folder.path("link.mkv")).unwrap();
    folder.write("jobs.toml", "[[job]]\ninput = \"in/a.mkv\"\noutput = \"out.mkv\"\n");
    let contents = |name: &str| std::fs::read(folder.path(name)).ok();
    for (line, report) in [
        ("upscale in/a.mkv out.mkv", "in/a.mkv"),
        ("upscale file:in/a.mkv out.mkv", "link.mkv"),
        ("upscale in/a.mkv out.mkv", "out.mkv"),
        ("upscale in/a.mkv out.mkv", "in/../out.partial.mkv"),
        ("upscale in/%03d.png out.mkv", "in/002.png"),
        ("batch in/a.mkv --into out", "in/a.mkv"),
        ("batch in/a.mkv --into .", "a.mkv"),
        ("batch in/a.mkv --into .", "a.partial.mkv"),
        ("batch --jobs jobs.toml", "jobs.toml"),
        ("batch --jobs jobs.toml", "out.mkv"),
    ] {
        let line = format!("{line} --model none --report {report}");
        let (before, names) = (contents(report), folder.names());
        folder.hasn(&line).assert_told("itself, which the run reads or writes; give the report", &line);
        assert_eq!((contents(report), folder.names()), (before, names), "{line}");
    }
    let folder_as_report = "upscale in/a.mkv out.mkv --model none --report in";
    folder.hasn(folder_as_report).assert_told("in: cannot be written: ", folder_as_report);
    assert!(!folder.path("out.mkv").exists());
    // A device, and a link, which stays one.
    folder.upscale("in/a.mkv out.mkv --model none --report /dev/null");
    folder.write("report.json", "of an earlier run");
    std::os::unix::fs::symlink("report.json", folder.path("link.json")).unwrap();
    folder.upscale("in/a.mkv out.mkv -y --model none --report link.json");
    assert!(folder.path("link.json").is_symlink());
    assert!(folder.read("report.json").starts_with(b"{\"hasn\""));
}

/// A file system that does not report its size reports 0 bytes as free.
#[test]
fn a_disk_of_unknown_size_is_written_to() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 5 -c:v libx264 in.mkv"));
    std::fs::create_dir(folder.path("disk")).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "ramfs", "ramfs"]).arg(folder.path("disk")).stderr(Stdio::null());
    if !mount.status().is_ok_and(|status| status.success()) {
        say_skipped("a disk of unknown size, for this user may not mount one");
        return;
    }
    let started = std::time::Instant::now();
    let mut child = folder.hasn_command("upscale in.mkv disk/out.mkv --model none").spawn().unwrap();
    let ended = wait_for("the end, in vain", || {
        let status = child.try_wait().unwrap();
        if status.is_none() && started.elapsed().as_secs() > 30 {
            child.kill().unwrap();
        }
        status
    });
    let is_there = folder.path("disk/out.mkv").exists();
    assert!(Command::new("umount").arg(folder.path("disk")).status().unwrap().success());
    assert!(ended.success() && is_there);
}

/// A disk is read twice like a file, and so its run resumes.
#[test]
fn a_block_device_has_a_journal() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 1500 -c:v libx264 -preset ultrafast -f mpegts in.ts"));
    // To whole sectors, with null packets.
    let mut bytes = folder.read("in.ts");
    let null: Vec<u8> = [0x47, 0x1f, 0xff, 0x10].into_iter().chain([0xff; 184]).collect();
    while !bytes.len().is_multiple_of(512) {
        bytes.extend(&null);
    }
    folder.write("in.ts", bytes);
    let losetup = |words: &[&str]| Command::new("losetup").args(words).stderr(Stdio::null()).output();
    let attached = losetup(&["--find", "--show", "--read-only", folder.path("in.ts").to_str().unwrap()]);
    let Some(attached) = attached.ok().filter(|output| output.status.success()) else {
        say_skipped("a block device, for this user may not attach one");
        return;
    };
    let device = String::from_utf8(attached.stdout).unwrap().trim().to_owned();
    let line = format!("upscale {device} out.mkv --model none --progress none");
    let mut child = folder.hasn_command(&line).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a segment", || folder.path("out.mkv.hasn/000000.segment").exists().then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    let ran = folder.hasn(&line);
    let _ = losetup(&["--detach", &device]);
    ran.assert_done();
    assert!(ran.stderr.contains("resuming after"), "{}", ran.stderr);
    assert_eq!(folder.probe("out.mkv").video_pts().len(), 1500);
}

#[test]
fn a_late_error_does_not_discard_the_work() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} {SINE} -t 20 -c:v libx264 -bf 2 -c:a aac long.mkv"));
    let whole = folder.read("long.mkv");
    folder.write("cut.mkv", &whole[..whole.len() * 3 / 4]);
    let ran = folder.hasn("upscale cut.mkv out.mkv --model none");
    ran.assert_told("get a complete copy", "a late cut");
    ran.assert_told("out.partial.mkv has the", "a late cut");
    ran.assert_told("out.mkv.hasn keeps", "a late cut");
    assert_eq!(folder.names(), ["cut.mkv", "long.mkv", "out.mkv.hasn", "out.partial.mkv"]);
    let (kept, source) = (folder.probe("out.partial.mkv"), folder.probe("long.mkv"));
    assert!(kept.video_pts().len() > 240 && source.video_pts().starts_with(&kept.video_pts()));
    folder.assert_decodes("out.partial.mkv");
    // Nothing is encoded again for a run that accepts the damage.
    let tolerant = folder.upscale("cut.mkv out.mkv --model none --tolerate 9 --report report.json");
    assert!(tolerant.stderr.contains("resuming after"), "{}", tolerant.stderr);
    let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    assert_eq!((report["segments"].as_u64(), report["fps"].as_f64()), (Some(1), Some(0.0)), "{report}");
    assert_eq!(folder.probe("out.mkv").video_pts(), kept.video_pts());
}

#[test]
fn a_reader_that_closes_the_pipe_ends_the_run() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=320x240 -frames:v 100 -c:v libx264 -preset ultrafast in.mkv");
    let mut hasn = folder.hasn_command("upscale in.mkv - --model none --progress none");
    let mut child = hasn.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 9];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    assert_eq!(&start, b"YUV4MPEG2");
    let status = wait_for("the end of the run", || child.try_wait().unwrap());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    let ran = Ran { code: status.code(), stdout: Vec::new(), stderr };
    ran.assert_told("the reader has closed the pipe", "a reader that went away");
}

#[test]
fn progress_and_report_are_json_whose_frames_add_up() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 80 -c:v libx264 in.mp4"));
    let ran = folder.upscale("in.mp4 out.mkv --progress json --report report.json");
    let lines: Vec<serde_json::Value> =
        ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().expect("a line at the end at least");
    assert_eq!(last["frames"], 80);
    assert_eq!(last["frames_expected"], 80);
    assert!(last["fps"].as_f64().unwrap() > 0.0 && last["limited_by"].is_string());

    let report: serde_json::Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    let frames = |name: &str| report["frames"][name].as_u64().unwrap();
    assert_eq!((frames("decoded"), frames("encoded")), (80, 80));
    assert_eq!(frames("decoded") + frames("duplicated"), frames("encoded") + frames("dropped"));
    let choice = ["input", "output", "model", "engine", "encoder", "pixel_format"]
        .map(|key| report[key].as_str().unwrap());
    assert_eq!(choice, ["in.mp4", "out.mkv", "hasn-lite-x2-video", "cpu", "libx264", "yuv420p"]);
    assert_eq!((&report["width"], &report["height"]), (&128.into(), &96.into()));
    assert_eq!(report["interrupted"], false);
}
