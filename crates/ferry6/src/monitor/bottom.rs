//! Drops and the log.

use super::app::App;
use super::draw::block;
use crate::control::{LogLine, Status};
use crate::view::{View, text};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Padding, Paragraph};
use std::collections::VecDeque;

pub(super) fn drops_and_log(frame: &mut Frame<'_>, app: &App, view: &View, status: &Status, area: Rect) {
    let width = if area.width >= 110 { 40 } else { 32 };
    let [left, right] = Layout::horizontal([Constraint::Length(width), Constraint::Min(10)]).areas(area);
    drops(frame, app, view, status, left);
    log(frame, app, view, right);
}

fn drops(frame: &mut Frame<'_>, app: &App, view: &View, status: &Status, area: Rect) {
    let theme = app.theme;
    let width = usize::from(area.width.saturating_sub(4));
    let mut lines: Vec<Line<'_>> = Vec::new();
    for drop in &view.drops {
        let grows = drop.per_second > 0;
        let rate = if grows { format!(" +{}/s", text::thousands(drop.per_second)) } else { String::new() };
        let count = format!("{}{rate}", text::thousands(drop.count));
        let style = if grows { theme.notable() } else { theme.plain() };
        lines.push(entry(&drop.reason, count, style, width));
    }
    if lines.is_empty() {
        lines.push(Line::styled("no packet dropped", theme.good()));
    }
    let refused: Vec<_> = status.router.ike.iter().filter(|(_, count)| **count > 0).collect();
    if !refused.is_empty() {
        lines.push(Line::styled("IKE", theme.faint()));
        for (cause, count) in refused {
            lines.push(entry(cause, text::thousands(*count), theme.plain(), width));
        }
    }
    let all: u64 = view.drops.iter().map(|drop| drop.count).sum();
    let mut frame_of = block(app, "drops").padding(Padding::horizontal(1));
    if all > 0 {
        frame_of = frame_of
            .title(Line::styled(format!(" {} ", text::thousands(all)), theme.faint()).right_aligned());
    }
    let room = usize::from(area.height.saturating_sub(2));
    if lines.len() > room {
        let more = format!(" {} more ", lines.len() - room);
        frame_of = frame_of.title_bottom(Line::styled(more, theme.faint()).right_aligned());
    }
    frame.render_widget(Paragraph::new(lines).block(frame_of), area);
}

/// A name to the left, a number to the right.
fn entry<'a>(name: &str, number: String, style: ratatui::style::Style, width: usize) -> Line<'a> {
    let name: String = text::visible(name).replace('_', " ");
    let room = width.saturating_sub(number.len() + 1);
    let name = if name.len() > room { name.chars().take(room).collect() } else { name };
    let gap = width.saturating_sub(name.len() + number.len());
    Line::from(vec![Span::styled(name, style), Span::raw(" ".repeat(gap)), Span::styled(number, style)])
}

/// A line of the log, on as many rows as it takes; those behind the first are indented.
fn rows<'a>(app: &App, line: &LogLine, width: usize) -> Vec<Line<'a>> {
    let theme = app.theme;
    let (mark, style) = match line.level.as_str() {
        "ERROR" => ("E", theme.bad()),
        "WARN" => ("W", theme.notable()),
        "INFO" => (" ", theme.plain()),
        _ => (" ", theme.faint()),
    };
    let clock = format!("{} ", text::clock(line.time));
    let indent = clock.len() + 2;
    let rows = wrap(&text::visible(&line.text), width.saturating_sub(indent).max(10));
    let begin = |at: usize| match at {
        0 => vec![Span::styled(clock.clone(), theme.faint()), Span::styled(format!("{mark} "), style)],
        _ => vec![Span::raw(" ".repeat(indent))],
    };
    rows.into_iter()
        .enumerate()
        .map(|(at, row)| Line::from([begin(at), vec![Span::styled(row, style)]].concat()))
        .collect()
}

/// Rows of at most `width` columns, broken between words where that can be.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let columns = |text: &str| Span::raw(text).width();
    let mut rows = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let row = rows.last_mut().expect("there is one");
        if columns(row) + columns(word.trim_end()) <= width {
            row.push_str(word);
            continue;
        }
        if !row.is_empty() {
            rows.push(String::new());
        }
        // One that is longer than a row is broken anywhere.
        for c in word.chars() {
            let row = rows.last_mut().expect("there is one");
            if columns(row) + columns(c.encode_utf8(&mut [0; 4])) > width && c != ' ' {
                rows.push(String::new());
            }
            rows.last_mut().expect("there is one").push(c);
        }
    }
    rows
}

/// The title, with how far it is scrolled.
fn title(app: &App) -> String {
    match app.scrolled {
        0 => "log (UTC)".to_owned(),
        n => format!("log (UTC), {n} newer below"),
    }
}

/// The log, the newest line at the bottom, or as far up as it is scrolled.
pub(super) fn log(frame: &mut Frame<'_>, app: &App, view: &View, area: Rect) {
    let frame_of = block(app, title(app)).padding(Padding::horizontal(1));
    let inner = frame_of.inner(area);
    let room = usize::from(inner.height);
    let end = view.log.len().saturating_sub(app.scrolled);
    let mut lines: VecDeque<Line<'_>> = VecDeque::new();
    for line in view.log.range(..end).rev() {
        let rows = rows(app, line, usize::from(inner.width));
        if lines.len() >= room {
            break;
        }
        rows.into_iter().rev().for_each(|row| lines.push_front(row));
    }
    // The upper part of one that does not fit.
    let lines: Vec<Line<'_>> = lines.split_off(lines.len().saturating_sub(room)).into();
    frame.render_widget(Paragraph::new(lines).block(frame_of), area);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words() {
        assert_eq!(wrap("", 10), [""]);
        assert_eq!(wrap("one two three", 7), ["one two ", "three"]);
        assert_eq!(wrap("abcdefghijkl mn", 5), ["abcde", "fghij", "kl mn"]);
        assert_eq!(wrap("日本語日本語", 5), ["日本", "語日", "本語"]);
    }
}
