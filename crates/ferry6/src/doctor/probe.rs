//! Real IKE_SA_INIT requests (RFC 7296 section 1.2) that make nobody remember anything.
//!
//! A probe's KE payload is of a group that it does not offer, so that a responder which takes one of its proposals asks for
//! another group (INVALID_KE_PAYLOAD, section 1.3; that the group must be one of those offered, section 3.4, is what is broken here on
//! purpose) and one which takes none says NO_PROPOSAL_CHOSEN; both are stateless. Only what
//! NAT detection says stands in a whole answer, which leaves one half-open IKE SA at the broker until it forgets it.

use ferry6_crypto::provider::{OsRandom, SecureRandom as _};
use ferry6_crypto::{Cipher, CryptoProvider, Group, HashAlgorithm, Integ, Prf};
use ferry6_ike::config::IkeProposal;
use ferry6_ike::wire::{
    ExchangeType, Header, HeaderFields, Notify, Payload, Proposal, Transform, encode_message, notify,
    parse_payloads, protocol, transform_type,
};
use ferry6_tun_router::probe::{Fragments, report_icmp, set_fragments};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

/// MODP-768 and the octets of its public values: nobody takes it, and it is short.
const NO_GROUP: (u16, usize) = (1, 96);
/// IPv4 and UDP header.
pub(super) const HEADERS: usize = 28;
/// RFC 3948 section 2.2: what stands before IKE on the port that ESP shares.
const MARKER: [u8; 4] = [0; 4];
/// Cookies in a row that are met (section 2.6).
const COOKIES: usize = 3;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A proposal is taken; the group that the responder wants.
    OtherGroup(u16),
    /// None is.
    NoProposal,
    /// All of IKE_SA_INIT.
    Whole(Whole),
    /// Another error of IKE.
    Refused(u16),
    /// Something that is no IKE answer to this.
    Strange,
    /// ICMP, or this machine's own network.
    Unreachable(String),
    /// Larger than the interface takes.
    TooLarge,
    /// Nothing.
    Silence,
}

impl Answer {
    /// Whether an IKE responder spoke.
    pub(super) fn is_ike(&self) -> bool {
        matches!(self, Self::OtherGroup(_) | Self::NoProposal | Self::Whole(_) | Self::Refused(_))
    }
}

/// What a whole answer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// What was chosen, in words.
    pub(super) chosen: String,
    /// Whether we are behind a NAT, and the responder; `None` where it has no NAT detection.
    pub(super) nat: Option<(bool, bool)>,
    /// Whether it takes IKE fragments (RFC 7383).
    pub(super) fragmentation: bool,
}

/// Asks one broker.
#[derive(Clone)]
pub(super) struct Prober {
    crypto: CryptoProvider,
    broker: Ipv4Addr,
    /// Time for one answer, and tries.
    pub(super) patience: Duration,
    pub(super) tries: u32,
}

/// How a probe goes out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) port: u16,
    /// Behind the non-ESP marker.
    pub(super) marked: bool,
    /// The whole IPv4 packet's octets; shorter requests are filled up.
    pub(super) size: usize,
    pub(super) fragments: Fragments,
}

impl Prober {
    pub(super) fn new(crypto: CryptoProvider, broker: Ipv4Addr) -> Self {
        Self { crypto, broker, patience: Duration::from_millis(800), tries: 3 }
    }

    /// A connected socket from a port that the kernel chooses.
    fn socket(&self, way: Way) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        report_icmp(&socket)?;
        set_fragments(&socket, way.fragments)?;
        socket.connect(&SocketAddr::V4(SocketAddrV4::new(self.broker, way.port)).into())?;
        Ok(socket)
    }

    /// Asks with these proposals, without leaving anything behind.
    pub(super) fn ask(&self, way: Way, proposals: &[IkeProposal]) -> Answer {
        self.exchange(way, &offer(proposals), None).unwrap_or_else(|e| failed(&e))
    }

    /// Goes as far as the responder's own IKE_SA_INIT, with this group.
    pub(super) fn ask_whole(&self, way: Way, proposals: &[IkeProposal], group: Group) -> Answer {
        self.exchange(way, &offer(proposals), Some(group)).unwrap_or_else(|e| failed(&e))
    }

    fn exchange(&self, way: Way, offered: &[Proposal], group: Option<Group>) -> io::Result<Answer> {
        let mut socket = self.socket(way)?;
        let mut nonce = [0; 32];
        let mut spi = [0; 8];
        let mut public = vec![0; NO_GROUP.1];
        let mut random = OsRandom;
        for octets in [&mut nonce[..], &mut spi, &mut public] {
            random.fill(octets).map_err(io::Error::other)?;
        }
        let ke = match group {
            None => Payload::KeyExchange { group: NO_GROUP.0, data: public },
            Some(group) => {
                let exchange = self.crypto.groups.initiate(group).map_err(io::Error::other)?;
                Payload::KeyExchange { group: group.transform_id(), data: exchange.public().to_vec() }
            }
        };
        let spi = u64::from_be_bytes(spi) | 1;
        let local = socket.local_addr()?.as_socket().unwrap_or_else(|| SocketAddr::from(([0; 4], 0)));
        let remote = SocketAddr::from((self.broker, way.port));
        let mut cookie: Option<Vec<u8>> = None;
        for _ in 0..=COOKIES {
            let mut payloads: Vec<Payload> =
                cookie.iter().map(|c| Payload::Notify(Notify::new(notify::COOKIE, c.clone()))).collect();
            payloads.extend([Payload::Sa(offered.to_vec()), ke.clone(), Payload::Nonce(nonce.to_vec())]);
            payloads.extend([
                Payload::Notify(Notify::new(notify::NAT_DETECTION_SOURCE_IP, self.hash((spi, 0), local)?)),
                Payload::Notify(Notify::new(
                    notify::NAT_DETECTION_DESTINATION_IP,
                    self.hash((spi, 0), remote)?,
                )),
                Payload::Notify(Notify::new(notify::IKEV2_FRAGMENTATION_SUPPORTED, [])),
            ]);
            let request = message(spi, payloads, way);
            let Some(response) = self.round_trip(&mut socket, &request, spi, way.marked)? else {
                return Ok(Answer::Silence);
            };
            match self.read(&response, local, remote) {
                Read::Cookie(asked) => cookie = Some(asked),
                Read::Answer(answer) => return Ok(answer),
            }
        }
        Ok(Answer::Strange)
    }

    /// Sends until an answer comes, or patience ends.
    fn round_trip(
        &self,
        socket: &mut Socket,
        request: &[u8],
        spi: u64,
        marked: bool,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 65_535];
        for _ in 0..self.tries {
            socket.send(request)?;
            let until = Instant::now() + self.patience;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                socket.set_read_timeout(Some(left))?;
                let len = match socket.read(&mut buffer) {
                    Ok(len) => len,
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                        break;
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e),
                };
                let octets = &buffer[..len];
                let octets = if marked { octets.strip_prefix(&MARKER) } else { Some(octets) };
                let ours =
                    octets.filter(|o| Header::peek(o).is_ok_and(|h| h.initiator_spi == spi && h.response));
                if let Some(octets) = ours {
                    return Ok(Some(octets.to_vec()));
                }
            }
        }
        Ok(None)
    }

    /// SHA-1 (SPIs | address | port), section 2.23.
    fn hash(&self, spis: (u64, u64), address: SocketAddr) -> io::Result<Vec<u8>> {
        let SocketAddr::V4(v4) = address else { return Ok(Vec::new()) };
        let parts: [&[u8]; 4] =
            [&spis.0.to_be_bytes(), &spis.1.to_be_bytes(), &v4.ip().octets(), &v4.port().to_be_bytes()];
        self.crypto.hashes.digest(HashAlgorithm::Sha1, &parts).map_err(io::Error::other)
    }

    fn read(&self, octets: &[u8], local: SocketAddr, remote: SocketAddr) -> Read {
        let strange = Read::Answer(Answer::Strange);
        let Ok(header) = Header::parse(octets) else { return strange };
        let Ok(payloads) = parse_payloads(header.next_payload, &octets[Header::LEN..]) else {
            return strange;
        };
        let notifies = || {
            payloads.iter().filter_map(|p| match p {
                Payload::Notify(n) => Some(n),
                _ => None,
            })
        };
        if let Some(cookie) = notifies().find(|n| n.notify_type == notify::COOKIE) {
            return Read::Cookie(cookie.data.clone());
        }
        if let Some(error) = notifies().find(|n| n.is_error()) {
            return Read::Answer(match (error.notify_type, <[u8; 2]>::try_from(&error.data[..])) {
                (notify::INVALID_KE_PAYLOAD, Ok(group)) => Answer::OtherGroup(u16::from_be_bytes(group)),
                (notify::NO_PROPOSAL_CHOSEN, _) => Answer::NoProposal,
                (other, _) => Answer::Refused(other),
            });
        }
        let chosen = payloads.iter().find_map(|p| match p {
            Payload::Sa(proposals) => proposals.first(),
            _ => None,
        });
        let Some(chosen) = chosen else { return strange };
        let spis = (header.initiator_spi, header.responder_spi);
        let fits = |kind, address| -> Option<bool> {
            let right = self.hash(spis, address).ok()?;
            let mut hashes = notifies().filter(|n| n.notify_type == kind).peekable();
            hashes.peek()?;
            Some(hashes.any(|n| n.data == right))
        };
        let here = fits(notify::NAT_DETECTION_DESTINATION_IP, local);
        let there = fits(notify::NAT_DETECTION_SOURCE_IP, remote);
        let names: Vec<String> = chosen.transforms.iter().map(ToString::to_string).collect();
        Read::Answer(Answer::Whole(Whole {
            chosen: names.join(", "),
            nat: here.zip(there).map(|(here, there)| (!here, !there)),
            fragmentation: notifies().any(|n| n.notify_type == notify::IKEV2_FRAGMENTATION_SUPPORTED),
        }))
    }
}

enum Read {
    Cookie(Vec<u8>),
    Answer(Answer),
}

fn failed(error: &io::Error) -> Answer {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => Answer::TooLarge,
        _ => Answer::Unreachable(match error.kind() {
            io::ErrorKind::ConnectionRefused => "port unreachable (ICMP)".to_owned(),
            _ => error.to_string(),
        }),
    }
}

/// The request as it goes into UDP, filled up to the size that is asked for by a notify which everybody passes over.
fn message(spi: u64, mut payloads: Vec<Payload>, way: Way) -> Vec<u8> {
    /// Generic header and head of a Notify payload.
    const NOTIFY: usize = 8;
    let fields = HeaderFields {
        initiator_spi: spi,
        responder_spi: 0,
        exchange: ExchangeType::IkeSaInit,
        from_initiator: true,
        response: false,
        message_id: 0,
    };
    let marker: &[u8] = if way.marked { &MARKER } else { &[] };
    let plain = encode_message(&fields, &payloads);
    let missing = way.size.saturating_sub(HEADERS + marker.len() + plain.len());
    let message = if missing < NOTIFY {
        plain
    } else {
        payloads.push(Payload::Notify(Notify::new(notify::PATH_PROBE, vec![0; missing - NOTIFY])));
        encode_message(&fields, &payloads)
    };
    [marker, &message].concat()
}

/// Proposals on the wire: AEADs and the others cannot stand in one (section 3.3).
fn offer(proposals: &[IkeProposal]) -> Vec<Proposal> {
    let mut out = Vec::new();
    for p in proposals {
        for aead in [true, false] {
            let ciphers: Vec<Cipher> = p.ciphers.iter().copied().filter(|c| c.is_aead() == aead).collect();
            if ciphers.is_empty() || (!aead && p.integs.is_empty()) {
                continue;
            }
            let mut transforms: Vec<Transform> = ciphers
                .iter()
                .map(|c| Transform {
                    key_length: c.key_length_attribute(),
                    ..Transform::new(transform_type::ENCR, c.transform_id())
                })
                .collect();
            if !aead {
                transforms
                    .extend(p.integs.iter().map(|i| Transform::new(transform_type::INTEG, i.transform_id())));
            }
            transforms.extend(p.prfs.iter().map(|f| Transform::new(transform_type::PRF, f.transform_id())));
            transforms.extend(p.groups.iter().map(|g| Transform::new(transform_type::KE, g.transform_id())));
            let number = u8::try_from(out.len() + 1).unwrap_or(u8::MAX);
            out.push(Proposal { number, protocol: protocol::IKE, spi: Vec::new(), transforms });
        }
    }
    out
}

/// All that this program knows.
pub(super) fn everything() -> IkeProposal {
    IkeProposal {
        ciphers: Cipher::ALL.to_vec(),
        integs: Integ::ALL.to_vec(),
        prfs: Prf::ALL.to_vec(),
        groups: Group::ALL.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    const WAY: Way = Way { port: 0, marked: false, size: 0, fragments: Fragments::Forbidden };

    fn prober() -> Prober {
        let mut prober = Prober::new(ferry6_crypto::aws_lc::PROVIDER, Ipv4Addr::LOCALHOST);
        prober.patience = Duration::from_millis(500);
        prober.tries = 2;
        prober
    }

    /// A responder that gives each of these answers in turn: payloads to a request.
    fn responder(marked: bool, answers: Vec<Vec<Payload>>) -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for payloads in answers {
                let mut buffer = [0; 4096];
                let (len, from) = socket.recv_from(&mut buffer).unwrap();
                let octets = if marked { &buffer[4..len] } else { &buffer[..len] };
                let header = Header::parse(octets).unwrap();
                parse_payloads(header.next_payload, &octets[Header::LEN..]).unwrap();
                let fields = HeaderFields { from_initiator: false, response: true, ..header.fields() };
                let answer = encode_message(&fields, &payloads);
                let marker: &[u8] = if marked { &MARKER } else { &[] };
                socket.send_to(&[marker, &answer].concat(), from).unwrap();
            }
        });
        port
    }

    fn says(kind: u16, data: &[u8]) -> Vec<Payload> {
        vec![Payload::Notify(Notify::new(kind, data))]
    }

    #[test]
    fn what_a_responder_says() {
        for (answer, expected) in [
            (says(notify::INVALID_KE_PAYLOAD, &[0, 31]), Answer::OtherGroup(31)),
            (says(notify::NO_PROPOSAL_CHOSEN, &[]), Answer::NoProposal),
            (says(notify::INVALID_SYNTAX, &[]), Answer::Refused(notify::INVALID_SYNTAX)),
            (says(notify::INVALID_KE_PAYLOAD, &[1]), Answer::Refused(notify::INVALID_KE_PAYLOAD)),
            (Vec::new(), Answer::Strange),
        ] {
            for marked in [false, true] {
                let port = responder(marked, vec![answer.clone()]);
                assert_eq!(prober().ask(Way { port, marked, ..WAY }, &[everything()]), expected);
            }
        }
    }

    #[test]
    fn a_cookie_is_brought_back_but_not_for_ever() {
        let cookie = says(notify::COOKIE, b"biscuit");
        let port = responder(false, vec![cookie.clone(), says(notify::NO_PROPOSAL_CHOSEN, &[])]);
        assert_eq!(prober().ask(Way { port, ..WAY }, &[everything()]), Answer::NoProposal);
        let port = responder(false, vec![cookie; 10]);
        assert_eq!(prober().ask(Way { port, ..WAY }, &[everything()]), Answer::Strange);
    }

    #[test]
    fn nobody_there() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(prober().ask(Way { port, ..WAY }, &[everything()]), Answer::Silence);
        drop(taken);
        assert!(matches!(prober().ask(Way { port, ..WAY }, &[everything()]), Answer::Unreachable(_)));
    }

    #[test]
    fn a_request_has_the_size_that_is_asked_for() {
        let proposals = offer(&[everything()]);
        for marked in [false, true] {
            for size in [600, 1280, 1500, 2000] {
                let way = Way { marked, size, ..WAY };
                let octets = message(7, vec![Payload::Sa(proposals.clone())], way);
                assert_eq!(octets.len() + HEADERS, size);
            }
        }
        // AEADs, and the ciphers that need an integrity algorithm.
        assert_eq!(proposals.len(), 2);
    }
}
