//! Latency: how long frames took, as a histogram.

use std::time::Duration;

/// Milliseconds from which on all latencies are counted together.
const LATENCY_MS_MAX: usize = 10_000;

/// Histogram of the latency of all frames so far.
pub(super) struct Latency {
    by_ms: Vec<u64>,
    pub max_ms: u64,
    pub sum_s: f64,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { by_ms: vec![0; LATENCY_MS_MAX], max_ms: 0, sum_s: 0.0 }
    }
}

impl Latency {
    pub fn note(&mut self, latency: Duration) {
        let ms = latency.as_millis() as u64;
        self.by_ms[(ms as usize).min(LATENCY_MS_MAX - 1)] += 1;
        self.max_ms = self.max_ms.max(ms);
        self.sum_s += latency.as_secs_f64();
    }

    /// Number of frames that took less than `ms` milliseconds.
    pub fn count_below(&self, ms: usize) -> u64 {
        self.by_ms[..ms.min(LATENCY_MS_MAX)].iter().sum()
    }

    /// Quantiles in milliseconds of the frames since the mark, which then includes them.
    pub fn quantiles_since<const N: usize>(&self, mark: &mut Vec<u64>, parts: [f64; N]) -> [u64; N] {
        mark.resize(LATENCY_MS_MAX, 0);
        let new: Vec<u64> = self.by_ms.iter().zip(&*mark).map(|(now, then)| now - then).collect();
        mark.clone_from(&self.by_ms);
        let count: u64 = new.iter().sum();
        parts.map(|part| {
            let rank = (part * count as f64).ceil() as u64;
            let mut seen = 0;
            let ms = new.iter().position(|&count| {
                seen += count;
                seen >= rank
            });
            ms.unwrap_or(0) as u64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_frames_since_each_readers_mark() {
        let (mut latency, mut mark, mut other) = (Latency::default(), Vec::new(), Vec::new());
        (1..=100).for_each(|ms| latency.note(Duration::from_millis(ms)));
        assert_eq!(latency.quantiles_since(&mut mark, [0.5, 0.99, 1.0]), [50, 99, 100]);
        latency.note(Duration::from_millis(7));
        assert_eq!(latency.quantiles_since(&mut mark, [0.5, 0.99]), [7, 7]);
        assert_eq!(latency.quantiles_since(&mut mark, [0.5]), [0]);
        latency.note(Duration::from_secs(100));
        assert_eq!((latency.quantiles_since(&mut mark, [0.5]), latency.max_ms), ([9_999], 100_000));
        assert_eq!(latency.quantiles_since(&mut other, [0.5, 1.0]), [50, 9_999]);
        assert_eq!((latency.count_below(8), latency.count_below(usize::MAX)), (8, 102));
    }
}
