//! Code values to numbers and back: the samples of a frame as dense planes of f32.
//!
//! In: frames in any layout that a [`PixelFormat`](crate::frame::PixelFormat) describes. Out: planes of f32 of any size
//! and siting, and frames filled from them. It knows colour and no network.
//!
//! | file | what |
//! |---|---|
//! | `read`, `write` | a component to a plane, and back |
//! | `dither` | the ordered pattern of `write` |
//! | `matrix`, `transfer` | R'G'B' and Y'CbCr; linear light and its coding |
//! | `resample` | a plane at another size and siting |
//! | `loops` | the table of SIMD loops that they use |

mod dither;
mod loops;
pub(crate) mod matrix;
pub(crate) mod read;
pub(crate) mod resample;
pub(crate) mod transfer;
pub(crate) mod write;

use crate::frame::Frame;

/// Makes a frame black, and opaque where it has alpha.
pub(crate) fn blacken(frame: &mut Frame) {
    let format = frame.format.pixel_format;
    for component in 0..format.component_count() {
        let is_alpha = component >= format.color_count();
        write::fill_component(frame, component, if is_alpha { 1.0 } else { 0.0 });
    }
}
