//! HASN as data: a weights file comes in, sizes and weights by layer go out.
//!
//! A [`Model`] is checked once, by [`Model::parse`]: every weight has the shape that [`Sizes`] implies and is finite. The
//! engines pack the weights for themselves; this module knows nothing of them.

pub mod catalogue;
mod parse;
mod weights;

pub(crate) use weights::{BlockWeights, CabWeights, Conv, EsaWeights, LayerNorm};
pub use weights::{Model, Sizes};
