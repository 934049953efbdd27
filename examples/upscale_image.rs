//! The library in 30 lines: a still frame, twice as large.
//!
//!     cargo run --release --example upscale_frame -- small.png large.png

use std::sync::Arc;

use hasn::engine::cpu::Precision;
use hasn::engine::{EngineKind, EngineSpec, Network, NetworkId};
use hasn::media::{FrameReader, StillWriter};
use hasn::model::catalogue;
use hasn::{Error, Result};

fn main() -> Result<()> {
    let mut names = std::env::args().skip(1);
    let (Some(small), Some(large)) = (names.next(), names.next()) else {
        return Err(Error::new("upscale_frame", "needs two file names", "give one to read and one to write"));
    };
    hasn::media::init(0);
    let mut reader = FrameReader::open(&small, 1)?;
    let lr = reader.format();
    let frame = reader.next_frame()?.expect("a reader that opens has a frame");

    let model = catalogue::open(catalogue::DEFAULT_CPU)?;
    let scale = model.sizes.scale;
    let writer = StillWriter::new(&large, &lr, (lr.width * scale, lr.height * scale))?;
    let to_fill = writer.frame()?;

    let networks = vec![Network::Hasn(Arc::new(model))];
    let spec = EngineSpec {
        kind: EngineKind::Cpu(Precision::F32),
        threads: 2,
        in_flight: 1,
        networks,
        lr,
        sr: to_fill.format,
    };
    let mut engine = spec.open()?;
    engine.submit(frame, to_fill, NetworkId(0))?;
    let (_, filled) = engine.collect()?.expect("a frame was submitted");
    writer.write(filled)
}
