//! Segment files: the packets from one cut to the next, kept until the video is complete and the segments are joined.
//!
//! In: packets of the encoder, and of the copied streams if the input cannot be read twice. Out: the same packets. The
//! file ends with a record of its contents and a checksum, so that a truncated one is detected. It knows nothing of other
//! segments.
//!
//! ```text
//! (1, stream, pts, dts, duration, flags, size, payload, count, (type, size, side data)*)*
//! 0  record as JSON  size of it: u32  CRC-32: u32  MAGIC
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use ffmpeg_next::packet::Mut;
use ffmpeg_next::packet::side_data::Type;
use ffmpeg_next::{self as ffmpeg, Rational, ffi};
use serde::{Deserialize, Serialize};

use crate::frame::Timestamp;
use crate::media::packet::Packet;

/// Frames from one cut to the next. Encoders are closed and opened again at cuts, which depend on the
/// input alone: a run resumed after a crash then writes the same packets as an uninterrupted one.
pub const SEGMENT_FRAMES: u64 = 240;

const MAGIC: [u8; 8] = *b"hasn-seg";
/// Size of the record, checksum, magic.
const END_BYTES: u64 = 4 + 4 + MAGIC.len() as u64;
const PACKET: u8 = 1;
const END: u8 = 0;

/// State of the encoder at a cut: what the next segment needs of the frames before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutState {
    /// Frames before the cut.
    pub frames: u64,
    /// End of the frame shown last, in ticks.
    pub end: i64,
    pub(crate) first_pts: i64,
    pub(crate) last_coded_pts: i64,
    /// pts of the last frames, the first of which is frame `order_begin`.
    pub(crate) order: VecDeque<i64>,
    pub(crate) order_begin: u64,
    pub(crate) order_step: i64,
}

/// The frames of the source that a segment holds. A segment whose frames are read differently another time is wrong, or the
/// source is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSource {
    /// Number of frames.
    pub frames: u64,
    /// pts of the first frame, in ticks.
    pub first_pts: i64,
    /// pts of the last frame, in ticks.
    pub last_pts: i64,
    /// Damaged places that the decoder found in them.
    pub damaged: u64,
    /// Checksum of the index, the pts and the coded packet of each frame.
    pub checksum: u32,
}

impl SegmentSource {
    /// Adds the next frame.
    pub fn add(&mut self, time: &Timestamp) {
        if self.frames == 0 {
            self.first_pts = time.pts;
        }
        self.frames += 1;
        self.last_pts = time.pts;
        self.damaged += u64::from(time.origin.damaged);
        let mut checksum = crc32fast::Hasher::new_with_initial(self.checksum);
        checksum.update(&time.index.to_le_bytes());
        checksum.update(&time.pts.to_le_bytes());
        checksum.update(&time.origin.checksum.to_le_bytes());
        self.checksum = checksum.finalize();
    }
}

/// The contents of a segment file, written at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Number of the segment, from 0 on.
    pub segment: u64,
    /// Its frames in the source.
    pub source: SegmentSource,
    /// State with which the next segment begins.
    pub next: CutState,
    /// Checksum of the encoder's header: segments are joined under one header.
    pub header: u32,
    /// Index of the video in the input.
    stream: usize,
    /// Time base of the packets of each stream.
    time_bases: BTreeMap<usize, (i32, i32)>,
}

impl Record {
    /// End of the segment on the input's clock, in seconds.
    pub fn end_s(&self) -> f64 {
        let (num, den) = self.time_bases[&self.stream];
        self.next.end as f64 * f64::from(num) / f64::from(den)
    }
}

/// The end of a segment, as the encoder reports it.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Number of the segment that ends here.
    pub segment: u64,
    /// Its frames in the source.
    pub source: SegmentSource,
    /// State with which the next segment begins.
    pub next: CutState,
    /// Checksum of the encoder's header.
    pub header: u32,
    /// Index of the video in the input.
    pub(crate) stream: usize,
}

/// Returns the checksum that identifies an encoder's header.
pub(crate) fn header_checksum(extradata: &[u8]) -> u32 {
    crc32fast::hash(extradata)
}

/// A segment file that is being written. A failed write changes nothing and may be tried again.
pub struct SegmentWriter {
    file: File,
    end: u64,
    is_sealed: bool,
    checksum: crc32fast::Hasher,
    time_bases: BTreeMap<usize, (i32, i32)>,
    bytes: Vec<u8>,
}

impl SegmentWriter {
    /// Creates the file.
    pub fn create(path: &Path) -> io::Result<SegmentWriter> {
        Ok(SegmentWriter {
            file: File::create(path)?,
            end: 0,
            is_sealed: false,
            checksum: crc32fast::Hasher::new(),
            time_bases: BTreeMap::new(),
            bytes: Vec::new(),
        })
    }

    /// Appends a packet with its side data, except for the encoder's statistics, which no container holds.
    pub fn write(&mut self, packet: &Packet) -> io::Result<()> {
        let Packet { packet, stream, time_base, .. } = packet;
        self.time_bases.insert(*stream, (time_base.numerator(), time_base.denominator()));
        let part = |bytes: &mut Vec<u8>, part: &[u8]| {
            bytes.extend((part.len() as u32).to_le_bytes());
            bytes.extend(part);
        };
        self.bytes.clear();
        self.bytes.push(PACKET);
        self.bytes.extend((*stream as u32).to_le_bytes());
        let [pts, dts] = [packet.pts(), packet.dts()].map(|time| time.unwrap_or(ffi::AV_NOPTS_VALUE));
        [pts, dts, packet.duration()].iter().for_each(|time| self.bytes.extend(time.to_le_bytes()));
        self.bytes.extend(packet.flags().bits().to_le_bytes());
        part(&mut self.bytes, packet.data().unwrap_or_default());
        let kept: Vec<_> = packet.side_data().filter(|side| side.kind() != Type::QualityStats).collect();
        self.bytes.push(kept.len() as u8);
        for side in kept {
            self.bytes.extend((ffi::AVPacketSideDataType::from(side.kind()) as u32).to_le_bytes());
            part(&mut self.bytes, side.data());
        }
        self.append()
    }

    /// Writes the end of the file, once.
    pub fn seal(&mut self, cut: &Cut) -> io::Result<()> {
        if self.is_sealed {
            return Ok(());
        }
        let Cut { segment, source, next, header, stream } = cut.clone();
        let record = Record { segment, source, next, header, stream, time_bases: self.time_bases.clone() };
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
        self.is_sealed = true;
        Ok(())
    }

    /// Syncs the file to disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn append(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.bytes, self.end)?;
        self.checksum.update(&self.bytes);
        self.end += self.bytes.len() as u64;
        Ok(())
    }
}

/// A complete segment file, read from its beginning.
pub struct SegmentReader {
    file: ChecksumReader<BufReader<File>>,
    record: Record,
    checksum: u32,
}

impl SegmentReader {
    /// Opens a segment file and reads the record at its end.
    pub fn open(path: &Path) -> io::Result<SegmentReader> {
        let file = File::open(path)?;
        let end = file.metadata()?.len().checked_sub(END_BYTES).ok_or_else(truncated)?;
        let mut tail = [0; END_BYTES as usize];
        file.read_exact_at(&mut tail, end)?;
        let word = |at: usize| u32::from_le_bytes(tail[at..at + 4].try_into().expect("four bytes"));
        let (size, checksum) = (u64::from(word(0)), word(4));
        if tail[8..] != MAGIC || size > end {
            return Err(truncated());
        }
        let mut json = vec![0; size as usize];
        file.read_exact_at(&mut json, end - size)?;
        let record = serde_json::from_slice(&json).map_err(|_| truncated())?;
        let file = ChecksumReader { inner: BufReader::new(file), checksum: crc32fast::Hasher::new() };
        Ok(SegmentReader { file, record, checksum })
    }

    /// Contents of the segment.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Reads the next packet; returns `None` at the end of a segment whose checksum is right.
    pub fn next_packet(&mut self) -> io::Result<Option<Packet>> {
        match self.file.array::<1>()? {
            [PACKET] => {}
            [END] => return self.check_end().map(|()| None),
            _ => return Err(truncated()),
        }
        let stream = u32::from_le_bytes(self.file.array()?) as usize;
        let [pts, dts, duration] =
            [self.file.array()?, self.file.array()?, self.file.array()?].map(i64::from_le_bytes);
        let flags = i32::from_le_bytes(self.file.array()?);
        let mut packet = ffmpeg::Packet::copy(&self.part()?);
        let [side_data] = self.file.array()?;
        for _ in 0..side_data {
            let kind = u32::from_le_bytes(self.file.array()?);
            add_side_data(&mut packet, kind, &self.part()?)?;
        }
        let &(num, den) = self.record.time_bases.get(&stream).ok_or_else(truncated)?;
        packet.set_stream(stream);
        packet.set_duration(duration);
        // SAFETY: the packet is owned; plain values are set.
        unsafe {
            let raw = &mut *packet.as_mut_ptr();
            (raw.pts, raw.dts, raw.flags) = (pts, dts, flags);
        }
        Ok(Some(Packet { packet, stream, time_base: Rational(num, den), index: 0 }))
    }

    fn part(&mut self) -> io::Result<Vec<u8>> {
        let size = u64::from(u32::from_le_bytes(self.file.array()?));
        let mut part = Vec::new();
        // A damaged size may be anything: no more memory is taken than the file has bytes.
        let read = (&mut self.file).take(size).read_to_end(&mut part)?;
        if read as u64 == size { Ok(part) } else { Err(truncated()) }
    }

    fn check_end(&mut self) -> io::Result<()> {
        let json = serde_json::to_vec(&self.record).expect("plain data is always JSON");
        let mut rest = vec![0; json.len() + 4];
        self.file.read_exact(&mut rest)?;
        if self.file.checksum.clone().finalize() == self.checksum { Ok(()) } else { Err(truncated()) }
    }
}

/// Adds side data of FFmpeg's type number `kind`. A number that FFmpeg does not have is that of a damaged file.
fn add_side_data(packet: &mut ffmpeg::Packet, kind: u32, data: &[u8]) -> io::Result<()> {
    use ffi::AVPacketSideDataType::AV_PKT_DATA_NB;
    if kind >= AV_PKT_DATA_NB as u32 {
        return Err(truncated());
    }
    // SAFETY: the type is an enumeration of successive integers below `AV_PKT_DATA_NB`; the packet is owned, and the new
    // side data has room for the bytes.
    unsafe {
        let kind = std::mem::transmute::<u32, ffi::AVPacketSideDataType>(kind);
        let room = ffi::av_packet_new_side_data(packet.as_mut_ptr(), kind, data.len());
        assert!(!room.is_null(), "no memory for side data");
        room.copy_from_nonoverlapping(data.as_ptr(), data.len());
    }
    Ok(())
}

/// A reader that keeps a checksum of the bytes read.
struct ChecksumReader<R> {
    inner: R,
    checksum: crc32fast::Hasher,
}

impl<R: Read> ChecksumReader<R> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes).map(|()| bytes)
    }
}

impl<R: Read> Read for ChecksumReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.inner.read(buffer)?;
        self.checksum.update(&buffer[..size]);
        Ok(size)
    }
}

fn truncated() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "it is truncated or damaged")
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
            let header = ffi::AVPacketSideDataType::AV_PKT_DATA_NEW_EXTRADATA;
            add_side_data(&mut packet, header as u32, b"header").unwrap();
        }
        Packet { packet, stream: 3, time_base: Rational(1, 25), index: 0 }
    }

    fn written(path: &Path) -> Cut {
        let mut writer = SegmentWriter::create(path).unwrap();
        for pts in 0..5 {
            writer.write(&packet(pts, &vec![pts as u8; 1000 * pts as usize])).unwrap();
        }
        let next = CutState { frames: 5, end: 5, order: [3, 4].into(), ..CutState::default() };
        let source = SegmentSource { frames: 5, last_pts: 4, ..SegmentSource::default() };
        let cut = Cut { segment: 7, source, next, header: 9, stream: 3 };
        writer.seal(&cut).unwrap();
        writer.seal(&cut).unwrap();
        writer.sync().unwrap();
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
    fn packets_read_equal_packets_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        let cut = written(&path);
        let record = SegmentReader::open(&path).unwrap().record().clone();
        assert_eq!(record.end_s(), 0.2);
        assert_eq!((record.segment, record.source, record.next), (7, cut.source, cut.next));
        let packets = read(&path).unwrap();
        assert_eq!(packets.len(), 5);
        for (pts, read) in packets.iter().enumerate() {
            let written = packet(pts as i64, &vec![pts as u8; 1000 * pts]);
            assert_eq!(read.packet.data(), written.packet.data());
            let side = |p: &Packet| p.packet.side_data().map(|side| side.data().to_vec()).collect::<Vec<_>>();
            assert_eq!(side(read), side(&written));
            let fields = |p: &Packet| (p.packet.pts(), p.packet.dts(), p.packet.duration(), p.packet.flags());
            assert_eq!(fields(read), fields(&written));
            assert_eq!((read.stream, read.time_base), (written.stream, written.time_base));
        }
    }

    #[test]
    fn frames_that_are_read_differently_are_noticed() {
        let times = |change: &dyn Fn(&mut Vec<Timestamp>)| {
            let mut times: Vec<Timestamp> =
                (0..9).map(|i| Timestamp { index: i, pts: 40 * i as i64, ..Timestamp::default() }).collect();
            times.iter_mut().for_each(|time| time.origin.add(7 + time.index as u32));
            change(&mut times);
            let mut source = SegmentSource::default();
            times.iter().for_each(|time| source.add(time));
            source
        };
        let good = times(&|_| ());
        assert_eq!((good.frames, good.first_pts, good.last_pts), (9, 0, 320));
        assert_eq!(times(&|_| ()), good);
        assert_ne!(
            times(&|times| {
                times.remove(4);
            }),
            good,
            "a frame is missing"
        );
        assert_ne!(times(&|times| times[4].pts += 1), good, "a frame lies elsewhere");
        assert_ne!(times(&|times| times[4].origin.checksum ^= 1), good, "another packet");
        assert_ne!(times(&|times| times[4].origin.damaged = 1), good, "a damaged frame");
        assert_ne!(times(&|times| times.iter_mut().for_each(|time| time.index += 1)), good, "one too late");
    }

    #[test]
    fn segments_cut_short_or_changed_anywhere_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        written(&path);
        let complete = std::fs::read(&path).unwrap();
        for size in (0..complete.len()).step_by(97).chain([complete.len() - 1]) {
            std::fs::write(&path, &complete[..size]).unwrap();
            assert!(read(&path).is_err(), "cut to {size} bytes");
        }
        for at in (0..complete.len()).step_by(89) {
            let mut bytes = complete.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            assert!(read(&path).is_err(), "byte {at} changed");
        }
    }
}
