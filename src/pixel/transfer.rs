//! A transfer curve over the samples of a float frame, in place.
//!
//! In: a frame of floats, and a function of one sample. It knows every float layout and no curve.

use rayon::prelude::*;

use crate::frame::Frame;

/// Minimum number of rows per task of the thread pool.
const ROWS_MIN: usize = 16;

/// Applies `curve` to every sample of component `index`.
pub fn map_component(frame: &mut Frame, index: usize, curve: impl Fn(f32) -> f32 + Sync) {
    let format = frame.format.pixel_format;
    assert!(format.float, "{} is not a float format", format.name);
    let component = format.components[index];
    let (width, height) = frame.format.component_size(index);
    let plane = usize::from(component.plane);
    let (step, offset) = (usize::from(component.step), usize::from(component.offset));
    let linesize = frame.buffer.linesize(plane);
    let rows = frame.buffer.plane_mut(plane).par_chunks_mut(linesize).with_min_len(ROWS_MIN);
    rows.take(height).for_each(|row| {
        let row = &mut row[offset..];
        match format.big_endian {
            false => {
                map_row(row, width, step, |bytes| curve(f32::from_le_bytes(bytes)).to_le_bytes());
            }
            true => map_row(row, width, step, |bytes| curve(f32::from_be_bytes(bytes)).to_be_bytes()),
        }
    });
}

/// The loop over samples without gaps has a fixed stride, so that it vectorises.
#[inline(always)]
fn map_row(row: &mut [u8], width: usize, step: usize, map: impl Fn([u8; 4]) -> [u8; 4]) {
    if step == 4 {
        let (words, _) = row.as_chunks_mut::<4>();
        words[..width].iter_mut().for_each(|word| *word = map(*word));
    } else {
        for x in 0..width {
            let word = row[x * step..].first_chunk_mut().expect("a row of the frame is too short");
            *word = map(*word);
        }
    }
}
