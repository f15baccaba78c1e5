//! The reference: every key of the configuration files, in the order of docs/configuration.md, which is made of this, as are the
//! man pages. Who adds a key to a reader adds it here; the tests hold the readers and the documentation against it.

mod both;
mod roles;

use crate::cli::UsageError;
use std::fmt::Write as _;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  ferry6 config                                     every key, with its default
  ferry6 config tunnel.mtu                          what is it, and when is a change taken?
  ferry6 config --reference                         the tables of docs/configuration.md";

/// Whose file a key stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Either's.
    Both,
    /// `client.toml`.
    Client,
    /// `broker.toml`.
    Broker,
}

/// When `ferry6 reload` brings a changed key into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// At once.
    AtOnce,
    /// With the next tunnel; those that stand go on by what they were made with.
    NewTunnels,
    /// Not by a reload: the daemon has to be restarted.
    Restart,
}

impl Reload {
    /// One word for a table.
    pub fn word(self) -> &'static str {
        match self {
            Self::AtOnce => "at once",
            Self::NewTunnels => "new tunnels",
            Self::Restart => "restart",
        }
    }
}

/// A key.
#[derive(Debug)]
pub struct Key {
    /// Dotted, as in a message about it.
    pub key: &'static str,
    /// What its value is.
    pub kind: &'static str,
    /// Its value where it is missing, in Markdown.
    pub default: &'static str,
    /// When a change is taken.
    pub reload: Reload,
    /// What it does, in Markdown.
    pub meaning: &'static str,
    /// A value, as TOML.
    pub example: &'static str,
}

impl Key {
    /// The key without its section.
    pub fn name(&self) -> &'static str {
        self.key.rsplit_once('.').map_or(self.key, |(_, name)| name)
    }

    /// A line of TOML.
    pub fn line(&self) -> String {
        format!("{} = {}", self.name(), self.example)
    }
}

/// Keys that belong together.
#[derive(Debug)]
pub struct Group {
    /// Its title, in Markdown.
    pub title: &'static str,
    /// Whose they are.
    pub role: Role,
    /// The keys.
    pub keys: &'static [Key],
}

/// All keys.
pub fn groups() -> impl Iterator<Item = &'static Group> {
    both::GROUPS.iter().chain(roles::GROUPS)
}

/// All keys that a role's file may have.
pub fn keys(role: Role) -> impl Iterator<Item = &'static Key> {
    groups()
        .filter(move |g| role == Role::Both || g.role == Role::Both || g.role == role)
        .flat_map(|g| g.keys)
}

/// A key by its dotted name; that of a `[[connection]]` is the one of the section at the top.
pub fn find(key: &str) -> Option<&'static Key> {
    let inner = key.strip_prefix("connection.").unwrap_or(key);
    keys(Role::Both).find(|k| k.key == key || k.key == inner)
}

/// The tables of docs/configuration.md.
pub fn markdown() -> String {
    let mut out = String::new();
    for group in groups() {
        let level = if group.title.starts_with('`') { "###" } else { "##" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{level} {}\n", group.title);
        let _ = writeln!(
            out,
            "| key | value | default | reload | meaning | example |\n|---|---|---|---|---|---|"
        );
        for key in group.keys {
            let (kind, reload) = (key.kind, key.reload.word());
            let _ = writeln!(
                out,
                "| `{}` | {kind} | {} | {reload} | {} | `{}` |",
                key.key,
                key.default,
                key.meaning,
                key.line()
            );
        }
        out.push('\n');
    }
    out
}

/// Markdown of a table's cell as plain text: code without its marks, links without their targets.
pub fn plain(markdown: &str) -> String {
    let mut out = String::new();
    let mut rest = markdown;
    while let Some(at) = rest.find(['`', '[']) {
        out.push_str(&rest[..at]);
        let inner = &rest[at + 1..];
        if rest[at..].starts_with('`') {
            let end = inner.find('`').unwrap_or(inner.len());
            out.push_str(&inner[..end]);
            rest = inner.get(end + 1..).unwrap_or("");
            continue;
        }
        let link = inner.split_once("](").and_then(|(text, tail)| {
            let (target, after) = tail.split_once(')')?;
            (!text.contains(']')).then_some((text, target, after))
        });
        match link {
            Some((text, target, after)) => {
                // What is further down in docs/configuration.md is not below elsewhere.
                out.push_str(if target.starts_with('#') { "in docs/configuration.md" } else { text });
                rest = after;
            }
            None => {
                out.push('[');
                rest = inner;
            }
        }
    }
    out + rest
}

/// Arguments of `ferry6 config`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The key to explain, as in `tunnel.mtu`; a section's name explains all of its keys. All keys briefly without it.
    pub key: Option<String>,
    /// Print the tables of docs/configuration.md.
    #[arg(long, conflicts_with = "key")]
    pub reference: bool,
}

/// Explains the configuration.
///
/// # Errors
/// No such key.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.reference {
        print!("{}", markdown());
        return Ok(ExitCode::SUCCESS);
    }
    let Some(wanted) = &args.key else {
        for group in groups() {
            println!("{}", plain(group.title));
            for key in group.keys {
                println!("  {:<29} {}", key.key, plain(key.default));
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    let section = format!("{wanted}.");
    let meant: Vec<(Role, &Key)> = groups()
        .flat_map(|g| g.keys.iter().map(|k| (g.role, k)))
        .filter(|(_, k)| k.key == wanted || k.key.starts_with(&section))
        .collect();
    if meant.is_empty() {
        let near = super::reader::nearest(wanted, keys(Role::Both).map(|k| k.key))
            .map_or_else(|| "ferry6 config lists them".to_owned(), |near| format!("did you mean {near}?"));
        return Err(UsageError(format!("{wanted}: there is no such key; {near}")).into());
    }
    for (n, (role, key)) in meant.iter().enumerate() {
        if n > 0 {
            println!();
        }
        print!("{}", explained(*role, key));
    }
    Ok(ExitCode::SUCCESS)
}

fn explained(role: Role, key: &Key) -> String {
    let file = match role {
        Role::Both => "broker.toml and client.toml",
        Role::Client => "client.toml",
        Role::Broker => "broker.toml",
    };
    format!(
        "{}\n  {}\n  file     {file}\n  value    {}\n  default  {}\n  reload   {}\n  example  {}\n",
        key.key,
        plain(key.meaning),
        plain(key.kind),
        plain(key.default),
        match key.reload {
            Reload::AtOnce => "taken at once",
            Reload::NewTunnels => "taken for new tunnels",
            Reload::Restart => "needs a restart",
        },
        key.line()
    )
}

#[cfg(test)]
mod tests;
