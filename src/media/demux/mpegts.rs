//! Transport streams: whether cells say what cannot be. FFmpeg leaves such a cell out without a word, and with it a
//! frame that is small enough to lie in one.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

/// Bytes of a cell, and how many of them stand before its first: plain, with the times of a Blu-ray, with the checks of a
/// broadcast.
const LAYOUTS: [(usize, usize); 3] = [(188, 0), (192, 4), (204, 0)];
const CELL_BYTES: usize = 188;
const SYNC: u8 = 0x47;
/// So many cells in a row are no accident.
const CELLS_TO_KNOW: usize = 5;

/// How many cells of this stream cannot be read; none where the path is no file of cells.
pub(crate) fn broken_cells(path: &str, pid: i32) -> u64 {
    let file = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()));
    file.and_then(|file| count(BufReader::new(file), u16::try_from(pid).ok()?)).unwrap_or(0)
}

fn count(mut file: impl Read + Seek, pid: u16) -> Option<u64> {
    let mut head = [0; 204 * CELLS_TO_KNOW];
    file.read_exact(&mut head).ok()?;
    let fits = |&&(size, before): &&(usize, usize)| {
        (0..CELLS_TO_KNOW).all(|cell| head[cell * size + before] == SYNC)
    };
    let &(size, before) = LAYOUTS.iter().find(fits)?;
    file.seek(SeekFrom::Start(before as u64)).ok()?;
    let (mut cell, mut broken, mut begins) = (vec![0; size], 0, None);
    while file.read_exact(&mut cell).is_ok() {
        broken += u64::from(is_broken(&cell[..CELL_BYTES], pid, &mut begins));
    }
    Some(broken)
}

/// ISO/IEC 13818-1, 2.4.3.2. `begins`: what the first packet of the stream begins with, and so do all others.
fn is_broken(cell: &[u8], pid: u16, begins: &mut Option<[u8; 4]>) -> bool {
    const LENGTH_ALONE: usize = CELL_BYTES - 5;
    // One that is not of this stream any more is missing among its numbers, which FFmpeg tells.
    if cell[0] != SYNC || u16::from_be_bytes([cell[1] & 0x1f, cell[2]]) != pid {
        return false;
    }
    let (begins_packet, is_scrambled) = (cell[1] & 0x40 != 0, cell[3] & 0xc0 != 0);
    let content = match (cell[3] >> 4 & 3, usize::from(cell[4])) {
        (1, _) => &cell[4..],
        (2, LENGTH_ALONE) => return false,
        (3, length) if length < LENGTH_ALONE => &cell[5 + length..],
        _ => return true,
    };
    match content.first_chunk::<4>() {
        Some(&start) if begins_packet && !is_scrambled => *begins.get_or_insert(start) != start,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A cell of stream 256 with these bytes after its second.
    fn cell(flags: u8, bytes: &[u8]) -> Vec<u8> {
        let mut cell = vec![0xff; CELL_BYTES];
        cell[..2].copy_from_slice(&[SYNC, flags | 1]);
        cell[2..2 + bytes.len()].copy_from_slice(bytes);
        cell
    }

    #[test]
    fn cells_that_cannot_be_are_counted_in_every_layout() {
        let begin = cell(0x40, &[0, 0x10, 0, 0, 1, 0xe0]);
        let good = [
            cell(0, &[0, 0x11, 7]),
            cell(0, &[0, 0x20, 183]),
            cell(0x40, &[0, 0x30, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xe0]),
            // Of another stream.
            cell(0, &[1, 0x00, 7]),
        ];
        let bad = [
            cell(0, &[0, 0x00, 7]),
            cell(0, &[0, 0x20, 7]),
            cell(0, &[0, 0x30, 200]),
            cell(0x40, &[0, 0x10, 0, 0, 1, 0xc0]),
            cell(0x40, &[0, 0x10, 0, 4, 1, 0xe0]),
        ];
        for (size, before) in LAYOUTS {
            let file = |cells: &[&[Vec<u8>]]| {
                let laid = |cell: &Vec<u8>| {
                    let after = vec![0; size - before - CELL_BYTES];
                    [vec![0; before], cell.clone(), after].concat()
                };
                let cells: Vec<u8> = cells.iter().flat_map(|cells| cells.iter()).flat_map(laid).collect();
                Cursor::new([cells, vec![0; 300]].concat())
            };
            let begin = vec![begin.clone(); 3];
            assert_eq!(count(file(&[&begin, &good, &begin]), 256), Some(0), "{size}");
            assert_eq!(count(file(&[&begin, &good, &bad]), 256), Some(5), "{size}");
            assert_eq!(count(file(&[&begin, &good, &bad]), 258), Some(0), "{size}: another stream");
        }
        assert_eq!(count(Cursor::new(vec![7; 5000]), 256), None, "no cells");
    }
}
