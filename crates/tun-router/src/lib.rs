//! The router: IPv6 from a TUN device, matched against traffic selectors, shipped as ESP in UDP/4500, and back.
//!
//! - [`worker`] is pure: batches in, batches out; benches and tests drive it with no root and no thread.
//! - [`device`] and [`udp`] do the system calls.
//! - [`control`] owns the `ike::Endpoint` and the sockets on 500 and 4500.
#![allow(dead_code)]

pub mod config;
pub mod router;
pub mod status;

pub use config::{DeviceKind, RouterConfig};
pub use router::{Router, RouterEvent, RouterHandle, StartError};
