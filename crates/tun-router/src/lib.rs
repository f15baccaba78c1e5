//! The router: IPv6 from a TUN device, matched against traffic selectors, shipped as ESP in UDP/4500, and back.
//!
//! - [`worker`] is pure: batches in, batches out; benches and tests drive it with no root and no thread.
//! - [`device`] and [`udp`] do the system calls, through `sys`.
//! - `control` owns the `ike::Endpoint` and the sockets on 500 and 4500; `threads` are the loops around the workers.

pub mod batch;
pub mod checksum;
pub mod classify;
pub mod config;
mod control;
pub mod counters;
mod datapath;
pub mod device;
pub mod gro;
pub mod gso;
pub mod icmp;
mod lanes;
pub mod mss;
mod parking;
mod path_mtu;
pub mod probe;
mod roaming;
pub mod router;
pub mod sad;
pub mod size;
pub mod spd;
pub mod status;
mod sys;
#[doc(hidden)]
pub mod testing;
mod threads;
pub mod udp;
pub mod virtio;
pub mod worker;

pub use config::{DeviceKind, RouterConfig};
pub use roaming::PathState;
pub use router::{Prepared, Router, RouterEvent, RouterHandle, StartError};
