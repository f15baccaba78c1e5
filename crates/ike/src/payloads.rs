//! The payloads of one message, sorted by kind.

use crate::notify;
use crate::selector::TrafficSelector;
use crate::wire::{Config, Delete, Notify, Payload, Proposal, RawId, WireError, parse_payloads, protocol};
use ferry6_crypto::Group;

/// The payloads of one message; each that may come once has one place.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    pub(crate) sa: Option<Vec<Proposal>>,
    pub(crate) ke: Option<(u16, Vec<u8>)>,
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) id_initiator: Option<RawId>,
    pub(crate) id_responder: Option<RawId>,
    pub(crate) certs: Vec<(u8, Vec<u8>)>,
    pub(crate) auth: Option<(u8, Vec<u8>)>,
    pub(crate) ts_initiator: Option<Vec<TrafficSelector>>,
    pub(crate) ts_responder: Option<Vec<TrafficSelector>>,
    pub(crate) config: Option<Config>,
    pub(crate) notifies: Vec<Notify>,
    pub(crate) deletes: Vec<Delete>,
    pub(crate) vendor_ids: Vec<Vec<u8>>,
}

/// A KE payload.
pub(crate) fn key_exchange(group: Group, public: impl Into<Vec<u8>>) -> Payload {
    Payload::KeyExchange { group: group.transform_id(), data: public.into() }
}

/// Why a message is refused as a whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// A payload type with the critical bit that is not known (RFC 7296 section 2.5).
    #[error("payload type {0} is critical and not known")]
    Critical(u8),
    /// It breaks the format.
    #[error(transparent)]
    Syntax(#[from] WireError),
}

impl Unreadable {
    /// The notify that answers it.
    pub(crate) fn to_notify(&self) -> Payload {
        match self {
            Self::Critical(payload_type) => {
                notify::plain(notify::UNSUPPORTED_CRITICAL_PAYLOAD, vec![*payload_type])
            }
            Self::Syntax(_) => notify::plain(notify::INVALID_SYNTAX, Vec::new()),
        }
    }
}

impl Payloads {
    /// Of the chain `body`, whose first payload has type `first`. The parser sees to it that what may stand once does so.
    pub(crate) fn read(first: u8, body: &[u8]) -> Result<Self, Unreadable> {
        let mut out = Self::default();
        for payload in parse_payloads(first, body)? {
            match payload {
                Payload::Sa(p) => out.sa = Some(p),
                Payload::KeyExchange { group, data } => out.ke = Some((group, data)),
                Payload::Nonce(n) => out.nonce = Some(n),
                Payload::IdInitiator(id) => out.id_initiator = Some(id),
                Payload::IdResponder(id) => out.id_responder = Some(id),
                Payload::Cert { encoding, data } => out.certs.push((encoding, data)),
                Payload::Auth { method, data } => out.auth = Some((method, data)),
                Payload::TsInitiator(ts) => out.ts_initiator = Some(ts),
                Payload::TsResponder(ts) => out.ts_responder = Some(ts),
                Payload::Config(c) => out.config = Some(c),
                Payload::Notify(n) => out.notifies.push(n),
                Payload::Delete(d) => out.deletes.push(d),
                Payload::VendorId(v) => out.vendor_ids.push(v),
                Payload::Unknown { payload_type, critical: true, .. } => {
                    return Err(Unreadable::Critical(payload_type));
                }
                Payload::CertReq { .. } | Payload::Eap(_) | Payload::Unknown { .. } => {}
            }
        }
        Ok(out)
    }

    /// The first notify of this type.
    pub(crate) fn notify(&self, notify_type: u16) -> Option<&Notify> {
        self.notifies.iter().find(|n| n.notify_type == notify_type)
    }

    pub(crate) fn has(&self, notify_type: u16) -> bool {
        self.notify(notify_type).is_some()
    }

    /// Whether it deletes the IKE SA (section 1.4.1).
    pub(crate) fn deletes_ike(&self) -> bool {
        self.deletes.iter().any(|d| d.protocol == protocol::IKE)
    }

    /// The first notify that reports an error.
    pub(crate) fn error(&self) -> Option<&Notify> {
        self.notifies.iter().find(|n| n.is_error())
    }
}
