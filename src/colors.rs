//! The named colours of CSS as points in the CIE L\*a\*b\* space: the data set that `vecino demo` loads.
//!
//! Near in this space is near to the eye, so a search can be judged by looking. The names and values are in
//! `data/colors.csv`, which names its source.

use std::fmt;

/// A colour with its name and its place in L\*a\*b\*.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedColor {
    /// Its CSS name, lower case.
    pub name: &'static str,
    /// `#rrggbb`.
    pub hex: &'static str,
    /// L\* (0 to 100), a\* and b\* under illuminant D65.
    pub lab: [f32; 3],
}

/// The 148 named colours, in the order of the file (by name).
pub fn named_colors() -> Vec<NamedColor> {
    parse(COLORS_CSV).expect("data/colors.csv is part of the program and a test parses it")
}

/// The text of `data/colors.csv`.
const COLORS_CSV: &str = include_str!("../data/colors.csv");
/// Its column names.
const HEADING: &str = "name,hex";

/// A line that is no colour.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text:?} is not `name,#rrggbb`")]
struct ColorLineError {
    line: usize,
    text: String,
}

fn parse(csv: &'static str) -> Result<Vec<NamedColor>, ColorLineError> {
    csv.lines()
        .enumerate()
        .filter(|(_, text)| !text.starts_with('#') && !text.is_empty() && *text != HEADING)
        .map(|(index, text)| {
            let error = || ColorLineError { line: index + 1, text: text.to_owned() };
            let (name, hex) = text.split_once(',').ok_or_else(error)?;
            let rgb = Rgb::parse(hex).ok_or_else(error)?;
            Ok(NamedColor { name, hex, lab: rgb.to_lab() })
        })
        .collect()
}

/// An sRGB colour, 8 bits a channel.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rgb([u8; 3]);

impl Rgb {
    fn parse(hex: &str) -> Option<Self> {
        let digits = hex.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii())?;
        let mut channels = [0; 3];
        for (channel, at) in channels.iter_mut().zip([0, 2, 4]) {
            *channel = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
        }
        Some(Self(channels))
    }

    /// sRGB to CIE XYZ by IEC 61966-2-1:1999 (transfer function and primaries), XYZ to L\*a\*b\* by CIE 15:2004, with
    /// the exact fractions for the junction of cube root and line (B. Lindbloom, "A continuity study of the CIE L*
    /// function", 2003).
    fn to_lab(self) -> [f32; 3] {
        let [red, green, blue] = self.0.map(|channel| linear(f64::from(channel) / 255.0));
        let fraction = |row: usize| {
            let [r, g, b] = SRGB_TO_XYZ[row];
            lab_curve((r * red + g * green + b * blue) / WHITE_D65[row])
        };
        let [x, y, z] = [fraction(0), fraction(1), fraction(2)];
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)].map(|value| value as f32)
    }
}

impl fmt::Debug for Rgb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

/// Light from an sRGB channel in 0 to 1.
fn linear(channel: f64) -> f64 {
    if channel <= 0.04045 { channel / 12.92 } else { ((channel + 0.055) / 1.055).powf(2.4) }
}

/// The function f of CIE L\*a\*b\*.
fn lab_curve(fraction: f64) -> f64 {
    const EPSILON: f64 = 216.0 / 24389.0;
    const KAPPA: f64 = 24389.0 / 27.0;
    if fraction > EPSILON { fraction.cbrt() } else { (KAPPA * fraction + 16.0) / 116.0 }
}

/// Linear sRGB to CIE XYZ, from the primaries and white point of IEC 61966-2-1.
const SRGB_TO_XYZ: [[f64; 3]; 3] = [
    [0.412_456_4, 0.357_576_1, 0.180_437_5],
    [0.212_672_9, 0.715_152_2, 0.072_175_0],
    [0.019_333_9, 0.119_192_0, 0.950_304_1],
];
/// The white of D65 under the 2 degree observer: the sum of each row above, so that white is exactly 100, 0, 0.
const WHITE_D65: [f64; 3] = [0.950_470_0, 1.000_000_1, 1.088_830_0];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn lab(hex: &str) -> [f32; 3] {
        Rgb::parse(hex).unwrap().to_lab()
    }

    fn assert_near(found: [f32; 3], expected: [f32; 3], within: f32) {
        let near = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < within);
        assert!(near, "{found:?} is not within {within} of {expected:?}");
    }

    #[test]
    fn known_colours_have_their_known_places() {
        assert_near(lab("#ff0000"), [53.24, 80.09, 67.20], 0.01);
        assert_near(lab("#00ff00"), [87.73, -86.18, 83.18], 0.01);
        assert_near(lab("#0000ff"), [32.30, 79.19, -107.86], 0.01);
        assert_near(lab("#ffffff"), [100.0, 0.0, 0.0], 1e-4);
        assert_near(lab("#000000"), [0.0, 0.0, 0.0], 1e-6);
        assert_near(lab("#808080"), [53.585, 0.0, 0.0], 0.01);
    }

    #[test]
    fn a_dark_colour_uses_the_straight_part_of_both_curves() {
        // 1/255 lies under 0.04045 and its light under 216/24389: L* is the light times 24389/27.
        assert_near(lab("#010101"), [(1.0 / 255.0 / 12.92) * (24389.0 / 27.0), 0.0, 0.0], 1e-4);
    }

    #[test]
    fn the_file_holds_148_distinct_names_in_order() {
        let colors = named_colors();
        let names: Vec<_> = colors.iter().map(|color| color.name).collect();
        assert_eq!(names.len(), 148);
        assert!(names.is_sorted());
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 148);
        let hex = |name: &str| colors.iter().find(|color| color.name == name).unwrap().hex;
        assert_eq!(
            ["aliceblue", "rebeccapurple", "tomato", "gray", "grey", "yellowgreen"].map(hex),
            ["#f0f8ff", "#663399", "#ff6347", "#808080", "#808080", "#9acd32"]
        );
        assert!(COLORS_CSV.lines().next().unwrap().contains("CSS Color Module Level 4"));
    }

    #[test]
    fn the_nearest_neighbour_looks_alike() {
        let colors = named_colors();
        let crimson = colors.iter().find(|color| color.name == "crimson").unwrap();
        let distance =
            |color: &NamedColor| -> f32 { color.lab.iter().zip(crimson.lab).map(|(a, b)| (a - b) * (a - b)).sum() };
        let nearest = colors
            .iter()
            .filter(|color| color.name != "crimson")
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))
            .unwrap();
        assert!(["firebrick", "red", "brown"].contains(&nearest.name), "{nearest:?}");
    }

    #[test]
    fn a_line_that_is_no_colour_is_named() {
        for csv in ["red", "red,#ff00", "red,ff0000", "red,#gg0000", "red,#é0000"] {
            let error = parse(csv).unwrap_err();
            assert_eq!(error, ColorLineError { line: 1, text: csv.to_owned() });
        }
    }
}
