//! Engines as users open them: the code values of each precision, and GPU drivers that fail.

#[path = "../common/mod.rs"]
mod common;

mod cuda;
mod precision;
