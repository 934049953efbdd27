//! The seed of what is chosen by chance, and how much of it.

use std::time::UNIX_EPOCH;

/// The seed that the variable of this name sets, or else one from the time.
pub fn seed(variable: &str) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64 % 1_000_000,
    }
}

/// The count that the variable of this name sets; `all` is the largest.
pub fn count(name: &str, default: usize) -> usize {
    match std::env::var(name).as_deref() {
        Ok("all") => usize::MAX,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number or 'all'")),
        Err(_) => default,
    }
}
