//! What the embedder tells the endpoint.

use crate::event::{IkeSaId, Lease};
use crate::identity::Identity;
use crate::prefix::Prefix6;
use crate::selector::TrafficSelector;
use ferry6_crypto::{Cipher, Group, Integ, Prf, Secret, SigningKey};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Initiator or responder of an IKE SA's first exchange (RFC 7296 section 2.2: "original" initiator).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sent IKE_SA_INIT first.
    Initiator,
    /// Answered it.
    Responder,
}

/// The two clocks, as arguments: the monotonic one for timers, the wall clock for certificates.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For timers.
    pub monotonic: Instant,
    /// For validity periods.
    pub wall: SystemTime,
}

/// One IKE proposal (RFC 7296 section 3.3): every combination of its members is offered. AEADs and CBC ciphers are
/// sent as two proposals, in the order of the first cipher of each kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeProposal {
    /// ENCR.
    pub ciphers: Vec<Cipher>,
    /// INTEG, for the CBC ciphers.
    pub integs: Vec<Integ>,
    /// PRF.
    pub prfs: Vec<Prf>,
    /// KE; the first one is what IKE_SA_INIT guesses.
    pub groups: Vec<Group>,
}

/// One ESP proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspProposal {
    /// ENCR.
    pub ciphers: Vec<Cipher>,
    /// INTEG, for the CBC ciphers.
    pub integs: Vec<Integ>,
    /// KE of CREATE_CHILD_SA; empty: no PFS. (Never sent in IKE_AUTH: RFC 7296 section 1.2.)
    pub groups: Vec<Group>,
    /// Extended sequence numbers, best first: `[true, false]` offers both.
    pub esn: Vec<bool>,
}

/// How we prove who we are.
#[derive(Clone)]
pub enum Credential {
    /// A certificate with its chain (leaf first, no root) and private key.
    Certificate {
        /// Leaf, then intermediates.
        chain: Vec<CertificateDer<'static>>,
        /// The leaf's private key.
        key: Arc<dyn SigningKey>,
    },
    /// A pre-shared key.
    Psk(Secret),
}

/// How the peer must prove who it is.
#[derive(Clone)]
pub enum PeerAuth {
    /// By certificate: chain to one of the anchors, the identity in its SAN (or its subject, for a DN).
    Certificate {
        /// Trust anchors: CA certificates in DER.
        anchors: Vec<CertificateDer<'static>>,
        /// CRLs in DER; each must be signed by its issuer.
        crls: Vec<CertificateRevocationListDer<'static>>,
        /// What is asked, and what no answer means.
        revocation: Revocation,
    },
    /// By pre-shared key.
    Psk(Secret),
}

/// `strictcrlpolicy` of old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Revocation {
    /// No check.
    Off,
    /// A listed certificate is refused; one that names a CRL or an OCSP responder is refused without a fresh answer.
    #[default]
    IfUri,
    /// Without a fresh CRL or OCSP response a certificate is refused.
    Strict,
}

/// Which peers a connection is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteId {
    /// Whoever authenticates.
    Any,
    /// Exactly this one.
    Exactly(Identity),
    /// Any address below a domain: `*@my.domain`, `*.my.domain`.
    Pattern(String),
}

impl RemoteId {
    /// Whether it is for this identity.
    pub fn matches(&self, identity: &Identity) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(id) => id == identity,
            Self::Pattern(pattern) => identity.matches_pattern(pattern),
        }
    }
}

/// Configuration payload (RFC 7296 section 2.19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressConfig {
    /// Neither asked nor given.
    None,
    /// Ask for an IPv6 address, perhaps a prefix, and DNS servers; selectors of our side shrink to what we get. For
    /// initiators alone: such a connection answers nobody.
    Request {
        /// This one, if told.
        address: Option<Ipv6Addr>,
        /// A prefix to be routed to us, too.
        prefix: PrefixWish,
    },
    /// Give one from the [`AddressPool`]; selectors of the peer's side shrink to it.
    Assign,
}

impl AddressConfig {
    /// An address, whichever, and no prefix.
    pub const REQUEST: Self = Self::Request { address: None, prefix: PrefixWish::None };

    /// The prefix that is asked for.
    pub const fn prefix_wish(&self) -> PrefixWish {
        match self {
            Self::Request { prefix, .. } => *prefix,
            Self::None | Self::Assign => PrefixWish::None,
        }
    }
}

/// What is asked for by INTERNAL_IP6_PREFIX (RFC 5739 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PrefixWish {
    /// Nothing.
    #[default]
    None,
    /// Whichever there is.
    Any,
    /// This one. A peer that does not know the attribute may have it by its own configuration: the selectors tell.
    This(Prefix6),
}

/// IPComp policy of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IpcompPolicy {
    /// Neither offered nor accepted.
    Off,
    /// Accepted when the peer offers it.
    #[default]
    Accept,
    /// Offered and accepted.
    On,
}

/// Several Child SAs with the same traffic selectors, so that each core of a machine has one of its own (RFC 9611). The
/// numbers count the first one, too; without more than one, SA_RESOURCE_INFO is neither sent nor answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PerResource {
    /// As many we ask for, as the initiator of the IKE SA.
    pub wanted: usize,
    /// As many the peer may have; beyond them TS_MAX_QUEUE. RFC 9611 section 6: at least twice the cores.
    pub limit: usize,
}

impl PerResource {
    /// Whether we ask for more than one.
    pub(crate) fn asks(self) -> bool {
        self.wanted > 1
    }

    /// Whether we take part when a peer asks.
    pub(crate) fn answers(self) -> bool {
        self.limit > 1
    }
}

/// What a new IKE SA means for older ones of the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Unique {
    /// The new one replaces them.
    #[default]
    Replace,
    /// The old ones stay, the new one is refused.
    Keep,
    /// All stay, unless INITIAL_CONTACT says that they are dead.
    Never,
}

/// Whether a NAT may stand between us and a peer (RFC 4555 section 3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NatPolicy {
    /// As it is.
    #[default]
    Auto,
    /// None: who changes addresses on the way is refused.
    Forbid,
}

/// When a peer that moved must show that it is where it says (RFC 4555 section 3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RoutabilityCheck {
    /// Traffic follows at once, and the peer is asked then: no pause in its traffic.
    #[default]
    After,
    /// Traffic follows when it has answered.
    Before,
    /// It is believed.
    Off,
}

/// One connection: a policy for peers, as initiator or responder.
#[derive(Clone)]
pub struct Connection {
    /// Its name, for logs and status.
    pub name: String,
    /// Our identity.
    pub local_id: Identity,
    /// How we authenticate.
    pub credential: Credential,
    /// Whom it is for.
    pub remote_id: RemoteId,
    /// How they authenticate.
    pub peer_auth: PeerAuth,
    /// IKE proposals, best first.
    pub ike: Vec<IkeProposal>,
    /// ESP proposals, best first.
    pub esp: Vec<EspProposal>,
    /// Our side of the traffic.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side.
    pub remote_ts: Vec<TrafficSelector>,
    /// Configuration payload.
    pub addresses: AddressConfig,
    /// IPComp.
    pub ipcomp: IpcompPolicy,
    /// Several Child SAs for one tunnel (RFC 9611).
    pub per_resource: PerResource,
    /// Whether to announce MOBIKE (RFC 4555).
    pub mobike: bool,
    /// Whether a NAT may be between us and the peer.
    pub nat: NatPolicy,
    /// How a peer's move is checked, as the responder.
    pub routability: RoutabilityCheck,
    /// Largest IKE message in octets, IP and UDP headers not counted (RFC 7383); `None` switches fragmentation off.
    pub fragment_size: Option<usize>,
    /// Lifetime of a Child SA before its rekey; 0 never. The endpoint takes off a random share (`rekey_fuzz`).
    pub child_rekey: Duration,
    /// Lifetime of an IKE SA before its rekey; 0 never.
    pub ike_rekey: Duration,
    /// Octets in one direction before a child is rekeyed; 0 only the cipher's own limit.
    pub child_rekey_bytes: u64,
    /// Packets in one direction before a child is rekeyed; 0 only the cipher's own limit.
    pub child_rekey_packets: u64,
    /// Lifetime of an IKE SA before it is authenticated anew (RFC 7296 section 2.8.3); 0 never. An initiator is told by
    /// [`crate::event::Established::reauth`] when; a responder tells the peer (RFC 4478), and closes if it does not come.
    pub reauth: Duration,
    /// Silence after which the peer is probed (DPD); 0 never.
    pub dpd: Duration,
    /// Unique IDs.
    pub unique: Unique,
}

impl Connection {
    /// Whether it also answers peers: one that asks for an address is for initiators alone. An endpoint without any
    /// that answers is silent towards everybody whom it did not call.
    pub fn responds(&self) -> bool {
        !matches!(self.addresses, AddressConfig::Request { .. })
    }
}

/// Retransmission (RFC 7296 section 2.1, 2.4): the n-th wait is `first * factor^(n-1)`, at most `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retransmit {
    /// Wait after the first send.
    pub first: Duration,
    /// Growth.
    pub factor: f64,
    /// Longest wait.
    pub max: Duration,
    /// Sends in all before the peer is given up.
    pub tries: u32,
}

impl Default for Retransmit {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), factor: 1.8, max: Duration::from_secs(40), tries: 7 }
    }
}

/// Bounds against floods (RFC 7296 section 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HalfOpenLimits {
    /// From this many half-open IKE SAs on, COOKIE is asked for; 0: always.
    pub cookie_from: usize,
    /// No more than these in all: the oldest goes, when one comes that has repeated a cookie.
    pub max: usize,
    /// No more than these from one IPv4 address, likewise; and so many IKE SAs at once it may open.
    pub per_source: usize,
    /// IKE SAs that one IPv4 address may open in a second, on and on; 0: as many as it likes.
    pub per_source_rate: usize,
    /// How long a half-open IKE SA may wait for its IKE_AUTH.
    pub lifetime: Duration,
}

impl Default for HalfOpenLimits {
    fn default() -> Self {
        Self {
            cookie_from: 64,
            max: 10_000,
            per_source: 32,
            per_source_rate: 50,
            lifetime: Duration::from_secs(30),
        }
    }
}

/// Identities that are not let in, whatever they prove, each with the reason for the log. On the wire it is
/// AUTHENTICATION_FAILED: RFC 7296 section 3.10.1 has no other word for it.
pub type Barred = Arc<HashMap<Identity, String>>;

/// The whole.
#[derive(Clone)]
pub struct EndpointConfig {
    /// Connections; a responder takes the first that fits.
    pub connections: Vec<Arc<Connection>>,
    /// Retransmission.
    pub retransmit: Retransmit,
    /// Bounds.
    pub half_open: HalfOpenLimits,
    /// Who is not let in.
    pub barred: Barred,
    /// Our port for IKE and ESP behind the non-ESP marker (RFC 3948 section 2.2), as bound: 4500 unless the kernel chose.
    pub nat_port: u16,
    /// The peers' such port, where nothing else is told: 4500.
    pub remote_nat_port: u16,
    /// Our IPv4 addresses at which peers reach us, to be told to those that speak MOBIKE.
    pub addresses: Vec<Ipv4Addr>,
    /// Make the peer encapsulate ESP in UDP even where there is no NAT, by a NAT detection hash that does not fit (as
    /// strongSwan's `encap = yes`). Here ESP is never sent but in UDP, so a peer with kernel IPsec needs it.
    pub force_encap: bool,
    /// The greatest share that is taken off a lifetime at random, so that both ends seldom rekey at once; 0 to 0.9.
    pub rekey_fuzz: f64,
    /// How long a replaced or deleted inbound SA still takes late packets.
    pub linger: Duration,
    /// How long `close` waits for the answer to its DELETE.
    pub close_patience: Duration,
    /// How long the answer to `Event::CheckRevocation` may take; the peer is refused without.
    pub revocation_patience: Duration,
    /// IKE SAs at once that wait for such an answer; more peers are refused.
    pub revocation_checks: usize,
    /// Tell the keys of IKE SAs by `Event::IkeKeys`, for Wireshark. Never in normal use.
    pub keylog: bool,
}

/// What of an [`EndpointConfig`] can be changed while the endpoint lives.
#[derive(Clone)]
pub struct Settings {
    /// As [`EndpointConfig::connections`].
    pub connections: Vec<Arc<Connection>>,
    /// As [`EndpointConfig::retransmit`].
    pub retransmit: Retransmit,
    /// As [`EndpointConfig::half_open`].
    pub half_open: HalfOpenLimits,
    /// As [`EndpointConfig::remote_nat_port`].
    pub remote_nat_port: u16,
    /// As [`EndpointConfig::addresses`]; `None` leaves them.
    pub addresses: Option<Vec<Ipv4Addr>>,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            connections: Vec::new(),
            retransmit: Retransmit::default(),
            half_open: HalfOpenLimits::default(),
            barred: Barred::default(),
            nat_port: 4500,
            remote_nat_port: 4500,
            addresses: Vec::new(),
            force_encap: true,
            rekey_fuzz: 0.1,
            linger: Duration::from_secs(5),
            close_patience: Duration::from_secs(5),
            revocation_patience: Duration::from_secs(12),
            revocation_checks: 256,
            keylog: false,
        }
    }
}

/// A request for an address.
#[derive(Clone, Debug)]
pub struct LeaseRequest<'a> {
    /// The IKE SA that asks.
    pub ike: IkeSaId,
    /// The connection's name.
    pub connection: &'a str,
    /// The authenticated identity.
    pub identity: &'a Identity,
    /// The address it would like.
    pub wanted: Option<Ipv6Addr>,
    /// The prefix it would like. Who does not ask may have one nevertheless: not every client can ask.
    pub prefix: PrefixWish,
}

/// Why there is no lease; goes to the log, the wire says INTERNAL_ADDRESS_FAILURE.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LeaseError(pub String);

/// The broker's pool of addresses and prefixes. Called after the peer has been authenticated, and quick.
pub trait AddressPool: Send {
    /// Gives an address.
    ///
    /// # Errors
    /// [`LeaseError`] where the pool is empty or there is none for this connection.
    fn assign(&mut self, request: &LeaseRequest<'_>) -> Result<Lease, LeaseError>;
    /// The IKE SA is gone.
    fn release(&mut self, ike: IkeSaId);
}

/// Hands out inbound SPIs that say which worker owns them.
pub trait SpiGenerator: Send {
    /// A fresh SPI, not in use.
    fn generate(&mut self) -> ferry6_crypto::Spi;

    /// The same for an SA that takes the place of `old` in a rekey: with the same owner, so that no packet of the old one is
    /// overtaken by one of the new.
    fn generate_in_place_of(&mut self, _old: ferry6_crypto::Spi) -> ferry6_crypto::Spi {
        self.generate()
    }

    /// The same for one more SA with the selectors of these: with an owner that has few of them.
    fn generate_beside(&mut self, _others: &[ferry6_crypto::Spi]) -> ferry6_crypto::Spi {
        self.generate()
    }
}
