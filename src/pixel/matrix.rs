//! R'G'B' to Y'CbCr and back: a 3x3 matrix over three planes of f32, in place.

use rayon::prelude::*;

/// Number of samples per task of the thread pool.
const CHUNK: usize = 1 << 14;

/// Each row gives one output component of the three input components.
pub type Coefficients = [[f32; 3]; 3];

/// Multiplies every sample (a, b, c) of `planes: [3, H, W]` by `matrix`.
pub fn apply(matrix: &Coefficients, planes: &mut [f32]) {
    assert!(planes.len().is_multiple_of(3) && !planes.is_empty(), "three planes");
    let (a, rest) = planes.split_at_mut(planes.len() / 3);
    let (b, c) = rest.split_at_mut(rest.len() / 2);
    let chunks = a.par_chunks_mut(CHUNK).zip(b.par_chunks_mut(CHUNK)).zip(c.par_chunks_mut(CHUNK));
    chunks.for_each(|((a, b), c)| {
        for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
            let [x, y, z] = matrix.map(|row| row[0] * *a + row[1] * *b + row[2] * *c);
            (*a, *b, *c) = (x, y, z);
        }
    });
}

/// Returns the product that applies `first`, then `second`.
pub fn compose(second: &Coefficients, first: &Coefficients) -> Coefficients {
    second.map(|row| std::array::from_fn(|j| (0..3).map(|n| row[n] * first[n][j]).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::color::{Matrix, rgb_to_ycbcr, ycbcr_to_rgb};

    #[test]
    fn white_has_luma_only_and_the_inverse_restores_it() {
        let k = Matrix::BT709.luma_coefficients().unwrap();
        let mut planes = [1.0, 0.25, 1.0, 0.5, 1.0, 0.75];
        apply(&rgb_to_ycbcr(k), &mut planes);
        let expected = [1.0, 0.2126 * 0.25 + 0.7152 * 0.5 + 0.0722 * 0.75, 0.0];
        for (i, expected) in [0, 1, 2].into_iter().zip(expected) {
            assert!((planes[i] - expected).abs() < 1e-6);
        }
        apply(&ycbcr_to_rgb(k), &mut planes);
        for (v, expected) in planes.iter().zip([1.0, 0.25, 1.0, 0.5, 1.0, 0.75]) {
            assert!((v - expected).abs() < 1e-6);
        }
        let identity = compose(&ycbcr_to_rgb(k), &rgb_to_ycbcr(k));
        assert!((identity[0][0] - 1.0).abs() < 1e-6 && identity[2][0].abs() < 1e-6);
    }
}
