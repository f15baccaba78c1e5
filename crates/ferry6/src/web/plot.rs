//! Curves as inline SVG.

use std::fmt::Write as _;

/// Units of the drawing; the page stretches it.
const WIDTH: usize = 240;
const HEIGHT: usize = 60;

/// An area below a curve of the last `most` values, the newest at the right edge. `label` is what a screen reader says, and is escaped
/// already.
pub(super) fn area(
    values: impl ExactSizeIterator<Item = u64>,
    most: usize,
    class: &str,
    label: &str,
) -> String {
    let skipped = values.len().saturating_sub(most);
    let values: Vec<u64> = values.skip(skipped).collect();
    let top = values.iter().copied().max().unwrap_or(0).max(1);
    let step = |at: usize| at * WIDTH * 10 / most.saturating_sub(1).max(1);
    let first = most.saturating_sub(values.len());
    let mut line = String::new();
    for (at, value) in values.iter().enumerate() {
        let x = step(first + at);
        let y = u128::from(*value) * ((HEIGHT - 4) as u128 * 10) / u128::from(top);
        let y = HEIGHT * 10 - usize::try_from(y).unwrap_or(0);
        let _ = write!(line, "{}{} {}", if at == 0 { "" } else { " " }, tenth(x), tenth(y));
    }
    let mut out = format!(
        "<svg class=\"plot {class}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{label}\">"
    );
    for y in [HEIGHT / 4, HEIGHT / 2, HEIGHT * 3 / 4] {
        let _ = write!(out, "<path class=\"grid\" d=\"M0 {y}H{WIDTH}\"/>");
    }
    if values.len() > 1 {
        let left = tenth(step(first));
        let _ = write!(out, "<path class=\"fill\" d=\"M{left} {HEIGHT}L{line}V{HEIGHT}Z\"/>");
        let _ = write!(out, "<path class=\"line\" d=\"M{line}\"/>");
    }
    out.push_str("</svg>");
    out
}

fn tenth(number: usize) -> String {
    format!("{}.{}", number / 10, number % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_at_the_right_edge() {
        let svg = area([0, 5, 10].into_iter(), 5, "in", "x");
        assert!(svg.contains("d=\"M120.0 60.0 180.0 32.0 240.0 4.0\""), "{svg}");
        // None, one, many, and large ones.
        for values in [vec![], vec![7], vec![u64::MAX; 500]] {
            let svg = area(values.into_iter(), 240, "in", "x");
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
        }
    }
}
