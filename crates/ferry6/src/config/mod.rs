//! The configuration files: `broker.toml` and `client.toml`. docs/configuration.md tells every key.

mod broker;
mod client;
mod connection;
mod hooks;
pub mod keys;
mod per_cpu;
pub mod picture;
pub(crate) mod prefixes;
mod process;
pub mod proposal;
pub mod reader;
pub mod reference;
pub mod secrets;
pub mod summary;
mod tunnel;
pub mod users;
pub mod values;

pub use broker::{Broker, Pool};
pub use client::{Client, Routes};
pub use hooks::Hooks;
pub(crate) use prefixes::fault as prefix_fault;
pub use tunnel::{Listen, Tunnel};
pub use users::Users;

use crate::cli::UsageError;
use reader::Document;
use secrets::Secrets;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Directory of the control sockets.
pub const RUN_DIR: &str = "/run/ferry6";

/// Reads a client's configuration and all files it names.
///
/// # Errors
/// Every fault of the file at once, each with file, line, column and key.
pub fn client(path: &Path) -> Result<Client, UsageError> {
    Document::open(path).and_then(|document| client_document(&document))
}

/// Reads a broker's configuration and all files it names.
///
/// # Errors
/// Every fault of the file at once, each with file, line, column and key.
pub fn broker(path: &Path) -> Result<Broker, UsageError> {
    Document::open(path).and_then(|document| broker_with_users(path, &document))
}

fn broker_with_users(path: &Path, document: &Document) -> Result<Broker, UsageError> {
    let broker = broker_document(document)?;
    broker.with_users(&Users::file(path))
}

/// Reads a broker's configuration and all files it names once more. Secrets that this process may not read any more are those that it
/// read `before`; [`Broker::secrets`] tells which.
///
/// # Errors
/// As [`broker`].
pub fn broker_again(path: &Path, before: &Secrets) -> Result<Broker, UsageError> {
    Document::open_again(path, before).and_then(|document| broker_with_users(path, &document))
}

/// Reads a client's configuration once more, as [`broker_again`] does.
///
/// # Errors
/// As [`client`].
pub fn client_again(path: &Path, before: &Secrets) -> Result<Client, UsageError> {
    Document::open_again(path, before).and_then(|document| client_document(&document))
}

/// Reads a client's configuration out of a document that is in memory already.
///
/// # Errors
/// As [`client`].
pub fn client_document(document: &Document) -> Result<Client, UsageError> {
    client::read(document)
}

/// Reads a broker's configuration out of a document that is in memory already.
///
/// # Errors
/// As [`broker`].
pub fn broker_document(document: &Document) -> Result<Broker, UsageError> {
    broker::read(document)
}

/// A broker's pools by its configuration and these settings of single users.
///
/// # Errors
/// As [`broker`].
pub fn pools_with(path: &Path, users: &Users) -> Result<BTreeMap<String, Pool>, UsageError> {
    let broker = Document::open(path).and_then(|document| broker_document(&document))?;
    broker.pools_with(&Users::file(path), users)
}

/// The control socket that a file names, whatever else is in it.
pub fn control_socket(path: &Path) -> Option<PathBuf> {
    place(path, "control")
}

/// The state directory of a broker, whatever else is in its file.
pub fn state_dir(path: &Path) -> PathBuf {
    place(path, "state_dir").unwrap_or_else(|| broker::STATE_DIR.into())
}

/// A path at the top of a file.
fn place(path: &Path, key: &str) -> Option<PathBuf> {
    let text = crate::files::read_text(path).ok()?;
    let table: toml::Table = text.parse().ok()?;
    Some(path.parent().unwrap_or(Path::new("")).join(table.get(key)?.as_str()?))
}

#[cfg(test)]
pub(crate) mod tests;
