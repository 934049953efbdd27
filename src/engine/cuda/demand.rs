//! The bytes and operations of launches, from their sizes alone.
//!
//! Device memory is counted once, as where neighbours share a cache; weights stay in caches and are not counted. Operations
//! include those of padding and margins. Tests compare them with the counts of the emulated device.

use std::ops::AddAssign;

use super::maps::{F16, F32, Maps, Size, TailWeights, tiles};

/// The demand of one or more launches.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Demand {
    /// Bytes read and written.
    pub(crate) bytes: f64,
    /// Operations of tensor cores, a multiply-add as two.
    pub(crate) matrix: f64,
    /// Operations of f32, without conversions from and to f16.
    pub(crate) f32: f64,
    /// Special functions: 2^x, 1 / x, x^-1/2.
    pub(crate) special: f64,
}

impl AddAssign for Demand {
    fn add_assign(&mut self, other: Demand) {
        self.bytes += other.bytes;
        self.matrix += other.matrix;
        self.f32 += other.f32;
        self.special += other.special;
    }
}

impl Demand {
    /// `bytes`, `f32`: per sample.
    pub(super) fn of_samples(count: usize, bytes: usize, f32: usize) -> Demand {
        Demand { bytes: (count * bytes) as f64, f32: (count * f32) as f64, ..Demand::default() }
    }

    /// Channels in f16; `f32`: operations per pixel.
    fn of_channels(pixels: usize, channels: usize, f32: f64) -> Demand {
        Demand { bytes: (pixels * channels * F16) as f64, f32: pixels as f64 * f32, ..Demand::default() }
    }

    fn with_matrix(self, multiply_adds: usize) -> Demand {
        Demand { matrix: 2.0 * multiply_adds as f64, ..self }
    }

    pub(super) fn enter(size: Size, maps: &Maps, in_channels: usize) -> Demand {
        let pixels = maps.width * maps.height;
        let mut demand = Demand::of_channels(pixels, size.c, (18 * size.c * in_channels) as f64);
        demand.bytes += (pixels * in_channels * F32) as f64;
        demand
    }

    pub(super) fn norm(size: Size, maps: &Maps) -> Demand {
        let Size { c, e, .. } = size;
        let padded = maps.width.next_multiple_of(16) * maps.height.next_multiple_of(8);
        let demand = Demand::of_channels(maps.width * maps.height, 2 * c + e, (108 * c) as f64);
        // Two threads per pixel.
        Demand { special: 2.0 * padded as f64, ..demand }.with_matrix(padded * c * e)
    }

    /// `padded`: pixels of the conv that the thread blocks compute, overlaps included.
    pub(super) fn squeeze(size: Size, maps: &Maps, padded: usize) -> Demand {
        let e = size.e;
        let (width3, height3) = maps.grid_size();
        let pooled = width3 * height3;
        let mut demand = Demand::of_channels(pooled, e, (49 * e) as f64);
        demand.bytes += (maps.width * maps.height * e * F16) as f64;
        demand.with_matrix(padded * 9 * e * e)
    }

    /// `padded`: pixels that the thread blocks compute.
    pub(super) fn grid(size: Size, maps: &Maps, padded: usize) -> Demand {
        let (width3, height3) = maps.grid_size();
        Demand::of_channels(width3 * height3, 2 * size.e, 0.0).with_matrix(padded * 9 * size.e * size.e)
    }

    /// `padded`: pixels that the thread blocks compute.
    pub(super) fn gate(size: Size, maps: &Maps, padded: usize) -> Demand {
        let Size { c, m, e, .. } = size;
        let (width3, height3) = maps.grid_size();
        let mut demand = Demand::of_channels(maps.width * maps.height, 2 * c, (22 * e + 9 * m) as f64);
        demand.bytes += (width3 * height3 * e * F16) as f64;
        demand.special = (2 * padded * m) as f64;
        demand.with_matrix(padded * (c * e + 3 * c * m + e * m + m * c))
    }

    pub(super) fn cab(size: Size, maps: &Maps, tiles: usize) -> Demand {
        let Size { c, r, rows, .. } = size;
        let tile = 16 * rows;
        // u has 2 pixels around a tile, the first conv 1, and warps take 16 pixels of these at a time.
        let (around_2, around_1) = (20 * (rows + 4), 18 * (rows + 2));
        let margin = |around: usize| around as f64 / tile as f64;
        let f32 = (102 * c) as f64 * margin(around_2) + (24 * r) as f64 * margin(around_1) + (2 * c) as f64;
        let mut demand = Demand::of_channels(maps.width * maps.height, 3 * c, f32);
        demand.bytes += (tiles * c * F32) as f64;
        demand.special = (2 * tiles * around_1 * r) as f64;
        let first = around_1.next_multiple_of(128);
        demand.with_matrix(tiles * 9 * c * r * (first + tile))
    }

    pub(super) fn first_step(size: Size, maps: &Maps) -> Demand {
        let Size { c, rows, .. } = size;
        let margin = (20 * (rows + 4)) as f64 / (16 * rows) as f64;
        let padded = tiles(maps.width, maps.height, size) * 16 * rows;
        Demand::of_channels(maps.width * maps.height, 2 * c, c as f64 * margin)
            .with_matrix(padded * 9 * c * c)
    }

    pub(super) fn leave(size: Size, maps: &Maps, tail: &TailWeights) -> Demand {
        let Size { c, rows, .. } = size;
        let TailWeights { side, in_channels, outputs, scale, .. } = *tail;
        let (pixels, sr_samples) = (maps.width * maps.height, in_channels * scale * scale);
        let margin = (20 * (rows + 4)) as f64 / (16 * rows) as f64;
        let mut demand =
            Demand::of_channels(pixels, c, c as f64 * margin + (50 * sr_samples * in_channels) as f64);
        demand.bytes += (pixels * (in_channels + sr_samples) * F32) as f64;
        let padded = tiles(maps.width, maps.height, size) * 16 * rows;
        demand.with_matrix(padded * side * side * c * outputs)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::check::common::{Random, Shape, random_model};
    use super::super::emulated::{Emulated, Options, SpanKind};
    use super::super::engine::CudaEngine;
    use super::super::weights::{Blob, Weights};
    use crate::engine::{EngineKind, EngineSpec, Network, NetworkId};
    use crate::model::{Model, catalogue};
    use crate::testing::frame_format;

    /// Tolerance of approximate counts: thread blocks at the border have less to do.
    const NEAR: std::ops::Range<f64> = 0.85..1.15;

    fn check(model: Arc<Model>, (width, height): (usize, usize), formats: [&'static str; 2]) {
        let scale = model.sizes.scale;
        let lr = frame_format(width, height, formats[0]);
        let sr = frame_format(width * scale, height * scale, formats[1]);
        let mut blob = Blob::default();
        Weights::new(&model, &mut blob).unwrap();
        let networks = vec![Network::Hasn(model)];
        let spec = EngineSpec {
            kind: EngineKind::Cuda,
            threads: 1,
            in_flight: 1,
            networks,
            memory_max: None,
            lr,
            sr,
        };
        let device = Emulated::new(Options { shared_max: 227 << 10, ..Options::default() });
        let watch = device.watch();
        let launched = CudaEngine::open(device, &spec).unwrap().time_launches(NetworkId(0)).unwrap();
        let spans: Vec<_> =
            watch.trace().into_iter().filter(|span| matches!(span.kind, SpanKind::Kernel(_))).collect();
        assert_eq!(launched.len(), spans.len());
        for (launch, span) in launched.iter().zip(&spans) {
            let name = launch.kernel;
            assert_eq!(span.kind, SpanKind::Kernel(name));
            assert!((launch.seconds - (span.end_ns - span.start_ns) as f64 * 1e-9).abs() < 1e-12, "{name}");
            let (counted, demand) = (span.traffic, launch.demand);
            assert_eq!(2.0 * counted.multiply_adds as f64, demand.matrix, "{name}: matrices");
            let special = counted.special_functions as f64;
            assert!(
                special == demand.special || NEAR.contains(&(special / demand.special)),
                "{name}: {special} special"
            );
            // Only one of the counts includes the weights.
            let bytes = 32.0 * (counted.read + counted.written) as f64;
            let least = NEAR.start * demand.bytes - 64.0;
            let most = NEAR.end * demand.bytes + blob.bytes.len() as f64;
            assert!((least..most).contains(&bytes), "{name}: {bytes} bytes, and not {}", demand.bytes);
        }
    }

    #[test]
    fn demands_equal_the_counts_of_the_device() {
        check(catalogue::open("hasn-lite-x2").unwrap().into(), (190, 130), ["yuv420p", "yuv420p10le"]);
        check(catalogue::open("hasn-x2").unwrap().into(), (94, 61), ["nv12", "rgb24"]);
        let shape = Shape { channels: [3, 60, 120, 30, 20, 4], scale: 4, blocks: 1 };
        check(random_model(&shape, &mut Random(8)).into(), (70, 50), ["yuv420p", "gray"]);
    }
}
