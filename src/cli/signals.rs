//! SIGINT and SIGTERM: the first interrupts a run in order, a second ends the program with the same exit code.

use signal_hook::consts::{SIGINT, SIGTERM};

use super::output::INTERRUPTED;
use crate::error::{Error, Result};
use crate::job::Interrupt;

/// Returns an interrupt that the first signal sets; the second signal ends the program at once.
pub(super) fn catch() -> Result<Interrupt> {
    let interrupt = Interrupt::default();
    for signal in [SIGINT, SIGTERM] {
        let flag = || interrupt.flag().clone();
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), flag())
            .and_then(|_| signal_hook::flag::register(signal, flag()))
            .map_err(|e| {
                let problem = format!("cannot be caught: {e}");
                Error::new("signals", problem, "look at the system's limits").with_source(e)
            })?;
    }
    Ok(interrupt)
}
