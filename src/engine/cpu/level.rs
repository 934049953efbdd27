//! Which kind of CPU runs, and what it multiplies.

use hasn_kernels::{Level, Precision};

use crate::error::{Error, Result};

/// Names the level to run, for measurements and tests.
const VARIABLE: &str = "HASN_CPU_LEVEL";

/// The deepest frames that are made in bf16 or int16 unasked.
const SHORT_BITS_MAX: u8 = 10;

/// The fastest level that this CPU has, or the one that `HASN_CPU_LEVEL` names.
pub fn detect() -> Result<Level> {
    match std::env::var_os(VARIABLE) {
        Some(name) => named(&name.to_string_lossy()),
        None => Ok(*Level::available().last().expect("every CPU is at least plain")),
    }
}

/// The level of that name, if this CPU has it.
pub fn named(name: &str) -> Result<Level> {
    let available = Level::available();
    available.iter().copied().find(|level| level.name() == name).ok_or_else(|| {
        let names: Vec<_> = available.iter().map(Level::name).collect();
        Error::new(
            format!("{VARIABLE}={name}"),
            "is no CPU level of this machine",
            format!("give one of {}", names.join(", ")),
        )
    })
}

/// The precision asked for, or else the fastest one that loses nothing one can see in frames of so many bits.
pub fn precision(level: Level, asked: Option<Precision>, bits: u8) -> Result<Precision> {
    match asked {
        None if bits <= SHORT_BITS_MAX => Ok(level.precisions().last().expect("every level has f32")),
        None => Ok(Precision::F32),
        Some(precision) if level.precisions().any(|one| one == precision) => Ok(precision),
        Some(precision) => Err(Error::new(
            format!("--precision {}", precision.name()),
            format!("the CPU level {} does not multiply it", level.name()),
            "use --precision auto",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_found_by_name_and_others_refused() {
        let names: Vec<_> = Level::available().iter().map(Level::name).collect();
        assert_eq!(names[0], "plain");
        for name in &names {
            assert_eq!(named(name).unwrap().name(), *name);
        }
        for unknown in ["avx1024", "", "AVX2"] {
            let line = named(unknown).unwrap_err().to_string();
            assert!(line.starts_with(&format!("HASN_CPU_LEVEL={unknown}: ")), "{line}");
            assert!(line.ends_with(&names.join(", ")), "{line}");
        }
    }
}
