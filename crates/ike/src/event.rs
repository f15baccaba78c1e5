//! What the endpoint asks its embedder to do.

use crate::config::Role;
use crate::identity::Identity;
use crate::prefix::Prefix6;
use crate::revocation::Query;
use crate::selector::TrafficSelector;
use bytes::Bytes;
use ferry6_crypto::{PacketKeys, Spi};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Names one IKE SA inside this endpoint for as long as the process lives; an IKE rekey keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IkeSaId(pub u64);

/// Names one Child SA across all its rekeys; the SPD refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reqid(pub u32);

/// Local and remote UDP address of a peer. Local port 4500 means: with non-ESP marker (RFC 3948 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Our address; where it is unspecified the kernel chooses.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

/// An IKE message to send. The embedder puts the non-ESP marker in front where the path says so.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// From where to where.
    pub path: Path,
    /// The message, without marker.
    pub payload: Bytes,
    /// It must not be fragmented on the way (DF): it asks whether the path takes its size.
    pub dont_fragment: bool,
}

/// One direction of a Child SA.
#[derive(Clone, Debug)]
pub struct ChildHalf {
    /// SPI: ours for inbound, the peer's for outbound.
    pub spi: Spi,
    /// Suite and keys.
    pub keys: PacketKeys,
    /// The CPI if IPComp was negotiated in this direction: ours for inbound, the peer's for outbound.
    pub ipcomp_cpi: Option<u16>,
}

/// When the outbound half of a new Child SA is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activate {
    /// At once: both halves are installed, then outbound switches between two batches.
    Now,
    /// Inbound now; outbound when [`Event::UseOutbound`] comes: as soon as the peer shows that it uses the new SAs.
    Later,
}

/// A Child SA to install.
#[derive(Clone, Debug)]
pub struct ChildSa {
    /// Its IKE SA.
    pub ike: IkeSaId,
    /// The connection's name.
    pub connection: String,
    /// The same across rekeys.
    pub reqid: Reqid,
    /// Which of the Child SAs of this reqid (RFC 9611): 0 the first, or the only one. A rekey keeps it, and the number is our
    /// own: the peer's may differ.
    pub resource: u32,
    /// To us.
    pub inbound: ChildHalf,
    /// From us.
    pub outbound: ChildHalf,
    /// Whether 64-bit sequence numbers were negotiated.
    pub esn: bool,
    /// Our side of the selectors, narrowed.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side.
    pub remote_ts: Vec<TrafficSelector>,
    /// Where its ESP goes.
    pub path: Path,
    /// When to switch outbound.
    pub activate: Activate,
    /// The inbound SPI of the SA that this one replaces in a rekey.
    pub replaces: Option<Spi>,
    /// Limits at which the router tells the endpoint (`Endpoint::child_soft_limit`): packets and octets of one direction.
    pub soft_packets: u64,
    /// In octets.
    pub soft_bytes: u64,
}

/// What a peer got, or we got, by configuration payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// INTERNAL_IP6_ADDRESS, always used as /128.
    pub address: Option<Ipv6Addr>,
    /// INTERNAL_IP6_PREFIX (RFC 5739): all of it is routed to who got it.
    pub prefix: Option<Prefix6>,
    /// INTERNAL_IP6_DNS.
    pub dns: Vec<Ipv6Addr>,
}

/// An IKE SA is up.
#[derive(Clone, Debug)]
pub struct Established {
    /// Which.
    pub ike: IkeSaId,
    /// The connection's name.
    pub connection: String,
    /// Our role.
    pub role: Role,
    /// Our identity.
    pub local_id: Identity,
    /// The peer's authenticated identity.
    pub remote_id: Identity,
    /// On an initiator: what it received. On a responder: what it gave.
    pub lease: Lease,
    /// Where the peer is.
    pub path: Path,
    /// Whether we are behind a NAT.
    pub nat_local: bool,
    /// Whether the peer is.
    pub nat_remote: bool,
    /// As the initiator: when to authenticate anew, by another IKE SA beside this one ([`crate::Endpoint::initiate`]),
    /// and to close this one then.
    pub reauth: Option<Duration>,
}

/// Why an IKE SA ended or did not come up. The text names peer, payload and cause and says what to do.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Which.
    pub ike: IkeSaId,
    /// The connection's name, where one was chosen.
    pub connection: Option<String>,
    /// Where the peer was.
    pub path: Path,
    /// The peer's identity, where it was told (authenticated or not: see `established`).
    pub remote_id: Option<Identity>,
    /// Whether it had been established.
    pub established: bool,
    /// The cause.
    pub reason: CloseReason,
}

/// The cause of a close, by who is at fault.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CloseReason {
    /// We were asked to.
    #[error("closed by us")]
    Local,
    /// Its identity is not let in any more ([`crate::config::Barred`]); the text says why.
    #[error("closed by us: {0}")]
    Barred(String),
    /// The peer sent DELETE.
    #[error("deleted by the peer")]
    PeerDeleted,
    /// No answer to all retransmissions.
    #[error("no answer from the peer after {tries} tries in {seconds} s")]
    Timeout {
        /// Messages sent.
        tries: u32,
        /// Seconds in all.
        seconds: u64,
    },
    /// The peer refused with this notify.
    #[error("the peer refused: {0}")]
    PeerRefused(String),
    /// We refused the peer; the text says why, the wire says only the notify.
    #[error("{0}")]
    WeRefused(String),
    /// The peer broke the protocol.
    #[error("protocol error of the peer: {0}")]
    PeerMisbehaved(String),
    /// A lifetime ended without a rekey.
    #[error("expired: {0}")]
    Expired(&'static str),
    /// Replaced by a newer IKE SA of the same identity.
    #[error("replaced by a newer connection of the same identity")]
    Replaced,
}

impl CloseReason {
    /// What it is about, one of a few words, as in [`Event::Notice`].
    pub const fn cause(&self) -> &'static str {
        match self {
            Self::Local => "closed",
            Self::Barred(_) => "barred",
            Self::PeerDeleted => "peer_deleted",
            Self::Timeout { .. } => "no_answer",
            Self::PeerRefused(_) => "peer_refused",
            Self::WeRefused(_) => "refused",
            Self::PeerMisbehaved(_) => "protocol_error",
            Self::Expired(_) => "expired",
            Self::Replaced => "replaced",
        }
    }
}

/// The keys of one IKE SA, as Wireshark wants them.
#[derive(Clone, Debug)]
pub struct IkeKeyLog {
    /// Which.
    pub ike: IkeSaId,
    /// Initiator's SPI.
    pub initiator_spi: u64,
    /// Responder's SPI.
    pub responder_spi: u64,
    /// SK_ei and SK_ai.
    pub initiator: PacketKeys,
    /// SK_er and SK_ar.
    pub responder: PacketKeys,
}

/// Certificates of a peer whose status must be asked for before the IKE SA goes on. Their path to a trusted CA is verified,
/// and so is the peer's AUTH: the addresses to ask come from a CA, not from a stranger.
#[derive(Clone, Debug)]
pub struct RevocationCheck {
    /// Which IKE SA waits: for `Endpoint::revocation_checked`.
    pub ike: IkeSaId,
    /// The peer's identity.
    pub remote_id: Identity,
    /// How long it waits.
    pub patience: Duration,
    /// The certificates.
    pub queries: Vec<Query>,
}

/// What to do, in the order in which it came about.
#[derive(Clone, Debug)]
pub enum Event {
    /// Send this.
    Transmit(Transmit),
    /// Install both halves.
    InstallChildSa(Box<ChildSa>),
    /// Switch the outbound half of this reqid to the SA with this outbound SPI; answer with
    /// `Endpoint::outbound_in_use` when the owner has done so.
    UseOutbound {
        /// Which child.
        reqid: Reqid,
        /// The peer's SPI of the new SA.
        spi: Spi,
    },
    /// Remove: the outbound half at once, the inbound half after `linger`.
    RemoveChildSa {
        /// Which child.
        reqid: Reqid,
        /// Our SPI.
        inbound: Spi,
        /// The peer's SPI.
        outbound: Spi,
        /// How long late packets are still taken.
        linger: Duration,
        /// Whether the reqid goes away with it, that is, nothing replaced it and none stands beside it.
        last: bool,
    },
    /// The peer moved (MOBIKE, NAT rebinding): all Child SAs of this IKE SA send to the new path.
    MovePath {
        /// Which IKE SA.
        ike: IkeSaId,
        /// Where to.
        path: Path,
    },
    /// What became of `Endpoint::probe_path_size`.
    PathSize {
        /// Which IKE SA.
        ike: IkeSaId,
        /// Octets of the message that arrived whole, at most what was asked for; `None`: nobody answered it.
        taken: Option<usize>,
    },
    /// An IKE SA is up; its first Child SA's `InstallChildSa` comes with it.
    Established(Box<Established>),
    /// Ask whether these certificates are revoked; answer with `Endpoint::revocation_checked`.
    CheckRevocation(Box<RevocationCheck>),
    /// The responder has said anew how long it takes our authentication for good (RFC 4478 section 3): authenticate within
    /// this time, as [`Established::reauth`] says.
    ReauthenticateIn {
        /// Which IKE SA.
        ike: IkeSaId,
        /// The time from now on.
        after: Duration,
    },
    /// The IKE SA was rekeyed.
    IkeRekeyed {
        /// Which.
        ike: IkeSaId,
    },
    /// Keys of an IKE SA, for Wireshark's `ikev2_decryption_table`; only where `EndpointConfig::keylog` asks for them.
    IkeKeys(Box<IkeKeyLog>),
    /// The IKE SA is gone, with all its Child SAs (each had its `RemoveChildSa`).
    Closed(Box<Closed>),
    /// Something an operator should see: peer, payload and cause. Rate limits are the embedder's.
    Notice {
        /// Whether it is a refusal (warn) or plain news (info).
        warning: bool,
        /// What it is about, one of a few words: many with the same cause are one piece of news.
        cause: &'static str,
        /// The text.
        text: String,
    },
}
