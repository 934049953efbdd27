//! The SIMD engine.
