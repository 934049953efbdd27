//! The CPU level, the instruction set of the CPU engine.

use hasn_kernels::Level;

use crate::error::{Error, ErrorKind, Result};

/// Environment variable that selects the level, for measurements and tests.
const VARIABLE: &str = "HASN_CPU_LEVEL";

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

/// Returns the level of that name, if this CPU has it and `HASN_CPU_LEVEL` names no other.
pub(crate) fn usable(name: &str) -> Result<Option<Level>> {
    let forced = std::env::var_os(VARIABLE).map(|_| detect()).transpose()?;
    let levels = forced.map_or_else(Level::available, |level| vec![level]);
    Ok(levels.into_iter().find(|level| level.name() == name))
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
