//! What is shown, and what the keys do with it.

use super::theme::Theme;
use crate::view::View;
use crate::view::ask::News;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::path::PathBuf;

/// What fills the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    All,
    Log,
}

pub(super) struct App {
    pub(super) theme: Theme,
    /// By socket.
    pub(super) views: Vec<View>,
    /// The socket of the one that was chosen; the first one is shown until one was.
    shown: Option<PathBuf>,
    /// The number of the chosen tunnel.
    pub(super) tunnel: Option<u64>,
    pub(super) screen: Screen,
    pub(super) help: bool,
    /// Lines of the log below the screen.
    pub(super) scrolled: usize,
    /// Why there is no daemon at all.
    pub(super) nobody: Option<String>,
    pub(super) ended: bool,
}

impl App {
    pub(super) fn new(theme: Theme) -> Self {
        Self {
            theme,
            views: Vec::new(),
            shown: None,
            tunnel: None,
            screen: Screen::All,
            help: false,
            scrolled: 0,
            nobody: None,
            ended: false,
        }
    }

    pub(super) fn take(&mut self, news: News) {
        let at = match self.views.binary_search_by(|view| view.socket.cmp(&news.socket)) {
            Ok(at) => at,
            Err(at) => {
                self.views.insert(at, View::new(news.socket.clone()));
                at
            }
        };
        let view = &mut self.views[at];
        let before = view.log.back().map(|line| line.number);
        view.take(news);
        // Who reads further up keeps his lines in view.
        if self.scrolled > 0 && Some(at) == self.position() {
            let view = &self.views[at];
            let new = view.log.iter().rev().take_while(|line| Some(line.number) > before).count();
            self.scrolled = (self.scrolled + new).min(view.log.len());
        }
        self.keep_tunnel();
    }

    /// Which of the daemons is shown.
    pub(super) fn position(&self) -> Option<usize> {
        let chosen = self.views.iter().position(|view| Some(&view.socket) == self.shown.as_ref());
        chosen.or_else(|| (!self.views.is_empty()).then_some(0))
    }

    pub(super) fn view(&self) -> Option<&View> {
        self.position().map(|at| &self.views[at])
    }

    fn numbers(&self) -> Vec<u64> {
        let status = self.view().and_then(|view| view.status.as_ref());
        status.map_or_else(Vec::new, |status| status.router.ike_sas.iter().map(|sa| sa.id).collect())
    }

    /// The chosen tunnel's place in the list.
    pub(super) fn tunnel_position(&self) -> Option<usize> {
        self.numbers().iter().position(|id| Some(*id) == self.tunnel)
    }

    /// Some tunnel is chosen wherever there is one.
    fn keep_tunnel(&mut self) {
        if self.tunnel_position().is_none() {
            self.tunnel = self.numbers().first().copied();
        }
    }

    fn next_daemon(&mut self, step: isize) {
        let Some(at) = self.position() else { return };
        let next = at.saturating_add_signed(step).min(self.views.len() - 1);
        self.show(next);
    }

    fn show(&mut self, at: usize) {
        if let Some(view) = self.views.get(at) {
            self.shown = Some(view.socket.clone());
            self.tunnel = None;
            self.scrolled = 0;
            self.keep_tunnel();
        }
    }

    fn next_tunnel(&mut self, step: isize) {
        let numbers = self.numbers();
        let at = self.tunnel_position().unwrap_or(0).saturating_add_signed(step);
        self.tunnel = numbers.get(at.min(numbers.len().saturating_sub(1))).copied();
    }

    fn scroll(&mut self, step: isize) {
        let most = self.view().map_or(0, |view| view.log.len().saturating_sub(1));
        self.scrolled = self.scrolled.saturating_add_signed(step).min(most);
    }

    pub(super) fn key(&mut self, key: KeyEvent) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        if self.help {
            // Any key closes it, and those that end it all do that.
            self.help = false;
            if !matches!(key.code, KeyCode::Char('q' | 'c')) {
                return;
            }
        }
        let log = self.screen == Screen::Log;
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => self.ended = true,
            KeyCode::Char('q' | 'Q') => self.ended = true,
            KeyCode::Esc if log => self.screen = Screen::All,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('l') => self.screen = if log { Screen::All } else { Screen::Log },
            KeyCode::Left | KeyCode::BackTab => self.next_daemon(-1),
            KeyCode::Right => self.next_daemon(1),
            KeyCode::Tab => {
                let next = self.position().map_or(0, |at| (at + 1) % self.views.len());
                self.show(next);
            }
            KeyCode::Char(digit @ '1'..='9') => self.show(digit as usize - '1' as usize),
            KeyCode::Up if log => self.scroll(1),
            KeyCode::Down if log => self.scroll(-1),
            KeyCode::Up => self.next_tunnel(-1),
            KeyCode::Down => self.next_tunnel(1),
            KeyCode::PageUp => self.scroll(10),
            KeyCode::PageDown => self.scroll(-10),
            KeyCode::Home => self.scroll(isize::MAX),
            KeyCode::End => self.scrolled = 0,
            _ => {}
        }
    }
}
