//! Networks: the CPU engine compared with the reference, and the reference with PyTorch.

#[path = "../../tests/common/networks.rs"]
#[allow(dead_code, reason = "integration tests use the rest")]
pub(super) mod common;

mod cores;
mod cpu_net;
mod golden;
mod memory;
