//! The CUDA engine: pictures in and out through a ring of pinned memory, copies beside the kernels.

mod archive;
mod device;
mod driver;
mod engine;
mod kernels;
mod net;
mod weights;
