//! Frames as commands show them: converted to another pixel format, and cut out.

use crate::engine::cpu::{Precision, level};
use crate::engine::{EngineKind, EngineSpec, Network, NetworkId, thread_count};
use crate::error::Result;
use crate::frame::{Family, Frame, FrameFormat};
use crate::media::format_by_name;

/// Converts a frame to the format that FFmpeg calls `name`, by the resampler at scale 1.
pub(super) fn convert(frame: Frame, name: &str) -> Result<Frame> {
    let lr = frame.format;
    let format = format_by_name(name).expect("a format that FFmpeg always has");
    if lr.pixel_format == format {
        return Ok(frame);
    }
    let color = if format.family == Family::Rgb { lr.color.as_rgb() } else { lr.color };
    let sr = FrameFormat { pixel_format: format, color, ..lr };
    let mut engine = EngineSpec {
        kind: EngineKind::Cpu(level::detect()?, Precision::F32),
        threads: thread_count(None),
        in_flight: 1,
        networks: vec![Network::Resample],
        memory_max: None,
        lr,
        sr,
    }
    .open()?;
    engine.submit(frame, Frame::try_new(sr)?, NetworkId(0))?;
    let (_, converted) = engine.collect()?.expect("a frame was submitted");
    Ok(converted)
}

/// Copies samples of `from` into `to`, both of one packed format. `at`: the place in `to` of the sample at `start` in
/// `from`; `size`: how many columns and rows.
pub(super) fn paste(
    from: &Frame,
    start: (usize, usize),
    to: &mut Frame,
    at: (usize, usize),
    size: (usize, usize),
) {
    assert_eq!(from.format.pixel_format, to.format.pixel_format, "frames of one format");
    let step = usize::from(from.format.pixel_format.components[0].step);
    let (from_linesize, to_linesize) = (from.buffer.linesize(0), to.buffer.linesize(0));
    let source = from.buffer.plane(0);
    let target = to.buffer.plane_mut(0);
    for y in 0..size.1 {
        let from = (start.1 + y) * from_linesize + start.0 * step;
        let to = (at.1 + y) * to_linesize + at.0 * step;
        target[to..][..size.0 * step].copy_from_slice(&source[from..][..size.0 * step]);
    }
}
