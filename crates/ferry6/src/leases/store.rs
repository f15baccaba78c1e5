//! The file of the leases, and its table of addresses.

use super::Record;
use crate::sandbox;
use ferry6_ike::Identity;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::net::Ipv6Addr;
use std::path::Path;
use std::str::FromStr;

/// Identity to address (16 octets) and time of last use (seconds since 1970, 8 octets, big endian).
const LEASES: TableDefinition<'_, &str, [u8; 24]> = TableDefinition::new("leases-v1");

/// The store's file in the state directory.
pub const FILE: &str = "leases.redb";

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("{0} is in use by another process: is another broker running with the same state_dir?")]
    InUse(String),
    /// Anything else.
    #[error("{path}: {text}")]
    Other {
        /// File or directory.
        path: String,
        /// Cause and remedy.
        text: String,
    },
}

/// Opens the store, or makes it.
///
/// # Errors
/// [`StoreError`].
pub fn open_store(path: &Path) -> Result<Database, StoreError> {
    let fault = |text: String| StoreError::Other { path: path.display().to_string(), text };
    let file = sandbox::open_state(path).map_err(|e| fault(format!("cannot open the leases: {e}")))?;
    FileBackend::new(file).and_then(|backend| Database::builder().create_with_backend(backend)).map_err(|e| {
        match e {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.display().to_string()),
            other => fault(format!("cannot open the leases: {other}")),
        }
    })
}

/// The identity in the store: equal ones have the same text.
pub fn identity_text(identity: &Identity) -> String {
    match identity {
        Identity::Fqdn(_) => identity.to_string().to_ascii_lowercase(),
        Identity::Rfc822(address) => match address.rsplit_once('@') {
            Some((local, domain)) => {
                Identity::Rfc822(format!("{local}@{}", domain.to_ascii_lowercase())).to_string()
            }
            None => identity.to_string(),
        },
        _ => identity.to_string(),
    }
}

/// All leases that are written.
pub(super) fn load(store: &Database) -> Result<Vec<(Identity, Record)>, redb::Error> {
    // A write transaction makes the table where the store is new.
    let transaction = store.begin_write()?;
    transaction.open_table(LEASES)?;
    transaction.commit()?;
    let table = store.begin_read()?.open_table(LEASES)?;
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (identity, value) = entry?;
        let value = value.value();
        let (address, time) = value.split_at(16);
        if let (Ok(identity), Ok(address), Ok(time)) =
            (Identity::from_str(identity.value()), <[u8; 16]>::try_from(address), <[u8; 8]>::try_from(time))
        {
            records.push((
                identity,
                Record { address: Ipv6Addr::from(address), last_used: u64::from_be_bytes(time) },
            ));
        }
    }
    Ok(records)
}

/// Writes the address of an identity.
pub(super) fn write(
    store: &Database,
    identity: &Identity,
    record: Record,
    durability: Durability,
) -> Result<(), redb::Error> {
    let mut value = [0; 24];
    value[..16].copy_from_slice(&record.address.octets());
    value[16..].copy_from_slice(&record.last_used.to_be_bytes());
    let mut transaction = store.begin_write()?;
    transaction.set_durability(durability)?;
    transaction.open_table(LEASES)?.insert(identity_text(identity).as_str(), value)?;
    transaction.commit()?;
    Ok(())
}

/// Removes it.
pub(super) fn forget(store: &Database, identity: &Identity) -> Result<(), redb::Error> {
    let mut transaction = store.begin_write()?;
    transaction.set_durability(Durability::None)?;
    transaction.open_table(LEASES)?.remove(identity_text(identity).as_str())?;
    transaction.commit()?;
    Ok(())
}
