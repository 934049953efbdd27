//! Recordings that end badly, and sources that end at once or stall.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::common::program::{Folder, signal, wait_for};
use crate::harness::{Beside, last, shared_machine};

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
