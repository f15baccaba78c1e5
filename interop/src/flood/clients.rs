//! Many clients in one process: the real `ike` crate over one UDP socket, without a data path.

use anyhow::{Context, Result};
use ferry6::lab::Host;
use ferry6_crypto::provider::OsRandom;
use ferry6_crypto::{Spi, aws_lc};
use ferry6_ike::config::{Now, SpiGenerator};
use ferry6_ike::endpoint::{Endpoint, Parts};
use ferry6_ike::event::{Activate, ChildSa, Event, IkeSaId, Path};
use ferry6_ike::{Connection, EndpointConfig};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// One after the other.
struct Counter(u32);

impl SpiGenerator for Counter {
    fn generate(&mut self) -> Spi {
        self.0 += 1;
        Spi::new(self.0).expect("far above 255")
    }
}

/// What became of an IKE SA, and what else came.
pub enum Happened {
    Up(IkeSaId),
    Child(Box<ChildSa>),
    Esp(Vec<u8>),
    Closed(IkeSaId, String),
}

/// Many clients.
pub struct Clients {
    endpoint: Endpoint,
    socket: UdpSocket,
    path: Path,
    buffer: Vec<u8>,
}

fn now() -> Now {
    Now { monotonic: Instant::now(), wall: SystemTime::now() }
}

impl Clients {
    /// On this host, to the broker's NAT port.
    pub fn new(host: &Host, broker: Ipv4Addr) -> Result<Self> {
        let socket = host.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((broker, 4500))?;
            Ok(socket)
        })?;
        let socket = socket2::Socket::from(socket);
        let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20));
        let socket = UdpSocket::from(socket);
        let local = socket.local_addr()?;
        let config = EndpointConfig { nat_port: local.port(), ..EndpointConfig::default() };
        let parts = Parts {
            crypto: aws_lc::PROVIDER,
            random: Box::new(OsRandom),
            spis: Box::new(Counter(0x1000)),
            pool: None,
        };
        let path = Path { local, remote: SocketAddrV4::new(broker, 4500).into() };
        Ok(Self { endpoint: Endpoint::new(config, parts), socket, path, buffer: vec![0; 65_536] })
    }

    /// Begins a handshake as this connection says.
    pub fn initiate(&mut self, connection: &Arc<Connection>) -> Result<IkeSaId> {
        self.endpoint.set_connections(vec![Arc::clone(connection)]);
        let id = self.endpoint.initiate(now(), &connection.name, self.path)?;
        Ok(id)
    }

    /// Sends a packet of ESP.
    pub fn send_esp(&self, packet: &[u8]) -> Result<()> {
        self.socket.send(packet).context("the client cannot send")?;
        Ok(())
    }

    /// Begins a DELETE.
    pub fn close(&mut self, ike: IkeSaId) -> Result<()> {
        Ok(self.endpoint.close(now(), ike)?)
    }

    /// Receives what is there, waits for it at most so long, and tells what came of it.
    pub fn turn(&mut self, wait: Duration) -> Result<Vec<Happened>> {
        let mut happened = Vec::new();
        self.drain(&mut happened)?;
        self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        let mut first = true;
        loop {
            match self.socket.recv(&mut self.buffer) {
                Ok(len) if len > 4 && self.buffer[..4] == [0; 4] => {
                    self.endpoint.handle_datagram(now(), self.path, &self.buffer[4..len]);
                    self.drain(&mut happened)?;
                }
                Ok(len) if len > 4 => happened.push(Happened::Esp(self.buffer[..len].to_vec())),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("the clients cannot receive"),
            }
            if std::mem::take(&mut first) {
                self.socket.set_nonblocking(true)?;
            }
        }
        self.socket.set_nonblocking(false)?;
        if self.endpoint.poll_timeout().is_some_and(|at| at <= Instant::now()) {
            self.endpoint.handle_timeout(now());
        }
        self.drain(&mut happened)?;
        Ok(happened)
    }

    fn drain(&mut self, happened: &mut Vec<Happened>) -> Result<()> {
        while let Some(event) = self.endpoint.poll() {
            match event {
                Event::Transmit(transmit) => {
                    let mut datagram = vec![0; 4];
                    datagram.extend_from_slice(&transmit.payload);
                    // A full queue: it is sent again later.
                    let _ = self.socket.send(&datagram);
                }
                Event::InstallChildSa(child) if child.activate == Activate::Now => {
                    self.endpoint.outbound_in_use(now(), child.reqid, child.outbound.spi);
                    happened.push(Happened::Child(child));
                }
                Event::Established(up) => happened.push(Happened::Up(up.ike)),
                Event::Closed(closed) => {
                    happened.push(Happened::Closed(closed.ike, closed.reason.to_string()))
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The request of IKE_SA_INIT with which such a client begins.
pub fn first_request(connection: &Connection) -> Result<Vec<u8>> {
    let parts = Parts {
        crypto: aws_lc::PROVIDER,
        random: Box::new(OsRandom),
        spis: Box::new(Counter(0x1000)),
        pool: None,
    };
    let config =
        EndpointConfig { connections: vec![Arc::new(connection.clone())], ..EndpointConfig::default() };
    let mut endpoint = Endpoint::new(config, parts);
    let path = Path {
        local: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 500).into(),
        remote: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 500).into(),
    };
    endpoint.initiate(now(), &connection.name, path)?;
    match endpoint.poll() {
        Some(Event::Transmit(transmit)) => Ok(transmit.payload.to_vec()),
        other => anyhow::bail!("the first event of a handshake is {other:?}"),
    }
}

/// The same request with the cookie that this answer asks for (RFC 7296 section 2.6): a notify in front of all else.
pub fn with_cookie(request: &[u8], answer: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 28;
    const NOTIFY: u8 = 41;
    const COOKIE: [u8; 2] = 16390_u16.to_be_bytes();
    if answer.len() < HEADER + 8 || answer[16] != NOTIFY || answer[HEADER + 6..HEADER + 8] != COOKIE {
        return None;
    }
    let mut out = request[..HEADER].to_vec();
    out[16] = NOTIFY;
    out.push(request[16]);
    out.extend_from_slice(&answer[HEADER + 1..]);
    out.extend_from_slice(&request[HEADER..]);
    let len = u32::try_from(out.len()).ok()?.to_be_bytes();
    out[24..28].copy_from_slice(&len);
    Some(out)
}
