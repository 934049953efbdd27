//! The bytes and operations of a frame, counted on the emulated device and scaled to 1080p, within a budget.
//!
//! The minimum time of a kernel is that of its limiting resource: bytes, matrices, f32, special functions. All blocks are
//! alike, so one is run and multiplied by the number of blocks.

use std::collections::BTreeMap;

use super::demand::Demand;
use super::emulated::{Emulated, Options, SpanKind, Traffic};
use super::engine::CudaEngine;
use crate::engine::{EngineKind, EngineSpec, Network, NetworkId};
use crate::model::catalogue;
use crate::testing::frame_format;

/// The size that is counted: a sixteenth of 1080p, with equally full tiles.
const WIDTH: usize = 480;
const HEIGHT: usize = 270;
const SCALE: f64 = (1920 * 1080) as f64 / (WIDTH * HEIGHT) as f64;

/// Practical peaks of an H100 per second: bytes, matrix operations by `mma`, f32 operations, special functions.
const BYTES: f64 = 3.0e12;
const MATRIX: f64 = 400e12;
const F32: f64 = 60e12;
const SPECIAL: f64 = 3.7e12;

const GB_MAX: f64 = 12.0;
const MS_MAX: f64 = 7.0;
/// Sectors that blocks read and write, relative to distinct sectors.
const AGAIN_MAX: f64 = 1.5;

/// Kernels of a block.
const OF_A_BLOCK: [&str; 7] = ["norm", "squeeze", "grid", "gate", "cab", "reduce", "attention"];

/// Resident warps of a kernel per multiprocessor of an H100, of 64: 65 536 registers, 227 KB of shared memory of which a
/// block takes 1 KB more than its own, eight warps per block.
fn warps(kernel: &str, shared: u64, registers: &BTreeMap<String, usize>) -> u64 {
    let named = |name: &&str| registers.get(*name);
    let registers = [kernel, &format!("{kernel}_paper")].iter().find_map(named).expect(kernel);
    let by_registers = 65_536 / (256 * registers.next_multiple_of(8)) as u64;
    let by_shared = (227 << 10) / (shared + 1024);
    8 * by_registers.min(by_shared).min(8)
}

/// The counted traffic of a kernel, and the demand of its launches.
type Counted = (Traffic, Demand);

struct Row {
    warps: u64,
    gb: f64,
    by_blocks_gb: f64,
    /// In milliseconds: bytes, matrices, f32, special functions.
    times: [f64; 4],
    conflicts: f64,
    matrices: f64,
}

impl Row {
    fn new(
        kernel: &str,
        times: f64,
        (traffic, demand): &Counted,
        registers: &BTreeMap<String, usize>,
    ) -> Row {
        let Traffic { read, written, read_by_blocks, written_by_blocks, .. } = *traffic;
        let gb = |sectors: u64| times * sectors as f64 * 32.0 / 1e9;
        // A conversion takes the place of a multiply-add.
        let f32_operations = times * (demand.f32 + 2.0 * traffic.conversions as f64);
        let ms = |count: f64, per_second: f64| 1e3 * count / per_second;
        Row {
            warps: warps(kernel, traffic.shared, registers),
            gb: gb(read + written),
            by_blocks_gb: gb(read_by_blocks + written_by_blocks),
            times: [
                ms(gb(read + written) * 1e9, BYTES),
                ms(times * 2.0 * traffic.multiply_adds as f64, MATRIX),
                ms(f32_operations, F32),
                ms(times * traffic.special_functions as f64, SPECIAL),
            ],
            conflicts: traffic.conflicts as f64,
            matrices: traffic.matrices as f64,
        }
    }

    fn ms(&self) -> f64 {
        self.times.iter().copied().fold(0.0, f64::max)
    }
}

/// Counts a frame of 1080p by kernel; the large network, 8-bit 4:2:0.
fn count() -> BTreeMap<String, Row> {
    let mut model = catalogue::open("hasn-x2").unwrap();
    let blocks = model.blocks.len() as f64;
    model.blocks.truncate(1);
    model.sizes.blocks = 1;
    let (lr, sr) = (frame_format(WIDTH, HEIGHT, "yuv420p"), frame_format(2 * WIDTH, 2 * HEIGHT, "yuv420p"));
    let networks = vec![Network::Hasn(model.into())];
    let spec =
        EngineSpec { kind: EngineKind::Cuda, threads: 1, in_flight: 1, networks, memory_max: None, lr, sr };
    // The weights are the engine's first allocation.
    let device = Emulated::new(Options { common: Some(0), ..Options::default() });
    let watch = device.watch();
    let mut engine = CudaEngine::open(device, &spec).unwrap();
    let launched = engine.time_launches(NetworkId(0)).unwrap();
    let spans = watch.trace().into_iter().filter(|span| matches!(span.kind, SpanKind::Kernel(_)));
    let mut counted: BTreeMap<String, Counted> = BTreeMap::new();
    for (launch, span) in launched.iter().zip(spans) {
        let (traffic, demand) =
            counted.entry(launch.kernel.trim_end_matches("_paper").to_owned()).or_default();
        *traffic += span.traffic;
        *demand += launch.demand;
    }
    let registers = super::archive::registers();
    let row = |(kernel, counted): (String, Counted)| {
        let times = SCALE * if OF_A_BLOCK.contains(&&*kernel) { blocks } else { 1.0 };
        let row = Row::new(&kernel, times, &counted, &registers);
        (kernel, row)
    };
    counted.into_iter().map(row).collect()
}

#[test]
fn a_frame_is_within_the_budget() {
    let rows = count();
    println!("1080p to 4K by hasn-x2, frames in device memory, counted; milliseconds on an H100 at best");
    println!(
        "kernel          GB  by blocks   bytes  matrix     f32 special     ms  warps  matrices read again"
    );
    for (kernel, row) in &rows {
        let [bytes, matrix, f32, special] = row.times;
        println!(
            "{kernel:<11} {:6.2} {:10.2} {bytes:7.2} {matrix:7.2} {f32:7.2} {special:7.2} {:6.2} {:6} {:18.0} %",
            row.gb,
            row.by_blocks_gb,
            row.ms(),
            row.warps,
            100.0 * row.conflicts / row.matrices.max(1.0)
        );
    }
    let sum = |value: &dyn Fn(&Row) -> f64| rows.values().map(value).sum::<f64>();
    let (gb, by_blocks, ms) = (sum(&|row| row.gb), sum(&|row| row.by_blocks_gb), sum(&Row::ms));
    println!("read and written again by neighbouring blocks: {:.2} times", by_blocks / gb);
    println!("total: {gb:.1} GB, {ms:.1} ms");
    assert!(gb <= GB_MAX && ms <= MS_MAX && by_blocks <= AGAIN_MAX * gb);
}
