//! How fast the network is on one thread, beside the reference: `cargo run --release --example bench_cpu`.
//!
//! Runs of both alternate, so that a busy machine slows both; the medians are compared. `--smoke` runs each
//! once on a small picture.

use std::sync::Arc;
use std::time::Instant;

use hasn::engine::cpu::{Level, Net, Pool};
use hasn::engine::forward::Forward;
use hasn::engine::reference::Reference;
use hasn::model::catalogue;

fn main() -> hasn::Result<()> {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let (width, height, runs) = if smoke { (32, 32, 1) } else { (320, 180, 7) };
    let model = Arc::new(catalogue::open(catalogue::DEFAULT_CPU)?);
    let level = Level::detect()?;
    let reference = Reference::new(model.clone());
    let net = Net::new(&model, level);
    let networks: [&dyn Forward; 2] = [&reference, &net];
    let x: Vec<f32> = (0..height * width).map(|i| (i * 7919 % 256) as f32 / 255.0).collect();
    let mut y = vec![0.0; model.sizes.upsampler_channels() * x.len()];
    let mut scratch = vec![0.0; net.scratch_len(height, width)];
    let mut times_ms = [const { Vec::new() }; 2];
    let pool = Pool::new(1)?;
    // The first round warms caches and page tables and is not counted.
    for round in 0..=runs {
        for (network, times_ms) in networks.iter().zip(&mut times_ms) {
            let start = Instant::now();
            pool.install(|| network.forward(&x, &mut y, height, width, &mut scratch));
            if round > 0 {
                times_ms.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    let [reference_ms, cpu_ms] = times_ms.map(|mut times_ms| {
        times_ms.sort_by(f64::total_cmp);
        times_ms[times_ms.len() / 2]
    });
    println!("{} {width}x{height}, one thread, median of {runs}", model.name);
    println!("reference      {reference_ms:8.1} ms");
    println!(
        "{:14} {cpu_ms:8.1} ms  {:.1} times as fast",
        format!("cpu {}", level.name()),
        reference_ms / cpu_ms
    );
    Ok(())
}
