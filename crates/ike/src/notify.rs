//! Notify payloads: how they are made, and how they read in a log.

use crate::wire::{Notify, Payload};

pub(crate) use crate::wire::notify::*;

/// A notify that belongs to no SA, or to the IKE SA itself.
pub(crate) fn plain(notify_type: u16, data: impl Into<Vec<u8>>) -> Payload {
    Payload::Notify(Notify::new(notify_type, data))
}

/// A notify about a Child SA.
pub(crate) fn about_esp(notify_type: u16, spi: ferry6_crypto::Spi) -> Payload {
    Payload::Notify(Notify::about_esp(notify_type, spi.get(), Vec::new()))
}
