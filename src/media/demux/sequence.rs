//! Sequences: one file a frame, under names that differ by a number.
//!
//! In: a name like `scan/%06d.dpx`. Out: which numbers are there and which are missing between them, each file as a
//! packet, and packets as files, which have their name when they are whole and on the disk. It knows nothing of codecs.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use ffmpeg_next::{self as ffmpeg, Rational, Rescale};

use crate::error::{Error, Result};
use crate::media::damage::{Damage, DamagedPlace};
use crate::media::decode::decoder::Trim;
use crate::media::demux::input::VideoInfo;
use crate::media::ffmpeg::MICROSECONDS;
use crate::media::output::{partial_path, same_file};
use crate::media::packet::Packet;

/// A name with one number in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    folder: PathBuf,
    before: String,
    /// A number has at least so many, zeros in front.
    digits: usize,
    after: String,
}

/// Numbers stay below 10^18, far from the end of every integer they become.
const DIGITS_MAX: usize = 18;

impl Pattern {
    /// The pattern of a name with `%d` or `%06d` in its last part; `None` for any other name, for an address, and where
    /// a file has this very name.
    pub fn parse(name: &str) -> Result<Option<Pattern>> {
        let path = Path::new(name);
        let last = path.file_name().and_then(|last| last.to_str()).unwrap_or_default();
        let places = conversions(last);
        if places.is_empty() || name.contains("://") || path.exists() {
            return Ok(None);
        }
        let digits = match places[..] {
            [(begin, end)] => match &last[begin + 1..end] {
                "d" => Some(1),
                word => word.strip_prefix('0').and_then(|word| word.strip_suffix('d')?.parse().ok()),
            },
            _ => None,
        };
        let Some(digits) = digits.filter(|digits| (1..=DIGITS_MAX).contains(digits)) else {
            let found: Vec<_> = places.iter().map(|&(begin, end)| &last[begin..end]).collect();
            let problem = format!("{} is no one number of a sequence", found.join(" and "));
            return Err(Error::new(name, problem, "write the number once, as %d or %06d"));
        };
        let (begin, end) = places[0];
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let (before, after) = (last[..begin].to_owned(), last[end..].to_owned());
        Ok(Some(Pattern { folder: folder.to_owned(), before, digits, after }))
    }

    /// The folder that its files are in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The name of a file, without its folder.
    pub fn name(&self, number: u64) -> String {
        format!("{}{number:0digits$}{}", self.before, self.after, digits = self.digits)
    }

    /// Where that file is.
    pub fn path(&self, number: u64) -> PathBuf {
        self.folder.join(self.name(number))
    }

    /// The number of a file that has such a name.
    fn number_of(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
        let number = digits.parse().ok().filter(|_| digits.len() <= DIGITS_MAX)?;
        (self.name(number) == name).then_some(number)
    }

    /// Numbers of the files that are there, rising; none where there is no folder.
    pub fn numbers(&self) -> Result<Vec<u64>> {
        let failed = |e: io::Error| {
            Error::new(self.folder.to_string_lossy(), e.to_string(), "check the folder and its permissions")
        };
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            numbers.extend(name.to_str().and_then(|name| self.number_of(name)));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether a file that is read as `input` may have one of these names.
    pub(crate) fn may_overwrite(&self, input: &str) -> Result<bool> {
        let is_mine = |name: &str| self.number_of(name).is_some();
        Ok(match Pattern::parse(input)? {
            None => {
                let name = Path::new(input).file_name().and_then(|name| name.to_str()).unwrap_or_default();
                is_mine(name) && same_file(Path::new(input), &self.folder.join(name))
            }
            Some(input) if same_file(&input.folder, &self.folder) => {
                input.numbers()?.into_iter().any(|number| is_mine(&input.name(number)))
            }
            Some(_) => false,
        })
    }

    /// Writes a frame's file. It has its name when it is whole and on the disk.
    pub fn write(&self, number: u64, frame: &Packet) -> io::Result<()> {
        let path = self.path(number);
        let partial = partial_path(&path);
        let write = || {
            let mut file = File::create(&partial)?;
            file.write_all(frame.packet.data().unwrap_or_default())?;
            file.sync_all()
        };
        write().and_then(|()| fs::rename(&partial, &path)).inspect_err(|_| {
            // Nothing to be done if this fails: the error that led here is the one to tell.
            let _ = fs::remove_file(&partial);
        })?;
        File::open(&self.folder)?.sync_all()
    }
}

/// Where `%d` and what looks like it stand in a name.
fn conversions(name: &str) -> Vec<(usize, usize)> {
    let places = name.match_indices('%').filter_map(|(begin, _)| {
        let rest = &name[begin + 1..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let is_one = rest[digits..].starts_with(['d', 'i', 'u', 's', 'x']);
        is_one.then_some((begin, begin + 1 + digits + 1))
    });
    places.collect()
}

/// How frames are numbered in the sequence that they go into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Numbering {
    /// From this number on by their times, which count frames: where one is missing, those after it keep theirs.
    ByTime(u64),
    /// From this number on, in their order.
    InOrder(u64),
}

impl Numbering {
    /// Of a frame of this index and time.
    pub fn number(self, index: u64, pts: i64) -> u64 {
        match self {
            Numbering::ByTime(first) => first.saturating_add_signed(pts),
            Numbering::InOrder(first) => first + index,
        }
    }
}

/// Files to be read one after the other.
pub(crate) struct Sequence {
    pub pattern: Pattern,
    /// All numbers that are there.
    all: Vec<u64>,
    /// Those that are wanted, and how many of them were read.
    wanted: Vec<u64>,
    read: usize,
    pub frame_rate: Rational,
}

impl Sequence {
    /// Looks which files are there.
    pub fn find(name: &str, pattern: Pattern) -> Result<Sequence> {
        let all = pattern.numbers()?;
        if all.is_empty() {
            let problem = format!("no file is named so, like {}", pattern.name(1));
            return Err(Error::new(name, problem, "check the folder and how many digits the names have"));
        }
        Ok(Sequence { pattern, wanted: all.clone(), all, read: 0, frame_rate: Rational(25, 1) })
    }

    /// The first file of all.
    pub fn first_path(&self) -> PathBuf {
        self.pattern.path(self.first())
    }

    /// The smallest number that is there: its frame has time 0.
    pub fn first(&self) -> u64 {
        self.all[0]
    }

    /// Numbers that are to be read.
    pub fn wanted(&self) -> &[u64] {
        &self.wanted
    }

    /// Its files, for whoever wants to know whether they are as they were.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.all.iter().map(|&number| self.pattern.path(number))
    }

    /// What it is as a stream, but for the shape of samples.
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

    /// Reads, from the beginning, what lies in this part and is not among `ready`. Numbers that are missing there are
    /// damage.
    pub fn begin(&mut self, trim: Trim, ready: &dyn Fn(u64) -> bool, damage: &Damage) {
        let within = |number: u64| trim.holds(self.us(number));
        self.wanted = self.all.iter().copied().filter(|&number| within(number) && !ready(number)).collect();
        self.read = 0;
        for pair in self.all.windows(2).filter(|pair| pair[1] - pair[0] > 1) {
            // Times rise with numbers.
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

    /// Reads nothing more.
    pub fn end(&mut self) {
        self.wanted.clear();
    }

    /// The next file as a packet whose time is its number after the first. One that cannot be read is damage.
    pub fn next_packet(&mut self, damage: &Damage) -> Option<ffmpeg::Packet> {
        while let Some(&number) = self.wanted.get(self.read) {
            self.read += 1;
            match read_packet(&self.pattern.path(number)) {
                Ok(mut packet) => {
                    let pts = (number - self.first()) as i64;
                    packet.set_pts(Some(pts));
                    packet.set_dts(Some(pts));
                    packet.set_duration(1);
                    packet.set_flags(ffmpeg::packet::Flags::KEY);
                    return Some(packet);
                }
                Err(e) => {
                    let problem = format!("{} cannot be read: {e}", self.pattern.name(number));
                    damage.note(self.place(number, problem));
                }
            }
        }
        None
    }

    fn place(&self, number: u64, problem: String) -> DamagedPlace {
        let seconds = self.us(number) as f64 / 1e6;
        let pts = (number - self.first()) as i64;
        DamagedPlace { problem, frame: None, pts: Some(pts), seconds: Some(seconds) }
    }
}

/// The first number of `from..end` that is so, where all after one are so as well; else `end`.
fn bisect(from: u64, end: u64, is: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (from, end);
    while low < high {
        let middle = low + (high - low) / 2;
        if is(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

fn read_packet(path: &Path) -> io::Result<ffmpeg::Packet> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    // FFmpeg takes an empty packet for the end, and counts bytes in 32 bits.
    let fits = |&size: &usize| size > 0 && size < i32::MAX as usize / 2;
    let size = usize::try_from(size)
        .ok()
        .filter(fits)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("it has {size} bytes")))?;
    let mut packet = ffmpeg::Packet::new(size);
    file.read_exact(packet.data_mut().expect("a packet with room"))?;
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(name: &str) -> Pattern {
        Pattern::parse(name).unwrap().unwrap()
    }

    #[test]
    fn a_number_stands_in_the_last_part_of_a_name_and_once() {
        let scan = pattern("a%d/scan%04d.x.dpx");
        assert_eq!(scan.path(7), Path::new("a%d/scan0007.x.dpx"));
        assert_eq!(scan.path(123_456), Path::new("a%d/scan123456.x.dpx"));
        assert_eq!(pattern("%d.png").path(7), Path::new("./7.png"));
        for name in
            ["video.mkv", "100%.png", "a%d/b.png", "a%%b.png", "50% off.png", "http://host/%06d.png", "-"]
        {
            assert_eq!(Pattern::parse(name).unwrap(), None, "{name}");
        }
        for name in ["%d-%d.png", "%s.png", "%6d.png", "%d%s.png", "%00d.png", "%099d.png"] {
            let told = Pattern::parse(name).unwrap_err().to_string();
            assert!(told.contains("write the number once"), "{name}: {told}");
        }
    }

    #[test]
    fn only_names_that_it_would_give_are_its_own() {
        let scan = pattern("s%03d.dpx");
        for (name, number) in [("s007.dpx", Some(7)), ("s1234.dpx", Some(1234)), ("s000.dpx", Some(0))] {
            assert_eq!(scan.number_of(name), number, "{name}");
        }
        for name in ["s07.dpx", "s0007.dpx", "s+07.dpx", "s007.partial.dpx", "s.dpx", "s007.dpx2", "007.dpx"]
        {
            assert_eq!(scan.number_of(name), None, "{name}");
        }
        assert_eq!(pattern("%d.png").number_of("07.png"), None);
    }

    #[test]
    fn what_is_missing_is_counted_within_the_wanted_part() {
        let folder = tempfile::tempdir().unwrap();
        for number in [5, 6, 10, 11, 13] {
            fs::write(folder.path().join(format!("{number}.png")), "x").unwrap();
        }
        let name = folder.path().join("%d.png").to_str().unwrap().to_owned();
        let whole = Trim { from_us: i64::MIN, to_us: i64::MAX };
        // At 25 a second frame 8 is at 0.12 s, and 13 at 0.32 s.
        let part = Trim { from_us: 120_000, to_us: 320_000 };
        for (trim, wanted, missing) in [(whole, vec![5, 6, 10, 11, 13], 4), (part, vec![10, 11], 3)] {
            let mut sequence = Sequence::find(&name, pattern(&name)).unwrap();
            let damage = Damage::new("scan", true);
            sequence.begin(trim, &|_| false, &damage);
            assert_eq!((sequence.wanted(), damage.count()), (&wanted[..], missing));
        }
        let mut sequence = Sequence::find(&name, pattern(&name)).unwrap();
        let damage = Damage::new("scan", true);
        sequence.begin(whole, &|number| number < 11, &damage);
        let times: Vec<_> = std::iter::from_fn(|| sequence.next_packet(&damage)).map(|p| p.pts()).collect();
        assert_eq!(times, [Some(6), Some(8)]);
        let first = damage.places()[0].to_string();
        assert_eq!(first, "7.png and 2 more after it are missing (pts 2, 0.080 s)");
    }
}
