//! Colours, all from the terminal's own sixteen, so that they fit a light one and a dark one; or none.

use ratatui::style::{Color, Modifier, Style};

/// With colours or without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    colours: bool,
}

impl Theme {
    pub(super) const fn new(colours: bool) -> Self {
        Self { colours }
    }

    /// Without, where NO_COLOR says so (no-color.org: present and not empty).
    pub(super) fn from_environment() -> Self {
        Self::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    fn of(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    pub(super) fn plain(self) -> Style {
        Style::new()
    }
    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }
    /// What stands beside the matter: frames, headings, units.
    pub(super) fn faint(self) -> Style {
        if self.colours { Style::new().fg(Color::DarkGray) } else { Style::new().add_modifier(Modifier::DIM) }
    }
    pub(super) fn title(self) -> Style {
        self.of(Color::Cyan).add_modifier(Modifier::BOLD)
    }
    pub(super) fn good(self) -> Style {
        self.of(Color::Green)
    }
    pub(super) fn notable(self) -> Style {
        self.of(Color::Yellow)
    }
    pub(super) fn bad(self) -> Style {
        self.of(Color::Red).add_modifier(Modifier::BOLD)
    }
    /// Traffic to us.
    pub(super) fn inward(self) -> Style {
        self.of(Color::Cyan)
    }
    /// Traffic from us.
    pub(super) fn outward(self) -> Style {
        self.of(Color::Magenta)
    }
    pub(super) fn round_trip(self) -> Style {
        self.of(Color::Yellow)
    }
    pub(super) fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
