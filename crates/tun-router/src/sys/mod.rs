//! System calls that no safe wrapper has in the shape needed here.

pub(crate) mod tun;
pub(crate) mod udp;
