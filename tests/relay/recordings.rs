//! Recordings that end badly, and sources that end at once or stall.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::common::program::{Folder, SmallDisk, say_skipped, signal, wait_for};
use crate::harness::{Beside, last, lines, shared_machine};

#[test]
fn a_recording_plays_after_a_kill() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let names = ["out.mp4", "out.mov", "out.mkv", "out.ts"];
    let source = "lavfi:testsrc2=s=96x64:r=100,realtime";
    let relay = Beside::relay(&folder, &format!("{source} {} --ladder none", names.join(" ")));
    wait_for("frames", || (last(&folder, "encoded") > 300).then_some(()));
    signal(&relay.0, "-KILL");
    drop(relay);
    for name in names {
        let partial = name.replace("out.", "out.partial.");
        let frames = folder.probe(&partial).video_seconds().len();
        assert!(frames >= 190, "{name}: {frames} frames");
        folder.ffmpeg(&format!("-xerror -i {partial} -frames:v 100 -f null -"));
    }
}

#[test]
fn playlists_and_their_segments_are_kept() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=96x64:r=25:d=1 -c:v libx264 in.ts");
    for taken in ["live.m3u8", "live0.ts", "live12.ts"] {
        std::fs::write(folder.path(taken), "kept").unwrap();
        let ran = folder.hasn("relay in.ts live.m3u8 --ladder none");
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("{taken}: already exists")), "{}", ran.stderr);
        assert_eq!(folder.read(taken), b"kept");
        std::fs::remove_file(folder.path(taken)).unwrap();
    }
    // A file of another name is no segment.
    std::fs::write(folder.path("live-old.ts"), "kept").unwrap();
    let ran = folder.hasn("relay in.ts live.m3u8 --ladder none");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn hls_that_has_stalled_plays_evenly_again() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    // `realtime` does not catch up after a pause.
    let publisher = Beside::ffmpeg(
        &folder,
        "-f lavfi -i testsrc2=s=96x64:r=25,realtime -c:v libx264 -preset ultrafast -tune zerolatency -g 25 \
         -f hls -hls_time 1 -hls_list_size 8 live.m3u8",
    );
    wait_for("a playlist", || folder.path("live3.ts").exists().then_some(()));
    let relay = Beside::relay(&folder, "live.m3u8 out.ts --ladder none");
    wait_for("frames", || (last(&folder, "encoded") > 50).then_some(()));
    signal(&publisher.0, "-STOP");
    std::thread::sleep(Duration::from_secs(5));
    signal(&publisher.0, "-CONT");
    std::thread::sleep(Duration::from_secs(9));
    let settled = last(&folder, "duplicated");
    std::thread::sleep(Duration::from_secs(4));
    let stats = relay.end_accounted(&folder);
    let duplicated = stats["duplicated"].as_u64().unwrap();
    assert!(settled >= 50 && duplicated <= settled + 2, "{settled} duplicates, then {duplicated}");
    assert!(stats["dropped_superseded"].as_u64().unwrap() < 25, "{stats}");
}

#[test]
fn a_source_that_ends_at_once_is_opened_seldom() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    folder.ffmpeg("-f lavfi -i testsrc2=s=96x64:r=25:d=0.4 -c:v libx264 -preset ultrafast in.ts");
    let video = folder.read("in.ts");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/in.ts", server.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    std::thread::spawn(move || {
        for mut peer in server.incoming().map(Result::unwrap) {
            counted.fetch_add(1, Relaxed);
            let mut request = [0; 4096];
            let _ = peer.read(&mut request);
            let _ = peer.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n");
            let _ = peer.write_all(&video);
        }
    });
    let relay = Beside::relay(&folder, &format!("{address} out.ts --ladder none"));
    wait_for("a connection", || (connections.load(Relaxed) > 0).then_some(()));
    std::thread::sleep(Duration::from_secs(5));
    let ran = relay.terminate(&folder);
    let connections = connections.load(Relaxed);
    assert!((3..=12).contains(&connections), "{connections} connections in 5 s");
    let lines = ran.stderr.matches("connection lost").count();
    assert!(lines <= 2, "{}", ran.stderr);
}

/// Names of complete files that begin so, in the order in which they were completed.
fn recordings(folder: &Folder, begin: &str) -> Vec<String> {
    let is_complete = |name: &String| name.starts_with(begin) && !name.contains(".partial.");
    let mut names: Vec<String> = folder.names().into_iter().filter(is_complete).collect();
    names.sort_by_key(|name| std::fs::metadata(folder.path(name)).unwrap().modified().unwrap());
    names
}

#[test]
fn a_time_pattern_divides_a_recording_and_loses_nothing() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let source = "lavfi:testsrc2=s=96x64:r=25[out0];sine=r=48000[out1]";
    let sinks = "a-%S.mkv b-%H%M%S.ts c-%%-%S.mp4 whole.mkv";
    let relay = Beside::relay(&folder, &format!("{source} {sinks} --ladder none --encoder-opt g=10"));
    wait_for("frames", || (last(&folder, "encoded") > 100).then_some(()));
    relay.end_accounted(&folder);
    let packets = |name: &str| {
        let probe = folder.probe(name);
        [0, 1].map(|stream| probe.packets_of(stream).len())
    };
    let whole = packets("whole.mkv");
    for (begin, extension) in [("a-", "mkv"), ("b-", "ts"), ("c-%-", "mp4")] {
        let names = recordings(&folder, begin);
        assert!(names.len() >= 4 && names.iter().all(|name| name.ends_with(extension)), "{names:?}");
        let counts: Vec<_> = names.iter().map(|name| packets(name)).collect();
        let sum = |stream: usize| counts.iter().map(|count| count[stream]).sum::<usize>();
        assert_eq!([sum(0), sum(1)], whole, "{names:?} {counts:?}");
        for name in &names {
            folder.assert_decodes(name);
            let first = folder.probe(name).packets_of(0)[0].clone();
            assert!(first.flags.starts_with('K'), "{name}: {first:?}");
        }
    }
    assert!(folder.names().iter().all(|name| !name.contains(".partial.")), "{:?}", folder.names());
}

#[test]
fn a_time_pattern_keeps_files_and_has_to_be_one() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=96x64:r=25:d=0.4 -c:v libx264 in.ts");
    let ran = folder.hasn("relay in.ts 100%.ts --ladder none");
    ran.assert_told("100%.ts: %. is no code of strftime that a file name can have", "a name");
    for second in 0..60 {
        folder.write(&format!("a-{second:02}.ts"), "kept");
    }
    let ran = folder.hasn("relay in.ts a-%S.ts --ladder none");
    ran.assert_done();
    let (kept, new): (Vec<_>, Vec<_>) = folder
        .names()
        .into_iter()
        .filter(|name| name != "in.ts")
        .partition(|name| folder.read(name) == b"kept");
    assert_eq!((kept.len(), new.len()), (60, 1), "{new:?}");
    let second = new[0].strip_prefix("a-").and_then(|name| name.strip_suffix("-1.ts")).expect("a number");
    let line = format!("a-{second}.ts: exists, or its partial file does; the recording is a-{second}-1.ts");
    assert!(ran.stderr.contains(&line), "{}", ran.stderr);
    assert_eq!(folder.probe(&new[0]).packets_of(0).len(), 10);
}

#[test]
fn a_full_disk_stops_a_recording_and_nothing_else() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let Some(disk) = SmallDisk::mount(&folder, "96k") else {
        return say_skipped("a full disk was not tried: only root may mount one");
    };
    let source = "lavfi:testsrc2=s=320x240:r=25";
    let sinks = "disk/a-%S.ts disk/plain.ts out.ts";
    let relay =
        Beside::relay(&folder, &format!("{source} {sinks} --ladder none --bitrate 2M --encoder-opt g=10"));
    let stderr = || String::from_utf8(folder.read("stderr")).unwrap();
    wait_for("a full disk", || (stderr().matches("No space left").count() >= 2).then_some(()));
    let frames = last(&folder, "encoded");
    wait_for("frames without a recording", || (last(&folder, "encoded") > frames + 50).then_some(()));
    let complete = || {
        let entries = std::fs::read_dir(folder.path("disk")).unwrap();
        let name =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        entries.map(name).filter(|name| !name.contains(".partial.")).collect::<Vec<_>>()
    };
    let before = complete();
    disk.resize("64m");
    let new = || complete().into_iter().find(|name| !before.contains(name));
    let new = format!("disk/{}", wait_for("a file of a later second", new));
    let ran = relay.terminate(&folder);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let told = ran.stderr.lines().last().unwrap();
    assert!(told.starts_with("hasn: disk/") && told.contains("No space left"), "{}", ran.stderr);
    for name in [&new, "out.ts"] {
        folder.assert_decodes(name);
    }
    let stats = lines(&folder).pop().expect("a line at the end");
    let dropped = |sink: usize| stats["sinks"][sink]["dropped"].as_u64().unwrap();
    assert!(dropped(0) > 0 && dropped(1) > dropped(0) && dropped(2) == 0, "{stats}");
    assert_eq!(stats["encoded"], folder.probe("out.ts").packets_of(0).len(), "{stats}");
    assert!(folder.path("disk/plain.partial.ts").exists() && !folder.path("disk/plain.ts").exists());
}
