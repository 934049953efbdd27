//! Image sequences as input: one file for each frame, each file a packet.
//!
//! In: the pattern of the names. Out: packets whose timestamps count numbers; missing numbers and empty files as damage.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec};

use crate::error::{Error, ErrorKind as Kind, Result};
use crate::media::damage::{Damage, DamagedPlace};
use crate::media::ffmpeg::{CHECK_DEVICE, MICROSECONDS};
use crate::media::pattern::Pattern;
use crate::media::stream::{Trim, VideoInfo};

/// The files of an image sequence, read in ascending order.
pub(crate) struct Sequence {
    pub pattern: Pattern,
    /// All numbers that exist.
    all: Vec<u64>,
    /// Numbers to read, and how many of them were read.
    wanted: Vec<u64>,
    read: usize,
    pub frame_rate: Rational,
}

impl Sequence {
    /// Lists the files that exist.
    pub fn find(name: &str, pattern: Pattern) -> Result<Sequence> {
        let all = pattern.numbers()?;
        if all.is_empty() {
            let problem = format!("no image has such a name, e.g. {}", pattern.name(1));
            let remedy = "check the folder and the number of digits in the names";
            return Err(Error::new(name, problem, remedy).with_kind(Kind::NotFound));
        }
        Ok(Sequence { pattern, wanted: all.clone(), all, read: 0, frame_rate: Rational(25, 1) })
    }

    /// Path of the first file.
    pub fn first_path(&self) -> PathBuf {
        self.pattern.path(self.first())
    }

    /// The smallest number that exists: its frame has pts 0.
    pub fn first(&self) -> u64 {
        self.all[0]
    }

    /// Numbers to read, ascending.
    pub fn wanted(&self) -> &[u64] {
        &self.wanted
    }

    /// Paths of all files.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.all.iter().map(|&number| self.pattern.path(number))
    }

    /// The sequence as a stream.
    pub fn video(&self, sample_aspect: Rational) -> VideoInfo {
        let last = self.all[self.all.len() - 1];
        VideoInfo {
            time_base: self.frame_rate.invert(),
            frame_rate: self.frame_rate,
            is_constant: last - self.first() < self.all.len() as u64,
            sample_aspect,
            frames_expected: self.all.len() as u64,
        }
    }

    fn us(&self, number: u64) -> i64 {
        (number.saturating_sub(self.first()) as i64).rescale(self.frame_rate.invert(), MICROSECONDS)
    }

    /// Reads from the beginning: what lies within `trim` and is not `ready`. Missing numbers there are noted as damage.
    pub fn restart(&mut self, trim: Trim, ready: &dyn Fn(u64) -> bool, damage: &Damage) {
        let within = |number: u64| trim.contains(self.us(number));
        self.wanted = self.all.iter().copied().filter(|&number| within(number) && !ready(number)).collect();
        self.read = 0;
        for pair in self.all.windows(2).filter(|pair| pair[1] - pair[0] > 1) {
            // Timestamps rise with numbers.
            let from = bisect(pair[0] + 1, pair[1], |number| self.us(number) >= trim.from_us);
            let end = bisect(from, pair[1], |number| self.us(number) >= trim.to_us);
            if end > from {
                let what = match end - from {
                    1 => format!("{} is missing", self.pattern.name(from)),
                    more => format!("{} and {} more after it are missing", self.pattern.name(from), more - 1),
                };
                damage.note_many(end - from, self.place(from, what));
            }
        }
    }

    /// Ends reading.
    pub fn end(&mut self) {
        self.wanted.clear();
    }

    /// The next file as a packet whose pts is its number after the first. An empty file is noted as damage.
    pub fn next_packet(&mut self, damage: &Damage) -> Result<Option<ffmpeg::Packet>> {
        while let Some(&number) = self.wanted.get(self.read) {
            self.read += 1;
            match read_packet(&self.pattern.path(number)) {
                Ok(mut packet) => {
                    let pts = (number - self.first()) as i64;
                    packet.set_pts(Some(pts));
                    packet.set_dts(Some(pts));
                    packet.set_duration(1);
                    packet.set_flags(ffmpeg::packet::Flags::KEY);
                    return Ok(Some(packet));
                }
                Err(e) if matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
                    let problem = format!("{} cannot be read: {e}", self.pattern.name(number));
                    damage.note(self.place(number, problem));
                }
                Err(e) => {
                    let path = self.pattern.path(number);
                    return Err(Error::io(path.to_string_lossy(), e, CHECK_DEVICE));
                }
            }
        }
        Ok(None)
    }

    fn place(&self, number: u64, problem: String) -> DamagedPlace {
        let seconds = self.us(number) as f64 / 1e6;
        let pts = (number - self.first()) as i64;
        DamagedPlace { problem, frame: None, pts: Some(pts), seconds: Some(seconds) }
    }
}

/// The first number of `from..end` for which `holds` is true, as it is for all after it; else `end`.
fn bisect(from: u64, end: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (from, end);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

fn read_packet(path: &Path) -> io::Result<ffmpeg::Packet> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    // FFmpeg takes an empty packet for the end of stream, and counts bytes in 32 bits.
    let fits = |&size: &usize| size > 0 && size < i32::MAX as usize / 2;
    let size = usize::try_from(size)
        .ok()
        .filter(fits)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("it has {size} bytes")))?;
    let mut packet = ffmpeg::Packet::new(size);
    file.read_exact(packet.data_mut().expect("a packet with room"))?;
    Ok(packet)
}

/// Codecs of image sequences: each frame is a packet, and the packet is the file.
pub(crate) fn is_image_codec(id: codec::Id) -> bool {
    use codec::Id::*;
    matches!(id, PNG | TIFF | DPX | EXR | MJPEG | BMP)
}

/// An error if image sequences of this codec are not supported.
pub(crate) fn check_codec(name: &str, id: codec::Id) -> Result<()> {
    if is_image_codec(id) {
        return Ok(());
    }
    let problem = format!("image sequences of {} are not supported", id.name());
    Err(Error::new(name, problem, "use png, tif, dpx, exr, jpg or bmp").with_kind(Kind::Unsupported))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn pattern(name: &str) -> Pattern {
        Pattern::parse(name).unwrap().unwrap()
    }

    #[test]
    fn missing_numbers_are_counted_within_the_wanted_part() {
        let folder = tempfile::tempdir().unwrap();
        for number in [5, 6, 10, 11, 13] {
            fs::write(folder.path().join(format!("{number}.png")), "x").unwrap();
        }
        let name = folder.path().join("%d.png").to_str().unwrap().to_owned();
        let everything = Trim::EVERYTHING;
        // At 25 fps frame 8 is at 0.12 s, and 13 at 0.32 s.
        let part = Trim { from_us: 120_000, to_us: 320_000 };
        for (trim, wanted, missing) in [(everything, vec![5, 6, 10, 11, 13], 4), (part, vec![10, 11], 3)] {
            let mut sequence = Sequence::find(&name, pattern(&name)).unwrap();
            let damage = Damage::new("scan", true);
            sequence.restart(trim, &|_| false, &damage);
            assert_eq!((sequence.wanted(), damage.count()), (&wanted[..], missing));
        }
        let mut sequence = Sequence::find(&name, pattern(&name)).unwrap();
        let damage = Damage::new("scan", true);
        sequence.restart(everything, &|number| number < 11, &damage);
        let times: Vec<_> =
            std::iter::from_fn(|| sequence.next_packet(&damage).unwrap()).map(|p| p.pts()).collect();
        assert_eq!(times, [Some(6), Some(8)]);
        let first = damage.places()[0].to_string();
        assert_eq!(first, "7.png and 2 more after it are missing (pts 2, 0.080 s)");
    }
}
