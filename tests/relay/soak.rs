//! A long run of a relay takes no more memory, handles or threads at its end than at its start, and A/V sync holds.
//!
//! `HASN_RELAY_SOAK_S` is its duration; `make soak` runs it for half an hour.

use std::time::{Duration, Instant};

use crate::common::flat::{assert_flat, sample};
use crate::common::program::{Folder, wait_for};
use crate::harness::{
    Beside, CODECS, FLASHES, assert_times_rise, beeps_after_flashes, free_port, last, lost, whole_machine,
    widest_gap,
};

const SECONDS: u64 = 20;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
const GROWTH_MAX: f64 = 1.05;
/// Of beep and flash, at the beginning or at the end, beside what `ffmpeg -c copy` makes of the same.
const DRIFT_MAX_S: f64 = 0.020;
/// Other programs may stall the machine for a moment: then frames are duplicated, and the late ones dropped.
const OTHERS_MAX: f64 = 0.02;
const GAP_MAX_S: f64 = 0.55;
/// At the beginning and at the end so much is listened to.
const PART_S: u64 = 10;

fn run_s() -> u64 {
    std::env::var("HASN_RELAY_SOAK_S").map_or(SECONDS, |text| text.parse().expect("a number of seconds"))
}

/// Median time from flash to beep in a part of a file.
fn median_apart(folder: &Folder, name: &str, part: &str) -> f64 {
    folder.ffmpeg(&format!("{part} -i {name} -t {PART_S} -c copy part.mkv"));
    let mut apart = beeps_after_flashes(folder, "part.mkv");
    assert!(apart.len() as u64 >= PART_S / 2, "{name}, {part}: {apart:?}");
    apart.sort_by(f64::total_cmp);
    apart[apart.len() / 2]
}

#[test]
fn a_long_relay_is_flat() {
    let (_machine, folder, run_s) = (whole_machine(), Folder::new(), run_s());
    let source = format!("udp://127.0.0.1:{}", free_port());
    let publish = format!("{FLASHES} {CODECS} -f mpegts {source}?pkt_size=1316");
    let copy = Beside::ffmpeg(&folder, &format!("-i {source} -t {PART_S} -c copy copied.ts"));
    let publisher = Beside::ffmpeg(&folder, &publish);
    assert_eq!(copy.end("a copy"), Some(0));
    drop(publisher);

    let relay = Beside::relay(&folder, &format!("{source} out.ts --ladder none"));
    let publisher = Beside::ffmpeg(&folder, &publish);
    wait_for("frames", || (last(&folder, "encoded") > 0).then_some(()));
    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs(run_s) {
        samples.push(sample(relay.0.id()).expect("the relay runs"));
        std::thread::sleep(SAMPLE_EVERY);
    }
    let stats = relay.end_accounted(&folder);
    drop(publisher);
    println!("{stats}");
    assert_flat(&format!("a relay for {run_s} s"), &samples, GROWTH_MAX);

    assert_times_rise(&folder, "out.ts");
    let probe = folder.probe("out.ts");
    let (frames, widest) = (probe.packets_of(0).len() as u64, widest_gap(&probe, 0));
    assert!(frames > 25 * (run_s - 1) && widest < GAP_MAX_S, "{frames} frames, {widest} s apart");
    let [duplicated, connections] =
        ["duplicated", "source_connections"].map(|key| stats[key].as_u64().unwrap());
    let others = lost(&stats) + duplicated;
    assert!(connections == 1 && others as f64 <= OTHERS_MAX * frames as f64, "{others} of {frames}: {stats}");
    let copied = median_apart(&folder, "copied.ts", "");
    let end = format!("-ss {}", run_s - PART_S);
    for (when, part) in [("at the beginning", ""), ("at the end", end.as_str())] {
        let apart = median_apart(&folder, "out.ts", part) - copied;
        println!("{when} a beep comes {:.1} ms after its flash", 1e3 * apart);
        assert!(apart.abs() < DRIFT_MAX_S, "{when} a beep comes {apart} s after its flash");
    }
}
