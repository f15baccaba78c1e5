//! Wire formats of IKEv2 (RFC 7296 section 3): octets in, value out, no state.
//!
//! No input can make a parser panic, loop or allocate more than a small multiple of the message's length.
//! Numbers that are not known survive a parse and print as numbers. Reserved bits and octets are written as zero and
//! ignored on receipt.

pub mod cert;
mod codec;
pub mod config;
pub mod delete;
pub mod header;
pub mod id;
pub mod message;
pub mod notify;
pub mod payload;
pub mod sa;
pub mod sk;
pub mod ts;

#[cfg(test)]
mod tests;

pub use config::{Config, attribute, cfg_type};
pub use delete::Delete;
pub use header::{ExchangeType, Header, HeaderFields};
pub use id::{RawId, id_type};
pub use message::{WireError, encode_message, encode_payloads, parse_payloads};
pub use notify::Notify;
pub use payload::{Payload, payload_type};
pub use sa::{Proposal, Transform, protocol, transform_type};
