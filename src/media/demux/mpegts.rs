//! Transport streams: whether packet headers are valid. FFmpeg skips an invalid packet without an error, and with it a
//! frame that is small enough to lie in one.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::media::demux::structure::{if_present, open_regular};

/// Bytes from packet to packet, and bytes before the sync byte: plain, with the timestamps of a Blu-ray, with the
/// Reed-Solomon bytes of a broadcast.
const LAYOUTS: [(usize, usize); 3] = [(188, 0), (192, 4), (204, 0)];
const PACKET_BYTES: usize = 188;
const SYNC: u8 = 0x47;
/// Sync bytes in a row that identify a layout.
const PACKETS_TO_PROBE: usize = 5;

/// Number of packets of this stream that cannot be read; 0 if the path is not a transport stream.
pub(crate) fn unreadable_packets(path: &Path, pid: i32) -> io::Result<u64> {
    let (Some(file), Ok(pid)) = (open_regular(path)?, u16::try_from(pid)) else { return Ok(0) };
    Ok(if_present(count(BufReader::new(file), pid))?.flatten().unwrap_or(0))
}

/// `None` if no layout fits.
fn count(mut file: impl Read + Seek, pid: u16) -> io::Result<Option<u64>> {
    let mut head = [0; 204 * PACKETS_TO_PROBE];
    file.read_exact(&mut head)?;
    let fits = |&&(size, before): &&(usize, usize)| {
        (0..PACKETS_TO_PROBE).all(|packet| head[packet * size + before] == SYNC)
    };
    let Some(&(size, before)) = LAYOUTS.iter().find(fits) else { return Ok(None) };
    file.seek(SeekFrom::Start(before as u64))?;
    let (mut packet, mut unreadable, mut start) = (vec![0; size], 0, None);
    while if_present(file.read_exact(&mut packet))?.is_some() {
        unreadable += u64::from(is_invalid(&packet[..PACKET_BYTES], pid, &mut start));
    }
    Ok(Some(unreadable))
}

/// ISO/IEC 13818-1, 2.4.3.2. `start`: the first bytes of a PES packet of this stream, which all have in common.
fn is_invalid(packet: &[u8], pid: u16, start: &mut Option<[u8; 4]>) -> bool {
    const ADAPTATION_ONLY: usize = PACKET_BYTES - 5;
    // A packet that is no longer of this stream leaves a gap in its counter, which FFmpeg reports.
    if packet[0] != SYNC || u16::from_be_bytes([packet[1] & 0x1f, packet[2]]) != pid {
        return false;
    }
    let (is_pes_start, is_scrambled) = (packet[1] & 0x40 != 0, packet[3] & 0xc0 != 0);
    let content = match (packet[3] >> 4 & 3, usize::from(packet[4])) {
        (1, _) => &packet[4..],
        (2, ADAPTATION_ONLY) => return false,
        (3, length) if length < ADAPTATION_ONLY => &packet[5 + length..],
        _ => return true,
    };
    match content.first_chunk::<4>() {
        Some(&bytes) if is_pes_start && !is_scrambled => *start.get_or_insert(bytes) != bytes,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A packet of PID 256 with these bytes after its second.
    fn packet(flags: u8, bytes: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xff; PACKET_BYTES];
        packet[..2].copy_from_slice(&[SYNC, flags | 1]);
        packet[2..2 + bytes.len()].copy_from_slice(bytes);
        packet
    }

    #[test]
    fn invalid_packets_are_counted_in_every_layout() {
        let begin = packet(0x40, &[0, 0x10, 0, 0, 1, 0xe0]);
        let good = [
            packet(0, &[0, 0x11, 7]),
            packet(0, &[0, 0x20, 183]),
            packet(0x40, &[0, 0x30, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xe0]),
            // Of another stream.
            packet(0, &[1, 0x00, 7]),
        ];
        let bad = [
            packet(0, &[0, 0x00, 7]),
            packet(0, &[0, 0x20, 7]),
            packet(0, &[0, 0x30, 200]),
            packet(0x40, &[0, 0x10, 0, 0, 1, 0xc0]),
            packet(0x40, &[0, 0x10, 0, 4, 1, 0xe0]),
        ];
        for (size, before) in LAYOUTS {
            let file = |packets: &[&[Vec<u8>]]| {
                let laid = |packet: &Vec<u8>| {
                    let after = vec![0; size - before - PACKET_BYTES];
                    [vec![0; before], packet.clone(), after].concat()
                };
                let packets: Vec<u8> =
                    packets.iter().flat_map(|packets| packets.iter()).flat_map(laid).collect();
                Cursor::new([packets, vec![0; 300]].concat())
            };
            let begin = vec![begin.clone(); 3];
            let counted = |packets: &[&[Vec<u8>]], pid| count(file(packets), pid).unwrap();
            assert_eq!(counted(&[&begin, &good, &begin], 256), Some(0), "{size}");
            assert_eq!(counted(&[&begin, &good, &bad], 256), Some(5), "{size}");
            assert_eq!(counted(&[&begin, &good, &bad], 258), Some(0), "{size}: another stream");
        }
        assert_eq!(count(Cursor::new(vec![7; 5000]), 256).unwrap(), None, "no packets");
    }
}
