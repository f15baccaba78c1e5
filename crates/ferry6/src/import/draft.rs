//! What an import has gathered so far, and the file that it becomes.

use std::fmt::Write as _;

/// Which of ferry6's two configurations a connection turns into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `client.toml`.
    Client,
    /// `broker.toml`.
    Broker,
}

impl Role {
    /// The file's usual name.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Client => "client.toml",
            Self::Broker => "broker.toml",
        }
    }
}

/// Where something stood in the file that is imported. The text never holds a secret: readers put `***` in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Counted from 1; 0 for what stands nowhere (a default of the other program).
    pub(super) line: usize,
    /// The words, as they were.
    pub(super) text: String,
}

impl Origin {
    /// What the other program does without being told.
    pub(super) fn default(text: &str) -> Self {
        Self { line: 0, text: text.to_owned() }
    }
}

/// One key that has an equivalent.
struct Key {
    section: &'static str,
    key: &'static str,
    /// A TOML literal.
    value: String,
    origin: Origin,
}

/// A line that has none, or needs none.
struct Note {
    origin: Origin,
    why: String,
}

/// One connection.
pub(super) struct Draft {
    /// Its name in the other program.
    pub(super) name: String,
    /// Known once something decides it.
    pub(super) role: Option<Role>,
    keys: Vec<Key>,
    /// What ferry6 does in any case.
    always: Vec<Note>,
    /// What it has no equivalent for.
    missing: Vec<Note>,
    /// What a person must complete.
    todo: Vec<String>,
}

impl Draft {
    /// Nothing yet.
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            role: None,
            keys: Vec::new(),
            always: Vec::new(),
            missing: Vec::new(),
            todo: Vec::new(),
        }
    }

    /// A key's value, a TOML literal. The first one stays: a second is told as a line without an equivalent.
    pub(super) fn set(&mut self, origin: &Origin, section: &'static str, key: &'static str, value: String) {
        match self.keys.iter().find(|k| (k.section, k.key) == (section, key)) {
            None => self.keys.push(Key { section, key, value, origin: origin.clone() }),
            Some(first) if first.value == value => {}
            Some(first) => {
                let why = format!("{section}.{key} is {} by line {} already", first.value, first.origin.line);
                self.none(origin, why);
            }
        }
    }

    /// Whether the key has a value.
    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        self.keys.iter().any(|k| (k.section, k.key) == (section, key))
    }

    /// ferry6 does so without being told.
    pub(super) fn always(&mut self, origin: &Origin, why: impl Into<String>) {
        self.always.push(Note { origin: origin.clone(), why: why.into() });
    }

    /// There is no equivalent.
    pub(super) fn none(&mut self, origin: &Origin, why: impl Into<String>) {
        self.missing.push(Note { origin: origin.clone(), why: why.into() });
    }

    /// What the importer cannot know.
    pub(super) fn todo(&mut self, what: impl Into<String>) {
        self.todo.push(what.into());
    }

    /// A broker leases addresses, unless its selectors say what is behind the peer.
    pub(super) fn needs_a_pool(&mut self) {
        if self.role == Some(Role::Broker) && !self.has("pool", "range") && !self.has("child", "remote_ts") {
            self.todo("pool.range: the addresses to lease to clients");
        }
    }

    /// How much of it a person has to look at: lines without an equivalent, and things to complete.
    pub(super) fn open(&self) -> (usize, usize) {
        (self.missing.len(), self.todo.len())
    }
}

/// A TOML string.
pub(super) fn text(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

/// A TOML number. What is none is quoted, so that `--check` can name its line.
pub(super) fn number(value: &str) -> String {
    value.parse::<u64>().map_or_else(|_| text(value), |n| n.to_string())
}

/// A TOML array of strings.
pub(super) fn list<S: AsRef<str>>(values: &[S]) -> String {
    let items: Vec<_> = values.iter().map(|v| text(v.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// A duration as ferry6 writes it: the other programs' bare numbers are seconds too, but read better with a unit.
pub(super) fn duration(value: &str) -> String {
    match value {
        "0" | "0s" => text("never"),
        _ if value.bytes().all(|b| b.is_ascii_digit()) => text(&format!("{value}s")),
        _ => text(value),
    }
}

/// The sections in the order of docs/configuration.md, and whether each connection of a broker has its own.
const SECTIONS: &[(&str, bool)] = &[
    ("broker", false),
    ("listen", false),
    ("local", true),
    ("remote", true),
    ("ike", true),
    ("child", true),
    ("pool", true),
    ("tunnel", false),
];

/// One comment line: nothing of the other file may end it early.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn section(out: &mut String, heading: &str, file: &str, keys: &[&Key]) {
    if keys.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{heading}");
    let width = keys.iter().map(|k| k.key.len() + k.value.len()).max().unwrap_or(0) + 3;
    for Key { key, value, origin, .. } in keys {
        let entry = format!("{key} = {value}");
        let origin_text = printable(&origin.text);
        let _ = match origin.line {
            0 => writeln!(out, "{entry:<width$}  # {origin_text}"),
            line => writeln!(out, "{entry:<width$}  # {file}:{line}: {origin_text}"),
        };
    }
}

/// In the order of their lines.
fn notes<'a>(out: &mut String, heading: &str, file: &str, notes: impl Iterator<Item = &'a Note>) {
    let mut notes: Vec<_> = notes.collect();
    notes.sort_by_key(|n| n.origin.line);
    if notes.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n# {heading}");
    for Note { origin, why } in notes {
        let (text, why) = (printable(&origin.text), printable(why));
        let _ = match origin.line {
            0 => writeln!(out, "#   {text}: {why}"),
            line => writeln!(out, "#   {file}:{line}: {text}: {why}"),
        };
    }
}

/// The configuration of all connections, which have one role; `file` is the imported file's name for comments.
pub(super) fn render(role: Role, drafts: &[Draft], file: &str) -> String {
    let mut out = format!("# {}, made by `ferry6 import` from {}.\n", role.file(), printable(file));
    let todo: Vec<_> = drafts.iter().flat_map(|d| &d.todo).collect();
    if !todo.is_empty() {
        out += "#\n# TO DO before it can run:\n";
        for what in todo {
            let _ = writeln!(out, "# - {}", printable(what));
        }
    }
    let single = drafts.len() == 1;
    for (name, _) in SECTIONS.iter().filter(|(_, own)| single || !own) {
        // Of the sections that all connections share each key once; what another connection says otherwise is told below.
        let mut keys: Vec<&Key> = Vec::new();
        for key in drafts.iter().flat_map(|d| &d.keys).filter(|k| k.section == *name) {
            if !keys.iter().any(|k| k.key == key.key) {
                keys.push(key);
            }
        }
        section(&mut out, &format!("[{name}]"), file, &keys);
    }
    if !single {
        for draft in drafts {
            let _ = writeln!(out, "\n[[connection]]\nname = {}", text(&draft.name));
            for (name, _) in SECTIONS.iter().filter(|(_, own)| *own) {
                let keys: Vec<_> = draft.keys.iter().filter(|k| k.section == *name).collect();
                section(&mut out, &format!("[connection.{name}]"), file, &keys);
            }
        }
    }
    notes(&mut out, "Without an equivalent in ferry6:", file, drafts.iter().flat_map(|d| &d.missing));
    notes(&mut out, "What ferry6 does without being told:", file, drafts.iter().flat_map(|d| &d.always));
    out
}
