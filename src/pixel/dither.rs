//! Rounding to code values: to the nearest, or with an ordered dither pattern.

/// Side of the dither pattern.
pub(super) const SIDE: usize = 16;

/// Rounding of a number between two code values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rounding {
    /// To the nearest.
    Nearest,
    /// With an ordered pattern, the same in every frame, which keeps the mean at a smaller bit depth.
    Dither,
}

/// Returns the offsets added before rounding, by row and column of a sample modulo 16: the Bayer matrix, -0.5 to 0.5.
pub(super) fn pattern(rounding: Rounding) -> [[f32; SIDE]; SIDE] {
    let bayer = |y: usize, x: usize| {
        // The bits of x ^ y and of y, interleaved, the lowest first: the recursive definition.
        (0..4).fold(0, |rank, bit| rank << 2 | ((x ^ y) >> bit & 1) << 1 | (y >> bit & 1))
    };
    std::array::from_fn(|y| {
        std::array::from_fn(|x| match rounding {
            Rounding::Nearest => 0.0,
            Rounding::Dither => (bayer(y, x) as f32 + 0.5) / 256.0 - 0.5,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_has_every_threshold_once_and_neighbours_differ() {
        let pattern = pattern(Rounding::Dither);
        let mut all: Vec<f32> = pattern.concat();
        all.sort_by(f32::total_cmp);
        for (i, v) in all.iter().enumerate() {
            assert_eq!(*v, (i as f32 + 0.5) / 256.0 - 0.5);
        }
        // Every 2x2 has one threshold of each quarter, which makes the pattern fine.
        for (y, x) in [(0, 0), (3, 5), (8, 14)] {
            let mut quarters = [(y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)]
                .map(|(y, x)| ((pattern[y][x] + 0.5) * 4.0) as u8);
            quarters.sort_unstable();
            assert_eq!(quarters, [0, 1, 2, 3]);
        }
    }
}
