//! NAT detection (RFC 7296 section 2.23).
//!
//! ESP here is always encapsulated in UDP. So that a peer does the same even without a NAT between us, the hash of
//! our own address can be sent wrong on purpose, as others do too. It is wrong in a way that another ferry6
//! recognises, so that what `status` says of NATs is true.

use crate::event::Path;
use crate::notify;
use crate::payloads::Payloads;
use crate::wire::Payload;
use ferry6_crypto::{CryptoProvider, HashAlgorithm};
use std::net::{IpAddr, SocketAddr};

/// What NAT detection found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Nat {
    /// The peer sent NAT detection payloads at all.
    pub(crate) supported: bool,
    /// We are behind a NAT.
    pub(crate) local: bool,
    /// The peer is.
    pub(crate) remote: bool,
}

/// The octets of an address, 4 or 16.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// SHA-1 (SPIi | SPIr | IP | port [| mark]).
fn hash(crypto: &CryptoProvider, spis: (u64, u64), address: SocketAddr, mark: &[u8]) -> Vec<u8> {
    let (ip, port) = (octets(address.ip()), address.port().to_be_bytes());
    crypto
        .hashes
        .digest(HashAlgorithm::Sha1, &[&spis.0.to_be_bytes(), &spis.1.to_be_bytes(), &ip, &port, mark])
        .expect("SHA-1 is a hash that every provider has")
}

/// What makes a hash wrong on purpose.
const ENCAPSULATE: &[u8] = b"ferry6: encapsulate";

/// The two payloads for a message on `path`.
pub(crate) fn payloads(
    crypto: &CryptoProvider,
    spis: (u64, u64),
    path: Path,
    force_encap: bool,
) -> [Payload; 2] {
    let mark = if force_encap { ENCAPSULATE } else { &[] };
    [
        notify::plain(notify::NAT_DETECTION_SOURCE_IP, hash(crypto, spis, path.local, mark)),
        notify::plain(notify::NAT_DETECTION_DESTINATION_IP, hash(crypto, spis, path.remote, &[])),
    ]
}

/// Compares the peer's hashes with the addresses of its packet. Several source hashes may come; one that fits will do.
pub(crate) fn detect(crypto: &CryptoProvider, spis: (u64, u64), path: Path, payloads: &Payloads) -> Nat {
    let hashes = |notify_type| {
        payloads.notifies.iter().filter(move |n| n.notify_type == notify_type).map(|n| n.data.as_slice())
    };
    let mut sources = hashes(notify::NAT_DETECTION_SOURCE_IP).peekable();
    let mut destinations = hashes(notify::NAT_DETECTION_DESTINATION_IP).peekable();
    if sources.peek().is_none() || destinations.peek().is_none() {
        return Nat::default();
    }
    let real = hash(crypto, spis, path.remote, &[]);
    let forced = hash(crypto, spis, path.remote, ENCAPSULATE);
    let local = hash(crypto, spis, path.local, &[]);
    Nat {
        supported: true,
        local: !destinations.any(|h| h == local),
        remote: !sources.any(|h| h == real || h == forced),
    }
}
