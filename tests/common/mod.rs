//! Golden files and models with weights by chance; in [`program`] the program as a user runs it.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

pub mod audio;
pub mod flat;
mod networks;
pub mod program;
pub mod random;
pub mod sweep;
pub mod terminal;

pub use networks::*;
