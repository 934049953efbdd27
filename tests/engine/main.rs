//! Networks: each engine beside the reference, and the reference beside PyTorch.

#[path = "../common/mod.rs"]
mod common;

mod cpu_net;
mod cuda;
mod golden;
mod precision;
