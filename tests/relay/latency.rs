//! Latency of a relay from frame to frame: each carries its number, and is noted when it goes into a publisher and when a
//! player has decoded it. The latency of `ffmpeg -c copy` in the relay's place is that of the path itself.
//!
//! `HASN_LATENCY_CSV` names a file for a line a frame, which `examples/relay/latency.py` draws. Its latency is the relay's
//! own: `ffmpeg`'s is subtracted.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::program::{Folder, say_skipped, wait_for};
use crate::counted::{
    HEIGHT, Player, Publisher, ROWS, Seen, WIDTH, drawn, favoured, latencies_ms, may_favour, number_of,
};
use crate::harness::{Beside, free_port, lines, seconds, shared_machine, whole_machine};

/// fps of the large network at most and at least, and of the light one at most.
const RATE: u32 = 14;
const RATE_MIN: u32 = 6;
const RATE_LIGHT: u32 = 30;
const CEILING_MS: f64 = 1000.0;
/// Enough for a 99th percentile.
const FRAMES_UNDER_LOAD: u32 = 140;
/// From the load's end until the better network runs again and holds: the ladder waits longer after each failed attempt.
const UP_AGAIN_MAX: Duration = Duration::from_secs(100);

/// Two addresses for what stands between publisher and player.
fn way() -> [String; 2] {
    [free_port(), free_port()].map(|port| format!("udp://127.0.0.1:{port}"))
}

fn publisher(from: &str, rate: u32) -> Publisher {
    Publisher::start(|| favoured("ffmpeg"), rate, &format!("-f mpegts {from}?pkt_size=1316"))
}

/// The quantile `part` of a sample.
fn quantile(ms: &[f64], part: f64) -> f64 {
    let mut sorted = ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((part * ms.len() as f64).ceil() as usize).max(1) - 1]
}

fn of(latencies: &[(u16, f64)]) -> Vec<f64> {
    latencies.iter().map(|&(_, ms)| ms).collect()
}

/// Median of the same way with `ffmpeg -c copy` in the relay's place.
fn baseline_ms(folder: &Folder, rate: u32) -> f64 {
    let [from, to] = way();
    let player = Player::start(favoured("ffmpeg"), &to, WIDTH);
    let copy = format!(
        "-fflags nobuffer -probesize 32768 -analyzeduration 0 -i {from} -c copy -flush_packets 1 -muxdelay 0 \
         -muxpreload 0 -f mpegts {to}?pkt_size=1316"
    );
    let _copy = Beside::ffmpeg(folder, &copy);
    let publisher = publisher(&from, rate);
    wait_for("frames of ffmpeg", || (player.seen().len() >= 60).then_some(()));
    let seen = latencies_ms(&publisher.sent(), &player.seen());
    // The first ones waited for each other.
    let ms = of(&seen[20..]);
    println!("ffmpeg -c copy: median {:.1} ms, p99 {:.1} ms", quantile(&ms, 0.5), quantile(&ms, 0.99));
    quantile(&ms, 0.5)
}

/// The relay's lines of counters, and when each was read.
struct Counters {
    lines: Arc<Mutex<Vec<(Instant, serde_json::Value)>>>,
    stop: Arc<AtomicBool>,
}

impl Counters {
    fn watch(folder: Arc<Folder>) -> Counters {
        let counters = Counters { lines: Arc::default(), stop: Arc::default() };
        let (noted, stop) = (counters.lines.clone(), counters.stop.clone());
        thread::spawn(move || {
            while !stop.load(Relaxed) {
                let all = lines(&folder);
                let mut noted = noted.lock().unwrap();
                let known = noted.len();
                noted.extend(all.into_iter().skip(known).map(|line| (Instant::now(), line)));
                drop(noted);
                thread::sleep(Duration::from_millis(5));
            }
        });
        counters
    }

    fn now(&self) -> Vec<(Instant, serde_json::Value)> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for the next line; returns its growth.
    fn next(&self) -> (Instant, [u64; 2]) {
        let known = self.now().len();
        wait_for("the next line of counters", || (self.now().len() > known).then_some(()));
        self.growth().pop().unwrap()
    }

    /// Of each line but the first: frames by rung since the line before.
    fn growth(&self) -> Vec<(Instant, [u64; 2])> {
        // The first lines may be older than the ladder.
        let by_rung = |line: &serde_json::Value| {
            [0, 1].map(|rung| line["ladder"][rung]["frames"].as_u64().unwrap_or_default())
        };
        let of = |pair: &[(Instant, serde_json::Value)]| {
            let [before, now] = [by_rung(&pair[0].1), by_rung(&pair[1].1)];
            (pair[1].0, [now[0] - before[0], now[1] - before[1]])
        };
        self.now().windows(2).map(of).collect()
    }

    /// When which rung began. A line with frames of both: those of the new one came last, evenly.
    fn changes(&self, rate: u32) -> Vec<(Instant, usize)> {
        let mut changes: Vec<(Instant, usize)> = Vec::new();
        for (at, [best, plain]) in self.growth() {
            let new = match changes.last() {
                _ if best + plain == 0 => continue,
                Some(&(_, 0)) if plain == 0 => continue,
                Some(&(_, 1)) if best == 0 => continue,
                Some(&(_, rung)) => 1 - rung,
                None => usize::from(best == 0),
            };
            let frames = [best, plain][new] as u32;
            changes.push((at - (Duration::from_secs(1) * frames / rate).min(Duration::from_secs(1)), new));
        }
        changes
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// Where each moment belongs.
struct Phases {
    load: Instant,
    calm: Instant,
}

impl Phases {
    fn of(&self, moment: Instant) -> &'static str {
        match moment {
            _ if moment < self.load => "quiet",
            _ if moment < self.calm => "load",
            _ => "calm",
        }
    }
}

/// A frame at the far end.
struct Shown {
    at: Instant,
    /// The relay's own part.
    latency_ms: f64,
}

fn write_csv(path: &str, shown: &[Shown], changes: &[(Instant, usize)], phases: &Phases) {
    let mut file = std::fs::File::create(path).expect("HASN_LATENCY_CSV can be written");
    writeln!(file, "seconds,latency_ms,rung,phase").unwrap();
    for &Shown { at, latency_ms } in shown {
        let rung = changes.iter().rev().find(|change| change.0 <= at).map_or(0, |change| change.1);
        let (since_s, rung) = ((at - shown[0].at).as_secs_f64(), ["network", "none"][rung]);
        writeln!(file, "{since_s:.3},{latency_ms:.1},{rung},{}", phases.of(at)).unwrap();
    }
}

/// No frame is one that was never sent, or comes after a later one.
fn assert_in_order(sent: &[Instant], seen: &[Seen]) {
    let numbers: Vec<u16> = seen
        .iter()
        .map(|seen| seen.number.unwrap_or_else(|| panic!("a frame cannot be read: {seen:?}")))
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[0] <= pair[1]), "{numbers:?}");
    assert!(usize::from(*numbers.last().unwrap()) < sent.len());
}

/// Waits for a second in which the network alone upscaled frames.
fn wait_for_network(counters: &Counters, what: &str) -> Instant {
    let start = Instant::now();
    loop {
        let (at, by_rung) = counters.next();
        if by_rung[1] == 0 && by_rung[0] > 0 {
            return at;
        }
        assert!(start.elapsed() < UP_AGAIN_MAX, "in vain: {what}");
    }
}

/// Waits for a frame that the network did not upscale, before which it may upscale a second's frames at most.
fn wait_for_plain(counters: &Counters, rate: u32) -> (Instant, u64) {
    let start = Instant::now();
    let mut by_network = 0;
    loop {
        let (at, by_rung) = counters.next();
        by_network += by_rung[0];
        assert!(by_network < rate.into(), "the ladder steps down within the frames of a second");
        if by_rung[1] > 0 {
            return (at, by_network);
        }
        assert!(start.elapsed() < UP_AGAIN_MAX, "no frame leaves the relay under load");
    }
}

/// A network, and how many fps of it this machine carries without load and not under it: as many as take half of the time,
/// of the large network if they are enough, else of the light one.
fn demand(folder: &Folder) -> (&'static str, u32) {
    let fps = |model: &str| {
        let ran = folder.hasn(&format!("bench --model {model} --size {WIDTH}x{HEIGHT} --json"));
        let bench: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
        (500.0 / bench["frame_ms_median"].as_f64().unwrap()) as u32
    };
    let (large, light) = ("hasn-x2", "hasn-lite-x2-video");
    let (network, rate) = match RATE.min(fps(large)) {
        rate @ RATE_MIN.. => (large, rate),
        _ => (light, RATE_LIGHT.min(fps(light))),
    };
    println!("{rate} fps by {network}");
    (network, rate)
}

/// Burners on all cores: the network that the machine can no longer carry is left within the frames of a second, no
/// frame comes too late, and when they are gone it is taken again.
#[test]
fn under_load_latency_stays_under_its_ceiling() {
    let (_machine, folder) = (whole_machine(), Arc::new(Folder::new()));
    if !may_favour() {
        say_skipped(
            "publisher and player before the load, for this user may not say so: their own share is larger",
        );
    }
    let (network, rate) = demand(&folder);
    let baseline_ms = baseline_ms(&folder, rate);
    let [from, to] = way();
    let player = Player::start(favoured("ffmpeg"), &to, 2 * WIDTH);
    let options = format!("--ladder {network},none --latency-max {CEILING_MS}ms");
    let relay = Beside::relay(&folder, &format!("{from} {to} {options}"));
    let counters = Counters::watch(folder.clone());
    let publisher = publisher(&from, rate);
    wait_for("frames", || (player.seen().len() > 10).then_some(()));
    thread::sleep(seconds());
    // A line is just out then: the next one comes a second later.
    wait_for_network(&counters, "without load the network keeps up");
    let load = Instant::now();
    let cores = thread::available_parallelism().map_or(2, Into::into);
    let burn = || Beside(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap());
    let burners: Vec<Beside> = (0..8 * cores).map(|_| burn()).collect();
    let (at, by_network) = wait_for_plain(&counters, rate);
    println!(
        "{:?} after the load began, and {by_network} frames of the network, the ladder has stepped down",
        at - load
    );
    thread::sleep(seconds().max(Duration::from_secs(1) * FRAMES_UNDER_LOAD / rate));
    drop(burners);
    let calm = Instant::now();
    let up_again = wait_for_network(&counters, "the network runs again");
    println!("{:?} after the load's end the network alone upscales frames again", up_again - calm);
    thread::sleep(Duration::from_secs(2));
    let (sent, seen) = (publisher.sent(), player.seen());
    let ran = relay.terminate(&folder);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_in_order(&sent, &seen);
    let shown = |&(number, ms): &(u16, f64)| {
        let at = sent[usize::from(number)] + Duration::from_secs_f64(ms / 1e3);
        Shown { at, latency_ms: ms - baseline_ms }
    };
    let shown: Vec<Shown> = latencies_ms(&sent, &seen).iter().map(shown).collect();
    let phases = Phases { load, calm };
    for phase in ["quiet", "load", "calm"] {
        let of_phase = shown.iter().filter(|shown| phases.of(shown.at) == phase);
        let ms: Vec<f64> = of_phase.map(|shown| shown.latency_ms).collect();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| quantile(&ms, part));
        let frames = ms.len();
        println!(
            "{phase}: {frames} frames, p50 {p50:.1} ms, p99 {p99:.1} ms, at most {max:.1} ms more than ffmpeg"
        );
        assert!(p99 < CEILING_MS, "{phase}: {p99} ms");
    }
    if let Ok(path) = std::env::var("HASN_LATENCY_CSV") {
        write_csv(&path, &shown, &counters.changes(rate), &phases);
    }
}

/// A segment is listed as soon as it is complete.
#[test]
fn a_segment_is_listed_as_soon_as_it_is_complete() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    std::fs::create_dir(folder.path("hls")).unwrap();
    let from = format!("udp://127.0.0.1:{}", free_port());
    let relay =
        Beside::relay(&folder, &format!("{from} hls/live.m3u8 --ladder none --latency-max {CEILING_MS}ms"));
    let publisher = publisher(&from, RATE);
    // Name, length and when it was listed; older ones are deleted, so each is kept.
    let mut listed: Vec<(String, f64, Instant)> = Vec::new();
    wait_for("segments", || {
        let list = std::fs::read_to_string(folder.path("hls/live.m3u8")).unwrap_or_default();
        let mut length_s = 0.0;
        for line in list.lines() {
            if let Some(length) = line.strip_prefix("#EXTINF:") {
                length_s = length.trim_end_matches(',').parse().unwrap();
            } else if !line.starts_with('#') && listed.iter().all(|(name, ..)| name != line) {
                listed.push((line.to_owned(), length_s, Instant::now()));
                std::fs::copy(folder.path("hls").join(line), folder.path(line)).unwrap();
            }
        }
        (listed.len() >= 5).then_some(())
    });
    let sent = publisher.sent();
    let ran = relay.terminate(&folder);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for (name, length_s, at) in listed {
        let luma = folder.ffmpeg(&format!("-i {name} -frames:v 1 -f rawvideo -pix_fmt gray -"));
        let number = number_of(&luma, 2 * WIDTH).expect("its first frame can be read");
        let after_s = (at - sent[usize::from(number)]).as_secs_f64();
        println!("{name}: {length_s} s long, listed {after_s:.3} s after its first frame");
        assert!(after_s < length_s + CEILING_MS / 1e3, "{name}: {length_s} s long, listed after {after_s} s");
    }
}

#[test]
fn numbers_are_read_at_any_size_and_damage_is_detected() {
    for number in [0, 1, 0x1234, u16::MAX] {
        let luma = drawn(number);
        assert_eq!(number_of(&luma, WIDTH), Some(number));
        let twice = |at: usize| luma[at / (2 * WIDTH) / 2 * WIDTH + at % (2 * WIDTH) / 2];
        let larger: Vec<u8> = (0..4 * luma.len()).map(twice).collect();
        assert_eq!(number_of(&larger, 2 * WIDTH), Some(number));
        let mut damaged = luma;
        damaged[..WIDTH * HEIGHT / ROWS].iter_mut().for_each(|sample| *sample = 251 - *sample);
        assert_eq!(number_of(&damaged, WIDTH), None);
    }
}
