//! `ferry6 import`: the configuration of strongSwan or OpenIKED as one of ferry6.
//!
//! Every line of the other file is accounted for: it becomes a key, or a comment that says why it does not. Secrets stay where they
//! are: the result names files, and says what to put into them.

mod draft;
mod iked;
mod ipsec;
mod strongswan;
mod swanctl;
#[cfg(test)]
mod tests;

use crate::cli::UsageError;
use crate::files::read_text;
use crate::pki::store::write_public;
use draft::{Draft, Role, render};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  ferry6 import /etc/ipsec.conf                          print what it would be
  ferry6 import /etc/iked.conf --output broker.toml      write it, with the rest to do told
  ferry6 import swanctl.conf --connection home           one of several connections

The kind of file is seen by its name, else by --format. ipsec.secrets is looked for beside ipsec.conf: for the names of key files alone.";

/// Arguments of `ferry6 import`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// ipsec.conf, swanctl.conf or iked.conf.
    file: PathBuf,
    /// What the file is, where its name does not say so.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Only this connection (conn, connection, policy).
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// Write the configuration here, where no file may be yet [default: print it].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// strongSwan's ipsec.conf(5).
    Ipsec,
    /// strongSwan's swanctl.conf(5).
    Swanctl,
    /// OpenBSD's iked.conf(5).
    Iked,
}

/// Why a file cannot be read at all.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    line: usize,
    what: String,
}

impl Fault {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

fn format_of(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?;
    [("ipsec", Format::Ipsec), ("swanctl", Format::Swanctl), ("iked", Format::Iked)]
        .into_iter()
        .find_map(|(word, format)| name.contains(word).then_some(format))
}

/// The configuration, its role, and how much is left to do.
#[derive(Debug)]
struct Imported {
    text: String,
    role: Role,
    /// Lines without an equivalent, things to complete.
    open: (usize, usize),
}

fn import(text: &str, path: &Path, format: Format, only: Option<&str>) -> Result<Imported, UsageError> {
    let file = path.display();
    let drafts = match format {
        Format::Ipsec => ipsec::read(text, path),
        Format::Swanctl => swanctl::read(text),
        Format::Iked => iked::read(text),
    };
    let mut drafts = drafts.map_err(|fault| match fault.line {
        0 => UsageError(format!("{file}: {fault}")),
        line => UsageError(format!("{file}:{line}: {fault}")),
    })?;
    let names = |drafts: &[Draft]| drafts.iter().map(|d| d.name.clone()).collect::<Vec<_>>().join(", ");
    if let Some(only) = only {
        let all = names(&drafts);
        drafts.retain(|d| d.name == only);
        if drafts.is_empty() {
            return Err(UsageError(format!("{file}: there is no connection {only:?}; there are: {all}")));
        }
    }
    let role = match drafts.first() {
        None => return Err(UsageError(format!("{file}: there is no connection in it"))),
        Some(first) => first.role.unwrap_or(Role::Broker),
    };
    let mixed = drafts.iter().any(|d| d.role.is_some_and(|r| r != role));
    if mixed || (role == Role::Client && drafts.len() > 1) {
        let why =
            if mixed { "clients and brokers are files of their own" } else { "a client has one connection" };
        return Err(UsageError(format!("{file}: {why}: choose with --connection: {}", names(&drafts))));
    }
    let open = drafts.iter().map(Draft::open).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    let name = path.file_name().map_or_else(|| file.to_string(), |n| n.to_string_lossy().into_owned());
    Ok(Imported { text: render(role, &drafts, &name), role, open })
}

/// Runs `ferry6 import`.
///
/// # Errors
/// The file cannot be read or understood; the output cannot be written or is there already.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { file, format, connection, output } = args;
    let shown = file.display();
    let text = read_text(&file).map_err(|e| UsageError(format!("cannot read {shown}: {e}")))?;
    let format = format.or_else(|| format_of(&file)).ok_or_else(|| {
        UsageError(format!("{shown}: its name does not say what it is; add --format ipsec, swanctl or iked"))
    })?;
    let imported = import(&text, &file, format, connection.as_deref())?;
    match output {
        None => print!("{}", imported.text),
        Some(path) => {
            if path.exists() {
                return Err(UsageError(format!(
                    "{} is there already; remove it or choose another name",
                    path.display()
                ))
                .into());
            }
            write_public(&path, imported.text.as_bytes())?;
            let (missing, todo) = imported.open;
            println!(
                "{}: {todo} to complete, {missing} without an equivalent (both told in it)",
                path.display()
            );
            let daemon = if imported.role == Role::Client { "client" } else { "broker" };
            println!("check it: ferry6 {daemon} --config {} --check", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
