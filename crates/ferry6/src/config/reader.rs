//! Reads TOML with positions, and collects every fault of a file instead of stopping at the first.
//!
//! A [`Section`] is asked for its keys by name and type. What was asked for is what is known: [`Section::finish`] turns
//! the rest into "unknown key" with the key that was probably meant, and [`Document::known_keys`] lets a test hold the
//! documentation against it.

use super::secrets::Secrets;
use crate::cli::UsageError;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

/// One fault, at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    at: Range<usize>,
    key: String,
    text: String,
    /// The offending line must not be shown: it may hold a secret.
    secret: bool,
}

/// A configuration file while it is read.
pub struct Document {
    path: PathBuf,
    /// It may hold a pre-shared key.
    text: Zeroizing<String>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<String>>,
    /// Of this file and of those that it names.
    secrets: RefCell<Secrets>,
    unknown: RefCell<Vec<(String, String, Range<usize>)>>,
    /// Every file that was named.
    named: RefCell<BTreeSet<PathBuf>>,
    known: RefCell<BTreeSet<String>>,
}

/// A value with its place, so that later checks can point at it.
#[derive(Clone, Debug)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// Where it stands in the file.
    pub at: Range<usize>,
    /// Its dotted key.
    pub key: String,
}

impl<T> Found<T> {
    /// Another value at the same place.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Found<U> {
        Found { value: f(self.value), at: self.at, key: self.key }
    }
}

impl Document {
    /// Reads the file.
    ///
    /// # Errors
    /// A file that cannot be read, is not UTF-8, or is larger than 1 MiB.
    pub fn open(path: &Path) -> Result<Self, UsageError> {
        Self::open_with(path, Secrets::default())
    }

    /// Reads the file once more: what this process may not read any more, the file itself among it, is as it was `before`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_again(path: &Path, before: &Secrets) -> Result<Self, UsageError> {
        Self::open_with(path, before.again())
    }

    fn open_with(path: &Path, mut secrets: Secrets) -> Result<Self, UsageError> {
        const LIMIT: u64 = 1 << 20;
        let fault = |text: String| UsageError(format!("{}: {text}", path.display()));
        // The bound is this capacity, right from the start: growth would leave copies of a secret behind, and what a file's
        // length says binds no device and no pipe.
        let mut octets = Vec::with_capacity(LIMIT as usize + 2);
        match std::fs::File::open(path) {
            Ok(file) => {
                file.take(LIMIT + 1)
                    .read_to_end(&mut octets)
                    .map_err(|e| fault(format!("cannot read: {e}")))?;
                // It may hold a pre-shared key.
                secrets.keep(path, Zeroizing::new(octets.clone()));
            }
            Err(error) => match secrets.stand_in(path, &error) {
                Some(earlier) => octets.extend_from_slice(&earlier),
                None => return Err(fault(format!("cannot read: {error}"))),
            },
        }
        if octets.len() as u64 > LIMIT {
            return Err(fault(format!("larger than {LIMIT} octets, so hardly a configuration")));
        }
        let text = String::from_utf8(octets).map_err(|e| {
            let line =
                1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
            UsageError(format!("{}:{line}: not UTF-8 text", path.display()))
        })?;
        let document = Self::new(path.to_owned(), text);
        document.secrets.replace(secrets);
        Ok(document)
    }

    /// A document from text; `path` is for messages and for relative paths inside.
    pub fn new(path: PathBuf, text: String) -> Self {
        Self {
            path,
            text: text.into(),
            problems: RefCell::default(),
            warnings: RefCell::default(),
            secrets: RefCell::default(),
            unknown: RefCell::default(),
            known: RefCell::default(),
            named: RefCell::default(),
        }
    }

    /// Parses it and hands the root to `read`, which asks it for all keys there are; afterwards gives back what `read` made
    /// of it, or every fault at once.
    ///
    /// # Errors
    /// All faults, each with file, line, column and key.
    pub fn read<T>(&self, read: impl FnOnce(&Section<'_>) -> Option<T>) -> Result<T, UsageError> {
        let (root, errors) = DeTable::parse_recoverable(&self.text);
        for error in errors {
            let at = error.span().unwrap_or(0..0);
            let message = error.message().to_owned();
            self.problems.borrow_mut().push(Problem {
                secret: self.line_may_hold_secret(at.start),
                at,
                key: String::new(),
                text: message,
            });
        }
        // What a broken parse left behind would only give faults that follow from the first ones.
        let value = if self.problems.borrow().is_empty() {
            let root = Section::new(self, String::new(), 0..0, Some(root.get_ref()), None);
            let value = read(&root);
            root.finish();
            value
        } else {
            None
        };
        self.tell_unknown();
        match value {
            Some(value) if self.problems.borrow().is_empty() => Ok(value),
            _ => Err(UsageError(self.report())),
        }
    }

    /// The directory that relative paths are relative to.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The directories of this file and of all files that it names: there a daemon looks again when it reads its
    /// configuration anew. Not the files themselves, because a new one takes the place of an old one.
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        let named = self.named.borrow();
        let directory = |file: &PathBuf| match file.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            // Not the whole machine.
            Some(parent) if parent.parent().is_some() => parent.to_owned(),
            _ => file.clone(),
        };
        named.iter().chain([&self.path]).map(directory).collect()
    }

    /// Whether the file is its owner's alone, as it must be when it holds a secret.
    ///
    /// # Errors
    /// With the command that cures it.
    pub fn owner_only(&self) -> Result<(), String> {
        if self.secrets.borrow().stood_in().contains(&self.path) {
            // It was when it could be read.
            return Ok(());
        }
        super::keys::check_owner_only(&self.path)
    }

    /// Notes a fault at a value.
    pub fn problem<T>(&self, found: &Found<T>, text: impl Into<String>) {
        self.problem_at(found.at.clone(), found.key.clone(), text.into());
    }

    /// What `convert` makes of a value, at the same place; its error is a fault there.
    pub fn convert<T, U>(
        &self,
        found: Found<T>,
        convert: impl FnOnce(&T) -> Result<U, String>,
    ) -> Option<Found<U>> {
        match convert(&found.value) {
            Ok(value) => Some(found.map(|_| value)),
            Err(text) => {
                self.problem(&found, text);
                None
            }
        }
    }

    /// Notes something that is no fault but should be seen.
    pub fn warn(&self, text: String) {
        self.warnings.borrow_mut().push(text);
    }

    /// What [`Self::warn`] collected.
    pub fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// A file with a secret, or what was read of it before, see [`Secrets`].
    ///
    /// # Errors
    /// Unreadable, or readable by others.
    pub fn secret_file(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
        self.secrets.borrow_mut().file(path)
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What a file holds that was named as `file`, a secret that may not be read any more among them; `None` where no file was,
    /// or it can't be read.
    pub fn content(&self, file: &str) -> Option<Zeroizing<Vec<u8>>> {
        let path = self.directory().join(file);
        if !self.named.borrow().contains(&path) {
            return None;
        }
        let kept = self.secrets.borrow().read(&path);
        kept.or_else(|| path.is_file().then(|| super::keys::read(&path).ok()).flatten())
    }

    /// What [`Self::secret_file`] read, and the file itself.
    pub fn take_secrets(&self) -> Secrets {
        self.secrets.take()
    }

    /// Every key that was asked for, dotted.
    pub fn known_keys(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    fn problem_at(&self, at: Range<usize>, key: String, text: String) {
        let secret = key.contains("psk") || self.line_may_hold_secret(at.start);
        self.problems.borrow_mut().push(Problem { at, key, text, secret });
    }

    fn line_may_hold_secret(&self, offset: usize) -> bool {
        let (_, _, line) = self.locate(offset);
        line.contains("psk")
    }

    fn tell_unknown(&self) {
        let known = self.known.borrow();
        for (section, name, at) in self.unknown.take() {
            let full = join(&section, &name);
            let siblings: Vec<&str> = known
                .iter()
                .map(|k| k.rsplit_once('.').unwrap_or(("", k)))
                .filter(|(s, _)| *s == section)
                .map(|(_, n)| n)
                .collect();
            let text = if let Some(near) = nearest(&name, siblings.iter().copied()) {
                format!("unknown key; did you mean `{near}`?")
            } else if let Some(other) = known.iter().find(|k| k.rsplit('.').next() == Some(name.as_str())) {
                format!("unknown key here; did you mean `{other}`?")
            } else {
                let place =
                    if section.is_empty() { "at the top".to_owned() } else { format!("in [{section}]") };
                format!("unknown key; known {place}: {}", siblings.join(", "))
            };
            self.problem_at(at, full, text);
        }
    }

    /// Line and column (both from 1, the column in characters) and the line's text.
    fn locate(&self, offset: usize) -> (usize, usize, &str) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        let end = self.text[offset..].find('\n').map_or(self.text.len(), |i| offset + i);
        let line = before.matches('\n').count() + 1;
        (line, self.text[start..offset].chars().count() + 1, self.text[start..end].trim_end())
    }

    fn report(&self) -> String {
        let mut problems = self.problems.take();
        problems.sort_by(|a, b| (a.at.start, &a.key, &a.text).cmp(&(b.at.start, &b.key, &b.text)));
        problems.dedup();
        let mut out = String::new();
        for (i, problem) in problems.iter().enumerate() {
            let (line, column, source) = self.locate(problem.at.start);
            if i > 0 {
                out.push_str("\nerror: ");
            }
            let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
            // Writing to a String cannot fail.
            let _ = write!(out, "{}:{line}:{column}: {key}{}", self.path.display(), problem.text);
            if !problem.secret && !source.is_empty() && source.chars().count() <= 160 {
                let spanned = self.text.get(problem.at.clone()).unwrap_or_default();
                let width = spanned.lines().next().unwrap_or_default().chars().count().max(1);
                let width = width.min((source.chars().count() + 1).saturating_sub(column - 1).max(1));
                let indent: String =
                    source.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                let _ = write!(out, "\n{line:>5} | {source}\n      | {indent}{}", "^".repeat(width));
            }
        }
        out
    }
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// The candidate that `word` was probably meant to be.
pub fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    candidates
        .map(|c| (strsim::damerau_levenshtein(word, c), c))
        .filter(|(distance, c)| *distance <= (c.len().max(word.len()) / 3).max(1))
        .min()
        .map(|(_, c)| c)
}

/// A table of the document, perhaps with a second one behind it that gives what the first leaves out.
pub struct Section<'d> {
    document: &'d Document,
    name: String,
    at: Range<usize>,
    own: Option<&'d DeTable<'d>>,
    fallback: Option<Fallback<'d>>,
    used: Used,
}

/// The keys that were asked for.
type Used = Rc<RefCell<BTreeSet<&'static str>>>;

/// The section behind another one.
struct Fallback<'d> {
    name: String,
    table: Option<&'d DeTable<'d>>,
    used: Used,
}

impl<'d> Section<'d> {
    fn new(
        document: &'d Document,
        name: String,
        at: Range<usize>,
        own: Option<&'d DeTable<'d>>,
        fallback: Option<Fallback<'d>>,
    ) -> Self {
        Self { document, name, at, own, fallback, used: Used::default() }
    }

    /// The document.
    pub fn document(&self) -> &'d Document {
        self.document
    }

    /// Whether the section stands in the file at all.
    pub fn is_present(&self) -> bool {
        self.own.is_some() || self.behind().is_some()
    }

    /// The place of the section's header, for faults of the section as a whole.
    pub fn here(&self) -> Found<()> {
        Found { value: (), at: self.at.clone(), key: self.name.clone() }
    }

    /// Whether the key stands in the file, right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.own.is_some_and(|t| t.contains_key(key)) || self.behind().is_some_and(|t| t.contains_key(key))
    }

    /// Whether the key stands in this very section, not in the one behind it.
    pub fn has_own(&self, key: &str) -> bool {
        self.own.is_some_and(|t| t.contains_key(key))
    }

    fn behind(&self) -> Option<&'d DeTable<'d>> {
        self.fallback.as_ref().and_then(|f| f.table)
    }

    fn lookup(&self, key: &'static str) -> Option<Found<&'d DeValue<'d>>> {
        self.used.borrow_mut().insert(key);
        self.document.known.borrow_mut().insert(join(&self.name, key));
        if let Some(fallback) = &self.fallback {
            fallback.used.borrow_mut().insert(key);
            self.document.known.borrow_mut().insert(join(&fallback.name, key));
        }
        if let Some(value) = self.own.and_then(|t| t.get(key)) {
            return Some(Found { value: value.get_ref(), at: value.span(), key: join(&self.name, key) });
        }
        let fallback = self.fallback.as_ref()?;
        let value = fallback.table?.get(key)?;
        Some(Found { value: value.get_ref(), at: value.span(), key: join(&fallback.name, key) })
    }

    /// A subsection; where it is missing, an empty one.
    pub fn section(&self, key: &'static str) -> Section<'d> {
        self.section_or(key, None)
    }

    /// A subsection whose missing keys come from `fallback`, where that is in the file.
    pub fn section_or(&self, key: &'static str, fallback: Option<&Section<'d>>) -> Section<'d> {
        let behind =
            fallback.map(|s| Fallback { name: s.name.clone(), table: s.own, used: Rc::clone(&s.used) });
        let name = join(&self.name, key);
        let (own, at) = match self.lookup(key) {
            None => (None, self.at.clone()),
            Some(found) => match found.value {
                DeValue::Table(table) => (Some(table), found.at),
                other => {
                    let text = format!("expected a table [{name}], found {}", type_name(other));
                    self.document.problem(&found, text);
                    (None, found.at)
                }
            },
        };
        Section::new(self.document, name, at, own, behind)
    }

    /// The tables of `[[key]]`.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'d>> {
        let Some(found) = self.lookup(key) else { return Vec::new() };
        let name = join(&self.name, key);
        let DeValue::Array(array) = found.value else {
            let text = format!("expected tables [[{name}]], found {}", type_name(found.value));
            self.document.problem(&found, text);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section::new(self.document, name.clone(), item.span(), Some(table), None));
                }
                other => self.document.problem_at(
                    item.span(),
                    name.clone(),
                    format!("expected tables [[{name}]], found {}", type_name(other)),
                ),
            }
        }
        sections
    }

    /// A value by `convert`, which says what it expected.
    fn get<T>(
        &self,
        key: &'static str,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Found<T>> {
        self.document.convert(self.lookup(key)?, |value| convert(value))
    }

    /// A string.
    pub fn text(&self, key: &'static str) -> Option<Found<String>> {
        self.parsed(key, "a string", |s| Ok(s.to_owned()))
    }

    /// A string that `parse` understands; `expected` says what it should be.
    pub fn parsed<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Found<T>> {
        self.get(key, |value| parse(string(value, expected)?))
    }

    /// A boolean.
    pub fn flag(&self, key: &'static str) -> Option<Found<bool>> {
        self.get(key, |value| match value {
            DeValue::Boolean(b) => Ok(*b),
            other => Err(format!("expected true or false, found {}", shown(other))),
        })
    }

    /// A boolean (`Ok`), or an integer within `range` (`Err`); `true` where the key is missing. `None` is a fault.
    pub fn flag_or_number(&self, key: &'static str, range: Range<u64>) -> Option<Found<Result<bool, u64>>> {
        if !self.has(key) {
            self.lookup(key);
            return Some(self.here().map(|()| Ok(true)));
        }
        self.get(key, |value| match value {
            DeValue::Boolean(b) => Ok(Ok(*b)),
            other => integer(other).filter(|n| range.contains(n)).map(Err).ok_or_else(|| {
                let (from, to) = (range.start, range.end - 1);
                format!("expected true, false or a number from {from} to {to}, found {}", shown(other))
            }),
        })
    }

    /// An integer within `range`.
    pub fn number(&self, key: &'static str, range: Range<u64>) -> Option<Found<u64>> {
        self.get(key, |value| {
            integer(value).filter(|n| range.contains(n)).ok_or_else(|| {
                format!("expected a number from {} to {}, found {}", range.start, range.end - 1, shown(value))
            })
        })
    }

    /// The same, or `default`.
    pub fn number_or<T: TryFrom<u64>>(&self, key: &'static str, range: Range<u64>, default: T) -> T {
        self.number(key, range).and_then(|found| T::try_from(found.value).ok()).unwrap_or(default)
    }

    /// Either an integer or a string, as `parse` says; an integer comes as its digits.
    pub fn scalar<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Found<T>> {
        self.get(key, |value| match integer(value) {
            Some(n) => parse(&n.to_string()),
            None => parse(string(value, expected)?),
        })
    }

    /// One of the words of `choices`.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<Found<T>> {
        let words = choices.iter().map(|(w, _)| *w).collect::<Vec<_>>().join(", ");
        let expected = format!("one of {words}");
        self.parsed(key, &expected, |s| {
            choices.iter().find(|(w, _)| *w == s).map(|(_, v)| *v).ok_or_else(|| {
                let hint = nearest(s, choices.iter().map(|(w, _)| *w))
                    .map_or(String::new(), |n| format!("; did you mean {n:?}?"));
                format!("expected one of {words}, found {s:?}{hint}")
            })
        })
    }

    /// One of the words of `choices` (`Ok`), or an integer within `range` (`Err`).
    pub fn choice_or_number<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&str, T)],
        range: Range<u64>,
    ) -> Option<Found<Result<T, u64>>> {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        let (from, to) = (range.start, range.end - 1);
        let expected = format!("{} or a number from {from} to {to}", words.join(", "));
        self.get(key, |value| {
            if let Some(number) = integer(value).filter(|n| range.contains(n)) {
                return Ok(Err(number));
            }
            let word = if let DeValue::String(word) = value { Some(word.as_ref()) } else { None };
            let chosen = choices.iter().find(|(choice, _)| word == Some(*choice));
            chosen.map(|(_, v)| Ok(*v)).ok_or_else(|| match word {
                Some(word) => format!("expected {expected}, found {word:?}"),
                None => format!("expected {expected}, found {}", shown(value)),
            })
        })
    }

    /// A string or an array of strings, each by `parse`.
    pub fn list<T>(
        &self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Found<Vec<Found<T>>>> {
        let found = self.lookup(key)?;
        let mut items = Vec::new();
        let mut one = |value: &DeValue<'_>, at: Range<usize>| match string(value, expected).and_then(&parse) {
            Ok(value) => items.push(Found { value, at, key: found.key.clone() }),
            Err(text) => self.document.problem_at(at, found.key.clone(), text),
        };
        if let DeValue::Array(array) = found.value {
            for item in array.iter() {
                one(item.get_ref(), item.span());
            }
        } else {
            one(found.value, found.at.clone());
        }
        Some(Found { value: items, at: found.at, key: found.key })
    }

    /// A table whose keys the user chooses: name and string value, each with its place.
    pub fn map(&self, key: &'static str, expected: &str) -> Vec<(Found<String>, Found<String>)> {
        let Some(found) = self.lookup(key) else { return Vec::new() };
        let DeValue::Table(table) = found.value else {
            let text = format!("expected a table {{ {expected} }}, found {}", type_name(found.value));
            self.document.problem(&found, text);
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (name, value) in table {
            let key = format!("{}.{:?}", found.key, name.get_ref());
            match string(value.get_ref(), expected) {
                Ok(text) => entries.push((
                    Found { value: name.get_ref().to_string(), at: name.span(), key: key.clone() },
                    Found { value: text.to_owned(), at: value.span(), key },
                )),
                Err(text) => self.document.problem_at(value.span(), key, text),
            }
        }
        entries
    }

    /// Notes that `key` is missing; `text` says what it is for.
    pub fn missing(&self, key: &str, text: &str) {
        let place = if self.own.is_some() || self.name.is_empty() {
            String::new()
        } else {
            format!(" (there is no [{}] section)", self.name)
        };
        self.document.problem_at(
            self.at.start..self.at.start,
            join(&self.name, key),
            format!("missing{place}: {text}"),
        );
    }

    /// `value`, or a note that the key is missing.
    pub fn require<T>(&self, key: &'static str, value: Option<T>, text: &str) -> Option<T> {
        // A value that is there but wrong has had its fault told already.
        if value.is_none() && !self.has(key) {
            self.missing(key, text);
        }
        value
    }

    /// A path, relative to the configuration's directory.
    pub fn path(&self, key: &'static str) -> Option<Found<PathBuf>> {
        self.parsed(key, "the path of a file", |s| {
            if s.is_empty() { Err("expected the path of a file, found \"\"".to_owned()) } else { Ok(()) }?;
            Ok(self.named(s))
        })
    }

    fn named(&self, file: &str) -> PathBuf {
        let path = self.document.directory().join(file);
        self.document.named.borrow_mut().insert(path.clone());
        path
    }

    /// A path or several.
    pub fn paths(&self, key: &'static str) -> Option<Found<Vec<Found<PathBuf>>>> {
        self.list(key, "the path of a file", |s| Ok(self.named(s)))
    }

    /// No more keys will be asked for: the rest is unknown.
    pub fn finish(self) {
        let used = self.used.borrow();
        for (key, _) in self.own.into_iter().flatten() {
            if !used.contains(key.get_ref().as_ref()) {
                self.document.unknown.borrow_mut().push((
                    self.name.clone(),
                    key.get_ref().to_string(),
                    key.span(),
                ));
            }
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::Integer(n) => u64::from_str_radix(n.as_str(), n.radix()).ok(),
        _ => None,
    }
}

fn string<'v>(value: &'v DeValue<'_>, expected: &str) -> Result<&'v str, String> {
    match value {
        DeValue::String(s) => Ok(s),
        other => Err(format!("expected {expected}, found {}", shown(other))),
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(n) => format!("the integer {n}"),
        DeValue::Boolean(b) => format!("the boolean {b}"),
        DeValue::Float(f) => format!("the float {f}"),
        other => type_name(other).to_owned(),
    }
}
