//! The CPU level (instruction set) and the precision of the CPU engine.

use hasn_kernels::{Level, Precision};

use crate::error::{Error, ErrorKind, Result};

/// Environment variable that selects the level, for measurements and tests.
const VARIABLE: &str = "HASN_CPU_LEVEL";

/// Largest bit depth of frames for which bf16 or int16 is chosen automatically.
const SHORT_BITS_MAX: u8 = 10;

/// Returns the fastest level of this CPU, or the one that `HASN_CPU_LEVEL` names.
pub fn detect() -> Result<Level> {
    match std::env::var_os(VARIABLE) {
        Some(name) => named(&name.to_string_lossy()),
        None => Ok(*Level::available().last().expect("every CPU is at least plain")),
    }
}

/// Returns the level of that name, if this CPU has it.
pub fn named(name: &str) -> Result<Level> {
    let available = Level::available();
    available.iter().copied().find(|level| level.name() == name).ok_or_else(|| {
        let names: Vec<_> = available.iter().map(Level::name).collect();
        Error::new(
            format!("{VARIABLE}={name}"),
            "is not a CPU level of this machine",
            format!("give one of {}", names.join(", ")),
        )
        .with_kind(ErrorKind::Unsupported)
    })
}

/// Returns the requested precision, or the fastest one without visible loss in frames of this bit depth.
pub fn precision(level: Level, requested: Option<Precision>, bits: u8) -> Result<Precision> {
    match requested {
        None if bits <= SHORT_BITS_MAX => Ok(level.precisions().last().expect("every level has f32")),
        None => Ok(Precision::F32),
        Some(precision) if level.precisions().any(|one| one == precision) => Ok(precision),
        Some(precision) => Err(Error::new(
            format!("--precision {}", precision.name()),
            format!("the CPU level {} does not multiply it", level.name()),
            "use --precision auto",
        )
        .with_kind(ErrorKind::Unsupported)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_found_by_name_and_unknown_names_refused() {
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
