//! A screen as SVG.

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use std::fmt::Write as _;

/// Pixels of a cell.
const CELL: (f32, f32) = (8.4, 18.0);
const MARGIN: f32 = 12.0;
const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d8dbe2";

fn colour(colour: Color) -> &'static str {
    match colour {
        Color::Cyan => "#56c8d8",
        Color::Magenta => "#c792ea",
        Color::Yellow => "#e5c07b",
        Color::Green => "#7ec87e",
        Color::Red => "#f07178",
        Color::DarkGray => "#7b828f",
        _ => FOREGROUND,
    }
}

/// Foreground, background where it is another one, and whether it is bold.
fn style(cell: &Cell) -> (&'static str, Option<&'static str>, bool) {
    let foreground = colour(cell.fg);
    let bold = cell.modifier.contains(Modifier::BOLD);
    if cell.modifier.contains(Modifier::REVERSED) {
        (BACKGROUND, Some(foreground), bold)
    } else {
        (foreground, None, bold)
    }
}

pub(super) fn svg(buffer: &Buffer) -> String {
    let (columns, rows) = (buffer.area.width, buffer.area.height);
    let (width, height) =
        (f32::from(columns) * CELL.0 + 2.0 * MARGIN, f32::from(rows) * CELL.1 + 2.0 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\">\n\
         <title>ferry6 monitor</title>\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n"
    );
    for (row, cells) in (0_u16..).zip(buffer.content.chunks(usize::from(columns))) {
        let y = MARGIN + f32::from(row) * CELL.1;
        let mut at = 0;
        for run in cells.chunk_by(|a, b| style(a) == style(b)) {
            let (foreground, background, bold) = style(&run[0]);
            let x = MARGIN + at as f32 * CELL.0;
            let length = run.len() as f32 * CELL.0;
            at += run.len();
            if let Some(background) = background {
                let _ = writeln!(
                    out,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{}\" fill=\"{background}\"/>",
                    CELL.1
                );
            }
            let text: String = run.iter().map(Cell::symbol).collect();
            if text.trim().is_empty() {
                continue;
            }
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            let weight = if bold { " font-weight=\"bold\"" } else { "" };
            // The length keeps the columns, whatever font there is.
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{length:.1}\" lengthAdjust=\"spacingAndGlyphs\" fill=\"{foreground}\"{weight} xml:space=\"preserve\">{text}</text>",
                y + 13.5
            );
        }
    }
    out.push_str("</svg>\n");
    out
}
