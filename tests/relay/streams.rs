//! Live streams over the loopback, with `ffmpeg` as publisher and player: every kind of source and sink, sources that
//! vanish and return, sinks that fail, a machine that has too much to do.
//!
//! `HASN_RELAY_LOSSES` is the number of times the source is lost; 3 by default. `HASN_RELAY_SECONDS` is the duration of each stream.

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::common::Random;
use crate::common::audio::{AUDIO, audio_of, with_audio};
use crate::common::flat::sample;
use crate::common::program::{Folder, Ran, SmallDisk, wait_for};
use crate::common::sweep;
use crate::harness::{
    Beside, CODECS, FLASHES, assert_in_step, assert_times_rise, free_port, last, lines, lost, seconds,
    shared_machine, widest_gap,
};

/// A stream of some seconds through the relay: `publish` and `play` are arguments of the `ffmpeg` command.
fn relayed(source: &str, options: &str, publish: &str, sink: &str, play: Option<&str>) {
    let (_machine, folder) = (shared_machine(), Folder::new());
    std::fs::create_dir(folder.path("hls")).unwrap();
    // The first two are those in which all parts find each other.
    let (sent_s, played_s) = (seconds().as_secs(), seconds().as_secs() - 2);
    let publish = || Beside::ffmpeg(&folder, &format!("{FLASHES} -t {} {CODECS} {publish}", sent_s + 20));
    let list = source.ends_with(".m3u8").then(|| {
        std::fs::create_dir(folder.path("source")).unwrap();
        let publisher = publish();
        // Segments in store are what a list's reader has in hand when one is late.
        wait_for("segments", || folder.path("source/live2.ts").exists().then_some(()));
        publisher
    });
    let relay = Beside::relay(&folder, &format!("{source} {sink} {options} --ladder none"));
    let player =
        play.map(|play| Beside::ffmpeg(&folder, &format!("{play} -t {played_s} -c copy played.mkv")));
    // The listening side has to be there first.
    if source.contains("://") {
        relay.wait_until_it_listens(source);
    }
    let publisher = list.unwrap_or_else(publish);
    let name = match player {
        Some(player) => {
            assert_eq!(player.end("the player"), Some(0), "{source} to {sink}");
            "played.mkv"
        }
        None => {
            wait_for("frames", || (last(&folder, "encoded") > 25 * sent_s).then_some(()));
            sink
        }
    };
    let stats = relay.end_accounted(&folder);
    drop(publisher);
    assert_eq!((lost(&stats), stats["duplicated"].as_u64()), (0, Some(0)), "{source} to {sink}: {stats}");
    // A list has five segments of two seconds.
    let frames = if name.ends_with(".m3u8") { played_s.min(8) } else { played_s } * 25 - 1;
    assert_in_step(&folder, name, frames, 0.045);
}

#[test]
fn rtmp_comes_in_and_srt_goes_out() {
    let (rtmp, srt) =
        (format!("rtmp://127.0.0.1:{}/live/key", free_port()), format!("srt://127.0.0.1:{}", free_port()));
    relayed(&rtmp, "--listen", &format!("-f flv {rtmp}"), &srt, Some(&format!("-i {srt}?mode=listener")));
}

#[test]
fn srt_comes_in_and_rtmp_goes_out() {
    let (srt, rtmp) =
        (format!("srt://127.0.0.1:{}", free_port()), format!("rtmp://127.0.0.1:{}/live/key", free_port()));
    let (source, publish) = (
        format!("{srt}?mode=listener&passphrase=0123456789"),
        format!("-f mpegts {srt}?passphrase=0123456789"),
    );
    relayed(&source, "", &publish, &rtmp, Some(&format!("-listen 1 -f flv -i {rtmp}")));
}

#[test]
fn udp_comes_in_and_udp_goes_out() {
    let [from, to] = [free_port(), free_port()].map(|port| format!("udp://127.0.0.1:{port}"));
    relayed(&from, "", &format!("-f mpegts {from}?pkt_size=1316"), &to, Some(&format!("-i {to}")));
}

#[test]
fn rtsp_comes_in_and_hls_goes_out() {
    let rtsp = format!("rtsp://127.0.0.1:{}/live", free_port());
    relayed(&rtsp, "--listen", &format!("-f rtsp -rtsp_transport tcp {rtsp}"), "hls/live.m3u8", None);
}

#[test]
fn hls_comes_in_and_a_file_goes_out() {
    relayed(
        "source/live.m3u8",
        "",
        "-f hls -hls_time 1 -hls_flags delete_segments+temp_file source/live.m3u8",
        "out.ts",
        None,
    );
}

/// The source is lost repeatedly without an end of stream, and returns a second after the loss was noticed.
#[test]
fn a_source_that_vanishes_and_returns_leaves_no_hole() {
    let losses = std::env::var("HASN_RELAY_LOSSES").map_or(3, |text| text.parse().expect("a number"));
    let (_machine, folder) = (shared_machine(), Folder::new());
    let source = format!("udp://127.0.0.1:{}", free_port());
    let relay = Beside::relay(&folder, &format!("{source}?timeout=1000000 out.ts --ladder none"));
    let moving = "-re -f lavfi -i testsrc2=s=96x64:r=25 -re -f lavfi -i sine=r=48000";
    let mut in_use = Vec::new();
    for loss in 0..losses {
        let before = last(&folder, "decoded");
        let publisher =
            Beside::ffmpeg(&folder, &format!("{moving} {CODECS} -f mpegts {source}?pkt_size=1316"));
        let returned = Instant::now();
        wait_for("frames of the source", || (last(&folder, "decoded") > before + 25).then_some(()));
        // A second for a second of frames, and one for the next line of counters; at first the relay has to start.
        assert!(
            loss == 0 || returned.elapsed() < Duration::from_secs(4),
            "loss {loss}: back after {:?}",
            returned.elapsed()
        );
        let now = sample(relay.0.id()).expect("the relay runs");
        in_use.push((now.handles, now.threads));
        drop(publisher);
        let is_seen = || lines(&folder).pop().unwrap()["source_connected"] == false;
        wait_for("the loss to be seen", || is_seen().then_some(()));
        std::thread::sleep(Duration::from_secs(1));
    }
    // Nothing is left of a lost connection.
    assert!(in_use.iter().all(|now| *now == in_use[0]), "handles and threads: {in_use:?}");
    let ran = relay.terminate(&folder);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let now = lines(&folder).pop().unwrap();
    assert_eq!(now["source_connections"], losses, "{now}");
    assert!(now["duplicated"].as_u64().unwrap() > 20 * losses, "{now}");
    assert!(now["dropped_superseded"].as_u64().unwrap() <= 5 * losses, "what comes back is shown: {now}");
    assert_times_rise(&folder, "out.ts");
    let probe = folder.probe("out.ts");
    let widest = widest_gap(&probe, 0);
    assert!(widest < 0.25, "{widest} s without a frame");
    let widest = widest_gap(&probe, 1);
    assert!(widest < 0.4, "{widest} s without audio");
    folder.assert_decodes("out.ts");
}

#[test]
fn a_sink_that_fails_affects_no_other_and_is_reconnected() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let [from, to] = [free_port(), free_port()];
    let (source, sink) = (format!("udp://127.0.0.1:{from}"), format!("rtmp://127.0.0.1:{to}/live/s3cret"));
    let relay = Beside::relay(&folder, &format!("{source} {sink} out.ts --ladder none -v"));
    let publisher = Beside::ffmpeg(&folder, &format!("{FLASHES} {CODECS} -f mpegts {source}?pkt_size=1316"));
    wait_for("frames", || (last(&folder, "encoded") > 50).then_some(()));
    let player = Beside::ffmpeg(&folder, &format!("-listen 1 -f flv -i {sink} -t 2 -c copy played.mkv"));
    assert_eq!(player.end("the player"), Some(0));
    wait_for("more frames", || (last(&folder, "encoded") > 200).then_some(()));
    let ran = relay.terminate(&folder);
    drop(publisher);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let now = lines(&folder).pop().unwrap();
    assert_eq!(now["sinks"][1]["dropped"], 0, "{now}");
    assert!(now["sinks"][0]["dropped"].as_u64().unwrap() > 0 && now["sinks"][0]["connections"] == 1, "{now}");
    assert_eq!(folder.probe("out.ts").video_pts().len() as u64, now["encoded"].as_u64().unwrap());
    assert!(folder.probe("played.mkv").video_pts().len() > 40);
    let output = ran.stderr + &String::from_utf8(ran.stdout).unwrap();
    assert!(output.contains("live/***") && !output.contains("s3cret"), "{output}");
}

/// A good stream, a hundred bytes a second.
const TRICKLE: &str = "a trickle";

/// Anything but a stream is refused in little memory, the relay keeps waiting, and one line says why.
#[test]
fn what_is_no_stream_is_refused_and_waited_past() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let mut random = Random(7);
    let noise: Vec<u8> = (0..200_000).map(|_| random.below(256) as u8).collect();
    let huge = [b"YUV4MPEG2 W16384 H16384 F25:1 C420jpeg\nFRAME\n".as_slice(), &noise].concat();
    folder.ffmpeg("-f lavfi -i testsrc2=s=96x64:r=25 -t 1 -c:v libx264 good.ts");
    let good = folder.read("good.ts");
    let answers: [(&str, &[u8]); 6] = [
        ("noise", &noise),
        ("an answer of HTTP", b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found"),
        ("a header of 16k", &huge),
        ("nothing", b""),
        (TRICKLE, &good),
        (
            "a transport stream of noise",
            &noise.chunks(187).flat_map(|cell| [&[0x47], cell].concat()).collect::<Vec<_>>(),
        ),
    ];
    for (what, answer) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let source = format!("tcp://{}", listener.local_addr().unwrap());
        let answer = answer.to_vec();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, is_slow) = (stream.unwrap(), what == TRICKLE);
                // The relay may close the connection.
                let _ = answer.chunks(if is_slow { 10 } else { answer.len().max(1) }).try_for_each(|part| {
                    std::thread::sleep(Duration::from_millis(if is_slow { 100 } else { 0 }));
                    stream.write_all(part)
                });
            }
        });
        let relay = Beside::relay(&folder, &format!("{source} out.ts --ladder none --reconnect-max 2s"));
        let status = format!("/proc/{}/status", relay.0.id());
        let mut memory_kb = 0;
        let mut relay = relay;
        let code = wait_for(what, || {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            memory_kb = peak.map_or(memory_kb, |kb| kb.trim().trim_end_matches(" kB").parse().unwrap());
            relay.0.try_wait().unwrap()
        });
        let stderr = String::from_utf8(folder.read("stderr")).unwrap();
        Ran { code: code.code(), stdout: Vec::new(), stderr }.assert_told(&source, what);
        assert!(memory_kb < 200_000, "{what}: {memory_kb} kB");
        assert!(!folder.path("out.ts").exists() && !folder.path("out.partial.ts").exists(), "{what}");
    }
}

#[test]
fn a_clock_that_goes_back_keeps_its_audio() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    folder.ffmpeg(&format!("{} -t 4 {CODECS} clip.flv", FLASHES.replace("-re ", "")));
    // Twice behind one header, as a server records a publisher that returns.
    let clip = folder.read("clip.flv");
    folder.write("in.flv", [&clip[..], &clip[13..]].concat());
    let relay = Beside::relay(&folder, "in.flv out.ts --ladder none");
    assert_eq!(relay.end("the end of the file"), Some(0));
    let now = lines(&folder).pop().unwrap();
    assert_eq!((&now["source_clock_jumps"], &now["decoded"]), (&1.into(), &200.into()), "{now}");
    let widest = widest_gap(&folder.probe("out.ts"), 1);
    assert!(widest < 0.4, "{widest} s without audio");
    assert_in_step(&folder, "out.ts", 190, 0.3);
}

#[test]
fn a_stream_that_was_away_moves_nothing() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let away = "-filter_complex [1:a]aselect='not(between(t\\,1\\,12))'[a] -map 0:v -map [a]";
    folder.ffmpeg(&format!("{} -t 14 {away} {CODECS} in.ts", FLASHES.replace("-re ", "")));
    let relay = Beside::relay(&folder, "in.ts out.ts --ladder none");
    assert_eq!(relay.end("the end of the file"), Some(0));
    let now = lines(&folder).pop().unwrap();
    assert_eq!((&now["source_clock_jumps"], &now["encoded"]), (&0.into(), &350.into()), "{now}");
}

#[test]
fn a_recording_takes_no_name_from_another_file() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    folder.ffmpeg("-f lavfi -i testsrc2=s=96x64:r=25 -t 4 -c:v libx264 in.mkv");
    let mut hasn = folder.hasn_command("relay in.mkv out.ts --ladder none");
    let child = hasn.stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("the recording", || folder.path("out.partial.ts").exists().then_some(()));
    folder.write("out.ts", "another file");
    let ran = Ran::of(child.wait_with_output().unwrap());
    ran.assert_told("out.ts: appeared while it was being encoded and is left as it is", "a new file");
    assert_eq!(folder.read("out.ts"), b"another file");
    assert_eq!(folder.probe("out.partial.ts").packets.len(), 100);
}

#[test]
fn an_incomplete_file_is_an_error() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    folder.ffmpeg("-f lavfi -i testsrc2=s=96x64:r=25 -t 4 -c:v libx264 in.mkv");
    for (sinks, message) in [
        ("nowhere/out.ts", "is not a folder"),
        ("out.xyz", "its extension names no container"),
        ("rtsp://127.0.0.1/out", "live outputs are"),
        ("out.ts out.ts", "is named twice"),
        ("in.mkv", "already exists"),
    ] {
        folder.hasn(&format!("relay in.mkv {sinks} --ladder none")).assert_told(message, sinks);
    }
    let Some(_disk) = SmallDisk::mount(&folder, "64k") else {
        println!("SKIPPED: a small disk cannot be mounted here");
        return;
    };
    let ran = folder.hasn("relay in.mkv disk/out.ts complete.ts --ladder none --bitrate 4M");
    ran.assert_told("cannot be written", "a full disk");
    assert_eq!(folder.probe("complete.ts").packets.len(), 100, "the other one is complete");
    assert!(!folder.path("disk/out.ts").exists() && folder.path("disk/out.partial.ts").exists());
}

#[test]
fn sweep_of_audio_codecs_and_sinks() {
    let _machine = shared_machine();
    // A camera's G.711 first.
    let (mut tried, rest): (Vec<_>, Vec<_>) =
        AUDIO.iter().copied().partition(|(name, ..)| *name == "pcm_alaw");
    tried.extend(sweep::sample("audio codecs into ts, flv and m3u8", rest, 2));
    for audio in tried {
        let folder = Folder::new();
        let (source, codec) = with_audio(&folder, audio, 1.0);
        let line = format!("relay -y --ladder none --reconnect-max 1s {source} out.ts out.flv out.m3u8");
        let ran = folder.hasn(&line);
        assert_eq!(ran.code, Some(0), "{line}\n{}", ran.stderr);
        for sink in ["out.ts", "out.flv", "out.m3u8"] {
            let became = audio_of(&folder.probe(sink)).unwrap_or_default();
            println!("{codec:18} {sink:8} {became}");
            assert!(became == codec || became == "aac", "{line}: {sink} has '{became}'\n{}", ran.stderr);
        }
    }
}
