//! Live streams over the loopback, by what an operator relies on.

#[path = "../common/mod.rs"]
mod common;

mod counted;
mod harness;
mod hours;
mod latency;
mod network;
mod operating;
mod peers;
mod peers_that_hang;
mod recordings;
mod soak;
mod streams;
