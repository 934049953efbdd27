//! Mastering display and content light level in memory, as FFmpeg has them, and in the syntax of encoders.

use super::access::integer;

/// Offsets of flags in AVMasteringDisplayMetadata, in words: whether it has chromaticities, whether luminances.
const HAS_PRIMARIES: usize = 20;
const HAS_LUMINANCE: usize = 21;

/// Whether a mastering display has all its numbers.
pub(super) fn is_complete(display: &[u8]) -> bool {
    integer(display, HAS_PRIMARIES) != 0 && integer(display, HAS_LUMINANCE) != 0
}

/// x and y of R, G, B and white, of a mastering display that has nothing else.
pub(super) fn chromaticities_alone(display: &[u8]) -> Option<[f64; 8]> {
    let is_alone = integer(display, HAS_PRIMARIES) != 0 && integer(display, HAS_LUMINANCE) == 0;
    is_alone.then(|| std::array::from_fn(|i| rational(display, i)))
}

/// The encoder's own parameters for mastering display and content light level, as (option, value): FFmpeg's wrappers of
/// these encoders pass them on from version 7.1 at the earliest.
pub(super) fn encoder_parameters(
    display: Option<&[u8]>,
    light: Option<&[u8]>,
    encoder: &str,
) -> Option<(&'static str, String)> {
    let (option, display_key, light_key) = match encoder {
        "libx265" => ("x265-params", "master-display", "max-cll"),
        "libx264" | "libx264rgb" => ("x264-params", "mastering-display", "cll"),
        "libsvtav1" => ("svtav1-params", "mastering-display", "content-light"),
        _ => return None,
    };
    // H.264 and HEVC count in 1/50000 of a coordinate and 1/10000 cd/m2, SVT-AV1 reads plain numbers.
    let (chroma, luminance) = if encoder == "libsvtav1" { (1.0, 1.0) } else { (50_000.0, 10_000.0) };
    let display = display.filter(|display| is_complete(display)).map(|bytes| {
        let scaled = |i: usize, unit: f64| {
            let value = rational(bytes, i) * unit;
            if unit == 1.0 { format!("{value:.6}") } else { format!("{value:.0}") }
        };
        // In memory: x and y of R, G, B, white; minimum and maximum luminance.
        let point = |i: usize| format!("({},{})", scaled(2 * i, chroma), scaled(2 * i + 1, chroma));
        let (red, green, blue, white) = (point(0), point(1), point(2), point(3));
        let (min, max) = (scaled(8, luminance), scaled(9, luminance));
        format!("{display_key}=G{green}B{blue}R{red}WP{white}L({max},{min})")
    });
    let light = light.map(|bytes| {
        let (content, average) = (integer(bytes, 0), integer(bytes, 1));
        format!("{light_key}={content},{average}")
    });
    let values: Vec<String> = display.into_iter().chain(light).collect();
    (!values.is_empty()).then(|| (option, values.join(":")))
}

/// The `index`-th AVRational of a C structure that begins with an array of them.
fn rational(bytes: &[u8], index: usize) -> f64 {
    match integer(bytes, 2 * index + 1) {
        0 => 0.0,
        den => f64::from(integer(bytes, 2 * index)) / f64::from(den),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mastering display with these two flags.
    fn display(has_primaries: i32, has_luminance: i32) -> Vec<u8> {
        let rationals =
            [(34000, 50000), (16000, 50000), (13250, 50000), (34500, 50000), (7500, 50000), (3000, 50000)];
        let rest = [(15635, 50000), (16450, 50000), (50, 10000), (1000, 1)];
        let words = rationals.iter().chain(&rest).flat_map(|&(num, den)| [num, den]);
        words.chain([has_primaries, has_luminance]).flat_map(i32::to_ne_bytes).collect()
    }

    #[test]
    fn hdr_metadata_is_in_each_encoders_own_syntax() {
        let display = display(1, 1);
        let light: Vec<u8> = [1000i32, 400].into_iter().flat_map(i32::to_ne_bytes).collect();
        let points = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)";
        let parameters = |encoder: &str| encoder_parameters(Some(&display), Some(&light), encoder);
        assert_eq!(
            parameters("libx265"),
            Some(("x265-params", format!("master-display={points}:max-cll=1000,400")))
        );
        assert_eq!(
            parameters("libx264"),
            Some(("x264-params", format!("mastering-display={points}:cll=1000,400")))
        );
        let (_, plain) = parameters("libsvtav1").unwrap();
        assert!(
            plain.contains("G(0.265000,0.690000)") && plain.contains("L(1000.000000,0.005000)"),
            "{plain}"
        );
        assert_eq!(parameters("ffv1"), None);
        assert_eq!(encoder_parameters(None, None, "libx265"), None);
    }

    #[test]
    fn half_of_a_mastering_display_is_none_for_encoders() {
        for flags in [(1, 0), (0, 1), (0, 0)] {
            let display = display(flags.0, flags.1);
            assert_eq!(encoder_parameters(Some(&display), None, "libx265"), None, "{flags:?}");
            assert_eq!(chromaticities_alone(&display).is_some(), flags == (1, 0), "{flags:?}");
        }
        let [red_x, .., white_y] = chromaticities_alone(&display(1, 0)).unwrap();
        assert_eq!((red_x, white_y), (0.68, 0.329));
    }
}
