//! A segment's packets in a file of their own, from one cut to the next, until the whole video is there to be joined.
//!
//! In: packets of the encoder. Out: the same packets. The file ends with what it holds and a checksum, so that one that
//! was not written to its end says so. It knows nothing of other segments.
//!
//! ```text
//! (1, pts, dts, duration, flags, size, payload, size, header)*  0  record as JSON  size of it: u32  CRC-32: u32  MAGIC
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use ffmpeg_next::packet::{Mut, Ref};
use ffmpeg_next::{self as ffmpeg, Rational, ffi};
use serde::{Deserialize, Serialize};

use crate::media::packet::Packet;

/// Frames from one cut to the next. Encoders are closed and opened again at cuts, which depend on the
/// input alone: a run that goes on after a crash then writes the same packets as an undisturbed one.
pub const SEGMENT_FRAMES: u64 = 240;

const MAGIC: [u8; 8] = *b"hasn-seg";
/// Size of the record, checksum, magic.
const END_BYTES: u64 = 4 + 4 + MAGIC.len() as u64;
const PACKET: u8 = 1;
const END: u8 = 0;

/// What an encoder that begins after a cut must know of the frames before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutState {
    /// Frames up to there.
    pub frames: u64,
    /// Where the frame shown last ends, in ticks.
    pub end: i64,
    pub(crate) first_pts: i64,
    pub(crate) last_coded_pts: i64,
    /// Times of the last frames, the first of which is frame `order_begin`.
    pub(crate) order: VecDeque<i64>,
    pub(crate) order_begin: u64,
    pub(crate) order_step: i64,
}

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, from 0 on.
    pub segment: u64,
    /// How many frames.
    pub frames: u64,
    /// How the next one begins.
    pub next: CutState,
    /// Of the header that the encoder wrote: segments are joined under one.
    pub header: u32,
    /// The input's stream that its packets are of, and what they count in.
    stream: usize,
    time_base: (i32, i32),
}

impl Record {
    /// Seconds of the input up to its end, counted from the clock's 0.
    pub fn end_s(&self) -> f64 {
        self.next.end as f64 * f64::from(self.time_base.0) / f64::from(self.time_base.1)
    }
}

/// What the encoder says at a cut.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Number of the segment that ends there.
    pub segment: u64,
    /// How many frames it has.
    pub frames: u64,
    /// How the next one begins.
    pub next: CutState,
    /// Of the header that the encoder wrote.
    pub header: u32,
}

/// Tells an encoder's header from others.
pub(crate) fn sum_of_header(extradata: &[u8]) -> u32 {
    crc32fast::hash(extradata)
}

/// A segment that is being written. What fails changes nothing, and may be tried again.
pub struct SegmentWriter {
    file: File,
    end: u64,
    checksum: crc32fast::Hasher,
    of: Option<(usize, Rational)>,
    bytes: Vec<u8>,
}

impl SegmentWriter {
    /// Makes the file.
    pub fn create(path: &Path) -> io::Result<SegmentWriter> {
        let (end, checksum) = (0, crc32fast::Hasher::new());
        Ok(SegmentWriter { file: File::create(path)?, end, checksum, of: None, bytes: Vec::new() })
    }

    /// Adds a packet. Of what encoders put beside its payload, containers take the header that some have with their first
    /// packet only; the rest are statistics.
    pub fn write(&mut self, coded: &Packet) -> io::Result<()> {
        let packet = &coded.packet;
        let payload = packet.data().unwrap_or_default();
        self.of = Some((coded.stream, coded.time_base));
        self.bytes.clear();
        self.bytes.push(PACKET);
        let times = [packet.pts().unwrap_or_default(), packet.dts().unwrap_or_default(), packet.duration()];
        times.iter().for_each(|time| self.bytes.extend(time.to_le_bytes()));
        self.bytes.extend(packet.flags().bits().to_le_bytes());
        for part in [payload, late_header(packet)] {
            self.bytes.extend((part.len() as u32).to_le_bytes());
            self.bytes.extend(part);
        }
        self.append()
    }

    /// Ends the file; it is on the disk then.
    pub fn finish(&mut self, cut: &Cut) -> io::Result<()> {
        let (stream, time_base) = self.of.expect("a segment has packets");
        let Cut { segment, frames, next, header } = cut.clone();
        let time_base = (time_base.numerator(), time_base.denominator());
        let record = Record { segment, frames, next, header, stream, time_base };
        let json = serde_json::to_vec(&record).expect("plain data is always JSON");
        self.bytes.clear();
        self.bytes.push(END);
        self.bytes.extend(&json);
        self.bytes.extend((json.len() as u32).to_le_bytes());
        let mut checksum = self.checksum.clone();
        checksum.update(&self.bytes);
        self.bytes.extend(checksum.finalize().to_le_bytes());
        self.bytes.extend(MAGIC);
        self.append()?;
        self.file.sync_all()
    }

    fn append(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.bytes, self.end)?;
        self.checksum.update(&self.bytes);
        self.end += self.bytes.len() as u64;
        Ok(())
    }
}

/// A whole segment, read from its beginning.
pub struct SegmentReader {
    file: Checked<BufReader<File>>,
    record: Record,
    checksum: u32,
}

impl SegmentReader {
    /// Opens a segment, whose end says what it holds.
    pub fn open(path: &Path) -> io::Result<SegmentReader> {
        let file = File::open(path)?;
        let end = file.metadata()?.len().checked_sub(END_BYTES).ok_or_else(torn)?;
        let mut tail = [0; END_BYTES as usize];
        file.read_exact_at(&mut tail, end)?;
        let word = |at: usize| u32::from_le_bytes(tail[at..at + 4].try_into().expect("four bytes"));
        let (size, checksum) = (u64::from(word(0)), word(4));
        if tail[8..] != MAGIC || size > end {
            return Err(torn());
        }
        let mut json = vec![0; size as usize];
        file.read_exact_at(&mut json, end - size)?;
        let record = serde_json::from_slice(&json).map_err(|_| torn())?;
        let file = Checked { inner: BufReader::new(file), checksum: crc32fast::Hasher::new() };
        Ok(SegmentReader { file, record, checksum })
    }

    /// What the segment holds.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The next packet; `None` at the end of a segment in which every byte is as it was written.
    pub fn next_packet(&mut self) -> io::Result<Option<Packet>> {
        match self.file.array::<1>()? {
            [PACKET] => {}
            [END] => return self.check_end().map(|()| None),
            _ => return Err(torn()),
        }
        let [pts, dts, duration] =
            [self.file.array()?, self.file.array()?, self.file.array()?].map(i64::from_le_bytes);
        let flags = i32::from_le_bytes(self.file.array()?);
        let (payload, header) = (self.part()?, self.part()?);
        let mut packet = ffmpeg::Packet::copy(&payload);
        if !header.is_empty() {
            add_late_header(&mut packet, &header);
        }
        packet.set_pts(Some(pts));
        packet.set_dts(Some(dts));
        packet.set_duration(duration);
        // SAFETY: the packet is owned; a plain value is set.
        unsafe { (*packet.as_mut_ptr()).flags = flags };
        let Record { stream, time_base: (num, den), .. } = self.record;
        Ok(Some(Packet { packet, stream, time_base: Rational(num, den), index: 0 }))
    }

    fn part(&mut self) -> io::Result<Vec<u8>> {
        let size = u64::from(u32::from_le_bytes(self.file.array()?));
        let mut part = Vec::new();
        // What is damaged may announce anything: no more is taken than is there.
        let read = (&mut self.file).take(size).read_to_end(&mut part)?;
        if read as u64 == size { Ok(part) } else { Err(torn()) }
    }

    fn check_end(&mut self) -> io::Result<()> {
        let json = serde_json::to_vec(&self.record).expect("plain data is always JSON");
        let mut rest = vec![0; json.len() + 4];
        self.file.read_exact(&mut rest)?;
        if self.file.checksum.clone().finalize() == self.checksum { Ok(()) } else { Err(torn()) }
    }
}

/// What libaom, for one, knows of its header no sooner than with the first packet.
fn late_header(packet: &ffmpeg::Packet) -> &[u8] {
    let mut size = 0;
    // SAFETY: the packet is alive, and its side data has the size that is told, or is null.
    unsafe {
        let kind = ffi::AVPacketSideDataType::AV_PKT_DATA_NEW_EXTRADATA;
        let bytes = ffi::av_packet_get_side_data(packet.as_ptr(), kind, &mut size);
        if bytes.is_null() { &[] } else { std::slice::from_raw_parts(bytes, size) }
    }
}

fn add_late_header(packet: &mut ffmpeg::Packet, header: &[u8]) {
    // SAFETY: the packet is owned, and what is made has room for so many bytes.
    unsafe {
        let kind = ffi::AVPacketSideDataType::AV_PKT_DATA_NEW_EXTRADATA;
        let room = ffi::av_packet_new_side_data(packet.as_mut_ptr(), kind, header.len());
        assert!(!room.is_null(), "no memory for a header");
        room.copy_from_nonoverlapping(header.as_ptr(), header.len());
    }
}

/// A file that keeps a checksum of what was read.
struct Checked<R> {
    inner: R,
    checksum: crc32fast::Hasher,
}

impl<R: Read> Checked<R> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).map(|()| bytes)
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.inner.read(buffer)?;
        self.checksum.update(&buffer[..size]);
        Ok(size)
    }
}

fn torn() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "it is torn")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(pts: i64, payload: &[u8]) -> Packet {
        let mut packet = ffmpeg::Packet::copy(payload);
        packet.set_pts(Some(pts));
        packet.set_dts(Some(pts - 2));
        packet.set_duration(1);
        packet.set_flags(ffmpeg::packet::Flags::KEY);
        if pts == 0 {
            add_late_header(&mut packet, b"header");
        }
        Packet { packet, stream: 3, time_base: Rational(1, 25), index: 0 }
    }

    fn written(path: &Path) -> Cut {
        let mut writer = SegmentWriter::create(path).unwrap();
        for pts in 0..5 {
            writer.write(&packet(pts, &vec![pts as u8; 1000 * pts as usize])).unwrap();
        }
        let next = CutState { frames: 5, end: 5, order: [3, 4].into(), ..CutState::default() };
        let cut = Cut { segment: 7, frames: 5, next, header: 9 };
        writer.finish(&cut).unwrap();
        cut
    }

    fn read(path: &Path) -> io::Result<Vec<Packet>> {
        let mut reader = SegmentReader::open(path)?;
        let mut packets = Vec::new();
        while let Some(packet) = reader.next_packet()? {
            packets.push(packet);
        }
        Ok(packets)
    }

    #[test]
    fn packets_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        let cut = written(&path);
        let record = SegmentReader::open(&path).unwrap().record().clone();
        assert_eq!((record.segment, record.frames, &record.next), (7, 5, &cut.next));
        assert_eq!(record.end_s(), 0.2);
        let packets = read(&path).unwrap();
        assert_eq!(packets.len(), 5);
        for (pts, coded) in packets.iter().enumerate() {
            let wanted = packet(pts as i64, &vec![pts as u8; 1000 * pts]);
            assert_eq!(coded.packet.data(), wanted.packet.data());
            assert_eq!(late_header(&coded.packet), late_header(&wanted.packet));
            let facts = |c: &Packet| (c.packet.pts(), c.packet.dts(), c.packet.duration(), c.packet.flags());
            assert_eq!(facts(coded), facts(&wanted));
            assert_eq!((coded.stream, coded.time_base), (wanted.stream, wanted.time_base));
        }
    }

    #[test]
    fn what_is_cut_or_changed_anywhere_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        written(&path);
        let whole = std::fs::read(&path).unwrap();
        for size in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
            std::fs::write(&path, &whole[..size]).unwrap();
            assert!(read(&path).is_err(), "cut to {size} bytes");
        }
        for at in (0..whole.len()).step_by(89) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            assert!(read(&path).is_err(), "byte {at} changed");
        }
    }
}
