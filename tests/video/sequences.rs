//! Frames in files of their own, in and out: numbers, samples, gaps, runs that were cut off, light.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use crate::common::program::{Folder, Ran, signal, wait_for};

/// Frames that all differ, from number 1 on.
fn scan(folder: &Folder, frames: u32, pix_fmt: &str, pattern: &str) {
    let into = folder.path(pattern.rsplit_once('/').map_or(".", |(into, _)| into));
    fs::create_dir_all(into).unwrap();
    folder.ffmpeg(&format!(
        "-f lavfi -i testsrc=s=32x24:r=25 -vf noise=alls=20:allf=t:all_seed=7 -frames:v {frames} -pix_fmt {pix_fmt} {pattern}"
    ));
}

/// Names in a folder and the bytes of the files, but for what is kept there of a run.
fn files(folder: &Folder, name: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder.path(name)).into_iter().flatten().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap_or_default())
    };
    entries.filter(|path| path.is_file()).map(read).collect()
}

fn names(folder: &Folder, name: &str) -> Vec<String> {
    files(folder, name).into_keys().collect()
}

fn start(folder: &Folder, line: &str) -> Child {
    folder.hasn_command(line).stderr(Stdio::piped()).spawn().unwrap()
}

/// Starts a run and waits until so many frames are there.
fn start_and_wait(folder: &Folder, line: &str, out: &str, frames: usize) -> Child {
    let mut child = start(folder, line);
    wait_for("some frames", || {
        assert!(child.try_wait().unwrap().is_none(), "the run is over before {frames} frames");
        (names(folder, out).len() >= frames).then_some(())
    });
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn report(folder: &Folder) -> serde_json::Value {
    serde_json::from_slice(&folder.read("report.json")).unwrap()
}

#[test]
fn every_sample_is_unchanged_at_scale_1() {
    let folder = Folder::new();
    for (kind, formats) in [
        ("png", &["rgb24", "rgba", "rgb48be", "rgba64be", "gray", "ya8", "gray16be", "ya16be"][..]),
        ("tif", &["rgb24", "rgba", "rgb48le", "rgba64le", "gray", "ya8", "gray16le", "ya16le"]),
        ("dpx", &["rgb24", "rgba", "gbrp10le", "gbrp12le", "rgb48le", "rgba64le", "gray", "gray16le"]),
    ] {
        for format in formats {
            let (from, to) = (format!("in-{format}/%03d.{kind}"), format!("out-{format}-{kind}/%03d.{kind}"));
            scan(&folder, 3, format, &from);
            folder.upscale(&format!("{from} {to} --model none --scale 1"));
            let seen = folder.frames(&to);
            assert_eq!((seen.len(), seen[0].pix_fmt.as_str()), (3, *format), "{kind}");
            assert_eq!(
                folder.frame_hashes(&to, format),
                folder.frame_hashes(&from, format),
                "{kind} {format}"
            );
        }
    }
}

/// A raw frame of floats, of which the first is `low` and the others rise by 1/64: halves hold them exactly.
fn raw_floats(planes: usize, low: f32) -> Vec<u8> {
    (0..planes * 32 * 24).flat_map(|i| (low + (i % 384) as f32 / 64.0).to_le_bytes()).collect()
}

fn exr_of(folder: &Folder, raw: &[u8], pix_fmt: &str, kind: &str, name: &str) {
    folder.write("raw", raw);
    let options = format!("-f rawvideo -pix_fmt {pix_fmt} -s 32x24 -i raw -frames:v 1");
    folder.ffmpeg(&format!("{options} -c:v exr -format {kind} -update 1 {name}"));
}

fn samples(folder: &Folder, name: &str, pix_fmt: &str) -> Vec<f32> {
    let raw = folder.ffmpeg(&format!("-i {name} -f rawvideo -pix_fmt {pix_fmt} -"));
    raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn linear_light_above_1_and_below_0_is_unchanged() {
    let folder = Folder::new();
    fs::create_dir(folder.path("in")).unwrap();
    for (pix_fmt, planes) in [("gbrpf32le", 3), ("gbrapf32le", 4), ("grayf32le", 1)] {
        for kind in ["half", "float"] {
            let raw = raw_floats(planes, -2.0);
            for number in [1, 2] {
                exr_of(&folder, &raw, pix_fmt, kind, &format!("in/{number}.exr"));
            }
            folder.upscale(&format!(
                "in/%d.exr out/%d.exr -y --model none --scale 1 --exr-transfer linear --encoder-opt format={kind}"
            ));
            for number in [1, 2] {
                let name = format!("out/{number}.exr");
                assert_eq!(folder.frames(&name)[0].pix_fmt, pix_fmt);
                let out = folder.ffmpeg(&format!("-i {name} -f rawvideo -pix_fmt {pix_fmt} -"));
                assert!(out == raw, "{pix_fmt} {kind} {number}");
            }
            let (half, float) = (folder.read("out/1.exr").len(), planes * 32 * 24 * 4);
            assert_eq!(half < float, kind == "half", "{half} bytes");
        }
    }
}

#[test]
fn a_network_keeps_the_depth() {
    let folder = Folder::new();
    for (kind, format) in [("png", "rgb48be"), ("tif", "rgb48le"), ("dpx", "gbrp10le"), ("tif", "gray")] {
        let (from, to) = (format!("in-{kind}-{format}/%d.{kind}"), format!("out-{format}/%d.{kind}"));
        scan(&folder, 2, format, &from);
        folder.upscale(&format!("{from} {to}"));
        let seen = folder.frames(&to);
        assert_eq!((seen.len(), seen[1].pix_fmt.as_str(), seen[1].width), (2, format, 64), "{kind}");
    }
    // The shape of samples, and what a DPX says of its colours.
    folder.ffmpeg("-i in-dpx-gbrp10le/1.dpx -vf setsar=2 -update 1 wide0001.dpx");
    // FFmpeg states that every DPX is linear, which integers are not.
    for (stated, transfer) in [(2, ""), (6, "bt709"), (8, "smpte170m")] {
        let mut file = folder.read("wide0001.dpx");
        file[801..803].fill(stated);
        folder.write("wide0001.dpx", file);
        folder.upscale("wide%04d.dpx anamorphic/%d.dpx -y --model none --size 64x48");
        let stream = folder.probe("anamorphic/1.dpx").video().clone();
        let found = (stream.sample_aspect_ratio.as_str(), stream.color_transfer.as_str());
        assert_eq!(found, ("2:1", transfer), "{stated}");
        assert_eq!(folder.read("anamorphic/1.dpx")[801], if stated == 2 { 0 } else { stated });
    }
}

#[test]
fn a_video_becomes_an_image_sequence_and_back() {
    let folder = Folder::new();
    folder.ffmpeg(
        "-f lavfi -i testsrc2=s=32x24:r=25,select='mod(n\\,3)' -f lavfi -i sine -frames:v 20 -shortest \
         -fps_mode passthrough -c:v ffv1 -pix_fmt gbrp -c:a flac video.mkv",
    );
    let line = "upscale video.mkv new/folder/%04d.png --model none --scale 1 --report report.json";
    let ran = folder.hasn(line);
    ran.assert_done();
    assert!(ran.stderr.contains("cannot hold stream 1 (audio, flac); it is left out"), "{}", ran.stderr);
    let expected: Vec<_> = (1..=20).map(|number| format!("{number:04}.png")).collect();
    assert_eq!(names(&folder, "new/folder"), expected);
    assert!(!folder.path("new/folder/%04d.png.hasn").exists());
    assert_eq!(folder.frame_hashes("new/folder/%04d.png", "gbrp"), folder.frame_hashes("video.mkv", "gbrp"));
    let report = report(&folder);
    assert_eq!(report["left_out"], serde_json::json!(["stream 1 (audio, flac)"]));
    assert_eq!((&report["frames"]["encoded"], &report["verification"]["frames"]), (&20.into(), &20.into()));
    folder.upscale("video.mkv from7/%d.tif --model none --scale 1 --start-number 7");
    assert_eq!(folder.frames("from7/7.tif")[0].pix_fmt, "rgb24");
    assert!(folder.path("from7/26.tif").exists() && !folder.path("from7/27.tif").exists());
    // Standard input cannot be read twice: all is as ever, but nothing is kept to go on from.
    folder.ffmpeg("-i video.mkv -an -fps_mode passthrough -pix_fmt yuv444p video.y4m");
    let mut from_pipe = folder.hasn_command("upscale - piped/%d.png --model none --scale 1");
    let from_pipe = from_pipe.stdin(File::open(folder.path("video.y4m")).unwrap());
    Ran::of(from_pipe.output().unwrap()).assert_done();
    assert_eq!(names(&folder, "piped").len(), 20);

    let to_video = "upscale new/folder/%04d.png back.mkv -y --encoder ffv1 --model none --scale 1";
    let ran = folder.hasn(to_video);
    ran.assert_done();
    assert!(ran.stderr.contains("taken to be 25 fps"), "{}", ran.stderr);
    assert_eq!(folder.frame_hashes("back.mkv", "gbrp"), folder.frame_hashes("video.mkv", "gbrp"));
    let ran = folder.hasn(&format!("{to_video} --frame-rate 24000/1001"));
    ran.assert_done();
    assert!(!ran.stderr.contains("taken to be"), "{}", ran.stderr);
    for (n, seconds) in folder.probe("back.mkv").video_seconds().iter().enumerate() {
        assert!((seconds - n as f64 * 1001.0 / 24000.0).abs() < 0.001, "frame {n} at {seconds} s");
    }
    // A part of a sequence keeps its numbers.
    folder.upscale("new/folder/%04d.png part/%04d.png --model none --scale 1 --from 0.2 --to 0.4");
    assert_eq!(names(&folder, "part"), ["0006.png", "0007.png", "0008.png", "0009.png", "0010.png"]);
}

#[test]
fn missing_images_are_reported_and_nothing_shifts() {
    let folder = Folder::new();
    scan(&folder, 12, "rgb24", "in/%03d.png");
    for number in ["004", "005", "009"] {
        fs::remove_file(folder.path(&format!("in/{number}.png"))).unwrap();
    }
    let line = "upscale in/%03d.png out/%03d.png --model none --scale 1 --report report.json";
    let told = "3 damaged frames or packets, the first: 004.png and 1 more after it are missing";
    folder.hasn(line).assert_told(told, line);
    let report = report(&folder);
    assert_eq!((&report["damaged"], &report["damaged_places"][1]["pts"]), (&3.into(), &8.into()));
    let there = names(&folder, "in");
    assert_eq!(names(&folder, "out"), there);
    for name in &there {
        let hash = |of: &str| folder.frame_hashes(&format!("{of}/{name}"), "rgb24");
        assert_eq!(hash("out"), hash("in"), "{name}");
    }
    // A run that tolerates them upscales nothing again.
    let made = fs::metadata(folder.path("out/012.png")).unwrap().modified().unwrap();
    folder.hasn(&format!("{line} --tolerate 2")).assert_told(told, line);
    folder.hasn(&format!("{line} --tolerate 3")).assert_done();
    assert_eq!(fs::metadata(folder.path("out/012.png")).unwrap().modified().unwrap(), made);
    assert!(!folder.path("out/%03d.png.hasn").exists());
    let video = "in/%03d.png video.mkv --model none --scale 1 --encoder ffv1 --tolerate 3 --frame-rate 10";
    folder.upscale(video);
    let tenths: Vec<_> =
        folder.probe("video.mkv").video_seconds().iter().map(|s| (s * 10.0).round()).collect();
    assert_eq!(tenths, [0.0, 1.0, 2.0, 5.0, 6.0, 7.0, 9.0, 10.0, 11.0]);
    // And by many processes.
    scan(&folder, 500, "gray", "long/%d.png");
    (238..=242).for_each(|number| fs::remove_file(folder.path(&format!("long/{number}.png"))).unwrap());
    let long = |out: &str| format!("long/%d.png {out} --model none --scale 1 --encoder ffv1 --tolerate 5");
    folder.upscale(&long("whole.mkv"));
    folder.hasn(&format!("plan {}", long("parts.mkv"))).assert_done();
    for segment in [2, 0, 1] {
        folder.hasn(&format!("segment parts.mkv.hasn {segment}")).assert_done();
    }
    folder.hasn("join parts.mkv.hasn").assert_done();
    assert!(folder.read("parts.mkv") == folder.read("whole.mkv"));
    // What is missing outside of the wanted part is nobody's matter.
    folder.upscale("in/%03d.png part/%03d.png --model none --scale 1 --from 0.2 --to 0.32");
    assert_eq!(names(&folder, "part"), ["006.png", "007.png", "008.png"]);
}

#[test]
fn an_image_that_cannot_be_decoded_is_reported_with_its_name() {
    let folder = Folder::new();
    for (kind, format) in [("png", "rgb48be"), ("tif", "rgb48le"), ("dpx", "gbrp10le"), ("exr", "gbrpf32le")]
    {
        let transfer = if kind == "exr" { "--exr-transfer linear" } else { "" };
        for how in ["cut", "empty", "other"] {
            let from = format!("{kind}-{how}/%d.{kind}");
            scan(&folder, 6, format, &from);
            let broken = format!("{kind}-{how}/3.{kind}");
            let bytes = folder.read(&broken);
            match how {
                "cut" => folder.write(&broken, &bytes[..bytes.len() / 3]),
                "empty" => folder.write(&broken, ""),
                _ => folder.write(&broken, vec![b'x'; 9999]),
            }
            let line = format!(
                "upscale {from} out-{kind}-{how}/%d.{kind} --model none --scale 1 --threads 4 {transfer}"
            );
            let ran = folder.hasn(&line);
            ran.assert_told(&format!("3.{kind}"), &line);
            assert!(ran.stderr.contains("--tolerate 1"), "{kind} {how}: {}", ran.stderr);
            // What EXR's decoder finds of a frame is a frame.
            let mut expected = vec![1, 2, 4, 5, 6];
            if (kind, how) == ("exr", "cut") {
                expected.insert(2, 3);
            }
            let expected: Vec<_> = expected.iter().map(|number| format!("{number}.{kind}")).collect();
            assert_eq!(names(&folder, &format!("out-{kind}-{how}")), expected, "{kind} {how}");
        }
    }
    // The first one as well, and of another size in mid-stream: the output keeps its format.
    scan(&folder, 6, "rgb24", "sizes/%d.png");
    folder.write("sizes/1.png", "no frame");
    folder.ffmpeg("-f lavfi -i testsrc=s=48x40 -frames:v 1 -update 1 sizes/4.png");
    let line = "upscale sizes/%d.png sized/%d.png --tolerate 1 --model none --scale 1";
    let ran = folder.hasn(line);
    ran.assert_done();
    assert!(ran.stderr.contains("48x40 rgb24; the output keeps its format"), "{}", ran.stderr);
    assert_eq!(names(&folder, "sized"), ["2.png", "3.png", "4.png", "5.png", "6.png"]);
    assert_eq!(folder.frames("sized/4.png")[0].width, 32);
}

#[test]
fn killed_at_several_moments_it_writes_the_same_files() {
    let folder = Folder::new();
    scan(&folder, 120, "gbrp10le", "in/%03d.dpx");
    // Several a frame are on their way in its encoder's threads.
    folder.ffmpeg("-i in/%03d.dpx -c:v ffv1 video.mkv");
    for (input, out) in [
        ("in/%03d.dpx", "%03d.tif"),
        ("video.mkv", "%03d.png"),
        // What filters see is decoded again.
        ("in/%03d.dpx", "%03d.dpx --filter crop=24:20"),
    ] {
        // The precision that is measured to be the fastest depends on what else runs.
        let line =
            |to: &str| format!("upscale {input} {to}/{out} --threads 2 --precision f32 --progress none");
        folder.hasn(&line("whole")).assert_done();
        for frames in [1, 17, 40, 41, 80] {
            kill(start_and_wait(&folder, &line("often"), "often", frames));
        }
        let ran = folder.hasn(&line("often"));
        ran.assert_done();
        assert!(ran.stderr.contains("resuming after"), "{}", ran.stderr);
        assert!(files(&folder, "often") == files(&folder, "whole"), "{input} to {out}");
        let left: Vec<_> =
            fs::read_dir(folder.path("often")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 120, "{left:?}");
        for to in ["often", "whole"] {
            fs::remove_dir_all(folder.path(to)).unwrap();
        }
    }
}

#[test]
fn finished_images_are_not_read_again_and_their_damage_is_still_reported() {
    let folder = Folder::new();
    scan(&folder, 60, "gbrpf32le", "in/%d.exr");
    let broken = folder.read("in/2.exr");
    folder.write("in/2.exr", &broken[..broken.len() / 2]);
    let line = "upscale in/%d.exr out/%d.exr --threads 2 --exr-transfer linear --progress none";
    kill(start_and_wait(&folder, line, "out", 20));
    let ready = names(&folder, "out").len();
    // These are finished: their contents do not matter any more.
    for number in 3..=18 {
        let path = folder.path(&format!("in/{number}.exr"));
        let (size, changed) =
            (fs::metadata(&path).unwrap().len(), fs::metadata(&path).unwrap().modified().unwrap());
        fs::write(&path, vec![0; size as usize]).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
    }
    let ran = folder.hasn(&format!("{line} --report report.json"));
    ran.assert_told("2.exr: a frame is damaged: it is truncated", line);
    assert!(ran.stderr.contains("--tolerate 1"), "{}", ran.stderr);
    let report = report(&folder);
    assert_eq!(report["damaged"], 1);
    for count in ["decoded", "encoded"] {
        assert_eq!(report["frames"][count], 60, "{count}");
    }
    let made = report["fps"].as_f64().unwrap() * report["seconds"].as_f64().unwrap();
    assert!(made <= (60 - ready) as f64 + 1.5, "{made} frames were upscaled again, {ready} were finished");
}

#[test]
fn an_interrupted_run_reports_what_it_keeps_and_other_options_are_refused() {
    let folder = Folder::new();
    scan(&folder, 200, "rgb24", "in/%03d.png");
    let line = "upscale in/%03d.png out/%03d.tif --threads 2 --progress none";
    let child = start_and_wait(&folder, line, "out", 10);
    // It must not end before the other one has started.
    signal(&child, "-STOP");
    let other = format!("{line} --restart");
    folder.hasn(&other).assert_told("another run is using it", &other);
    signal(&child, "-INT");
    signal(&child, "-CONT");
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    let frames = names(&folder, "out").len();
    let told = format!("interrupted; out/%03d.tif has {frames} frames: the same command resumes there");
    assert!(ran.stderr.contains(&told), "{}\nexpected: {told}", ran.stderr);
    for (more, said) in [
        ("--model none", "was started with model hasn-lite-x2"),
        ("--encoder-opt compression_algo=lzw", "--encoder-opt"),
        ("--size 70x50", "--size 64x48, now 70x50"),
        ("--frame-rate 24", "--frame-rate none, now 24/1"),
        ("--to 3", "--to"),
    ] {
        let line = format!("{line} {more}");
        folder.hasn(&line).assert_told(said, &line);
    }
    let touched = File::options().write(true).open(folder.path("in/150.png")).unwrap();
    let changed = touched.metadata().unwrap().modified().unwrap();
    touched.set_modified(SystemTime::now() + Duration::from_secs(9)).unwrap();
    folder.hasn(line).assert_told("was started with input modification times", "a frame that was touched");
    touched.set_modified(changed).unwrap();
    fs::rename(folder.path("in/200.png"), folder.path("in/201.png")).unwrap();
    folder.hasn(line).assert_told("was started with input files 200 files", "another name");
    fs::rename(folder.path("in/201.png"), folder.path("in/200.png")).unwrap();
    // A file that differs from what was written is written again.
    let name = format!("out/{}", names(&folder, "out")[2]);
    let whole = folder.read(&name);
    folder.write(&name, &whole[..whole.len() / 2]);
    let ran = folder.hasn(&format!("{line} --resume"));
    ran.assert_done();
    assert!(ran.stderr.contains(&format!("resuming after {} frames", frames - 1)), "{}", ran.stderr);
    assert!(folder.read(&name) == whole);
    assert_eq!(names(&folder, "out").len(), 200);

    folder.hasn(line).assert_told("001.tif: already exists; -y overwrites it", line);
    let again = format!("{line} --resume");
    folder.hasn(&again).assert_told("there is no out/%03d.tif.hasn", &again);
    folder.write("out/001.tif", "something else");
    // Lock, fingerprint, the mark of -y, the list of files.
    kill(start_and_wait(&folder, &format!("{line} -y"), "out/%03d.tif.hasn", 4));
    // Only files that this run has written count.
    let ran = folder.hasn(line);
    ran.assert_done();
    assert!(folder.read("out/001.tif") != b"something else");
    // A run that is killed may have written a file that its list does not have yet.
    let child = start_and_wait(&folder, &line.replace("out/", "anew/"), "anew", 5);
    signal(&child, "-INT");
    assert_eq!(Ran::of(child.wait_with_output().unwrap()).code, Some(130));
    let ran = folder.hasn(&format!("{} --restart --model none", line.replace("out/", "anew/")));
    ran.assert_done();
    assert!(!ran.stderr.contains("resuming"), "{}", ran.stderr);
    assert_eq!(names(&folder, "anew").len(), 200);
}

/// IEC 61966-2-1, by the book.
fn srgb_of_light(light: f64) -> f64 {
    let code = match light.abs() {
        x if x <= 0.0031308 => 12.92 * x,
        x => 1.055 * x.powf(1.0 / 2.4) - 0.055,
    };
    code.copysign(light)
}

#[test]
fn a_network_sees_linear_light_encoded_and_returns_it_linear() {
    let folder = Folder::new();
    // Light from a bit below 0 to 4, in smooth waves.
    let light = |i: usize| {
        let (x, y) = ((i % 32) as f64, (i / 32 % 24) as f64);
        (((x / 5.0).sin() * (y / 4.0).cos() + 1.0) * 2.05 - 0.02).clamp(-0.02, 4.0)
    };
    let raw = |curve: &dyn Fn(f64) -> f64| -> Vec<u8> {
        (0..3 * 32 * 24).flat_map(|i| (curve(light(i)) as f32).to_le_bytes()).collect()
    };
    exr_of(&folder, &raw(&|light| light), "gbrpf32le", "float", "light.exr");
    exr_of(&folder, &raw(&srgb_of_light), "gbrpf32le", "float", "coded.exr");
    for model in ["hasn-lite-x2", "hasn-x2"] {
        folder.upscale(&format!("light.exr light-2x.exr -y --model {model} --exr-transfer linear"));
        folder.upscale(&format!("coded.exr coded-2x.exr -y --model {model} --exr-transfer iec61966-2-1"));
        let found = samples(&folder, "light-2x.exr", "gbrpf32le");
        let wanted = samples(&folder, "coded-2x.exr", "gbrpf32le");
        assert_eq!((found.len(), wanted.len()), (3 * 64 * 48, 3 * 64 * 48));
        for (light, code) in found.iter().zip(&wanted) {
            let found = srgb_of_light(f64::from(*light));
            assert!((found - f64::from(*code)).abs() < 1e-4, "{model}: {found}, {code}");
        }
    }
    // Integers have no room for light: it is coded, and tagged so, with and without a network.
    folder.upscale(
        "light.exr light.mkv --model none --scale 1 --exr-transfer linear --encoder ffv1 --pix-fmt gbrp16le",
    );
    let raw = folder.ffmpeg("-i light.mkv -f rawvideo -pix_fmt gbrp16le -");
    for (i, code) in raw.as_chunks::<2>().0.iter().enumerate() {
        let (code, wanted) =
            (f64::from(u16::from_le_bytes(*code)) / 65535.0, srgb_of_light(light(i)).clamp(0.0, 1.0));
        assert!((code - wanted).abs() < 3e-5, "{i}: {code}, {wanted}");
    }
    assert_eq!(folder.probe("light.mkv").video().color_transfer, "iec61966-2-1");
    folder
        .upscale("coded.exr pq.mkv --model none --exr-transfer smpte2084 --encoder ffv1 --pix-fmt gbrp16le");
    assert_eq!(folder.probe("pq.mkv").video().color_transfer, "smpte2084");
    // No number and no end in one corner stay there.
    let mut odd = raw_floats(3, 0.0);
    odd[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    odd[4..8].copy_from_slice(&f32::INFINITY.to_le_bytes());
    exr_of(&folder, &odd, "gbrpf32le", "float", "odd.exr");
    folder.upscale("odd.exr odd-2x.exr --model hasn-lite-x2 --exr-transfer linear");
    assert!(samples(&folder, "odd-2x.exr", "gbrpf32le").iter().all(|sample| sample.is_finite()));
}

#[test]
fn exr_is_refused_without_its_transfer() {
    let folder = Folder::new();
    exr_of(&folder, &raw_floats(3, 0.0), "gbrpf32le", "float", "in.exr");
    scan(&folder, 2, "rgb24", "in/%d.png");
    for (line, said) in [
        ("in.exr out.exr", "in.exr: is EXR, which does not state the transfer of its values"),
        ("in.exr out.mkv --model none", "give --exr-transfer linear, or the transfer that encodes them"),
        ("in/%d.png out/%d.exr", "an EXR is taken for linear light, and the frames are not linear"),
        ("in/%d.png out/%d.exr --exr-transfer linear", "no filter linearizes them"),
        ("in/%d.png out/%d.tif --exr-transfer linear", "neither the input nor the output is EXR"),
    ] {
        let line = format!("upscale {line}");
        folder.hasn(&line).assert_told(said, &line);
    }
    assert_eq!(folder.names(), ["in", "in.exr", "raw"]);
    assert_eq!(folder.hasn("upscale in.exr out.exr --exr-transfer light").code, Some(2));
    folder.upscale("in/%d.png out/%d.exr --exr-transfer bt709 --model none --scale 1");
    let codes = folder.ffmpeg("-i in/2.png -f rawvideo -pix_fmt gbrp -");
    for (sample, code) in samples(&folder, "out/2.exr", "gbrpf32le").iter().zip(codes) {
        assert!((sample - f32::from(code) / 255.0).abs() < 1e-6, "{sample}, {code}");
    }
}

#[test]
fn bad_use_is_an_error_of_one_line() {
    let folder = Folder::new();
    scan(&folder, 3, "rgb24", "in/%03d.png");
    folder.ffmpeg("-f lavfi -i testsrc=s=32x24 -frames:v 1 -update 1 still.png");
    folder.ffmpeg("-f lavfi -i testsrc=s=32x24 -frames:v 2 video.mkv");
    folder.write("in/readme.txt", "no frame");
    for (line, said) in [
        ("none/%06d.png out/%d.png", "no image has such a name, e.g. 000001.png"),
        ("in/%04d.png out/%d.png", "no image has such a name"),
        ("in/%03d.txt out/%d.png", "in/%03d.txt"),
        ("in/%03d.png in/%03d.png", "in/%03d.png: would overwrite the input"),
        ("in/%03d.png in/%03d.png -y", "would overwrite the input"),
        ("in/001.png in/%03d.png", "would overwrite the input"),
        ("in/%03d.png still.png/%d.png", "still.png: "),
        ("in/%03d.png /proc/%d.png", "/proc"),
        ("in/%03d.png out/%d-%d.png", "%d and %d is not a single frame number"),
        ("in/%03d.png out/%s.png", "%s is not a single frame number"),
        ("in/%3d.png out/%d.png", "%3d is not a single frame number"),
        ("in/%03d.png out/%d.gif", "out: there is no such folder"),
        ("in/%03d.png out.png", "holds one frame, and the input has more"),
        ("video.mkv out.mkv -y --frame-rate 24", "video.mkv has its own timestamps"),
        ("video.mkv out.mkv -y --start-number 5", "the output is not an image sequence"),
        ("in/%03d.png out/%d.png --start-number 5", "the output takes the input's numbers"),
    ] {
        let line = format!("upscale {line} --model none --progress none");
        folder.hasn(&line).assert_told(said, &line);
    }
    for line in ["--frame-rate fast", "--frame-rate 0", "--start-number -1"] {
        assert_eq!(folder.hasn(&format!("upscale in/%03d.png out/%d.png {line}")).code, Some(2), "{line}");
    }
    let plan = "plan in/%03d.png out/%d.png";
    folder.hasn(plan).assert_told("cannot be joined from segments", plan);
    assert_eq!(folder.names(), ["in", "still.png", "video.mkv"]);
    // A file of this very name is that file.
    fs::copy(folder.path("still.png"), folder.path("a%d.png")).unwrap();
    folder.upscale("a%d.png out.png --model none");
    assert_eq!(folder.frames("out.png").len(), 1);
}
