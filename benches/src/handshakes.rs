//! Handshakes in memory, the work of each end timed by itself: IKE_SA_INIT and IKE_AUTH, one Child SA, one address leased.

use ferry6_crypto::CryptoProvider;
use ferry6_ike::config::{Connection, Credential, Now, PeerAuth, Revocation};
use ferry6_ike::event::{Event, Path};
use ferry6_ike::{Endpoint, testing};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How both ends authenticate. The key exchange is X25519 in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Certificates with RSA keys of 2048 bits, as in the article.
    Rsa2048,
    /// Certificates with keys on P-256.
    P256,
    /// A pre-shared key.
    Psk,
}

impl Auth {
    /// All.
    pub const ALL: [Self; 3] = [Self::Rsa2048, Self::P256, Self::Psk];
}

impl fmt::Display for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa2048 => "RSA-2048",
            Self::P256 => "P-256",
            Self::Psk => "PSK",
        })
    }
}

type Ca = CertifiedIssuer<'static, KeyPair>;

const MADE: &str = "certificates can be made";

fn key(auth: Auth) -> KeyPair {
    let algorithm =
        if auth == Auth::Rsa2048 { &rcgen::PKCS_RSA_SHA256 } else { &rcgen::PKCS_ECDSA_P256_SHA256 };
    KeyPair::generate_for(algorithm).expect(MADE)
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    params
}

fn issue(crypto: &CryptoProvider, auth: Auth, ca: &Ca, name: SanType) -> Credential {
    let mut params = params();
    params.subject_alt_names = vec![name];
    params.use_authority_key_identifier_extension = true;
    let key = key(auth);
    let certificate = params.signed_by(&key, ca).expect(MADE);
    let der = PrivateKeyDer::try_from(key.serialize_der()).expect(MADE);
    let key = Arc::from(crypto.signatures.load_key(&der).expect("its own kind of key"));
    Credential::Certificate { chain: vec![certificate.der().clone()], key }
}

/// What both ends are configured with.
pub struct Handshake {
    crypto: CryptoProvider,
    client: Connection,
    broker: Connection,
    now: Now,
}

/// What a handshake took.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The initiator's work.
    pub client: Duration,
    /// The responder's.
    pub broker: Duration,
}

impl Handshake {
    /// Makes the certificates.
    ///
    /// # Panics
    /// When that fails.
    pub fn new(crypto: CryptoProvider, auth: Auth) -> Self {
        let (mut client, mut broker) = testing::psk_connections();
        if auth != Auth::Psk {
            let mut of_ca = params();
            of_ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            of_ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let ca = Ca::self_signed(of_ca, key(auth)).expect(MADE);
            let anchor: CertificateDer<'static> = ca.der().clone();
            let email = SanType::Rfc822Name("client@my.domain".try_into().expect(MADE));
            let dns = SanType::DnsName("tunnel.my.domain".try_into().expect(MADE));
            client.credential = issue(&crypto, auth, &ca, email);
            broker.credential = issue(&crypto, auth, &ca, dns);
            for connection in [&mut client, &mut broker] {
                connection.peer_auth = PeerAuth::Certificate {
                    anchors: vec![anchor.clone()],
                    crls: vec![],
                    revocation: Revocation::IfUri,
                };
            }
        }
        let now = Now { monotonic: Instant::now(), wall: SystemTime::UNIX_EPOCH + testing::WALL };
        Self { crypto, client, broker, now }
    }

    /// One handshake between two fresh endpoints.
    ///
    /// # Panics
    /// When it does not come to an end.
    pub fn run(&self) -> Times {
        let of = |connection: &Connection| testing::config([connection.clone()]);
        let mut client = End::new(testing::endpoint(self.crypto, of(&self.client), 0x51, None));
        let pool = Some(testing::pool());
        let mut broker = End::new(testing::endpoint(self.crypto, of(&self.broker), 0xa2, pool));
        client.work(|endpoint| {
            let name = &self.client.name;
            endpoint.initiate(self.now, name, testing::first_path()).expect("the connection is there");
        });
        for _ in 0..16 {
            client.hand_to(&mut broker, self.now);
            broker.hand_to(&mut client, self.now);
            if client.established && broker.established {
                return Times { client: client.time, broker: broker.time };
            }
        }
        panic!("no handshake: {:?} {:?}", client.events, broker.events);
    }
}

/// One end: its endpoint, what it has sent and not yet handed on, and how long it has worked.
struct End {
    endpoint: Endpoint,
    sent: Vec<(Path, bytes::Bytes)>,
    events: Vec<Event>,
    established: bool,
    time: Duration,
}

impl End {
    fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, sent: Vec::new(), events: Vec::new(), established: false, time: Duration::ZERO }
    }

    fn work(&mut self, action: impl FnOnce(&mut Endpoint)) {
        let begin = Instant::now();
        action(&mut self.endpoint);
        while let Some(event) = self.endpoint.poll() {
            match event {
                Event::Transmit(transmit) => self.sent.push((transmit.path, transmit.payload)),
                event => self.events.push(event),
            }
        }
        self.time += begin.elapsed();
        self.established = self.events.iter().any(|event| matches!(event, Event::Established(_)));
    }

    fn hand_to(&mut self, other: &mut Self, now: Now) {
        for (path, octets) in std::mem::take(&mut self.sent) {
            let path = Path { local: path.remote, remote: path.local };
            other.work(|endpoint| endpoint.handle_datagram(now, path, &octets));
        }
    }
}
