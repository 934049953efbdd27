//! HASN as data: a weights file comes in, sizes and weights by layer go out.
//!
//! What is here has been checked once, by [`Model::parse`]: every weight has the shape that [`Sizes`] implies and is
//! finite. The engines pack the weights as they like; this module knows nothing of them.

pub mod catalogue;
mod parse;
mod weights;

pub use weights::{BlockWeights, CabWeights, Conv, EsaWeights, LayerNorm, Model, Sizes};
