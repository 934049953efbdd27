//! Memory, handles and threads of a process, sampled while it runs: no more at its end than at its start.

use std::fmt::{self, Display};

/// Use of a process at one moment; memory in bytes.
#[derive(Clone, Copy)]
pub struct Sample {
    pub memory: u64,
    pub handles: u64,
    pub threads: u64,
}

/// Returns `None` when the process has ended.
pub fn sample(pid: u32) -> Option<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let figure = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let handles = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Sample { memory: figure("VmRSS:")? * 1024, handles, threads: figure("Threads:")? })
}

/// Use in one part of a run.
#[derive(Clone, Copy)]
struct Part {
    /// Median in bytes.
    memory: u64,
    /// Minimum and maximum: files and encoders are opened and closed all the time.
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
        let [[handles_min, handles_max], [threads_min, threads_max]] = [handles, threads];
        let memory = *memory as f64 / 1e6;
        write!(
            f,
            "{memory:.1} MB, {handles_min} to {handles_max} handles, {threads_min} to {threads_max} threads"
        )
    }
}

/// Compares the last tenth with the second: in the first, queues and look-ahead fill up.
pub fn assert_flat(what: &str, samples: &[Sample], growth_max: f64) {
    assert!(samples.len() >= 100, "{what}: {} samples are too few; a longer run is needed", samples.len());
    let tenth = samples.len() / 10;
    let first = Part::of(&samples[tenth..2 * tenth]);
    let last = Part::of(&samples[9 * tenth..]);
    let message = format!("{what}: {first} after a tenth of the run, {last} in its last tenth");
    println!("{message}");
    assert!(last.memory as f64 <= first.memory as f64 * growth_max, "memory grows; {message}");
    // What is never returned is in use at every moment.
    assert!(last.handles[0] <= first.handles[1], "handles grow; {message}");
    assert!(last.threads[0] <= first.threads[1], "threads grow; {message}");
}
