//! The plot: four panels of bars, as plain SVG text.

use super::report::{COLUMNS, Row};
use std::fmt::Write as _;

/// Heading and the columns whose bars stand side by side.
const PANELS: &[(&str, &[usize])] = &[
    ("TCP, Gbit/s: 1 stream up, down, 4 up, down", &[0, 1, 2, 3]),
    ("CPU seconds per GB, both ends' processes", &[4]),
    ("UDP of 64 octets, 1000 packets a second: up, down", &[6, 7]),
    ("ping, median, µs", &[8]),
];
const COLOURS: [&str; 4] = ["#1b6ca8", "#5aa9d6", "#d97b29", "#f0b67f"];
const WIDTH: usize = 980;
const LABEL: usize = 170;
const BAR: usize = 8;
const VALUE: usize = 60;

/// Draws the medians.
pub fn svg(rows: &[Row]) -> String {
    let mut body = String::new();
    let mut y = 30;
    for (heading, columns) in PANELS {
        let _ = writeln!(body, "<text x=\"10\" y=\"{y}\" class=\"h\">{heading}</text>");
        y += 12;
        let values: Vec<(&str, Vec<Option<f64>>)> = rows
            .iter()
            .map(|row| (row.subject.name, columns.iter().map(|c| row.median(COLUMNS[*c].3)).collect()))
            .collect();
        let top = values.iter().flat_map(|(_, v)| v).flatten().copied().fold(0.0, f64::max);
        for (name, values) in values {
            if values.iter().all(Option::is_none) {
                continue;
            }
            let height = BAR * columns.len();
            let middle = y + height / 2 + 4;
            let _ = writeln!(body, "<text x=\"{}\" y=\"{middle}\" class=\"n\">{name}</text>", LABEL - 8);
            for (bar, value) in values.iter().enumerate() {
                let Some(value) = value else { continue };
                let full = (WIDTH - LABEL - VALUE) as f64;
                let width = if top > 0.0 { (value / top * full).max(1.0) } else { 1.0 };
                let at = y + bar * BAR;
                let decimals = COLUMNS[columns[bar]].2;
                let _ = writeln!(
                    body,
                    "<rect x=\"{LABEL}\" y=\"{at}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/>\
                     <text x=\"{:.1}\" y=\"{}\" class=\"v\">{value:.decimals$}</text>",
                    BAR - 1,
                    COLOURS[bar % COLOURS.len()],
                    LABEL as f64 + width + 4.0,
                    at + BAR - 1,
                );
            }
            y += height + 6;
        }
        y += 26;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\">\n\
         <style>text{{font-family:sans-serif;fill:#222}}.h{{font-size:14px;font-weight:bold}}.n{{font-size:12px;\
         text-anchor:end}}.v{{font-size:9px}}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::measure::Sample;
    use super::super::subject::ALL;
    use super::*;

    #[test]
    fn the_longest_bar_is_the_best() {
        let row = |index: usize, gbits: f64| Row {
            subject: ALL[index],
            samples: vec![Some(Sample {
                tcp: [gbits; 4],
                udp: [1.0; 2],
                ping: [1.0; 2],
                ..Sample::default()
            })],
        };
        let text = svg(&[row(0, 10.0), row(1, 5.0)]);
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
        let full = format!("width=\"{}.0\"", WIDTH - LABEL - VALUE);
        let half = format!("width=\"{}.0\"", (WIDTH - LABEL - VALUE) / 2);
        assert_eq!(text.matches(&half).count(), 4, "{text}");
        assert!(text.matches(&full).count() >= 4, "{text}");
        assert!(text.contains(">10.00</text>") && text.contains(">none</text>"));
    }
}
