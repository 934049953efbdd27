//! Upscales an image to twice its size with an engine of the library:
//!
//!     cargo run --release --example upscale_image -- small.png large.png

use hasn::engine::{EngineChoice, EngineSpec, Network, NetworkId};
use hasn::{Error, FrameReader, Result, StillWriter};

fn main() -> Result<()> {
    let mut names = std::env::args().skip(1);
    let (Some(small), Some(large)) = (names.next(), names.next()) else {
        return Err(Error::new("upscale_image", "needs two names", "give an image to read and one to write"));
    };
    let mut reader = FrameReader::open(&small, 1)?;
    let lr = reader.format();
    let frame = reader.next_frame()?.expect("a reader that opens has a frame");

    let writer = StillWriter::new(&large, &lr, (lr.width * 2, lr.height * 2))?;
    let to_fill = writer.frame()?;
    let spec = EngineSpec {
        kind: EngineChoice::Cpu.resolve(None, lr.pixel_format.depth(), |_| Ok(()))?,
        threads: 2,
        in_flight: 1,
        networks: vec![Network::open("hasn-lite-x2")?],
        memory_max: None,
        lr,
        sr: to_fill.format,
    };
    let mut engine = spec.open()?;
    engine.submit(frame, to_fill, NetworkId(0))?;
    let (_, filled) = engine.collect()?.expect("a frame was submitted");
    writer.write(filled)
}
