//! A configuration as far as it can be read: a file with a fault has to be looked at, too.

use std::path::{Path, PathBuf};

/// The file as TOML, whatever is wrong in it.
pub(super) struct Settings {
    table: toml::Table,
    directory: PathBuf,
}

/// One `[local]` with what it names.
#[derive(Clone, Debug)]
pub(super) struct Local {
    /// The connection, where there are several.
    pub(super) connection: Option<String>,
    pub(super) id: Option<String>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) passphrase: Option<PathBuf>,
    /// CAs and CRLs of its `[remote]`.
    pub(super) ca: Vec<PathBuf>,
    pub(super) crl: Vec<PathBuf>,
    pub(super) strict: bool,
}

impl Settings {
    /// Nothing where it is no TOML.
    pub(super) fn read(path: &Path) -> Self {
        let text = crate::files::read_text(path).unwrap_or_default();
        let table = text.parse().unwrap_or_default();
        Self { table, directory: path.parent().unwrap_or(Path::new("")).to_owned() }
    }

    fn section(&self, name: &str) -> Option<&toml::Table> {
        self.table.get(name)?.as_table()
    }

    /// A text of a section, or of the root for an empty one.
    pub(super) fn text(&self, section: &str, key: &str) -> Option<String> {
        let table = if section.is_empty() { Some(&self.table) } else { self.section(section) };
        Some(table?.get(key)?.as_str()?.to_owned())
    }

    /// A number of a section.
    pub(super) fn number(&self, section: &str, key: &str) -> Option<u16> {
        self.section(section)?.get(key)?.as_integer()?.try_into().ok()
    }

    /// All `[local]`s: the root's, and those of the connections that have one of their own.
    pub(super) fn locals(&self) -> Vec<Local> {
        let (local, remote) = (self.section("local"), self.section("remote"));
        let connections = self.table.get("connection").and_then(toml::Value::as_array);
        let mut list: Vec<Local> = connections
            .into_iter()
            .flatten()
            .filter_map(toml::Value::as_table)
            .map(|connection| {
                let name = connection.get("name").and_then(toml::Value::as_str).unwrap_or("?");
                let own = |section: &str| connection.get(section).and_then(toml::Value::as_table);
                self.local(Some(name.to_owned()), [own("local"), local], [own("remote"), remote])
            })
            .collect();
        if list.is_empty() {
            list.push(self.local(None, [local, None], [remote, None]));
        }
        // What several connections share is looked at once.
        let mut seen: Vec<(Option<PathBuf>, Option<String>, Vec<PathBuf>)> = Vec::new();
        list.retain(|l| {
            let key = (l.cert.clone(), l.id.clone(), l.ca.clone());
            let new = !seen.contains(&key);
            if new {
                seen.push(key);
            }
            new
        });
        list
    }

    fn local(
        &self,
        connection: Option<String>,
        local: [Option<&toml::Table>; 2],
        remote: [Option<&toml::Table>; 2],
    ) -> Local {
        let get = |tables: [Option<&toml::Table>; 2], key: &str| -> Vec<String> {
            let value = tables.into_iter().flatten().find_map(|t| t.get(key).cloned());
            match value {
                Some(toml::Value::String(text)) => vec![text],
                Some(toml::Value::Array(list)) => {
                    list.into_iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
                }
                _ => Vec::new(),
            }
        };
        let paths = |tables, key: &str| -> Vec<PathBuf> {
            get(tables, key).into_iter().map(|p| self.directory.join(p)).collect()
        };
        let first = |tables, key: &str| paths(tables, key).into_iter().next();
        Local {
            connection,
            id: get(local, "id").into_iter().next(),
            cert: first(local, "cert"),
            key: first(local, "key"),
            passphrase: first(local, "key_passphrase_file"),
            ca: paths(remote, "ca"),
            crl: paths(remote, "crl"),
            strict: get(remote, "revocation").first().is_some_and(|r| r == "strict"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings { table: text.parse().unwrap(), directory: "/etc/ferry6".into() }
    }

    #[test]
    fn a_file_with_a_fault_still_names_its_certificates() {
        let s = settings(
            "nonsense = 1\n[broker]\naddress = \"tunnel.my.domain\"\nport = 501\n[local]\ncert = \"a.crt\"\nkey = \"/k/a.key\"\n\
             [remote]\nca = [\"ca.crt\", \"other.crt\"]\nrevocation = \"strict\"\n",
        );
        assert_eq!(s.text("broker", "address").as_deref(), Some("tunnel.my.domain"));
        assert_eq!(s.number("broker", "port"), Some(501));
        assert_eq!(s.number("broker", "nat_port"), None);
        let [local] = &s.locals()[..] else { panic!("one") };
        assert_eq!(local.cert.as_deref(), Some(Path::new("/etc/ferry6/a.crt")));
        assert_eq!(local.key.as_deref(), Some(Path::new("/k/a.key")));
        assert_eq!(local.ca.len(), 2);
        assert!(local.strict);
    }

    #[test]
    fn connections_inherit_and_equal_ones_are_one() {
        let s = settings(
            "[local]\ncert = \"a.crt\"\n[[connection]]\nname = \"x\"\n[[connection]]\nname = \"y\"\n\
             [[connection]]\nname = \"z\"\nlocal = { cert = \"z.crt\" }\n",
        );
        let names: Vec<_> = s.locals().into_iter().filter_map(|l| l.connection).collect();
        assert_eq!(names, ["x", "z"]);
    }

    #[test]
    fn no_file_is_no_settings() {
        let s = Settings::read(Path::new("/nonexistent/client.toml"));
        assert_eq!(s.text("", "control"), None);
        assert_eq!(s.locals().len(), 1);
    }
}
