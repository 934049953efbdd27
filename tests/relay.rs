//! Live streams over the loopback, with `ffmpeg` as publisher and player: every kind of source and sink, sources that
//! vanish and return, sinks that fail, a machine that has too much to do.
//!
//! `HASN_RELAY_LOSSES` is how often the source is lost; 3 unless told.

mod common;

use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use common::Random;
use common::program::{Folder, Probe, Ran, SmallDisk, signal, wait_for};

/// A white picture and a beep at the beginning of each second.
const FLASHES: &str = "-re -f lavfi -i color=c=black:s=96x64:r=25,drawbox=c=white:t=fill:enable=lt(mod(t\\,1)\\,0.04) \
     -re -f lavfi -i aevalsrc=if(lt(mod(t\\,1)\\,0.04)\\,0.5*sin(6283*t)\\,0):s=48000";
const CODECS: &str = "-c:v libx264 -preset ultrafast -tune zerolatency -g 25 -c:a aac -b:a 64k";

/// Streams share the machine; the test that takes all of it has it alone.
static MACHINE: RwLock<()> = RwLock::new(());

fn shared_machine() -> impl Drop {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

fn free_port() -> u16 {
    // Free for both: SRT and RTP are UDP's.
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    UdpSocket::bind(("127.0.0.1", port)).map_or_else(|_| free_port(), |_| port)
}

/// A program that runs beside the test and is gone with the value.
struct Beside(Child);

impl Beside {
    fn ffmpeg(folder: &Folder, line: &str) -> Beside {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-nostdin", "-y"]).args(line.split_whitespace());
        Beside(
            command.current_dir(folder.path("")).stderr(Stdio::null()).spawn().expect("ffmpeg is installed"),
        )
    }

    fn relay(folder: &Folder, line: &str) -> Beside {
        let mut command = folder.hasn_command(&format!("relay {line} -y --progress json"));
        let [stdout, stderr] =
            ["stats.json", "stderr"].map(|name| std::fs::File::create(folder.path(name)).unwrap());
        Beside(command.stdout(stdout).stderr(stderr).spawn().expect("hasn starts"))
    }

    /// Waits for its end, for a minute at most.
    fn end(mut self, what: &str) -> Option<i32> {
        wait_for(what, || self.0.try_wait().unwrap()).code()
    }

    /// Asks it to end.
    fn terminate(self, folder: &Folder) -> Ran {
        signal(&self.0, "-TERM");
        let code = self.end("the relay's end");
        let stderr = String::from_utf8(folder.read("stderr")).unwrap();
        Ran { code, stdout: folder.read("stats.json"), stderr }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The relay's lines so far.
fn lines(folder: &Folder) -> Vec<serde_json::Value> {
    let text = String::from_utf8(folder.read("stats.json")).unwrap();
    // The last one may be half written.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn last(folder: &Folder, key: &str) -> u64 {
    lines(folder).last().map_or(0, |line| line[key].as_u64().expect("a counter"))
}

/// Seconds of the flashes and of the beeps.
fn flashes_and_beeps(folder: &Folder, name: &str) -> [Vec<f64>; 2] {
    folder.ffmpeg(&format!(
        "-i {name} -map 0:v -vf signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=luma.txt -f null - \
         -map 0:a -af aresample=async=1:first_pts=0 -ac 1 -f s16le sound.raw"
    ));
    let (mut flashes, mut time, mut was_white) = (Vec::new(), 0.0, true);
    for line in String::from_utf8(folder.read("luma.txt")).unwrap().lines() {
        if let Some((_, seconds)) = line.split_once("pts_time:") {
            time = seconds.trim().parse().unwrap();
        } else if let Some((_, luma)) = line.split_once("YAVG=") {
            let is_white = luma.parse::<f64>().unwrap() > 128.0;
            if is_white && !was_white {
                flashes.push(time);
            }
            was_white = is_white;
        }
    }
    let (mut beeps, mut quiet) = (Vec::new(), 0);
    for (i, sample) in folder.read("sound.raw").chunks_exact(2).enumerate() {
        let is_loud = i16::from_le_bytes([sample[0], sample[1]]).abs() > 3000;
        if is_loud && quiet > 12_000 {
            beeps.push(i as f64 / 48_000.0);
        }
        quiet = if is_loud { 0 } else { quiet + 1 };
    }
    [flashes, beeps]
}

/// Every time of every stream is later than the one before it.
fn assert_times_rise(folder: &Folder, name: &str) {
    let probe = folder.probe(name);
    for stream in 0..probe.streams.len() {
        let dts: Vec<i64> =
            probe.packets_of(stream).iter().map(|packet| packet.dts.expect("a dts")).collect();
        assert!(dts.windows(2).all(|pair| pair[0] < pair[1]), "{name}: stream {stream}: {dts:?}");
    }
}

/// The longest time from one packet of the stream to the next.
fn widest_gap(probe: &Probe, stream: usize) -> f64 {
    let tick = probe.streams[stream].tick();
    let times: Vec<i64> = probe.packets_of(stream).iter().map(|packet| packet.pts.expect("a pts")).collect();
    times.windows(2).map(|pair| (pair[1] - pair[0]) as f64 * tick).fold(0.0, f64::max)
}

/// A stream of some seconds through the relay: `publish` and `play` are what the `ffmpeg` command is told.
fn relayed(source: &str, options: &str, publish: &str, sink: &str, play: Option<&str>) {
    let (_machine, folder) = (shared_machine(), Folder::new());
    std::fs::create_dir(folder.path("hls")).unwrap();
    let relay = Beside::relay(&folder, &format!("{source} {sink} {options} --ladder none"));
    if source.ends_with(".m3u8") {
        std::fs::create_dir(folder.path("source")).unwrap();
    }
    let player = play.map(|play| Beside::ffmpeg(&folder, &format!("{play} -t 4 -c copy played.mkv")));
    // Whoever listens has to be there first.
    std::thread::sleep(Duration::from_millis(1000));
    let publisher = Beside::ffmpeg(&folder, &format!("{FLASHES} -t 20 {CODECS} {publish}"));
    let name = match player {
        Some(player) => {
            assert_eq!(player.end("the player"), Some(0), "{source} to {sink}");
            "played.mkv"
        }
        None => {
            wait_for("pictures", || (last(&folder, "encoded") > 130).then_some(()));
            sink
        }
    };
    let ran = relay.terminate(&folder);
    drop(publisher);
    assert_eq!(ran.code, Some(0), "{source} to {sink}: {}", ran.stderr);
    let now = lines(&folder).pop().unwrap();
    let count = |key: &str| now[key].as_u64().unwrap();
    let dropped = count("dropped_late") + count("dropped_past") + count("dropped_full");
    assert_eq!(count("decoded") + count("made"), count("encoded") + dropped, "{now}");
    assert_eq!((count("made"), dropped), (0, 0), "{source} to {sink}: {now}");
    assert_times_rise(&folder, name);
    let probe = folder.probe(name);
    assert_eq!((probe.video().width, probe.video().height), (192, 128), "{sink}");
    let (pictures, widest) = (probe.packets_of(0).len(), widest_gap(&probe, 0));
    assert!(pictures >= 99 && widest < 0.045, "{sink}: {pictures} pictures, {widest} s apart");
    let [flashes, beeps] = flashes_and_beeps(&folder, name);
    assert!(flashes.len() >= 3 && beeps.len() >= 3, "{sink}: {flashes:?} {beeps:?}");
    for flash in flashes {
        let apart = beeps.iter().map(|beep| beep - flash).min_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
        assert!(
            apart.abs() < 0.045 || flash < 0.5,
            "{source} to {sink}: a beep comes {apart} s after its flash"
        );
    }
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

/// The source is lost again and again, for a second each time, without a word of goodbye.
#[test]
fn a_source_that_vanishes_and_returns_leaves_no_hole() {
    let losses = std::env::var("HASN_RELAY_LOSSES").map_or(3, |text| text.parse().expect("a number"));
    let (_machine, folder) = (shared_machine(), Folder::new());
    let source = format!("udp://127.0.0.1:{}", free_port());
    let relay = Beside::relay(&folder, &format!("{source}?timeout=1000000 out.ts --ladder none"));
    let moving = "-re -f lavfi -i testsrc2=s=96x64:r=25 -re -f lavfi -i sine=r=48000";
    for loss in 0..losses {
        let before = last(&folder, "decoded");
        let publisher =
            Beside::ffmpeg(&folder, &format!("{moving} {CODECS} -f mpegts {source}?pkt_size=1316"));
        let returned = Instant::now();
        wait_for("pictures of the source", || (last(&folder, "decoded") > before + 25).then_some(()));
        // A second for a second of pictures, and one for the next line of counters.
        assert!(
            returned.elapsed() < Duration::from_secs(4),
            "loss {loss}: back after {:?}",
            returned.elapsed()
        );
        drop(publisher);
        std::thread::sleep(Duration::from_secs(1));
    }
    let ran = relay.terminate(&folder);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let now = lines(&folder).pop().unwrap();
    assert!(now["made"].as_u64().unwrap() > 20 * losses, "{now}");
    assert!(now["dropped_past"].as_u64().unwrap() <= 5 * losses, "what comes back is shown: {now}");
    assert_times_rise(&folder, "out.ts");
    let probe = folder.probe("out.ts");
    let widest = widest_gap(&probe, 0);
    assert!(widest < 0.25, "{widest} s without a picture");
    let widest = widest_gap(&probe, 1);
    assert!(widest < 0.4, "{widest} s without sound");
    folder.assert_decodes("out.ts");
}

#[test]
fn a_sink_that_fails_hurts_no_other_and_is_tried_again() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let [from, to] = [free_port(), free_port()];
    let (source, sink) = (format!("udp://127.0.0.1:{from}"), format!("rtmp://127.0.0.1:{to}/live/s3cret"));
    let relay = Beside::relay(&folder, &format!("{source} {sink} out.ts --ladder none -v"));
    let publisher = Beside::ffmpeg(&folder, &format!("{FLASHES} {CODECS} -f mpegts {source}?pkt_size=1316"));
    wait_for("pictures", || (last(&folder, "encoded") > 50).then_some(()));
    let player = Beside::ffmpeg(&folder, &format!("-listen 1 -f flv -i {sink} -t 2 -c copy played.mkv"));
    assert_eq!(player.end("the player"), Some(0));
    wait_for("more pictures", || (last(&folder, "encoded") > 200).then_some(()));
    let ran = relay.terminate(&folder);
    drop(publisher);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let now = lines(&folder).pop().unwrap();
    assert_eq!(now["sinks"][1]["dropped"], 0, "{now}");
    assert!(now["sinks"][0]["dropped"].as_u64().unwrap() > 0 && now["sinks"][0]["connections"] == 1, "{now}");
    assert_eq!(folder.probe("out.ts").video_pts().len() as u64, now["encoded"].as_u64().unwrap());
    assert!(folder.probe("played.mkv").video_pts().len() > 40);
    let told = ran.stderr + &String::from_utf8(ran.stdout).unwrap();
    assert!(told.contains("live/***") && !told.contains("s3cret"), "{told}");
}

/// Whatever comes instead of a stream, it is waited for one, in little memory, and one line says why there is none.
#[test]
fn what_is_no_stream_is_refused_and_waited_past() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let mut random = Random(7);
    let noise: Vec<u8> = (0..200_000).map(|_| random.below(256) as u8).collect();
    let huge = [b"YUV4MPEG2 W16384 H16384 F25:1 C420jpeg\nFRAME\n".as_slice(), &noise].concat();
    let answers: [(&str, &[u8]); 5] = [
        ("noise", &noise),
        ("an answer of HTTP", b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found"),
        ("a header of 16k", &huge),
        ("nothing", b""),
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
                // Whoever has seen enough hangs up.
                let _ = stream.unwrap().write_all(&answer);
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

/// Burners on all cores: the network that the machine can no longer carry is left, and nothing comes too late.
#[test]
fn under_load_latency_stays_under_its_ceiling() {
    const CEILING_MS: u64 = 1000;
    let (_machine, folder) = (MACHINE.write().unwrap_or_else(PoisonError::into_inner), Folder::new());
    let source = format!("udp://127.0.0.1:{}", free_port());
    let options = format!("--ladder hasn-lite-x2-video,none --latency-max {CEILING_MS}ms");
    let relay = Beside::relay(&folder, &format!("{source} out.ts {options} -v"));
    let moving = "-re -f lavfi -i testsrc2=s=160x96:r=10 -re -f lavfi -i sine=r=48000";
    let publisher =
        Beside::ffmpeg(&folder, &format!("{moving} {CODECS} -g 10 -f mpegts {source}?pkt_size=1316"));
    wait_for("pictures", || (last(&folder, "encoded") > 20).then_some(()));
    let cores = std::thread::available_parallelism().map_or(2, Into::into);
    let burners: Vec<Beside> = (0..8 * cores)
        .map(|_| Beside(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap()))
        .collect();
    std::thread::sleep(Duration::from_secs(8));
    let loaded = last(&folder, "encoded");
    drop(burners);
    let ran = relay.terminate(&folder);
    drop(publisher);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let lines = lines(&folder);
    let begun = lines.iter().position(|line| line["encoded"].as_u64().unwrap() > 20).unwrap();
    let late: Vec<u64> = lines[begun..].iter().map(|line| line["latency_ms_p99"].as_u64().unwrap()).collect();
    assert!(late.iter().all(|&ms| ms < CEILING_MS), "{late:?}");
    assert!(loaded > 40, "pictures go on under load: {loaded}");
    let now = lines.last().unwrap();
    assert!(now["ladder"][1]["pictures"].as_u64().unwrap() > 0, "the plain resampler takes over: {now}");
}

#[test]
fn a_file_that_is_not_whole_is_told() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    folder.ffmpeg("-f lavfi -i testsrc2=s=96x64:r=25 -t 4 -c:v libx264 in.mkv");
    for (sinks, said) in [
        ("nowhere/out.ts", "is no folder"),
        ("out.xyz", "its ending names no container"),
        ("rtsp://127.0.0.1/out", "streams go out to"),
        ("out.ts out.ts", "is named twice"),
        ("in.mkv", "is there already"),
    ] {
        folder.hasn(&format!("relay in.mkv {sinks} --ladder none")).assert_told(said, sinks);
    }
    let Some(_disk) = SmallDisk::mount(&folder, "64k") else {
        println!("SKIPPED: a small disk cannot be mounted here");
        return;
    };
    let ran = folder.hasn("relay in.mkv disk/out.ts whole.ts --ladder none --bitrate 4M");
    ran.assert_told("cannot be written", "a full disk");
    assert_eq!(folder.probe("whole.ts").packets.len(), 100, "the other one is whole");
    assert!(!folder.path("disk/out.ts").exists() && folder.path("disk/out.partial.ts").exists());
}
