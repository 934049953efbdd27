//! Peers that hang: servers that accept and do not answer, connections that break without a word, and name servers that are
//! silent. The relay gives each up within its limit, reconnects, and ends when it is asked to.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::program::{Folder, say_skipped, wait_for};
use crate::harness::{Beside, free_port, last, lines, shared_machine};
use crate::network::Namespace;

/// From one attempt to open a source to the next: ten seconds and a short wait.
const SOURCE_ATTEMPT_S: RangeInclusive<f64> = 9.5..=12.5;
/// The same of a sink: five seconds, a short wait, and up to two seconds until the next keyframe.
const SINK_ATTEMPT_S: RangeInclusive<f64> = 4.5..=9.0;
/// From SIGTERM to the end of a relay.
const END_MAX: Duration = Duration::from_secs(12);
/// Constantly new frames, whose bitrate is as high as it may be.
const NOISE: &str = "lavfi:testsrc2=s=96x64:r=25,noise=alls=60:allf=t";
/// The same stream as a publisher sends it.
const PUBLISHED: &str =
    "-re -f lavfi -i testsrc2=s=96x64:r=25 -c:v libx264 -preset ultrafast -tune zerolatency -g 25";

/// A playlist of one segment.
const PLAYLIST: &str = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n\
                        #EXTINF:2.0,\nsegment0.ts\n";

/// A server that accepts connections and does not answer.
struct Silent {
    port: u16,
    /// When each connection was asked for something other than a segment.
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Silent {
    /// `playlist` is answered with where one is asked for.
    fn start(playlist: Option<&'static str>) -> Silent {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = Silent { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let asked = silent.asked.clone();
        // Ends with the test's process.
        thread::spawn(move || {
            let mut kept: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap_or(0);
                let is_for = |name: &str| request[..length].windows(name.len()).any(|w| w == name.as_bytes());
                if !is_for("segment") {
                    asked.lock().unwrap().push(Instant::now());
                }
                match playlist {
                    Some(text) if is_for("m3u8") => {
                        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
                        write!(stream, "{head}: {}\r\n\r\n{text}", text.len()).unwrap();
                    }
                    _ => kept.push(stream),
                }
            }
        });
        silent
    }

    /// Waits for the second attempt; returns the seconds since the first.
    fn attempt_s(&self) -> f64 {
        wait_for("a second attempt", || {
            let asked = self.asked.lock().unwrap();
            asked.get(1).map(|second| (*second - asked[0]).as_secs_f64())
        })
    }
}

/// Ends a relay within its time, without an error.
fn assert_ends(relay: Beside, folder: &Folder, max: Duration) -> String {
    let asked = Instant::now();
    let ran = relay.terminate(folder);
    let took = asked.elapsed();
    println!("ended after {took:.1?}");
    assert!(ran.code == Some(0) && took < max, "after {took:?}: {:?}\n{}", ran.code, ran.stderr);
    ran.stderr
}

#[test]
fn sources_that_accept_and_do_not_answer_are_opened_again() {
    let _machine = shared_machine();
    let cases = [
        ("rtmp", "live/key", None),
        ("http", "live.ts", None),
        ("http", "live.m3u8", None),
        ("http", "list.m3u8", Some(PLAYLIST)),
        ("rtsp", "live", None),
    ];
    let relays = cases.map(|(scheme, path, playlist)| {
        let (folder, server) = (Folder::new(), Silent::start(playlist));
        let source = format!("{scheme}://127.0.0.1:{}/{path}", server.port);
        let relay = Beside::relay(&folder, &format!("{source} out.ts --ladder none"));
        (source, folder, server, relay)
    });
    for (source, folder, server, relay) in relays {
        let attempt_s = server.attempt_s();
        println!("{source}: opened again after {attempt_s:.2} s");
        assert!(SOURCE_ATTEMPT_S.contains(&attempt_s), "{source}: opened again after {attempt_s} s");
        let stderr = assert_ends(relay, &folder, Duration::from_secs(2));
        assert!(stderr.contains(": nothing arrived in time; "), "{source}: {stderr}");
    }
}

#[test]
fn a_sink_that_accepts_and_does_not_answer_is_opened_again() {
    let (_machine, folder, server) = (shared_machine(), Folder::new(), Silent::start(None));
    let sink = format!("rtmp://127.0.0.1:{}/live/key", server.port);
    let relay = Beside::relay(&folder, &format!("{NOISE} {sink} out.ts --ladder none"));
    let attempt_s = server.attempt_s();
    println!("{sink}: opened again after {attempt_s:.2} s");
    assert!(SINK_ATTEMPT_S.contains(&attempt_s), "opened again after {attempt_s} s");
    let stderr = assert_ends(relay, &folder, END_MAX);
    assert!(stderr.contains("cannot be opened: no answer in time"), "{stderr}");
    let stats = lines(&folder).pop().unwrap();
    assert!(stats["sinks"][0]["dropped"].as_u64().unwrap() > 50, "{stats}");
    assert_eq!((&stats["sinks"][1]["dropped"], &stats["sinks"][1]["connections"]), (&0.into(), &1.into()));
}

/// `ffmpeg` in the namespace.
fn ffmpeg_in(namespace: &Namespace, line: &str) -> Beside {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin"]).args(line.split_whitespace());
    let mut command = namespace.through()(command);
    Beside(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("ffmpeg is installed"))
}

/// No packet arrives any more, and the peer gets no notice.
fn break_network(namespace: &Namespace) -> Instant {
    assert!(namespace.nft("add rule inet hasn in meta l4proto { tcp, udp } drop"));
    Instant::now()
}

/// Seconds since `since` until the condition holds, of at most `max_s`.
fn seconds_until(what: &str, since: Instant, max_s: f64, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
    let took_s = since.elapsed().as_secs_f64();
    println!("{what}: after {took_s:.2} s");
    assert!(took_s < max_s, "{what}: after {took_s} s");
}

#[test]
fn sources_that_vanish_are_lost_and_found_again() {
    let _machine = shared_machine();
    let Some(namespace) = Namespace::create(3) else {
        return say_skipped("sources that vanish, for a network namespace with nftables cannot be created");
    };
    let [rtmp, srt] = [(); 2].map(|()| free_port());
    // Limit of silence, and up to a second until it is counted; SRT reports the loss itself after five seconds.
    let cases = [
        (format!("rtmp://127.0.0.1:{rtmp}/live/key"), "--listen", "flv", 3.0),
        (format!("srt://127.0.0.1:{srt}?mode=listener"), "", "mpegts", 6.0),
    ];
    let publish = |address: &str, format: &str| {
        let to = address.replace("listener", "caller");
        ffmpeg_in(&namespace, &format!("{PUBLISHED} -f {format} {to}"))
    };
    let relays = cases.map(|(address, options, format, silence_s)| {
        let folder = Folder::new();
        let line = format!("{address} out.ts --ladder none {options}");
        let relay = Beside::relay_through(&folder, &line, namespace.through());
        relay.wait_until_it_listens(address.split('?').next().unwrap().trim_end_matches("/live/key"));
        let publisher = publish(&address, format);
        (address, format, silence_s, folder, relay, publisher)
    });
    for (.., folder, _, _) in &relays {
        wait_for("frames", || (last(folder, "decoded") > 25).then_some(()));
    }
    let is_connected = |folder: &Folder| lines(folder).last().unwrap()["source_connected"] == true;
    let broken = break_network(&namespace);
    for (address, _, silence_s, folder, ..) in &relays {
        seconds_until(&format!("{address} is lost"), broken, silence_s + 1.5, || !is_connected(folder));
    }
    assert!(namespace.nft("flush chain inet hasn in"));
    for (address, format, _, folder, relay, publisher) in relays {
        drop(publisher);
        let _publisher = publish(&address, format);
        seconds_until(&format!("{address} is back"), Instant::now(), 5.0, || {
            last(&folder, "source_connections") == 2
        });
        assert_ends(relay, &folder, END_MAX);
    }
}

#[test]
fn sinks_that_vanish_are_lost_and_found_again() {
    let _machine = shared_machine();
    let Some(namespace) = Namespace::create(4) else {
        return say_skipped("sinks that vanish, for a network namespace with nftables cannot be created");
    };
    let folder = Folder::new();
    let [rtmp, srt] = [(); 2].map(|()| free_port());
    let [rtmp, srt] = [format!("rtmp://127.0.0.1:{rtmp}/live/key"), format!("srt://127.0.0.1:{srt}")];
    let servers = || {
        [format!("-listen 1 -i {rtmp}"), format!("-i {srt}?mode=listener")]
            .map(|input| ffmpeg_in(&namespace, &format!("{input} -f null -")))
    };
    let first = servers();
    let line = format!("{NOISE} {rtmp} {srt} --ladder none --bitrate 500k --latency-max 1s");
    let relay = Beside::relay_through(&folder, &line, namespace.through());
    let sink = |index: usize, key: &str| lines(&folder).last().map(|line| line["sinks"][index][key].clone());
    let has = |index, key, value: serde_json::Value| sink(index, key) == Some(value);
    for index in [0, 1] {
        wait_for("packets", || sink(index, "packets").filter(|count| count.as_u64() > Some(50)));
    }
    let broken = break_network(&namespace);
    // The ceiling, and half a second that the system buffers; SRT reports the loss itself after five seconds. Either is
    // counted up to a second later.
    for (index, name, max_s) in [(0, &rtmp, 4.0), (1, &srt, 6.5)] {
        seconds_until(&format!("{name} is lost"), broken, max_s, || has(index, "connected", false.into()));
    }
    drop(first);
    assert!(namespace.nft("flush chain inet hasn in"));
    let (_second, restored) = (servers(), Instant::now());
    for (index, name) in [(0, &rtmp), (1, &srt)] {
        // A wait that doubles up to five seconds, a keyframe every two, and a line of counters a second.
        seconds_until(&format!("{name} is back"), restored, 10.0, || has(index, "connections", 2.into()));
    }
    let stderr = assert_ends(relay, &folder, END_MAX);
    assert!(stderr.contains(": did not take a packet in time; "), "{stderr}");
}

#[test]
fn a_relay_ends_while_a_name_server_is_silent() {
    let _machine = shared_machine();
    let silent =
        Namespace::create(5).filter(|namespace| namespace.nft("add rule inet hasn in udp dport 53 drop"));
    let runs = |line: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let Some(namespace) = silent.filter(|_| runs("unshare -m true && python3 --version")) else {
        return say_skipped(
            "a silent name server, for a namespace of mounts and network cannot be created or python3 is not installed",
        );
    };
    // A lookup lasts thirty seconds.
    let servers = "nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\n";
    let name = "rtmp://live.example.com/live/key";
    let start = |line: &str| {
        let folder = Folder::new();
        folder.write("resolv.conf", servers);
        let relay = Beside::relay_through(&folder, &format!("{line} --ladder none"), |hasn| {
            let mut command = Command::new("unshare");
            let script = "mount --bind resolv.conf /etc/resolv.conf && exec \"$@\"";
            command.args(["-m", "sh", "-c", script, "sh"]).arg(hasn.get_program()).args(hasn.get_args());
            command.current_dir(folder.path(""));
            namespace.through()(command)
        });
        (folder, relay)
    };
    // A playlist by number, whose segment is at a name.
    let (web, port) = (Folder::new(), free_port());
    web.write("live.m3u8", PLAYLIST.replace("segment0", "http://live.example.com/segment0"));
    let mut python = Command::new("python3");
    python.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]).current_dir(web.path(""));
    let mut python = namespace.through()(python);
    let server =
        Beside(python.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it was there before"));
    server.wait_until_it_listens(&format!("127.0.0.1:{port}"));
    let started = Instant::now();
    let (list_folder, list) = start(&format!("http://127.0.0.1:{port}/live.m3u8 out.ts"));
    let (source_folder, source) = start(&format!("{name} out.ts"));
    let (sink_folder, sink) = start(&format!("{NOISE} {name} out.ts"));
    let reports =
        |folder: &Folder| String::from_utf8(folder.read("stderr")).unwrap().contains("not resolved in time");
    seconds_until("the sink's name is given up", started, 9.0, || reports(&sink_folder));
    seconds_until("the source's name is given up", started, 12.0, || reports(&source_folder));
    seconds_until("the segment's name is given up", started, 13.0, || {
        String::from_utf8(list_folder.read("stderr")).unwrap().contains("nothing arrived in time")
    });
    assert_ends(list, &list_folder, Duration::from_secs(2));
    assert_ends(source, &source_folder, Duration::from_secs(2));
    assert_ends(sink, &sink_folder, END_MAX);
    sink_folder.assert_decodes("out.ts");
}
