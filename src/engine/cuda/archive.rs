//! The archive of compiled kernels from `make kernels`: a cubin for each compute capability, and PTX for newer GPUs.
//!
//! In: a compute capability. Out: code that its driver loads. `kernels/build.py` documents the format. It knows no driver.

use std::io::Read;

const ARCHIVE: &[u8] = include_bytes!("../../../kernels/hasn.cubins");
const MAGIC: &[u8] = b"HASNCUB1";

/// Major and minor, as in sm_86.
pub(super) type Capability = (u32, u32);

/// A kernel, which every code of the archive has.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Kernel {
    pub(super) name: String,
    /// Size of its argument in bytes.
    pub(super) args: usize,
}

/// Returns the code for a compute capability, zero-terminated as the driver requires of PTX; `None` where there is none.
pub(super) fn code(gpu: Capability) -> Option<Vec<u8>> {
    let name = choose(gpu, entries().map(|entry| entry.name))?;
    let mut code = entries().find(|entry| entry.name == name)?.inflate();
    code.push(0);
    Some(code)
}

/// Returns the capabilities of the cubins: "sm_75 sm_80 sm_86".
pub(super) fn targets() -> String {
    let cubins: Vec<_> = entries().map(|entry| entry.name).filter(|name| name.starts_with("sm_")).collect();
    cubins.join(" ")
}

pub(super) fn kernels() -> Vec<Kernel> {
    numbers("kernels").into_iter().map(|(name, args)| Kernel { name, args }).collect()
}

/// Registers per thread on sm_90, by kernel.
#[cfg(test)]
pub(super) fn registers() -> std::collections::BTreeMap<String, usize> {
    numbers("registers").into_iter().collect()
}

/// Parses an entry with a name and a number per line.
fn numbers(entry: &str) -> Vec<(String, usize)> {
    let lines = entries().find(|found| found.name == entry).expect("build.py writes it").inflate();
    let number = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    let lines = str::from_utf8(&lines).expect("build.py writes text").lines();
    lines.map(|line| number(line).expect("build.py writes a name and a number")).collect()
}

/// Machine code runs on its capability and on later ones of the same major version; PTX on its own and all later ones.
fn choose(gpu: Capability, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let fitting = |name: &'static str| {
        let (kind, number) = name.split_once('_')?;
        let number: u32 = number.parse().ok()?;
        let target = (number / 10, number % 10);
        let machine_code = kind == "sm";
        let fits = target <= gpu && (!machine_code || target.0 == gpu.0);
        fits.then_some((machine_code, target, name))
    };
    names.filter_map(fitting).max().map(|(.., name)| name)
}

struct Entry {
    name: &'static str,
    len: usize,
    stored: &'static [u8],
}

impl Entry {
    fn inflate(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len + 1);
        flate2::read::ZlibDecoder::new(self.stored).read_to_end(&mut bytes).expect("build.py stores zlib");
        assert_eq!(bytes.len(), self.len, "{}", self.name);
        bytes
    }
}

fn entries() -> impl Iterator<Item = Entry> {
    let (head, mut rest) = ARCHIVE.split_at(MAGIC.len() + 8);
    assert!(head.starts_with(MAGIC), "build.py writes it");
    std::iter::from_fn(move || {
        let (name, after) = rest.split_at_checked(16)?;
        let (len, after) = number(after);
        let (stored_len, after) = number(after);
        let (stored, after) = after.split_at(stored_len);
        rest = after;
        let name = str::from_utf8(name).expect("names are ASCII").trim_end_matches('\0');
        Some(Entry { name, len, stored })
    })
}

fn number(bytes: &[u8]) -> (usize, &[u8]) {
    let (number, rest) = bytes.split_first_chunk().expect("build.py writes complete entries");
    (u32::from_le_bytes(*number) as usize, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 10] = [
        "sm_75",
        "sm_80",
        "sm_86",
        "sm_89",
        "sm_90",
        "sm_100",
        "sm_120",
        "compute_120",
        "registers",
        "kernels",
    ];

    #[test]
    fn every_gpu_since_turing_finds_code_that_runs_on_it() {
        for (gpu, expected) in [
            ((6, 1), None),
            ((7, 0), None),
            ((7, 5), Some("sm_75")),
            ((8, 0), Some("sm_80")),
            ((8, 6), Some("sm_86")),
            ((8, 7), Some("sm_86")),
            ((8, 9), Some("sm_89")),
            ((9, 0), Some("sm_90")),
            ((10, 0), Some("sm_100")),
            ((10, 3), Some("sm_100")),
            // No machine code of that major version, and PTX for a later one.
            ((11, 0), None),
            ((12, 0), Some("sm_120")),
            ((12, 1), Some("sm_120")),
            ((13, 0), Some("compute_120")),
        ] {
            assert_eq!(choose(gpu, NAMES.into_iter()), expected, "{gpu:?}");
        }
    }

    #[test]
    fn the_archive_is_complete() {
        assert_eq!(entries().map(|entry| entry.name).collect::<Vec<_>>(), NAMES);
        for entry in entries().filter(|entry| entry.name.starts_with("sm_")) {
            assert!(entry.inflate().starts_with(b"\x7fELF"), "{}", entry.name);
        }
        let ptx = String::from_utf8(code((99, 0)).unwrap()).unwrap();
        assert!(ptx.contains(".target sm_120") && ptx.ends_with('\0'));
        for kernel in kernels() {
            assert!(ptx.contains(&format!(".entry {}(", kernel.name)), "{kernel:?}");
        }
    }

    #[test]
    fn the_archive_is_of_these_sources() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels");
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|kind| kind == "cu" || kind == "cuh"));
        files.sort();
        let mut crc = flate2::Crc::new();
        for file in files {
            crc.update(&std::fs::read(file).unwrap());
        }
        let (of_sources, _) = number(&ARCHIVE[MAGIC.len()..]);
        assert_eq!(of_sources, crc.sum() as usize, "the kernels were changed: run `make kernels`");
    }
}
