//! A relay as its operators see it: metrics, health, the page, what SIGHUP changes, who may listen and be heard.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::program::{Folder, full_pipe, project_file, say_skipped, signal, wait_for};
use crate::harness::{Beside, CODECS, FLASHES, assert_in_step, free_port, last, lines, shared_machine};

/// Status and body of an answer; `None` where no server listens.
fn get(port: u16, path: &str) -> Option<(u16, Vec<u8>)> {
    get_from(port, "Host: localhost\r\n", path)
}

/// The same with this header.
fn get_from(port: u16, header: &str, path: &str) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\n{header}\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let status = std::str::from_utf8(&answer[..head]).ok()?.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer[head + 4..].to_vec()))
}

fn text(port: u16, path: &str) -> String {
    let (_, body) = get(port, path).unwrap_or_else(|| panic!("{path} is answered"));
    String::from_utf8(body).unwrap()
}

/// Frames that use up any bitrate.
const NOISE: &str = "-re -f lavfi -i testsrc2=s=96x64:r=25,noise=alls=40:allf=t";

/// A relay of a source that publishes this by UDP, with metrics there, and the source.
fn relayed(folder: &Folder, video: &str, line: &str) -> (Beside, Beside, u16) {
    let (source, port) = (format!("udp://127.0.0.1:{}", free_port()), free_port());
    let relay = Beside::relay(folder, &format!("{source} {line} --metrics {port}"));
    let publisher = Beside::ffmpeg(folder, &format!("{video} {CODECS} -f mpegts {source}?pkt_size=1316"));
    (relay, publisher, port)
}

/// The value of a metric with these labels, as Prometheus reads it.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is in\n{text}")).parse().expect("a number")
}

#[test]
fn metrics_and_health_say_what_the_relay_does() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let (source, port) = (format!("udp://127.0.0.1:{}", free_port()), free_port());
    let sinks = format!("out.ts rtmp://user:pa55@127.0.0.1:{}/live/s3cret", free_port());
    let line = format!("{source}?pass=w0rd {sinks} --ladder none --metrics {port} --latency-max 1500ms");
    let relay = Beside::relay(&folder, &line);
    // Before there is a source.
    assert_eq!(wait_for("an answer", || get(port, "/healthz")).0, 200, "a relay that waits is healthy");
    assert_eq!(get(port, "/readyz"), Some((503, b"the source is not connected\n".to_vec())));
    // A page of another site, whose name leads here.
    for (host, status) in [("Host: a.example\r\n", 403), ("Host: [::1]:80\r\n", 200), ("", 200)] {
        for path in ["/", "/status.json", "/metrics", "/before.jpg", "/nowhere"] {
            let (found, body) = get_from(port, host, path).expect("an answer");
            assert_eq!(found == 403, status == 403, "{host} {path}: {found}");
            assert!(found != 403 || body.ends_with(b" only\n"), "{host} {path}");
        }
    }
    let publisher = Beside::ffmpeg(&folder, &format!("{FLASHES} {CODECS} -f mpegts {source}?pkt_size=1316"));
    wait_for("frames", || (last(&folder, "encoded") > 50).then_some(()));
    assert_eq!(get(port, "/readyz"), Some((200, b"ok\n".to_vec())));
    let metrics = text(port, "/metrics");
    let encoded = metric(&metrics, "hasn_frames_encoded_total");
    assert!(encoded > 50.0 && metric(&metrics, "hasn_latency_seconds_count") >= encoded - 2.0, "{metrics}");
    assert!(metric(&metrics, "hasn_frames_upscaled_total{model=\"none\"}") >= encoded - 2.0, "{metrics}");
    assert_eq!(metric(&metrics, "hasn_sink_up{sink=\"out.ts\"}"), 1.0);
    assert_eq!(metric(&metrics, "hasn_latency_ceiling_seconds"), 1.5);
    assert!(metric(&metrics, "hasn_stage_busy_seconds_total{stage=\"encode\"}") > 0.0, "{metrics}");
    assert!(metric(&metrics, "hasn_source_received_bytes_total") > 1000.0, "{metrics}");
    let output = metrics + &text(port, "/status.json") + &text(port, "/");
    drop(publisher);
    wait_for("the loss to be seen", || (get(port, "/readyz")?.0 == 503).then_some(()));
    assert_eq!(get(port, "/healthz").map(|answer| answer.0), Some(200), "duplicated frames continue");
    assert_eq!(get(port, "/nowhere").map(|answer| answer.0), Some(404));
    let ran = relay.terminate(&folder);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(get(port, "/healthz").is_none(), "the server is shut down");
    let output = output + &ran.stderr + &String::from_utf8(ran.stdout).unwrap();
    for secret in ["pa55", "s3cret", "w0rd"] {
        assert!(!output.contains(secret), "{secret} is in\n{output}");
    }
}

/// The dashboard queries metrics that exist.
#[test]
fn the_dashboard_and_the_unit_fit_the_program() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let (relay, _publisher, port) = relayed(&folder, FLASHES, "out.ts --ladder none");
    wait_for("frames", || (last(&folder, "encoded") > 10).then_some(()));
    let metrics = text(port, "/metrics");
    relay.end_accounted(&folder);
    let names = |text: &str| -> Vec<String> {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = text.split(|c| !part(c)).filter(|word| word.starts_with("hasn_"));
        words.map(str::to_owned).collect()
    };
    let there = names(&metrics);
    let dashboard = std::fs::read_to_string(project_file("examples/relay/grafana.json")).unwrap();
    let panels =
        serde_json::from_str::<serde_json::Value>(&dashboard).unwrap()["panels"].as_array().unwrap().len();
    let queried = names(&dashboard);
    assert!(panels >= 6 && queried.len() > panels, "{panels} panels, {queried:?}");
    for name in queried {
        assert!(there.contains(&name), "the dashboard queries {name}");
    }
    let unit = project_file("examples/relay/hasn-relay@.service");
    let line = std::fs::read_to_string(&unit).unwrap();
    let line = line.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a line that starts it");
    let options: Vec<&str> = line.split_whitespace().filter(|word| word.starts_with("--")).collect();
    let help = String::from_utf8(folder.hasn("relay --help").stdout).unwrap();
    assert!(options.len() >= 2 && options.iter().all(|option| help.contains(option)), "{options:?}");
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output() {
        Ok(output) => {
            let lines = String::from_utf8(output.stderr).unwrap();
            // The program is not installed here.
            let lines: Vec<&str> = lines.lines().filter(|line| !line.contains("is not executable")).collect();
            assert!(lines.iter().all(|line| !line.contains("hasn-relay")), "{lines:?}");
        }
        Err(_) => say_skipped("systemd-analyze is not here: install systemd"),
    }
}

/// Networks are timed by threads that get little beside the frames on air, and that are gone then.
#[test]
fn a_new_ladder_is_timed_at_a_low_priority() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    folder.write("live.toml", "ladder = \"none\"\n");
    let source = "lavfi:testsrc2=s=320x240:r=25,realtime";
    let relay = Beside::relay(&folder, &format!("{source} out.ts --settings live.toml -v"));
    wait_for("frames", || (last(&folder, "encoded") > 25).then_some(()));
    let niceness = |folder: std::path::PathBuf| -> Option<i32> {
        let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
        // The 19th field; the second is the name, in brackets.
        stat.rsplit_once(") ")?.1.split(' ').nth(16)?.parse().ok()
    };
    let process = std::path::PathBuf::from(format!("/proc/{}", relay.0.id()));
    let own = niceness(process.clone()).expect("the relay runs");
    let nicer_threads = || {
        let tasks = std::fs::read_dir(process.join("task")).unwrap().flatten();
        tasks.filter_map(|task| niceness(task.path())).filter(|&niceness| niceness > own).count()
    };
    assert_eq!(nicer_threads(), 0);
    folder.write("live.toml", "ladder = \"hasn-lite-x2,none\"\n");
    signal(&relay.0, "-HUP");
    wait_for("threads of a low priority", || (nicer_threads() > 0).then_some(()));
    let logged = "ladder: hasn-lite-x2, none";
    wait_for(logged, || String::from_utf8(folder.read("stderr")).unwrap().contains(logged).then_some(()));
    wait_for("their end", || (nicer_threads() == 0).then_some(()));
    let lines = lines(&folder);
    let stats = lines.last().expect("a line a second");
    assert_eq!([&stats["dropped_overflow"], &stats["dropped_late"]], [0, 0], "{stats}");
    relay.end_accounted(&folder);
}

#[test]
fn a_hangup_changes_ladder_and_bitrate_and_nothing_else() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    folder.write("live.toml", "ladder = \"none\"\nbitrate = \"2M\"\n");
    let (relay, _publisher, _) = relayed(&folder, NOISE, "out.ts --settings live.toml -v");
    wait_for("frames", || (last(&folder, "encoded") > 50).then_some(()));
    let bytes = || lines(&folder).last().map_or(0, |line| line["sinks"][0]["bytes"].as_u64().unwrap());
    let in_two_seconds = || {
        let before = bytes();
        std::thread::sleep(Duration::from_secs(2));
        bytes() - before
    };
    let hangup = |settings: &str, logged: &str| {
        folder.write("live.toml", settings);
        signal(&relay.0, "-HUP");
        wait_for(logged, || String::from_utf8(folder.read("stderr")).unwrap().contains(logged).then_some(()));
    };
    let much = in_two_seconds();
    hangup("ladder = \"hasn-lite-x2,none\"\nbitrate = \"100k\"\n", "ladder: hasn-lite-x2, none");
    std::thread::sleep(Duration::from_secs(2));
    let little = in_two_seconds();
    assert!(little * 2 < much, "{little} bytes after {much}");
    hangup("bitrate = 7", "settings unchanged");
    hangup("ladder = \"nothing\"", "nothing: is neither");
    let stats = relay.end_accounted(&folder);
    assert_eq!(stats["ladder"][1]["model"], "hasn-lite-x2", "{stats}");
    assert_eq!(stats["source_connections"], 1, "{stats}");
    folder.assert_decodes("out.ts");
    folder
        .hasn("relay udp://127.0.0.1:1 out.ts --settings nowhere.toml")
        .assert_told("nowhere.toml", "no file");
}

/// Clients that send nothing, clients that send slowly, and too many clients.
#[test]
fn a_slow_loris_and_a_flood_are_survived() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let (relay, _publisher, port) = relayed(&folder, FLASHES, "out.ts --ladder none");
    wait_for("frames", || (last(&folder, "encoded") > 25).then_some(()));
    let memory_kb = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", relay.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().to_owned();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before_kb = memory_kb();
    let connect = |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a place in the queue");
        stream.write_all(b"GET / HTTP/1.1\r\n").map(|()| stream)
    };
    // More than are served at a time, and no more than the system keeps in its queue.
    let mut slow: Vec<TcpStream> = (0..300).map(connect).collect::<Result<_, _>>().unwrap();
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < Duration::from_secs(8) {
        slow.iter_mut().for_each(|stream| drop(stream.write_all(b"X-Slow: 1\r\n")));
        let start = Instant::now();
        let answer = get(port, "/healthz");
        assert_eq!(answer.map(|answer| answer.0), Some(200), "after {:?}", start.elapsed());
        slowest = slowest.max(start.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(slowest < Duration::from_secs(5), "an answer took {slowest:?}");
    // A request that does not end.
    let mut endless = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let _ =
        endless.write_all(b"GET /metrics HTTP/1.1\r\n").and_then(|()| endless.write_all(&[b'a'; 1 << 20]));
    let flood: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(move || (0..250).filter(|_| get(port, "/metrics").is_some()).count()))
        .collect();
    let served: usize = flood.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(served > 1500, "{served} of 2000 are served");
    let after_kb = memory_kb();
    assert!(after_kb < before_kb + 30_000, "{before_kb} kB, then {after_kb}");
    let stats = relay.end_accounted(&folder);
    assert_eq!(
        [&stats["dropped_overflow"], &stats["dropped_superseded"], &stats["duplicated"]],
        [0, 0, 0],
        "{stats}"
    );
}

/// Flags of a browser that loads nothing but the page.
const ALONE: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// What the browser printed, and its console messages.
fn browse(folder: &Folder, how: &str, address: &str) -> Option<(String, Vec<String>)> {
    let output = Command::new("chromium")
        .args(ALONE)
        .arg(format!("--user-data-dir={}", folder.path("browser").display()))
        .args([
            "--enable-logging=stderr",
            "--window-size=1280,1300",
            "--virtual-time-budget=8000",
            how,
            address,
        ])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let console = stderr.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    Some((stdout, console))
}

/// A screenshot of the page stays in target/relay-page.png.
#[test]
fn the_page_shows_the_stream_and_the_console_stays_empty() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    folder.write("wrong.html", "<script>console.error('seen')</script>");
    let wrong = format!("file://{}", folder.path("wrong.html").display());
    let Some((_, console)) = browse(&folder, "--dump-dom", &wrong) else {
        return say_skipped("the page was not opened: install chromium");
    };
    assert!(console.iter().any(|line| line.contains("seen")), "errors are to be seen: {console:?}");
    let (relay, _publisher, port) = relayed(&folder, FLASHES, "out.ts --ladder none");
    wait_for("frames", || (last(&folder, "encoded") > 75).then_some(()));
    // A preview is kept on request.
    text(port, "/status.json");
    wait_for("a frame", || (get(port, "/after.jpg")?.0 == 200).then_some(()));
    let page = format!("http://127.0.0.1:{port}/");
    let (shown, console) = browse(&folder, "--dump-dom", &page).unwrap();
    assert_eq!(console, Vec::<String>::new());
    for part in [">live<", "out.ts", ">connected<", "none", "after.jpg?", "latency p99"] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let frame = project_file("target/relay-page.png");
    std::fs::create_dir_all(project_file("target")).unwrap();
    let _ = std::fs::remove_file(&frame);
    let (_, console) = browse(&folder, &format!("--screenshot={}", frame.display()), &page).unwrap();
    assert_eq!(console, Vec::<String>::new());
    let size = std::fs::metadata(&frame).expect("a screenshot of the page").len();
    assert!(size > 20_000, "{size} bytes");
    for (name, width) in [("before", 96), ("after", 192)] {
        folder.write(&format!("{name}.jpg"), get(port, &format!("/{name}.jpg")).unwrap().1);
        assert_eq!(folder.probe(&format!("{name}.jpg")).video().width, width);
    }
    relay.end_accounted(&folder);
}

#[test]
fn audio_that_a_sink_does_not_take_becomes_aac_and_stays_in_step() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let source = format!("udp://127.0.0.1:{}", free_port());
    let relay = Beside::relay(&folder, &format!("{source} out.flv out.ts --ladder none"));
    // Between two flashes the publisher ends, so that the relay cannot between a flash and its beep.
    let codecs = "-t 5.5 -c:v libx264 -preset ultrafast -tune zerolatency -g 25 -c:a libopus";
    let publisher = Beside::ffmpeg(&folder, &format!("{FLASHES} {codecs} -f mpegts {source}?pkt_size=1316"));
    wait_for("frames", || (last(&folder, "encoded") > 130).then_some(()));
    relay.end_accounted(&folder);
    drop(publisher);
    for name in ["out.flv", "out.ts"] {
        assert_eq!(folder.probe(name).streams[1].codec_name, "aac", "{name}");
        assert_in_step(&folder, name, 125, 0.06);
    }
}

/// A source at this machine's own interface is not reachable from others.
#[test]
fn sources_listen_where_they_say_and_nowhere_else() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    for (scheme, listed) in [("udp", "udp"), ("rtp", "udp"), ("srt", "udp"), ("rtmp", "tcp")] {
        let port = free_port();
        let (query, listen) = match scheme {
            "srt" => ("?mode=listener", ""),
            "rtmp" => ("/live/in", "--listen"),
            _ => ("", ""),
        };
        let relay = Beside::relay(&folder, &format!("{scheme}://:{port}{query} out.ts {listen}"));
        let bound = wait_for(scheme, || {
            let table = std::fs::read_to_string(format!("/proc/net/{listed}")).unwrap();
            let local = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
            table.lines().filter_map(local).find(|at| at.ends_with(&format!(":{port:04X}")))
        });
        assert_eq!(bound, format!("0100007F:{port:04X}"), "{scheme}");
        drop(relay);
    }
}

#[test]
fn a_pipe_without_a_writer_is_waited_for_and_can_be_stopped() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let status = Command::new("mkfifo").arg(folder.path("pipe")).status().unwrap();
    assert!(status.success());
    let port = free_port();
    let relay = Beside::relay(&folder, &format!("pipe out.ts --ladder none --metrics {port}"));
    wait_for("an answer", || get(port, "/healthz"));
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    let ran = relay.terminate(&folder);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let relay = Beside::relay(&folder, "pipe out.ts --ladder none");
    for publication in 1..=2 {
        let _publisher = Beside::ffmpeg(&folder, &format!("{FLASHES} {CODECS} -f mpegts pipe"));
        wait_for("frames", || (last(&folder, "decoded") > publication * 50).then_some(()));
    }
    relay.end_accounted(&folder);
    folder.assert_decodes("out.ts");
}

#[test]
fn a_device_is_a_source() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let relay =
        Beside::relay(&folder, "lavfi:testsrc2=s=96x64:r=25[out0];sine=r=48000[out1] out.ts --ladder none");
    wait_for("frames", || (last(&folder, "encoded") > 50).then_some(()));
    let stats = relay.end_accounted(&folder);
    assert_eq!(stats["duplicated"], 0, "{stats}");
    assert_eq!(folder.probe("out.ts").streams.len(), 2);
    let ran = folder.hasn("relay v4l2:/dev/nowhere out.ts --reconnect-max 100ms");
    ran.assert_told("/dev/nowhere", "a camera that is not there");
}

/// Named pipes as sinks: one that has no reader, and one whose reader stalls.
#[test]
fn pipes_as_sinks_do_not_hold_the_end_up() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    for name in ["unread.ts", "stalled.ts"] {
        assert!(Command::new("mkfifo").arg(folder.path(name)).status().unwrap().success());
    }
    // For writing as well, so that opening it does not wait.
    let _reader = std::fs::File::options().read(true).write(true).open(folder.path("stalled.ts")).unwrap();
    let source = "lavfi:testsrc2=s=320x240:r=25[out0];sine=r=48000[out1]";
    let relay = Beside::relay(&folder, &format!("{source} unread.ts stalled.ts out.ts --ladder none"));
    wait_for("frames", || (last(&folder, "encoded") > 100).then_some(()));
    let start = Instant::now();
    let ran = relay.terminate(&folder);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    folder.assert_decodes("out.ts");
}

#[test]
fn a_pipe_as_sink_gets_the_stream_whenever_it_has_a_reader() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    assert!(Command::new("mkfifo").arg(folder.path("out.ts")).status().unwrap().success());
    let relay = Beside::relay(&folder, "lavfi:testsrc2=s=96x64:r=25 out.ts --ladder none --encoder-opt g=25");
    wait_for("frames", || (last(&folder, "encoded") > 30).then_some(()));
    for name in ["first.ts", "second.ts"] {
        folder.ffmpeg(&format!("-i out.ts -frames:v 25 -c copy {name}"));
        assert_eq!(folder.probe(name).video_pts().len(), 25, "{name}");
    }
    relay.end_accounted(&folder);
}

#[test]
fn a_stalled_reader_of_counters_and_a_stalled_sink_do_not_outlast_a_second_signal() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    assert!(Command::new("mkfifo").arg(folder.path("stalled.ts")).status().unwrap().success());
    let _reader = std::fs::File::options().read(true).write(true).open(folder.path("stalled.ts")).unwrap();
    for (sink, signals, code) in [("out.ts", 1, 0), ("stalled.ts", 2, 130)] {
        let (_reader, full) = full_pipe();
        let line = format!("relay lavfi:testsrc2=s=640x360:r=25 {sink} --ladder none --progress json");
        let mut relay =
            Beside(folder.hasn_command(&line).stdout(full).stderr(Stdio::null()).spawn().unwrap());
        std::thread::sleep(Duration::from_secs(3));
        let start = Instant::now();
        for _ in 0..signals {
            assert!(relay.0.try_wait().unwrap().is_none(), "{sink}: the relay runs");
            signal(&relay.0, "-TERM");
            std::thread::sleep(Duration::from_millis(700));
        }
        assert_eq!(relay.end("the relay's end"), Some(code), "{sink}");
        assert!(start.elapsed() < Duration::from_secs(4), "{sink}: {:?}", start.elapsed());
    }
    folder.assert_decodes("out.ts");
}
