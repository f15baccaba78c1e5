//! Neighbour solicitations that the broker answers for its clients (proxy NDP), and a record of them: unlike routes and
//! addresses they do not go away with the tunnel device, so that after a kill the next broker removes them.

use super::{Net, sysctl};
use crate::sandbox;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

/// The record is written anew when it has so many lines more than there are entries.
const SLACK: usize = 1000;

/// The addresses that the broker answers for, each for as long as anybody uses it.
pub struct Proxies {
    interface: u32,
    users: HashMap<Ipv6Addr, usize>,
    record: PathBuf,
    file: Option<File>,
    lines: usize,
}

impl Proxies {
    /// Takes away what a killed process left, by `record`: a file that only we write.
    pub async fn remove_left_over(net: &Net, record: &Path) {
        for (interface, address) in left_over(record) {
            tracing::info!("{address} was left by a broker that was killed (proxy_ndp): removed");
            if let Err(error) = net.remove_proxy(interface, address).await {
                tracing::warn!("{error:#}");
            }
        }
        let _ = std::fs::remove_file(record);
    }

    /// None yet.
    pub fn new(interface: u32, record: PathBuf) -> Self {
        let mut this = Self { interface, users: HashMap::new(), record, file: None, lines: 0 };
        this.rewrite();
        this
    }

    /// Answers for an address.
    pub async fn add(&mut self, net: &Net, address: Ipv6Addr) {
        let users = self.users.entry(address).or_default();
        *users += 1;
        if *users > 1 {
            return;
        }
        // Written first: a line too many does no harm.
        self.note('+', address);
        if let Err(error) = net.add_proxy(self.interface, address).await {
            tracing::warn!("{error:#}");
        }
    }

    /// One user less.
    pub async fn remove(&mut self, net: &Net, address: Ipv6Addr) {
        let Some(users) = self.users.get_mut(&address) else { return };
        *users -= 1;
        if *users > 0 {
            return;
        }
        self.users.remove(&address);
        if let Err(error) = net.remove_proxy(self.interface, address).await {
            tracing::warn!("{error:#}");
        }
        self.note('-', address);
    }

    /// Takes all away.
    pub async fn clear(&mut self, net: &Net) {
        for (address, _) in self.users.drain() {
            if let Err(error) = net.remove_proxy(self.interface, address).await {
                tracing::warn!("{error:#}");
            }
        }
        self.file = None;
        let _ = std::fs::remove_file(&self.record);
    }

    fn note(&mut self, what: char, address: Ipv6Addr) {
        if self.lines > self.users.len() + SLACK {
            return self.rewrite();
        }
        let Some(file) = &mut self.file else { return };
        self.lines += 1;
        if let Err(error) = writeln!(file, "{what} {} {address}", self.interface) {
            self.cannot_write(&error);
        }
    }

    fn rewrite(&mut self) {
        let written = sysctl::era().and_then(|era| {
            let mut text = format!("{era}\n");
            for address in self.users.keys() {
                text.push_str(&format!("+ {} {address}\n", self.interface));
            }
            let mut file = sandbox::open_state(&self.record)?;
            file.set_len(0)?;
            file.write_all(text.as_bytes())?;
            Ok(file)
        });
        self.lines = self.users.len();
        match written {
            Ok(file) => self.file = Some(file),
            Err(error) => self.cannot_write(&error),
        }
    }

    fn cannot_write(&mut self, error: &std::io::Error) {
        self.file = None;
        tracing::warn!(
            "{}: {error}; after a kill nobody takes the entries of proxy_ndp away",
            self.record.display()
        );
    }
}

/// Entries of this boot and network namespace that were made and not removed again.
fn left_over(record: &Path) -> Vec<(u32, Ipv6Addr)> {
    let (Ok(text), Ok(era)) = (std::fs::read_to_string(record), sysctl::era()) else { return Vec::new() };
    let mut lines = text.lines();
    if lines.next() != Some(&era) {
        return Vec::new();
    }
    let mut list = Vec::new();
    for line in lines {
        let mut words = line.split(' ');
        let (what, index, address) = (words.next(), words.next(), words.next());
        let parsed = index.and_then(|i| i.parse().ok()).zip(address.and_then(|a| a.parse().ok()));
        let Some(entry) = parsed else { continue };
        match what {
            Some("+") => list.push(entry),
            Some("-") => list.retain(|other| *other != entry),
            _ => {}
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_tells_what_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("proxy-ndp");
        assert_eq!(left_over(&record), []);
        let (one, two): (Ipv6Addr, Ipv6Addr) = ("2a00::101".parse().unwrap(), "2a00::102".parse().unwrap());
        let mut proxies =
            Proxies { interface: 7, users: HashMap::new(), record: record.clone(), file: None, lines: 0 };
        proxies.rewrite();
        proxies.note('+', one);
        proxies.note('+', two);
        proxies.note('-', one);
        assert_eq!(left_over(&record), [(7, two)]);
        // Many changes do not make a long file.
        proxies.users.insert(two, 1);
        for _ in 0..2 * SLACK {
            proxies.note('+', one);
            proxies.note('-', one);
        }
        let lines = std::fs::read_to_string(&record).unwrap().lines().count();
        assert!(lines <= SLACK + 4, "{lines}");
        assert!(left_over(&record).contains(&(7, two)));
        // Another boot: nothing is ours.
        std::fs::write(&record, "another era\n+ 7 2a00::101\n").unwrap();
        assert_eq!(left_over(&record), []);
        std::fs::write(&record, format!("{}\nrubbish\n+ x y\n+ 7\n", sysctl::era().unwrap())).unwrap();
        assert_eq!(left_over(&record), []);
    }
}
