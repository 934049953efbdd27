//! scratch bench
use hasn::engine::cpu::{Level, Net, Pool, Precision};
use hasn::engine::forward::Forward;
use hasn::model::catalogue;
use std::time::Instant;
fn main() -> hasn::Result<()> {
    let a: Vec<String> = std::env::args().collect();
    let name = a.get(1).map_or("lite", |s| s);
    let prec = a.get(2).map_or("f32", |s| s);
    let threads: usize = a.get(3).map_or(1, |s| s.parse().unwrap());
    let (width, height): (usize, usize) = a.get(4).map_or((320, 180), |s| {
        let (w, h) = s.split_once('x').unwrap();
        (w.parse().unwrap(), h.parse().unwrap())
    });
    let runs: usize = a.get(5).map_or(7, |s| s.parse().unwrap());
    let model = catalogue::open(if name == "lite" { "hasn-lite-x2" } else { "hasn-x2" })?;
    let level = Level::detect()?;
    let precision = if prec == "bf16" { Precision::Bf16 } else { Precision::F32 };
    let peak = level.peak_flops(precision);
    let mut net = Net::new(&model, level, precision, (width, height), threads);
    let x: Vec<f32> = (0..height * width).map(|i| (i * 7919 % 256) as f32 / 255.0).collect();
    let mut y = vec![0.0; model.sizes.upsampler_channels() * x.len()];
    let mut scratch = vec![0.0; net.scratch_len()];
    let pool = Pool::new(threads)?;
    pool.install(|| net.forward(&x, &mut y, &mut scratch));
    net.take_stage_times();
    let mut t = vec![];
    for _ in 0..runs {
        let s = Instant::now();
        pool.install(|| net.forward(&x, &mut y, &mut scratch));
        t.push(s.elapsed().as_secs_f64() * 1e3);
    }
    t.sort_by(f64::total_cmp);
    println!(
        "{name} {prec} {threads} threads {} : median {:.2} ms  min {:.2}  peak {:.1} GFLOP/s scratch {} MB",
        level.name(),
        t[t.len() / 2],
        t[0],
        peak / 1e9,
        scratch.len() * 4 >> 20
    );
    for s in net.take_stage_times() {
        println!(
            "  {:8} {:8.2} ms  {:5.1} %",
            s.name,
            s.seconds * 1e3 / runs as f64,
            100.0 * s.flop * runs as f64 / s.seconds / peak
        );
    }
    Ok(())
}
