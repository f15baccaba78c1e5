//! IKEv2 (RFC 7296) without I/O.
//!
//! A datagram, or the passing of time, goes into [`Endpoint`]; [`Endpoint::poll`] hands out [`Event`]s until it is
//! empty. No thread, socket or clock inside: time and randomness are arguments, so a whole handshake with loss,
//! reordering and rekey collisions is a unit test of microseconds.
//!
//! Role is a property of one IKE SA, not of the program: broker and client share everything between.

pub mod auth;
pub mod certs;
mod checking;
mod child;
pub mod config;
mod cookie;
pub mod counters;
mod create_child_sa;
mod dn;
pub mod endpoint;
mod established;
pub mod event;
mod fragments;
mod half_open;
pub mod identity;
mod ike_auth;
mod ike_sa_init;
mod informational;
mod keymat;
mod mobike;
mod nat;
mod negotiation;
mod notify;
mod payloads;
mod per_resource;
pub mod prefix;
pub mod revocation;
pub mod rtt;
pub mod selector;
mod spare;
mod strangers;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod timer;
mod unique;
mod window;
pub mod wire;

pub use config::{Connection, EndpointConfig};
pub use endpoint::Endpoint;
pub use event::Event;
pub use identity::Identity;
pub use prefix::Prefix6;
pub use selector::TrafficSelector;
