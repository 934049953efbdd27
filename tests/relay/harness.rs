//! What tests of a relay share: the `ffmpeg` command as publisher and player beside it, its lines of counters, and checks
//! of the streams it sends.
//!
//! `HASN_RELAY_SECONDS` is the duration of each stream; 6 by default.

use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::common::program::{Folder, Probe, Ran, signal, wait_for};

/// A white frame and a beep at the beginning of each second.
pub const FLASHES: &str = "-re -f lavfi -i color=c=black:s=96x64:r=25,drawbox=c=white:t=fill:enable=lt(mod(t\\,1)\\,0.04) \
     -re -f lavfi -i aevalsrc=if(lt(mod(t\\,1)\\,0.04)\\,0.5*sin(6283*t)\\,0):s=48000";
pub const CODECS: &str = "-c:v libx264 -preset ultrafast -tune zerolatency -g 25 -c:a aac -b:a 64k";

/// Streams share the machine; a test that needs all of it runs alone.
static MACHINE: RwLock<()> = RwLock::new(());

pub fn shared_machine() -> impl Drop {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

pub fn whole_machine() -> impl Drop {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Duration of each stream.
pub fn seconds() -> Duration {
    let text = std::env::var("HASN_RELAY_SECONDS");
    Duration::from_secs(text.map_or(6, |text| text.parse().expect("a number of seconds")))
}

pub fn free_port() -> u16 {
    // Free for both: SRT and RTP are UDP's.
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    UdpSocket::bind(("127.0.0.1", port)).map_or_else(|_| free_port(), |_| port)
}

/// A program that runs beside the test and is killed when the value is dropped.
pub struct Beside(pub Child);

impl Beside {
    pub fn ffmpeg(folder: &Folder, line: &str) -> Beside {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-nostdin", "-y"]).args(line.split_whitespace());
        Beside(
            command.current_dir(folder.path("")).stderr(Stdio::null()).spawn().expect("ffmpeg is installed"),
        )
    }

    pub fn relay(folder: &Folder, line: &str) -> Beside {
        Beside::relay_through(folder, line, |hasn| hasn)
    }

    /// `through` makes the command one that runs it somewhere else.
    pub fn relay_through(folder: &Folder, line: &str, through: impl FnOnce(Command) -> Command) -> Beside {
        let mut command = through(folder.hasn_command(&format!("relay {line} -y --progress json")));
        let [stdout, stderr] =
            ["stats.json", "stderr"].map(|name| std::fs::File::create(folder.path(name)).unwrap());
        Beside(command.stdout(stdout).stderr(stderr).spawn().expect("hasn starts"))
    }

    /// Waits until it accepts connections or packets at the port of this address, in its network namespace.
    pub fn wait_until_it_listens(&self, address: &str) {
        let after = |text: &str| {
            text.rsplit(':').next().unwrap().split(|c: char| !c.is_ascii_digit()).next().unwrap().to_owned()
        };
        let port: u16 = after(address).parse().expect("the address has a port");
        let seen_at = |table: &str| {
            let text =
                std::fs::read_to_string(format!("/proc/{}/net/{table}", self.0.id())).unwrap_or_default();
            let is_of = |line: &str| {
                let mut words = line.split_whitespace().skip(1);
                let [here, _, state] = [(); 3].map(|()| words.next().unwrap_or_default());
                // 0A listens, of TCP; 07 is an open socket of UDP.
                here.ends_with(&format!(":{port:04X}")) && ["0A", "07"].contains(&state)
            };
            text.lines().any(is_of)
        };
        wait_for(address, || ["tcp", "tcp6", "udp", "udp6"].into_iter().any(seen_at).then_some(()));
    }

    /// Waits for its end, for a minute at most.
    pub fn end(mut self, what: &str) -> Option<i32> {
        wait_for(what, || self.0.try_wait().unwrap()).code()
    }

    /// Asks it to end.
    pub fn terminate(self, folder: &Folder) -> Ran {
        signal(&self.0, "-TERM");
        let code = self.end("the relay's end");
        let stderr = String::from_utf8(folder.read("stderr")).unwrap();
        Ran { code, stdout: folder.read("stats.json"), stderr }
    }

    /// The same; its last line of counters accounts for every frame.
    pub fn end_accounted(self, folder: &Folder) -> serde_json::Value {
        let ran = self.terminate(folder);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let stats = lines(folder).pop().expect("a line at the end");
        let count = |key: &str| stats[key].as_u64().expect("a counter");
        assert_eq!(count("decoded") + count("duplicated"), count("encoded") + lost(&stats), "{stats}");
        stats
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The relay's lines so far.
pub fn lines(folder: &Folder) -> Vec<serde_json::Value> {
    let text = String::from_utf8(folder.read("stats.json")).unwrap();
    // The last one may be half written.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

pub fn last(folder: &Folder, key: &str) -> u64 {
    lines(folder).last().map_or(0, |line| line[key].as_u64().expect("a counter"))
}

/// Frames that were decoded and not encoded.
pub fn lost(stats: &serde_json::Value) -> u64 {
    ["dropped_late", "dropped_superseded", "dropped_overflow"]
        .map(|key| stats[key].as_u64().expect("a counter"))
        .iter()
        .sum()
}

/// Seconds of the flashes and of the beeps.
pub fn flashes_and_beeps(folder: &Folder, name: &str) -> [Vec<f64>; 2] {
    folder.ffmpeg(&format!(
        "-i {name} -map 0:v -vf signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=luma.txt -f null - \
         -map 0:a -af aresample=async=1:first_pts=0 -ac 1 -f s16le audio.raw"
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
    for (i, sample) in folder.read("audio.raw").chunks_exact(2).enumerate() {
        let is_loud = i16::from_le_bytes([sample[0], sample[1]]).abs() > 3000;
        if is_loud && quiet > 12_000 {
            beeps.push(i as f64 / 48_000.0);
        }
        quiet = if is_loud { 0 } else { quiet + 1 };
    }
    [flashes, beeps]
}

/// The timestamps of every stream rise.
pub fn assert_times_rise(folder: &Folder, name: &str) {
    let probe = folder.probe(name);
    for stream in 0..probe.streams.len() {
        let dts: Vec<i64> =
            probe.packets_of(stream).iter().map(|packet| packet.dts.expect("a dts")).collect();
        assert!(dts.windows(2).all(|pair| pair[0] < pair[1]), "{name}: stream {stream}: {dts:?}");
    }
}

/// The longest time from one packet of the stream to the next.
pub fn widest_gap(probe: &Probe, stream: usize) -> f64 {
    let tick = probe.streams[stream].tick();
    let times: Vec<i64> = probe.packets_of(stream).iter().map(|packet| packet.pts.expect("a pts")).collect();
    times.windows(2).map(|pair| (pair[1] - pair[0]) as f64 * tick).fold(0.0, f64::max)
}

/// A beep and its flash: half of the 21 ms that a packet of audio is long.
const APART_MAX_S: f64 = 0.010;

/// An upscaled [`FLASHES`]: at least `frames_min` frames at twice the size, gaps below `gap_max_s`, rising timestamps, a
/// beep with each flash.
pub fn assert_in_step(folder: &Folder, name: &str, frames_min: u64, gap_max_s: f64) {
    assert_times_rise(folder, name);
    let probe = folder.probe(name);
    assert_eq!((probe.video().width, probe.video().height), (192, 128), "{name}");
    let (frames, widest) = (probe.packets_of(0).len() as u64, widest_gap(&probe, 0));
    assert!(frames >= frames_min && widest < gap_max_s, "{name}: {frames} frames, {widest} s apart");
    let apart = beeps_after_flashes(folder, name);
    assert!(apart.len() as u64 + 1 >= frames_min / 25, "{name}: {apart:?}");
    println!("{name}: a beep after its flash: {apart:.4?}");
    assert!(apart.iter().all(|apart| apart.abs() < APART_MAX_S), "{name}: a beep after its flash: {apart:?}");
}

/// Seconds from each flash to its beep. Of the first half a second audio may be missing.
pub fn beeps_after_flashes(folder: &Folder, name: &str) -> Vec<f64> {
    let [flashes, beeps] = flashes_and_beeps(folder, name);
    let nearest =
        |flash: f64| beeps.iter().map(|beep| beep - flash).min_by(|a, b| a.abs().total_cmp(&b.abs()));
    flashes.into_iter().filter(|&flash| flash > 0.5).map(|flash| nearest(flash).expect("a beep")).collect()
}
