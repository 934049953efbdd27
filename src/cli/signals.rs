//! SIGINT and SIGTERM: the first interrupts a run in order, a later one ends the program with the same exit code.

use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::console;
use super::output::INTERRUPTED;
use crate::error::{Error, Result};
use crate::job::Interrupt;

/// Signals within this time are one request: systemd and Slurm signal every process of a group, and a batch then passes
/// its own signal on.
const TOGETHER: Duration = Duration::from_millis(500);
/// Time for an interrupted run to end where nothing that it has finished can be kept.
const END_MAX: Duration = Duration::from_millis(800);

/// Returns an interrupt that the first signal sets; one that comes later ends the program at once.
pub(super) fn catch() -> Result<Interrupt> {
    let fail = |e: std::io::Error| Error::io("signals", e, "look at the system's limits");
    let interrupt = Interrupt::default();
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(fail)?;
    let set = interrupt.clone();
    let catch = move || {
        let mut first: Option<Instant> = None;
        for _ in signals.forever() {
            match first {
                None => first = Some(Instant::now()),
                Some(at) if at.elapsed() < TOGETHER => {}
                Some(_) => low_level::exit(i32::from(INTERRUPTED)),
            }
            set.set();
        }
    };
    thread::Builder::new().name("signals".into()).spawn(catch).map_err(fail)?;
    Ok(interrupt)
}

/// Ends the program with this code, without what the system calls at an exit: it may wait for a thread that hangs.
pub(super) fn exit_now(code: u8) {
    console::flush();
    low_level::exit(i32::from(code));
}

/// Ends the program soon after `interrupt` is set, whatever its threads wait for.
pub(super) fn end_soon_after(interrupt: &Interrupt) -> Result<()> {
    let interrupt = interrupt.clone();
    let watch = move || {
        while !interrupt.is_set() {
            thread::sleep(Duration::from_millis(50));
        }
        thread::sleep(END_MAX);
        console::log_line("hasn: interrupted; the reader of standard output has not taken all frames");
        exit_now(INTERRUPTED);
    };
    let spawned = thread::Builder::new().name("watchdog".into()).spawn(watch);
    spawned.map(drop).map_err(|e| Error::io("the watchdog", e, "look at the system's limits"))
}
