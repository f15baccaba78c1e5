//! Secrets that files hold, kept for when the configuration is read anew.
//!
//! A daemon becomes another user once it is set up. Keys that root alone may read it cannot open again, so what it read of
//! them while it could is kept, and stands in for the file. Only for files that may not be opened any more: one that is gone,
//! or wrong, is a fault as at the start.

use super::keys;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What was read, by path; overwritten when it is dropped.
#[derive(Default)]
pub struct Secrets {
    read: BTreeMap<PathBuf, Zeroizing<Vec<u8>>>,
    /// What an earlier reading found.
    earlier: BTreeMap<PathBuf, Zeroizing<Vec<u8>>>,
    stood_in: BTreeSet<PathBuf>,
}

impl Secrets {
    /// For another reading: what was read till now stands in for what may not be read then.
    pub fn again(&self) -> Self {
        Self { earlier: self.read.clone(), ..Self::default() }
    }

    /// The files that may not be read any more, for which an earlier reading stood in.
    pub fn stood_in(&self) -> &BTreeSet<PathBuf> {
        &self.stood_in
    }

    /// What this reading found in a file.
    pub(super) fn read(&self, path: &Path) -> Option<Zeroizing<Vec<u8>>> {
        self.read.get(path).cloned()
    }

    /// Keeps the octets of a file that was read.
    pub(super) fn keep(&mut self, path: &Path, octets: Zeroizing<Vec<u8>>) {
        self.read.insert(path.to_owned(), octets);
    }

    /// What was read earlier of a file that may not be opened any more; `None` where there is no such thing, or `error` is
    /// another one.
    pub(super) fn stand_in(&mut self, path: &Path, error: &std::io::Error) -> Option<Zeroizing<Vec<u8>>> {
        if error.kind() != ErrorKind::PermissionDenied {
            return None;
        }
        let octets = self.earlier.get(path)?.clone();
        self.stood_in.insert(path.to_owned());
        self.keep(path, octets.clone());
        Some(octets)
    }

    /// A file with a secret.
    ///
    /// # Errors
    /// Unreadable, or readable by others.
    pub(super) fn file(&mut self, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
        match File::open(path) {
            Ok(file) => {
                let octets = keys::secret_file(path, &file)?;
                self.keep(path, octets.clone());
                Ok(octets)
            }
            Err(error) => self.stand_in(path, &error).ok_or_else(|| keys::cannot_read(path, &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::io::Error;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_may_not_be_read_any_more_stands_in_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let mut first = Secrets::default();
        assert_eq!(&first.file(&path).unwrap()[..], b"secret");
        let denied = Error::from(ErrorKind::PermissionDenied);
        assert!(first.stand_in(&path, &denied).is_none(), "nothing was read before");

        let mut second = first.again();
        assert_eq!(&second.stand_in(&path, &denied).unwrap()[..], b"secret");
        assert_eq!(second.stood_in().iter().collect::<Vec<_>>(), [&path]);
        assert!(second.stand_in(&path, &Error::from(ErrorKind::NotFound)).is_none());
        assert!(second.stand_in(&dir.path().join("other"), &denied).is_none());

        // What can be read is taken anew, and holds for the next time.
        std::fs::write(&path, "another").unwrap();
        let mut third = second.again();
        assert_eq!(&third.file(&path).unwrap()[..], b"another");
        assert!(third.stood_in().is_empty());
        let mut fourth = third.again();
        assert_eq!(&fourth.stand_in(&path, &denied).unwrap()[..], b"another");
        std::fs::remove_file(&path).unwrap();
        assert!(fourth.again().file(&path).unwrap_err().contains("cannot read"), "gone is gone");
    }
}
