//! The screen, drawn in memory.

mod panics;
mod picture;

use super::app::{App, Screen};
use super::draw::draw;
use super::theme::Theme;
use crate::view::ask::News;
use crate::view::tests::{broker, client, log, news};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;
use std::time::{Duration, Instant};

fn key(app: &mut App, code: KeyCode) {
    app.key(KeyEvent::new(code, KeyModifiers::NONE));
}

fn paint(app: &mut App, width: u16, height: u16, now: Instant) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app, now)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width);
    buffer.content.chunks(width).map(|row| row.iter().map(|cell| cell.symbol()).collect()).collect()
}

fn text(app: &mut App, width: u16, height: u16) -> String {
    let now = Instant::now();
    lines(&paint(app, width, height, now)).join("\n")
}

/// What was carried after so many seconds, so that there is something to see.
fn wave(seconds: u64) -> u64 {
    (0..seconds).map(|n| 3 + (n * 7) % 5 + if n % 40 > 24 { 6 + n % 9 } else { 0 }).sum()
}

const NAMES: [&str; 4] = ["alice@my.domain", "bob@my.domain", "C=DE, O=Ferry, CN=carol", "dave@my.domain"];

/// A broker and a client that have been watched for a while.
fn watched(seconds: u64) -> (App, Instant) {
    let mut app = App::new(Theme::new(true));
    let start = Instant::now();
    for n in 0..=seconds {
        let at = start + Duration::from_secs(n);
        let mut told = News {
            log: (n == 0).then(|| {
                log(&[
                    ("INFO", "broker on 0.0.0.0 UDP 500 and 4500, device ferry0, routes 2a00::100/120"),
                    ("INFO", "alice@my.domain up from 1.2.3.1:4500 (clients): 2a00::101"),
                    ("WARN", "eve@my.domain at 6.6.6.6:500: certificate revoked"),
                    ("INFO", "bob@my.domain up from 1.2.3.2:4500 (clients): 2a00::102"),
                    ("INFO", "IKE SA 1 rekeyed"),
                ])
            }),
            ..news("/run/ferry6/broker.sock", at, broker(wave(n), &NAMES))
        };
        if let Ok(status) = &mut told.status {
            let jitter = (n * n) % 13;
            for sa in &mut status.router.ike_sas {
                sa.rtt_us = sa.rtt_us.map(|us| us + 700 * jitter);
            }
            status.router.drops.insert("in_unknown_spi".into(), 41 + n * 3);
        }
        app.take(told);
        app.take(news("/run/ferry6/client.sock", at, client(wave(n) / 3)));
    }
    (app, start + Duration::from_secs(seconds))
}

#[test]
fn everything_fits_from_80x24_on() {
    for (width, height) in [(80, 24), (100, 30), (120, 40), (200, 60)] {
        let (mut app, _) = watched(100);
        let screen = text(&mut app, width, height);
        for wanted in [
            "AES_GCM_16_256 esn",
            "PRF_HMAC_SHA2_256/CURVE25519",
            "path mtu 1492",
            "1 broker",
            "2 client",
            "tunnels 1/4",
            "alice@my.domain",
            "2a00::101",
            "bob@my.domain",
            "SAs of alice@my.domain",
            "IKE 1",
            "ESP 1",
            "rekey in 50m",
            "▰",
            "in unknown spi",
            "+3/s",
            "drops",
            "log (UTC)",
            "certificate revoked",
            "Mbit/s",
            "rtt 13.7ms",
            "q quit",
            "leases 4",
        ] {
            assert!(screen.contains(wanted), "{width}x{height} lacks {wanted:?}:\n{screen}");
        }
        assert!(screen.lines().all(|line| !line.ends_with('…')));
    }
}

#[test]
fn a_smaller_screen_says_so_and_any_size_is_drawn() {
    let (mut app, now) = watched(3);
    let screen = text(&mut app, 79, 24);
    assert!(screen.contains("needs 80 x 24") && screen.contains("this is 79 x 24"), "{screen}");
    for screen in [Screen::All, Screen::Log] {
        app.screen = screen;
        for help in [false, true] {
            app.help = help;
            for (width, height) in [(1, 1), (10, 3), (80, 24), (81, 25), (80, 500), (500, 24), (300, 200)] {
                paint(&mut app, width, height, now);
            }
        }
    }
}

#[test]
fn keys() {
    let (mut app, _) = watched(3);
    key(&mut app, KeyCode::Down);
    assert!(text(&mut app, 80, 24).contains("SAs of bob@my.domain"));
    key(&mut app, KeyCode::Up);
    key(&mut app, KeyCode::Up);
    assert!(text(&mut app, 80, 24).contains("SAs of alice@my.domain"));
    key(&mut app, KeyCode::Right);
    let screen = text(&mut app, 80, 24);
    assert!(screen.contains("● up  broker tunnel.my.domain  address 2a00::101  guard on"), "{screen}");
    key(&mut app, KeyCode::Right);
    key(&mut app, KeyCode::Left);
    assert!(text(&mut app, 80, 24).contains("SAs of alice@my.domain"));
    key(&mut app, KeyCode::Char('2'));
    assert!(text(&mut app, 80, 24).contains("SAs of tunnel.my.domain"));
    key(&mut app, KeyCode::Tab);
    key(&mut app, KeyCode::Char('?'));
    assert!(text(&mut app, 80, 24).contains("another tunnel, whose SAs"));
    key(&mut app, KeyCode::Char('x'));
    assert!(!text(&mut app, 80, 24).contains("another tunnel, whose SAs"));
    key(&mut app, KeyCode::Char('l'));
    let screen = text(&mut app, 80, 24);
    assert!(screen.contains("broker on 0.0.0.0") && !screen.contains("SAs of"), "{screen}");
    key(&mut app, KeyCode::PageUp);
    assert!(text(&mut app, 80, 24).contains("4 newer below"));
    key(&mut app, KeyCode::Esc);
    assert_eq!(app.screen, Screen::All);
    assert!(!app.ended);
    key(&mut app, KeyCode::Char('q'));
    assert!(app.ended);
    let (mut app, _) = watched(0);
    app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(app.ended);
}

#[test]
fn a_daemon_that_goes_and_comes_back() {
    let mut app = App::new(Theme::new(true));
    app.nobody = Some("no ferry6 daemon is running".into());
    assert!(text(&mut app, 80, 24).contains("no ferry6 daemon is running"));
    let (mut app, now) = watched(3);
    let socket = "/run/ferry6/broker.sock";
    let fault = |at| News { socket: socket.into(), at, status: Err("nobody answers".into()), log: None };
    app.take(fault(now));
    let screen = lines(&paint(&mut app, 80, 24, now + Duration::from_secs(9))).join("\n");
    assert!(screen.contains("✗ 1 broker") && screen.contains("gone for 9s  nobody answers"), "{screen}");
    assert!(screen.contains("alice@my.domain"), "what was known last is still there");
    let mut again = broker(0, &NAMES[..1]);
    again.pid = 4343;
    app.take(news(socket, now + Duration::from_secs(10), again));
    let screen = text(&mut app, 80, 24);
    assert!(
        screen.contains("● 1 broker") && screen.contains("pid 4343") && !screen.contains("gone"),
        "{screen}"
    );
}

#[test]
fn thousands_of_tunnels() {
    let names: Vec<String> = (0..200).map(|n| format!("user{n}@my.domain")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut app = App::new(Theme::new(true));
    app.take(news("x.sock", Instant::now(), broker(0, &names)));
    for _ in 0..150 {
        key(&mut app, KeyCode::Down);
    }
    let screen = text(&mut app, 80, 24);
    assert!(screen.contains("tunnels 151/200") && screen.contains("user150@my.domain"), "{screen}");
    // And one that is gone is not chosen any more.
    app.take(news("x.sock", Instant::now(), broker(0, &names[..2])));
    assert!(text(&mut app, 80, 24).contains("tunnels 1/2"));
}

/// The picture in the documentation is what is drawn: `UPDATE_PICTURES=1 cargo test` draws it anew.
#[test]
fn the_picture_in_the_documentation() {
    let (mut app, now) = watched(100);
    let svg = picture::svg(&paint(&mut app, 100, 30, now));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/monitor.svg");
    if std::env::var_os("UPDATE_PICTURES").is_some() {
        std::fs::write(path, &svg).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap();
    assert!(there == svg, "docs/monitor.svg is not what is drawn now: UPDATE_PICTURES=1 cargo test");
}

/// Whatever a peer calls itself, it moves no cursor and turns no text.
#[test]
fn hostile_names() {
    let names =
        ["\x1b[2J\x1b[1;1Hroot", "a\u{202e}b\u{200b}", "<script>", &"w".repeat(3000), "日本語@例え", ""];
    let mut app = App::new(Theme::new(true));
    app.take(News {
        log: Some(log(&[("INFO", "up \x1b[31m\u{202e}x"), ("WARN", "\n\n\n")])),
        ..news("x.sock", Instant::now(), broker(0, &names))
    });
    for _ in 0..names.len() {
        for (width, height) in [(80, 24), (120, 40)] {
            let screen = text(&mut app, width, height);
            assert!(!screen.contains(['\x1b', '\u{202e}', '\u{200b}', '\r']), "{screen:?}");
        }
        key(&mut app, KeyCode::Down);
    }
    key(&mut app, KeyCode::Char('l'));
    assert!(text(&mut app, 80, 24).contains("up \u{fffd}[31m\u{fffd}x"));
}

#[test]
fn no_colours_where_none_are_wanted() {
    let (mut app, now) = watched(30);
    let coloured =
        |buffer: &Buffer| buffer.content.iter().any(|c| c.fg != Color::Reset || c.bg != Color::Reset);
    assert!(coloured(&paint(&mut app, 120, 40, now)));
    app.theme = Theme::new(false);
    app.help = true;
    assert!(!coloured(&paint(&mut app, 120, 40, now)));
}
