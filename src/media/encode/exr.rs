//! EXR: chromaticities, which FFmpeg's encoder does not write.
//!
//! In: a file of one image, and its primaries. Out: the same file, which states them. Offsets of blocks count from the
//! beginning of the file, so that an attribute more moves them.

use ffmpeg_next::Packet;

use crate::color::Primaries;
use crate::media::decode::exr::{HEAD, end_of_header};

/// States the primaries in a packet of the EXR encoder. Without them they are those of BT.709.
pub(crate) fn state_primaries(packet: &mut Packet, primaries: Primaries) {
    let stated = primaries.chromaticities().filter(|_| primaries != Primaries::BT709);
    let table = packet.data().and_then(end_of_header);
    let (Some(values), Some(table)) = (stated, table) else { return };
    let values = values.map(|value| (value as f32).to_le_bytes()).concat();
    let attribute = [&b"chromaticities\0chromaticities\0\x20\0\0\0"[..], &values].concat();
    let (size, added) = (packet.size(), attribute.len());
    packet.grow(added);
    let Some(file) = packet.data_mut() else { return };
    file.copy_within(HEAD..size, HEAD + added);
    file[HEAD..HEAD + added].copy_from_slice(&attribute);
    let (mut at, mut first) = (table + added, usize::MAX);
    while at < first {
        let Some(offset) = file.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) else { return };
        let moved = u64::from_le_bytes(*offset) + added as u64;
        *offset = moved.to_le_bytes();
        first = first.min(moved as usize);
        at += 8;
    }
}
