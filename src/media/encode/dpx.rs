//! DPX: transfer and primaries in the header, where FFmpeg's encoder writes "linear" into every file.
//!
//! In: a file of one image, and its colour. Out: the same file, which states that colour.

use ffmpeg_next::Packet;

use crate::color::{ColorSpec, Transfer};

/// SMPTE ST 268, table 1: offset of the transfer of the first image element; its primaries follow.
const TRANSFER: usize = 801;

/// States the colour in a packet of the DPX encoder.
pub(crate) fn state_color(packet: &mut Packet, color: &ColorSpec) {
    let Some([transfer, primaries]) = packet.data_mut().and_then(|file| file.get_mut(TRANSFER..TRANSFER + 2))
    else {
        return;
    };
    // Tables 5A and 5B; 0 is user-defined.
    let is_525 = color.primaries.0 == 6;
    *transfer = match color.transfer {
        Transfer::LINEAR => 2,
        Transfer(1) => 6,
        Transfer(6) => {
            if is_525 {
                8
            } else {
                7
            }
        }
        _ => 0,
    };
    *primaries = match color.primaries.0 {
        1 => 6,
        5 => 7,
        6 => 8,
        _ => 0,
    };
}
