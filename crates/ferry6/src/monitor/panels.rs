//! Traffic, tunnels, and the SAs of one of them.

use super::app::App;
use super::draw::block;
use crate::control::Status;
use crate::control::render::milliseconds;
use crate::view::{self, Rate, View, text};
use ferry6_tun_router::status::{ChildSa, IkeSa};
use ratatui::Frame;
use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Padding, Row, Sparkline, Table, TableState};

/// The last values, the newest at the right edge.
fn sparkline(frame: &mut Frame<'_>, values: impl ExactSizeIterator<Item = u64>, style: Style, area: Rect) {
    let width = usize::from(area.width);
    let skipped = values.len().saturating_sub(width);
    let missing = width.saturating_sub(values.len());
    let data = std::iter::repeat_n(None, missing).chain(values.skip(skipped).map(Some));
    let line = Sparkline::default().data(data).style(style).absent_value_symbol(" ");
    frame.render_widget(line, area);
}

pub(super) fn traffic(frame: &mut Frame<'_>, app: &App, view: &View, area: Rect) {
    let [to_us, from_us, rtt] =
        Layout::horizontal([Constraint::Fill(2), Constraint::Fill(2), Constraint::Length(22)]).areas(area);
    let traffic = view.status.as_ref().map(|status| status.router.traffic).unwrap_or_default();
    let now = view.total.now();
    let theme = app.theme;
    let mut panel = |name: &str, style: Style, part: fn(&Rate) -> u64, total: u64, area: Rect| {
        let shown = usize::from(area.width.saturating_sub(2));
        let rates = &view.total.rates;
        let peak = rates.iter().rev().take(shown).map(part).max().unwrap_or(0);
        let frame_of = block(app, format!("{name} {}", text::rate(part(&now))))
            .title(Line::styled(format!(" {} ", text::octets(total)), theme.faint()).right_aligned())
            .title_bottom(
                Line::styled(format!(" peak {} ", text::rate(peak)), theme.faint()).right_aligned(),
            );
        let inner = frame_of.inner(area);
        frame.render_widget(frame_of, area);
        sparkline(frame, rates.iter().map(part), style, inner);
    };
    panel("in", theme.inward(), |rate| rate.to_us, traffic.bytes_in, to_us);
    panel("out", theme.outward(), |rate| rate.from_us, traffic.bytes_out, from_us);
    let sa = chosen(app, view);
    let now = sa.and_then(|sa| sa.srtt_us);
    let frame_of = block(app, format!("rtt {}", now.map_or("-".to_owned(), milliseconds)));
    let last = sa.and_then(|sa| sa.rtt_us.zip(sa.rtt_age));
    let last =
        last.map_or(String::new(), |(us, age)| format!(" {} {} ago ", milliseconds(us), text::seconds(age)));
    let frame_of = frame_of.title_bottom(Line::styled(last, theme.faint()).right_aligned());
    let inner = frame_of.inner(rtt);
    frame.render_widget(frame_of, rtt);
    if let Some(past) = sa.and_then(|sa| view.tunnels.get(&sa.id)) {
        sparkline(frame, past.rtt.iter().copied(), theme.round_trip(), inner);
    }
}

fn chosen<'a>(app: &App, view: &'a View) -> Option<&'a IkeSa> {
    view.status.as_ref()?.router.ike_sas.iter().find(|sa| Some(sa.id) == app.tunnel)
}

/// A row of a table as wide as the area: which columns there are.
struct Columns {
    from: bool,
    past: bool,
}

pub(super) fn tunnels(frame: &mut Frame<'_>, app: &App, view: &View, status: &Status, area: Rect) {
    let theme = app.theme;
    let columns = Columns { from: area.width >= 104, past: area.width >= 120 };
    let mut widths = vec![Constraint::Length(1), Constraint::Fill(2), Constraint::Fill(1)];
    let mut head = vec![" ", "peer", "address"];
    if columns.from {
        widths.push(Constraint::Length(21));
        head.push("from");
    }
    for (name, width) in [("in", 7), ("out", 7), ("rtt", 7), ("up", 6), ("rekey", 6)] {
        widths.push(Constraint::Length(width));
        head.push(name);
    }
    if columns.past {
        widths.push(Constraint::Length(16));
        head.push("in, of late");
    }
    let count = status.router.ike_sas.len();
    let addresses = view::addresses(status);
    // Of thousands only those in view are made.
    let room = usize::from(area.height.saturating_sub(3));
    let at = app.tunnel_position().unwrap_or(0);
    let first = at.saturating_sub(room.saturating_sub(1));
    let rows = status.router.ike_sas.iter().skip(first).take(room).map(|sa| {
        let past = view.tunnels.get(&sa.id);
        let rate = past.map(|past| past.series.now()).unwrap_or_default();
        let (mark, style) = match sa.state.as_str() {
            "established" => ("●", theme.good()),
            _ => ("◌", theme.notable()),
        };
        let address = addresses.get(&sa.id).map(ToString::to_string);
        let address = address.or_else(|| sa.children.first()?.remote_ts.first().cloned()).unwrap_or_default();
        // A chosen row is one block, whatever colours its cells have.
        let is_chosen = count > 1 && Some(sa.id) == app.tunnel;
        let paint = |style: Style| if is_chosen { theme.strong() } else { style };
        let mut cells = vec![
            Cell::from(Span::styled(mark, paint(style))),
            Cell::from(view::peer(sa)),
            Cell::from(address),
        ];
        if columns.from {
            cells.push(Cell::from(sa.remote.clone()));
        }
        let right = |text: String, style: Style| Cell::from(Line::styled(text, paint(style)).right_aligned());
        cells.push(right(text::short_rate(rate.to_us), theme.inward()));
        cells.push(right(text::short_rate(rate.from_us), theme.outward()));
        cells.push(right(sa.srtt_us.map_or("-".to_owned(), milliseconds), theme.round_trip()));
        cells.push(right(sa.age.map_or_else(|| sa.state.clone(), text::seconds), theme.plain()));
        let next = sa.children.iter().filter_map(|child| child.next_rekey).min();
        cells.push(right(next.map_or("-".to_owned(), text::seconds), theme.plain()));
        if columns.past {
            let past = past.map(|past| bars(past.series.rates.iter().map(|rate| rate.to_us), 16));
            cells.push(Cell::from(Span::styled(past.unwrap_or_default(), paint(theme.inward()))));
        }
        Row::new(cells)
    });
    let head = head.into_iter().enumerate().map(|(at, name)| {
        let numbers = if columns.from { 4 } else { 3 };
        let line = Line::styled(name, theme.faint());
        Cell::from(if (numbers..numbers + 5).contains(&at) { line.right_aligned() } else { line })
    });
    let title = match count {
        0 | 1 => "tunnels".to_owned(),
        _ => format!("tunnels {}/{}", text::thousands(at as u64 + 1), text::thousands(count as u64)),
    };
    let mut state = TableState::default();
    if count > 1 {
        state.select(Some(at - first.min(at)));
    }
    let table = Table::new(rows, widths)
        .header(Row::new(head))
        .column_spacing(1)
        .flex(Flex::Start)
        .row_highlight_style(theme.chosen())
        .block(block(app, title).padding(Padding::horizontal(1)));
    frame.render_stateful_widget(table, area, &mut state);
    if count == 0 {
        let place = Rect { x: area.x + 4, y: area.y + 2, width: area.width.saturating_sub(4), height: 1 };
        frame.render_widget(Line::styled("no tunnel", theme.faint()), place);
    }
}

/// The last values as one line of bars.
fn bars(values: impl DoubleEndedIterator<Item = u64> + Clone, width: usize) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.clone().rev().take(width).max().unwrap_or(0).max(1);
    let mut line: Vec<char> = values
        .rev()
        .take(width)
        .map(|value| match value {
            0 => '▁',
            // At most 8.
            _ => BARS[(u128::from(value) * 8).div_ceil(u128::from(most)).clamp(1, 8) as usize],
        })
        .collect();
    line.resize(width, ' ');
    line.iter().rev().collect()
}

/// `▰▰▰▱▱`.
fn gauge(part: f64, width: usize) -> String {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 1
    let full = ((part.clamp(0.0, 1.0) * width as f64).round() as usize).min(width);
    "▰".repeat(full) + &"▱".repeat(width - full)
}

pub(super) fn sas(frame: &mut Frame<'_>, app: &App, sa: Option<&IkeSa>, area: Rect) {
    let theme = app.theme;
    let Some(sa) = sa else {
        frame.render_widget(block(app, "security associations"), area);
        return;
    };
    let mut title = format!(" {} ", text::visible(&sa.remote));
    if let Some(mtu) = sa.path_mtu {
        title.push_str(&format!("path mtu {mtu} "));
    }
    let mut frame_of = block(app, format!("SAs of {}", view::peer(sa)))
        .title(Line::styled(title, theme.faint()).right_aligned())
        .padding(Padding::horizontal(1));
    let room = usize::from(area.height.saturating_sub(3));
    if sa.children.len() > room {
        let more = format!(" {} more ", sa.children.len() - room);
        frame_of = frame_of.title_bottom(Line::styled(more, theme.faint()).right_aligned());
    }
    let inner = frame_of.inner(area);
    frame.render_widget(frame_of, area);
    let [first, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(inner);
    let ike = vec![
        Span::styled(format!("{:<7} ", format!("IKE {}", sa.id)), theme.strong()),
        Span::raw(sa.algorithms.clone()),
    ];
    frame.render_widget(Line::from(ike), first);
    frame.render_widget(Line::raw(rekey(sa.next_rekey)).right_aligned(), first);
    let wide = area.width >= 110;
    let rows = sa.children.iter().map(|child| child_row(app, child, wide));
    let mut widths = vec![Constraint::Length(7), Constraint::Fill(1)];
    if wide {
        widths.push(Constraint::Length(20));
    }
    widths.extend([
        Constraint::Length(6),
        Constraint::Length(if wide { 16 } else { 8 }),
        Constraint::Length(15),
    ]);
    frame.render_widget(Table::new(rows, widths).column_spacing(1), rest);
}

fn rekey(next: Option<u64>) -> String {
    next.map_or("no rekey".to_owned(), |next| format!("rekey in {}", text::seconds(next)))
}

fn child_row<'a>(app: &App, child: &ChildSa, wide: bool) -> Row<'a> {
    let short = |spi: &str| spi.trim_start_matches("0x").to_owned();
    let mut what = format!("{}→{} {}", short(&child.spi_in), short(&child.spi_out), child.algorithms);
    if child.esn {
        what.push_str(" esn");
    }
    if child.ipcomp_in.is_some() || child.ipcomp_out.is_some() {
        what.push_str(" ipcomp");
    }
    if let Some(number) = child.resource {
        what.push_str(&format!(" #{number}"));
    }
    let right = |text: String| Cell::from(Line::from(text).right_aligned());
    let mut cells =
        vec![Cell::from(Span::styled(format!("ESP {}", child.reqid), app.theme.strong())), Cell::from(what)];
    if wide {
        cells.push(right(format!("{} / {}", text::octets(child.bytes_in), text::octets(child.bytes_out))));
    }
    let width = if wide { 16 } else { 8 };
    let part = view::way_to_rekey(child.age, child.next_rekey);
    let gauge = part.map_or(String::new(), |part| gauge(part, width));
    cells.extend([
        right(text::seconds(child.age)),
        Cell::from(Span::styled(gauge, app.theme.good())),
        right(rekey(child.next_rekey)),
    ]);
    Row::new(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_gauges() {
        assert_eq!(bars([0, 1, 4, 8].into_iter(), 6), "  ▁▁▄█");
        assert_eq!(bars([u64::MAX, 0].into_iter(), 2), "█▁");
        assert_eq!(
            [0.0, 0.5, 1.0, 7.0, f64::NAN].map(|part| gauge(part, 4)),
            ["▱▱▱▱", "▰▰▱▱", "▰▰▰▰", "▰▰▰▰", "▱▱▱▱"]
        );
    }
}
