//! The screen as a whole.

use super::app::{App, Screen};
use super::{bottom, panels};
use crate::view::{View, text};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Clear, Paragraph, Wrap};
use std::time::Instant;

/// The smallest screen that holds everything.
pub(super) const SMALLEST: (u16, u16) = (80, 24);

pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App, now: Instant) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        return too_small(frame, app, area);
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)]).areas(area);
    header(frame, app, head, now);
    footer(frame, app, foot, now);
    match app.view() {
        None => nobody(frame, app, body),
        Some(view) if app.screen == Screen::Log => bottom::log(frame, app, view, body),
        Some(view) if view.status.is_none() => nobody(frame, app, body),
        Some(view) => whole(frame, app, view, body),
    }
    if app.help {
        help(frame, app, area);
    }
}

fn whole(frame: &mut Frame<'_>, app: &App, view: &View, area: Rect) {
    let Some(status) = &view.status else { return };
    let tall = area.height >= 30;
    let tunnels = u16::try_from(status.router.ike_sas.len()).unwrap_or(u16::MAX).max(1);
    let chosen = status.router.ike_sas.iter().find(|sa| Some(sa.id) == app.tunnel);
    let sas = chosen.map_or(1, |sa| u16::try_from(sa.children.len()).unwrap_or(u16::MAX).saturating_add(1));
    let traffic = if tall { 7 } else { 5 };
    let most_sas = if tall { 6 } else { 3 };
    // The log has at least this, with the frame.
    let log = if tall { 9 } else { 6 };
    let sas = sas.min(most_sas) + 2;
    let room = area.height - traffic - sas - log;
    let tunnels = tunnels.saturating_add(3).min(room.max(4));
    let [traffic, tunnels, sas, rest] = Layout::vertical([
        Constraint::Length(traffic),
        Constraint::Length(tunnels),
        Constraint::Length(sas),
        Constraint::Min(4),
    ])
    .areas(area);
    panels::traffic(frame, app, view, traffic);
    panels::tunnels(frame, app, view, status, tunnels);
    panels::sas(frame, app, chosen, sas);
    bottom::drops_and_log(frame, app, view, status, rest);
}

/// A frame with a title.
pub(super) fn block<'a>(app: &App, title: impl Into<String>) -> Block<'a> {
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(app.theme.faint())
        .title(Span::styled(format!(" {} ", title.into()), app.theme.title()))
}

fn header(frame: &mut Frame<'_>, app: &App, area: Rect, now: Instant) {
    let theme = app.theme;
    let mut tabs = vec![Span::styled(" ferry6 ", theme.title())];
    for (at, view) in app.views.iter().enumerate() {
        let chosen = Some(at) == app.position();
        let mark = if view.is_there() { "●" } else { "✗" };
        let (style, colour) = match (view.is_there(), chosen) {
            (_, true) => (theme.chosen(), theme.chosen()),
            (true, false) => (theme.plain(), theme.good()),
            (false, false) => (theme.plain(), theme.bad()),
        };
        tabs.push(Span::styled(format!(" {mark}"), colour));
        tabs.push(Span::styled(format!(" {} {} ", at + 1, view.name()), style));
        tabs.push(Span::raw(" "));
    }
    let mut second = Vec::new();
    if let Some(view) = app.view() {
        match (view.gone_for(now), &view.fault, &view.status) {
            (Some(gone), Some((why, _)), _) => {
                second
                    .push(Span::styled(format!(" gone for {}", text::seconds(gone.as_secs())), theme.bad()));
                second.push(Span::raw(format!("  {}", text::visible(why))));
            }
            (_, _, Some(status)) => second = facts(app, status),
            _ => {}
        }
        if let Some(status) = view.status.as_ref().filter(|_| view.is_there()) {
            let right = format!("{} pid {} up {} ", status.version, status.pid, text::seconds(status.uptime));
            let width = u16::try_from(right.len()).unwrap_or(0);
            let used: usize = tabs.iter().map(Span::width).sum();
            if used + right.len() < usize::from(area.width) {
                let place = Rect { x: area.right() - width, width, height: 1, ..area };
                frame.render_widget(Span::styled(right, theme.faint()), place);
            }
        }
    }
    let place = |y| Rect { y: area.y + y, height: 1, ..area };
    let used: usize = tabs.iter().map(Span::width).sum();
    let width = u16::try_from(used).unwrap_or(u16::MAX).min(area.width);
    frame.render_widget(Line::from(tabs), Rect { width, ..place(0) });
    frame.render_widget(Line::from(second), place(1));
}

/// The second line: what matters of a client, or of a broker.
fn facts(app: &App, status: &crate::control::Status) -> Vec<Span<'static>> {
    let theme = app.theme;
    let mut line: Vec<Span<'static>> = vec![Span::raw(" ")];
    let mut add = |word: &str, value: String| {
        if line.len() > 1 {
            line.push(Span::styled("  ", theme.faint()));
        }
        if !word.is_empty() {
            line.push(Span::styled(format!("{word} "), theme.faint()));
        }
        line.push(Span::raw(value));
    };
    if let Some(client) = &status.client {
        add("", client.state.clone());
        add("broker", text::visible(&client.broker));
        if let Some(address) = client.address {
            add("address", address.to_string());
        }
        if let Some(retry) = client.retry_in {
            add("next try in", text::seconds(retry));
        }
        if client.leak_guard.as_ref().is_some_and(|list| !list.is_empty()) {
            add("guard", "on".to_owned());
        }
        add("mtu", status.router.mtu.to_string());
        if let Some(reason) = &client.reason {
            add("", text::visible(reason));
        }
        // Where there is room.
        if let Some(prefix) = &client.prefix {
            add("prefix", text::visible(prefix));
        }
        let style = match client.state.as_str() {
            "up" => theme.good(),
            "down" => theme.faint(),
            _ => theme.notable(),
        };
        line[1] =
            Span::styled(format!("● {}", client.state), style.add_modifier(ratatui::style::Modifier::BOLD));
    } else {
        let up = status.router.ike_sas.iter().filter(|sa| sa.age.is_some()).count();
        add("tunnels", text::thousands(up as u64));
        if status.router.half_open > 0 {
            add("half-open", text::thousands(status.router.half_open as u64));
        }
        if let Some(broker) = &status.broker {
            add("leases", text::thousands(broker.leases.len() as u64));
            add("routes", broker.routes.join(", "));
            if !broker.forwarding {
                add("", "FORWARDING IS OFF".to_owned());
            }
            add("on", broker.listen.clone());
        }
    }
    if status.keylog.is_some() {
        line.push(Span::styled("  KEYS ARE WRITTEN", theme.bad()));
    }
    line
}

fn footer(frame: &mut Frame<'_>, app: &App, area: Rect, now: Instant) {
    let theme = app.theme;
    let keys: &[(&str, &str)] = match app.screen {
        Screen::All => &[
            ("q", "quit"),
            ("←→", "daemon"),
            ("↑↓", "tunnel"),
            ("l", "log"),
            ("PgUp", "older"),
            ("?", "help"),
        ],
        Screen::Log => {
            &[("q", "quit"), ("←→", "daemon"), ("↑↓ PgUp PgDn", "scroll"), ("l", "back"), ("?", "help")]
        }
    };
    let mut line = vec![Span::raw(" ")];
    for (key, what) in keys {
        line.push(Span::styled((*key).to_owned(), theme.strong()));
        line.push(Span::styled(format!(" {what}   "), theme.faint()));
    }
    frame.render_widget(Line::from(line), area);
    if let Some(late) =
        app.view().and_then(|view| view.answered).map(|at| now.saturating_duration_since(at).as_secs())
        && late > 3
    {
        let right = format!("as of {} ago ", text::seconds(late));
        frame.render_widget(Line::styled(right, theme.notable()).alignment(Alignment::Right), area);
    }
}

fn middle(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}

fn nobody(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let why = match app.view() {
        Some(view) => view.fault.as_ref().map_or("waiting for an answer", |(why, _)| why),
        None => app.nobody.as_deref().unwrap_or("looking for daemons"),
    };
    let lines = vec![
        Line::styled(text::visible(why), app.theme.notable()),
        Line::default(),
        Line::styled("It appears here as soon as it answers.", app.theme.faint()),
    ];
    let text = Paragraph::new(lines).alignment(Alignment::Center).wrap(Wrap { trim: true });
    frame.render_widget(text, middle(area, area.width.saturating_sub(8), 6));
}

fn too_small(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let lines = vec![
        Line::styled("ferry6 monitor", app.theme.title()),
        Line::raw(format!("needs {} x {}", SMALLEST.0, SMALLEST.1)),
        Line::raw(format!("this is {} x {}", area.width, area.height)),
        Line::styled("q quits", app.theme.faint()),
    ];
    let place = middle(area, area.width, 4);
    frame.render_widget(Paragraph::new(lines).alignment(Alignment::Center), place);
}

const HELP: [(&str, &str); 9] = [
    ("q, Ctrl-C", "end"),
    ("← →, Tab, 1-9", "another daemon"),
    ("↑ ↓", "another tunnel, whose SAs and round trip are shown"),
    ("l", "the log on the whole screen, and back"),
    ("PgUp PgDn Home End", "older and newer lines of the log"),
    ("", ""),
    ("in, out", "to this machine and from it, as seen inside of the tunnel"),
    ("rtt", "from an IKE request to its answer, the peer's work included"),
    ("▰▰▱", "how far an SA is on its way to its next rekey"),
];

fn help(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let lines: Vec<Line<'_>> = HELP
        .iter()
        .map(|(key, what)| {
            Line::from(vec![Span::styled(format!(" {key:<20}"), app.theme.strong()), Span::raw(*what)])
        })
        .collect();
    let place = middle(area, 78, u16::try_from(HELP.len()).unwrap_or(9) + 2);
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(block(app, "Help")), place);
}
