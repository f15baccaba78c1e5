//! The payloads of one message, sorted by kind.

use crate::notify;
use crate::selector::TrafficSelector;
use crate::wire::{Config, Delete, Notify, Payload, Proposal, RawId};

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
    pub(crate) eap: bool,
    pub(crate) notifies: Vec<Notify>,
    pub(crate) deletes: Vec<Delete>,
    pub(crate) vendor_ids: Vec<Vec<u8>>,
}

/// Why a message as a whole is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPayloads {
    /// RFC 7296 section 2.5: answered by UNSUPPORTED_CRITICAL_PAYLOAD with the type.
    #[error("payload type {0} is critical and not known")]
    Critical(u8),
    /// INVALID_SYNTAX.
    #[error("more than one {0} payload")]
    Duplicate(&'static str),
}

impl BadPayloads {
    /// The notify that answers it.
    pub(crate) fn to_notify(self) -> Payload {
        match self {
            Self::Critical(payload_type) => {
                notify::plain(notify::UNSUPPORTED_CRITICAL_PAYLOAD, vec![payload_type])
            }
            Self::Duplicate(_) => notify::plain(notify::INVALID_SYNTAX, Vec::new()),
        }
    }
}

fn once<T>(place: &mut Option<T>, value: T, name: &'static str) -> Result<(), BadPayloads> {
    if place.replace(value).is_some() { Err(BadPayloads::Duplicate(name)) } else { Ok(()) }
}

impl Payloads {
    pub(crate) fn sort(payloads: Vec<Payload>) -> Result<Self, BadPayloads> {
        let mut out = Self::default();
        for payload in payloads {
            match payload {
                Payload::Sa(p) => once(&mut out.sa, p, "SA")?,
                Payload::KeyExchange { group, data } => once(&mut out.ke, (group, data), "KE")?,
                Payload::Nonce(n) => once(&mut out.nonce, n, "Nonce")?,
                Payload::IdInitiator(id) => once(&mut out.id_initiator, id, "IDi")?,
                Payload::IdResponder(id) => once(&mut out.id_responder, id, "IDr")?,
                Payload::Cert { encoding, data } => out.certs.push((encoding, data)),
                Payload::Auth { method, data } => once(&mut out.auth, (method, data), "AUTH")?,
                Payload::TsInitiator(ts) => once(&mut out.ts_initiator, ts, "TSi")?,
                Payload::TsResponder(ts) => once(&mut out.ts_responder, ts, "TSr")?,
                Payload::Config(c) => once(&mut out.config, c, "CP")?,
                Payload::Eap(_) => out.eap = true,
                Payload::Notify(n) => out.notifies.push(n),
                Payload::Delete(d) => out.deletes.push(d),
                Payload::VendorId(v) => out.vendor_ids.push(v),
                Payload::Unknown { payload_type, critical: true, .. } => {
                    return Err(BadPayloads::Critical(payload_type));
                }
                Payload::CertReq { .. } | Payload::Unknown { .. } => {}
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

    /// The first notify that reports an error.
    pub(crate) fn error(&self) -> Option<&Notify> {
        self.notifies.iter().find(|n| n.is_error())
    }
}
