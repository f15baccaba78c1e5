//! Sockets for those who look for a fault: what a path lets through, and what it says to that.

use crate::sys::udp as sys;
use socket2::Socket;
use std::io;

/// Whether the routers on the way may cut a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragments {
    /// DF is set, whatever this machine takes the path for: EMSGSIZE only beyond the interface's MTU.
    Forbidden,
    /// DF is not set, and what is larger than the interface's MTU leaves in fragments.
    Allowed,
}

/// Sets DF for all that follows on this IPv4 socket.
///
/// # Errors
/// The kernel refused.
pub fn set_fragments(socket: &Socket, fragments: Fragments) -> io::Result<()> {
    let mode = match fragments {
        Fragments::Forbidden => libc::IP_PMTUDISC_PROBE,
        Fragments::Allowed => libc::IP_PMTUDISC_DONT,
    };
    sys::set_int(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode)
}

/// Every ICMP error about this IPv4 socket becomes an error of its next call, also those that UDP passes over
/// (RFC 1122 section 4.1.3.3).
///
/// # Errors
/// The kernel refused.
pub fn report_icmp(socket: &Socket) -> io::Result<()> {
    sys::set_int(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
}
