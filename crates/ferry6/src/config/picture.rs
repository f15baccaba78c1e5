//! What a configuration says, key by key, to tell what changed when it is read anew.

use super::reader::Document;
use super::reference::{self, Reload};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::Hasher;
use toml::Value;

/// The keys of a file with their values, and what the files hold that they name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// The names of the `[[connection]]`, in their order.
    connections: Vec<String>,
    keys: BTreeMap<Place, Shown>,
}

/// Where a key stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// In which `[[connection]]`.
    connection: Option<String>,
    /// Dotted.
    key: String,
    /// Of a table whose keys the user chooses.
    entry: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    /// Its value; for a secret a fingerprint stands in `content`.
    value: String,
    /// Of the files that it names, or of a secret.
    content: Option<u64>,
}

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    text: String,
    reload: Reload,
}

impl Change {
    /// Something that has no key of the configuration, and is in force.
    pub fn at_once(text: String) -> Self {
        Self { text, reload: Reload::AtOnce }
    }

    /// Whether a reload can't bring it into force.
    pub fn needs_restart(&self) -> bool {
        self.reload == Reload::Restart
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match self.reload {
            Reload::AtOnce => Ok(()),
            Reload::NewTunnels => f.write_str(": for new tunnels"),
            Reload::Restart => f.write_str(": needs restart"),
        }
    }
}

impl Picture {
    /// Of a document that was read without a fault.
    pub(super) fn of(document: &Document) -> Self {
        let mut picture = Self::default();
        // The reader has read it, so this does.
        let root = document.text().parse::<toml::Table>().unwrap_or_default();
        picture.table(document, None, "", &root);
        picture
    }

    fn table(&mut self, document: &Document, connection: Option<&str>, section: &str, table: &toml::Table) {
        for (name, value) in table {
            let key = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            let place = |entry: Option<&String>| Place {
                connection: connection.map(str::to_owned),
                key: key.clone(),
                entry: entry.cloned(),
            };
            match value {
                Value::Table(inner) if reference::find(&key).is_some() => {
                    for (entry, value) in inner {
                        self.keys.insert(place(Some(entry)), shown(document, &key, value));
                    }
                }
                Value::Table(inner) => self.table(document, connection, &key, inner),
                Value::Array(list) if key == "connection" && connection.is_none() => {
                    for inner in list.iter().filter_map(Value::as_table) {
                        let name = inner.get("name").and_then(Value::as_str).unwrap_or_default();
                        self.connections.push(name.to_owned());
                        let mut inner = inner.clone();
                        inner.remove("name");
                        self.table(document, Some(name), "", &inner);
                    }
                }
                value => {
                    self.keys.insert(place(None), shown(document, &key, value));
                }
            }
        }
    }

    /// What is not as it was `before`, in the order of the keys.
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let mut list = Vec::new();
        let names = |p: &Self| p.connections.iter().cloned().collect::<BTreeSet<_>>();
        let (old, new) = (names(before), names(self));
        for name in new.difference(&old) {
            list.push(Change { text: format!("+ connection {name}"), reload: Reload::NewTunnels });
        }
        for name in old.difference(&new) {
            list.push(Change { text: format!("- connection {name}"), reload: Reload::NewTunnels });
        }
        if old == new && self.connections != before.connections {
            let text = format!(
                "~ order of the connections {} -> {}",
                before.connections.join(", "),
                self.connections.join(", ")
            );
            list.push(Change { text, reload: Reload::NewTunnels });
        }
        // What belongs to a connection that came or went has been told with it.
        let stays = |p: &&Place| p.connection.as_ref().is_none_or(|c| old.contains(c) && new.contains(c));
        let places: BTreeSet<&Place> = before.keys.keys().chain(self.keys.keys()).collect();
        for place in places.into_iter().filter(stays) {
            let (was, is) = (before.keys.get(place), self.keys.get(place));
            if was != is {
                list.push(place.change(was, is));
            }
        }
        list
    }

    /// What is in force once this was taken by a daemon that ran by `before`: what needs a restart is still as it was.
    pub fn in_force_since(mut self, before: &Self) -> Self {
        let restart = |place: &Place| place.reload() == Reload::Restart;
        self.keys.retain(|place, _| !restart(place));
        self.keys.extend(before.keys.iter().filter(|(p, _)| restart(p)).map(|(p, s)| (p.clone(), s.clone())));
        self
    }
}

impl Place {
    fn reload(&self) -> Reload {
        reference::find(&self.key).map_or(Reload::Restart, |k| k.reload)
    }

    fn change(&self, was: Option<&Shown>, is: Option<&Shown>) -> Change {
        let mut name = self.key.clone();
        if let Some(entry) = &self.entry {
            name = format!("{name}.{entry:?}");
        }
        if let Some(connection) = &self.connection {
            name = format!("connection {connection}: {name}");
        }
        let text = match (was, is) {
            // An entry of a table has no default.
            (None, Some(is)) if self.entry.is_some() => format!("+ {name} {}", is.value),
            (Some(was), None) if self.entry.is_some() => format!("- {name} {}", was.value),
            (Some(was), Some(is)) if was.value == is.value && was.value == SECRET => {
                format!("~ {name}: another secret")
            }
            (Some(was), Some(is)) if was.value == is.value => {
                format!("~ {name} {}: its content changed", is.value)
            }
            (was, is) => {
                let show = |s: Option<&Shown>| s.map_or_else(|| self.default(), |s| s.value.clone());
                format!("~ {name} {} -> {}", show(was), show(is))
            }
        };
        Change { text, reload: self.reload() }
    }

    /// What holds where the key is missing: what the connection inherits, or the default where that is one value.
    fn default(&self) -> String {
        let key = reference::find(&self.key).filter(|_| self.connection.is_none());
        let one = key.map(|k| k.default).and_then(|d| {
            let inner = d.strip_prefix('`')?.strip_suffix('`')?;
            (!inner.contains('`')).then(|| inner.trim_matches('"').to_owned())
        });
        let none = key.is_some_and(|k| k.default == "none");
        one.unwrap_or_else(|| if none { "none" } else { "default" }.to_owned())
    }
}

const SECRET: &str = "(secret)";

fn shown(document: &Document, key: &str, value: &Value) -> Shown {
    if key.ends_with(".psk") {
        let mut hasher = DefaultHasher::new();
        hasher.write(value.to_string().as_bytes());
        return Shown { value: SECRET.to_owned(), content: Some(hasher.finish()) };
    }
    let mut files = DefaultHasher::new();
    let mut any = false;
    let values = match value {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    for octets in values.iter().filter_map(Value::as_str).filter_map(|file| document.content(file)) {
        files.write_usize(octets.len());
        files.write(&octets);
        any = true;
    }
    let word = |value: &Value| match value.as_str() {
        Some(text) if !text.is_empty() && !text.contains(char::is_whitespace) => text.to_owned(),
        _ => value.to_string(),
    };
    let text = match value {
        Value::Array(list) => format!("[{}]", list.iter().map(word).collect::<Vec<_>>().join(", ")),
        one => word(one),
    };
    Shown { value: text, content: any.then(|| files.finish()) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::files;
    use super::*;
    use std::path::Path;

    fn picture(path: &Path, text: &str) -> Picture {
        std::fs::write(path, text).unwrap();
        let document = Document::open(path).unwrap();
        super::super::broker::read(&document).unwrap_or_else(|e| panic!("{e}")).picture
    }

    fn told(new: &Picture, old: &Picture) -> Vec<String> {
        new.changes_since(old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_line_a_key() {
        let dir = files();
        let path = dir.path().join("b.toml");
        let base = "[local]\ncert = \"broker.crt\"\nkey = \"broker.key\"\n[remote]\nca = \"ca.crt\"\ncrl = \"ca.crl\"\n\
                    [pool]\nrange = \"2a00::100/120\"\nfixed = { \"a@my.domain\" = \"2a00::105\" }\n[tunnel]\nmtu = 1400\n";
        let old = picture(&path, base);
        assert_eq!(told(&old, &old), [""; 0]);
        let new = picture(
            &path,
            &base
                .replace("mtu = 1400", "workers = 2")
                .replace("[remote]", "[ike]\nrekey = \"8h\"\n[remote]")
                .replace("a@my.domain", "b@my.domain"),
        );
        let told_first = told(&new, &old);
        assert_eq!(
            told_first,
            [
                "~ ike.rekey 4h -> 8h: for new tunnels",
                "- pool.fixed.\"a@my.domain\" 2a00::105",
                "+ pool.fixed.\"b@my.domain\" 2a00::105",
                "~ tunnel.mtu 1400 -> auto: needs restart",
                "~ tunnel.workers 0 -> 2: needs restart",
            ]
        );
        // What needs a restart is told until there was one, all else once.
        let in_force = new.clone().in_force_since(&old);
        assert_eq!(told(&new, &in_force), told_first[3..]);
        let back = picture(&path, base);
        assert_eq!(told(&back, &in_force).len(), 3);

        // The same name, another file.
        let crl = dir.path().join("ca.crl");
        let mut text = std::fs::read_to_string(&crl).unwrap();
        text.push('\n');
        std::fs::write(&crl, text).unwrap();
        let again = picture(&path, base);
        assert_eq!(told(&again, &back), ["~ remote.crl ca.crl: its content changed: for new tunnels"]);
    }

    #[test]
    fn connections_come_and_go_and_secrets_stay_secret() {
        use std::os::unix::fs::PermissionsExt;
        let dir = files();
        let path = dir.path().join("b.toml");
        let one = |name: &str, psk: &str| {
            format!(
                "[[connection]]\nname = \"{name}\"\n[connection.local]\nid = \"tunnel.my.domain\"\npsk = \"{psk}\"\n\
                 [connection.remote]\nid = \"{name}@my.domain\"\n[connection.pool]\nrange = \"2a00::100/120\"\n"
            )
        };
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let old = picture(&path, &(one("alice", "one secret of many") + &one("bob", "another of many")));
        let new = picture(&path, &(one("bob", "a third one of many") + &one("carol", "another of many")));
        assert_eq!(
            told(&new, &old),
            [
                "+ connection carol: for new tunnels",
                "- connection alice: for new tunnels",
                "~ connection bob: local.psk: another secret: for new tunnels",
            ]
        );
        assert!(!format!("{new:?}{old:?}").contains("of many"));
        let turned = picture(&path, &(one("carol", "another of many") + &one("bob", "a third one of many")));
        assert_eq!(
            told(&turned, &new),
            ["~ order of the connections bob, carol -> carol, bob: for new tunnels"]
        );
    }
}
