//! What a process has in use, sampled while it runs: as much at its end as at its beginning.

use std::fmt::{self, Display};

/// Of a process at one moment.
#[derive(Clone, Copy)]
pub struct Sample {
    pub memory: u64,
    pub handles: u64,
    pub threads: u64,
}

/// `None` when the process is at its end.
pub fn sample(pid: u32) -> Option<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let handles = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Sample { memory: figure("VmRSS:")? * 1024, handles, threads: figure("Threads:")? })
}

/// What a run had in use in one part of it.
#[derive(Clone, Copy)]
struct Part {
    /// The median.
    memory: u64,
    /// The least and the most: files and encoders are opened and closed all the time.
    handles: [u64; 2],
    threads: [u64; 2],
}

impl Part {
    fn of(samples: &[Sample]) -> Part {
        let mut memory: Vec<u64> = samples.iter().map(|sample| sample.memory).collect();
        memory.sort_unstable();
        let range = |figure: fn(&Sample) -> u64| {
            let figures = || samples.iter().map(figure);
            [figures().min().unwrap(), figures().max().unwrap()]
        };
        Part {
            memory: memory[memory.len() / 2],
            handles: range(|s| s.handles),
            threads: range(|s| s.threads),
        }
    }
}

impl Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Part { memory, handles, threads } = self;
        let [[least, most], [few, many]] = [handles, threads];
        let memory = *memory as f64 / 1e6;
        write!(f, "{memory:.1} MB, {least} to {most} handles, {few} to {many} threads")
    }
}

/// Holds the last tenth against the second: in the first one queues and look-ahead fill up.
pub fn assert_flat(what: &str, samples: &[Sample], growth_max: f64) {
    assert!(samples.len() >= 100, "{what}: {} samples tell nothing; a longer run is needed", samples.len());
    let tenth = samples.len() / 10;
    let first = Part::of(&samples[tenth..2 * tenth]);
    let last = Part::of(&samples[9 * tenth..]);
    let told = format!("{what}: {first} after a tenth of the run, {last} in its last tenth");
    println!("{told}");
    assert!(last.memory as f64 <= first.memory as f64 * growth_max, "memory grows; {told}");
    // What is never given back is there at every moment.
    assert!(last.handles[0] <= first.handles[1], "handles grow; {told}");
    assert!(last.threads[0] <= first.threads[1], "threads grow; {told}");
}
