//! Resolve: waits for the system's resolver where it can be interrupted, before FFmpeg asks it.
//!
//! In: an address. Out: whether its host is known. FFmpeg's own lookup asks no interrupt callback, and lasts half a minute
//! where no server answers.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::media::demux::address::host;
use crate::media::redact::redacted;
use crate::media::watch::Watch;

/// Interval at which a lookup asks whether it is over.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Waits until the host of an address is resolved: FFmpeg's lookup then returns at once.
pub(crate) fn resolve(address: &str, watch: &Watch) -> Result<()> {
    let problem = match look_up(address, || watch.is_over()) {
        Some(Ok(())) => return Ok(()),
        None if watch.is_stopped() => return Err(watch.error(&redacted(address))),
        None => "its host was not resolved in time".to_owned(),
        Some(Err(e)) => format!("its host cannot be resolved: {e}"),
    };
    let remedy = "check the name, and the name servers of this machine";
    Err(Error::new(redacted(address), problem, remedy).with_kind(ErrorKind::Io))
}

/// Looks up the host of an address, if it has one; `None` where `is_over` ends it, which leaves the lookup to a thread of its
/// own.
pub(crate) fn look_up(address: &str, is_over: impl Fn() -> bool) -> Option<io::Result<()>> {
    let Some(host) = host(address).map(str::to_owned) else { return Some(Ok(())) };
    let (answer, answered) = channel();
    // Nothing receives an answer that is too late.
    let lookup = move || drop(answer.send((host.as_str(), 0).to_socket_addrs().map(drop)));
    if let Err(e) = thread::Builder::new().name("resolve".into()).spawn(lookup) {
        return Some(Err(e));
    }
    loop {
        match answered.recv_timeout(ASK_EVERY) {
            Ok(found) => return Some(found),
            Err(RecvTimeoutError::Disconnected) => unreachable!("a lookup answers"),
            Err(RecvTimeoutError::Timeout) if is_over() => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
