//! Engines as users open them: the code values of each precision, and what is made of the GPU driver.

#[path = "../common/mod.rs"]
mod common;

mod cuda;
mod precision;
