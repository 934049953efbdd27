//! What is chosen by chance, and how much of it.

use std::time::UNIX_EPOCH;

/// Pseudo-random numbers from a seed (xorshift).
pub struct Random {
    state: u64,
    /// To repeat a run.
    pub seed: u64,
}

impl Random {
    /// From the seed that the variable of this name sets, or else from the time.
    pub fn new(variable: &str) -> Random {
        Random::from_seed(match std::env::var(variable) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is a number")),
            Err(_) => UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64 % 1_000_000,
        })
    }

    pub fn from_seed(seed: u64) -> Random {
        // Neighbouring seeds give unlike numbers.
        Random { state: (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, seed }
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as usize % end
    }

    /// Whether something that happens once in `in_n` times happens.
    pub fn once(&mut self, in_n: usize) -> bool {
        self.below(in_n) == 0
    }

    /// One of the values.
    pub fn choose<'a, T: ?Sized>(&mut self, values: &[&'a T]) -> &'a T {
        values[self.below(values.len())]
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
