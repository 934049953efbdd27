//! HASN as data: sizes, weights by layer.

/// A network: its sizes and its weights.
#[derive(Debug)]
pub struct Model {}
