//! The workers: pure, in two halves. Packets and commands in, packets and reports out; no thread, no clock, no system call.
//!
//! An SA belongs to one half of one worker, as plain data. Commands come as values; what the control thread reads without asking
//! are the counters.

mod inbound;
mod outbound;

pub use inbound::{Inbound, InboundCommand, InboundIo, NewInbound};
pub use outbound::{NewOutbound, Outbound, OutboundCommand, OutboundIo, Verdict};

#[cfg(test)]
mod tests;

use crate::batch::UdpPath;
use ferry6_crypto::Spi;

/// What a worker tells the control thread. Each comes rarely: once per SA, or limited in rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The outbound half of this reqid has switched to the SA with the peer's SPI.
    OutboundInUse {
        /// Which child.
        reqid: u32,
        /// The peer's SPI.
        spi: Spi,
    },
    /// The first packet came in on the SA with our SPI.
    FirstUse(Spi),
    /// The outbound SA with the peer's SPI has reached its soft limit.
    OutboundSoftLimit {
        /// Which child.
        reqid: u32,
        /// The peer's SPI.
        spi: Spi,
    },
    /// The inbound SA with our SPI has.
    InboundSoftLimit(Spi),
    /// An authenticated packet came on another path than the SA's.
    PathChanged(Spi, UdpPath),
}
