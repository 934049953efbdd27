//! The CUDA engine: pictures in and out through a ring of pinned memory, copies beside the kernels.

mod device;
#[cfg(test)]
mod emulated;
mod engine;
mod kernels;
mod net;
mod weights;
#[cfg(test)]
mod tests;
