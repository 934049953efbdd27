//! Sweeps over every combination of a table. A test tries a sample of them, `HASN_SWEEP=all` all.

/// The items to try: all of them, or every n-th, so that about `count` remain.
pub fn sample<T>(name: &str, all: Vec<T>, count: usize) -> Vec<T> {
    let total = all.len();
    let step = if is_whole() { 1 } else { total.div_ceil(count) };
    let sampled: Vec<T> = all.into_iter().step_by(step.max(1)).collect();
    println!("{name}: {} of {total}, HASN_SWEEP=all tries all", sampled.len());
    sampled
}

/// Whether all items are tried.
pub fn is_whole() -> bool {
    std::env::var("HASN_SWEEP").is_ok_and(|value| value == "all")
}
