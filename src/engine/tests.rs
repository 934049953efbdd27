//! Networks: the CPU's beside the reference, and the reference beside PyTorch.

#[path = "../../tests/common/networks.rs"]
#[allow(dead_code, reason = "integration tests use the rest")]
pub(super) mod common;

mod cpu_net;
mod golden;
