//! What runs on the cores of the host.

pub mod egress;
pub mod ingest;
pub mod matrix;
