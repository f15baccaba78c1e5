//! The endpoint: all IKE SAs of one program.

use crate::config::{AddressPool, EndpointConfig, Now, SpiGenerator};
use crate::event::{Event, IkeSaId, Path, Reqid};
use ferry6_crypto::{CryptoProvider, SecureRandom, Spi};
use std::time::{Duration, Instant};

/// Parts the endpoint is made of.
pub struct Parts {
    /// Cryptography.
    pub crypto: CryptoProvider,
    /// Nonces, SPIs, cookies.
    pub random: Box<dyn SecureRandom>,
    /// Inbound SPIs of Child SAs.
    pub spis: Box<dyn SpiGenerator>,
    /// Where a responder's leases come from; `None` gives none.
    pub pool: Option<Box<dyn AddressPool>>,
}

/// All IKE SAs of one program.
///
/// Use: `handle_*` and the commands take input; after each, [`Self::poll`] until `None`; then wait for a datagram
/// or for [`Self::poll_timeout`], whichever comes first.
pub struct Endpoint {
    _todo: (),
}

/// Why a command could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such connection.
    #[error("no connection named {0:?}")]
    UnknownConnection(String),
    /// No such IKE or Child SA.
    #[error("no such SA")]
    UnknownSa,
}

impl Endpoint {
    /// An endpoint without any SA.
    pub fn new(_config: EndpointConfig, _parts: Parts) -> Self {
        todo!()
    }
    // --- input -------------------------------------------------------------------------------------------------
    /// A datagram came in; on port 4500 the marker is already off.
    pub fn handle_datagram(&mut self, _now: Now, _path: Path, _message: &[u8]) {
        todo!()
    }
    /// Time has passed.
    pub fn handle_timeout(&mut self, _now: Now) {
        todo!()
    }
    /// A worker switched outbound to `spi`; only now may DELETE for the old one leave.
    pub fn outbound_in_use(&mut self, _now: Now, _reqid: Reqid, _spi: Spi) {
        todo!()
    }
    /// A worker saw the first packet on this inbound SA, or traffic since the last call: proof of life (DPD).
    pub fn inbound_activity(&mut self, _now: Now, _inbound: Spi) {
        todo!()
    }
    /// A child reached its soft limit of packets or octets: rekey it.
    pub fn child_soft_limit(&mut self, _now: Now, _inbound: Spi) {
        todo!()
    }
    /// An authenticated ESP packet came from another address or port (NAT rebinding, RFC 7296 section 2.23).
    pub fn esp_path_changed(&mut self, _now: Now, _inbound: Spi, _path: Path) {
        todo!()
    }
    // --- commands ----------------------------------------------------------------------------------------------
    /// Starts IKE_SA_INIT.
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`].
    pub fn initiate(&mut self, _now: Now, _connection: &str, _path: Path) -> Result<IkeSaId, CommandError> {
        todo!()
    }
    /// Sends DELETE and closes when it is answered or given up.
    ///
    /// # Errors
    /// [`CommandError::UnknownSa`].
    pub fn close(&mut self, _now: Now, _ike: IkeSaId) -> Result<(), CommandError> {
        todo!()
    }
    /// Closes all; `Closed` comes for each within `patience`.
    pub fn close_all(&mut self, _now: Now, _patience: Duration) {
        todo!()
    }
    /// Rekeys a Child SA now.
    ///
    /// # Errors
    /// [`CommandError::UnknownSa`].
    pub fn rekey_child(&mut self, _now: Now, _reqid: Reqid) -> Result<(), CommandError> {
        todo!()
    }
    /// Rekeys an IKE SA now.
    ///
    /// # Errors
    /// [`CommandError::UnknownSa`].
    pub fn rekey_ike(&mut self, _now: Now, _ike: IkeSaId) -> Result<(), CommandError> {
        todo!()
    }
    // --- output ------------------------------------------------------------------------------------------------
    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Event> {
        todo!()
    }
    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// All IKE SAs, for `status`.
    pub fn ike_sas(&self) -> Vec<IkeSaStatus> {
        todo!()
    }
}

/// One IKE SA, for `status`.
#[derive(Clone, Debug)]
pub struct IkeSaStatus {
    /// Which.
    pub ike: IkeSaId,
    /// Connection, once chosen.
    pub connection: Option<String>,
    /// Role.
    pub role: crate::config::Role,
    /// `connecting`, `established`, `rekeying`, `closing`.
    pub state: &'static str,
    /// Initiator's SPI.
    pub initiator_spi: u64,
    /// Responder's SPI.
    pub responder_spi: u64,
    /// Where the peer is.
    pub path: Path,
    /// Our identity.
    pub local_id: Option<crate::Identity>,
    /// The peer's.
    pub remote_id: Option<crate::Identity>,
    /// `AES_GCM_16_256/PRF_HMAC_SHA2_256/CURVE25519`.
    pub algorithms: String,
    /// Behind a NAT: we, the peer.
    pub nat: (bool, bool),
    /// When it came up.
    pub established: Option<Instant>,
    /// When its rekey is due.
    pub next_rekey: Option<Instant>,
    /// The peer's vendor IDs and implementation, as text, where it told.
    pub vendor: Vec<String>,
    /// Its Child SAs.
    pub children: Vec<ChildSaStatus>,
}

/// One Child SA, for `status`.
#[derive(Clone, Debug)]
pub struct ChildSaStatus {
    /// Its reqid.
    pub reqid: Reqid,
    /// Our SPI.
    pub inbound: Spi,
    /// The peer's SPI.
    pub outbound: Spi,
    /// `AES_GCM_16_256` or `AES_CBC_256/HMAC_SHA2_256_128`.
    pub algorithms: String,
    /// Whether ESN is on.
    pub esn: bool,
    /// When its rekey is due.
    pub next_rekey: Option<Instant>,
}
