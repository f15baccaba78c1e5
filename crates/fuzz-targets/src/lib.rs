//! The bodies of the fuzz targets, so that both `cargo fuzz` (in `fuzz/`) and `cargo test` run them.
//!
//! Each takes any octets. It panics where the code under test does, or where what it did is wrong: a target holds the
//! code against a plain model, or against its own inverse, not only against crashes.

mod coalesce;
mod control;
mod esp;
mod exchange;
mod fragments;
mod ike;
mod inner;
mod input;
mod program;
mod revocation;
mod routers;

pub use coalesce::gro_coalesce;
pub use control::control_socket;
pub use esp::{SPI, esp_keys, esp_open, ipcomp_inflate, replay_window, udp_classify};
pub use exchange::{ike_encrypted, ike_endpoints, ike_keys};
pub use fragments::ike_fragments;
pub use ike::{ike_message, ike_payload, traffic_selectors};
pub use inner::{certificates, gso_split, inner_packet};
pub use program::{configuration, invitation};
pub use revocation::{NONCE, WALL, revocation_answers};
pub use routers::routers;

/// A target body.
pub type Target = fn(&[u8]);

/// All targets, by the name of their file in `fuzz/fuzz_targets` and of their folder in `fuzz/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("certificates", certificates),
    ("configuration", configuration),
    ("control_socket", control_socket),
    ("esp_open", esp_open),
    ("gro_coalesce", gro_coalesce),
    ("gso_split", gso_split),
    ("ike_encrypted", ike_encrypted),
    ("ike_endpoints", ike_endpoints),
    ("ike_fragments", ike_fragments),
    ("ike_message", ike_message),
    ("ike_payload", ike_payload),
    ("inner_packet", inner_packet),
    ("invitation", invitation),
    ("ipcomp_inflate", ipcomp_inflate),
    ("replay_window", replay_window),
    ("revocation_answers", revocation_answers),
    ("routers", routers),
    ("traffic_selectors", traffic_selectors),
    ("udp_classify", udp_classify),
];
