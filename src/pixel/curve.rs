//! A curve over the samples of a frame, in place.
//!
//! In: a frame of floats, and what becomes of each of them. It knows every layout of floats and no curve.

use rayon::prelude::*;

use crate::frame::Frame;

/// Rows that are worth handing to another thread.
const ROWS_MIN: usize = 16;

/// Puts every sample of component `index` through `curve`.
pub fn map_component(frame: &mut Frame, index: usize, curve: impl Fn(f32) -> f32 + Sync) {
    let format = frame.format.pixel_format;
    assert!(format.float, "{} is no format of floats", format.name);
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

/// Samples without gaps are a loop of fixed steps, which vectorises.
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
