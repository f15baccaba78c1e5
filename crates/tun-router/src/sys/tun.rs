//! The ioctls of TUN devices and network interfaces.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    if name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an interface name has at most 15 octets"));
    }
    // SAFETY: `ifreq` is plain data for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens `/dev/net/tun`, not blocking.
pub(crate) fn open_clone_device() -> io::Result<OwnedFd> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map(OwnedFd::from)
}

/// TUNSETIFF: makes the interface, or adds a queue to it. Returns the real name.
pub(crate) fn set_interface(fd: &impl AsRawFd, name: &str, flags: libc::c_int) -> io::Result<String> {
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is, and it lives across the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let name = request.ifr_name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8(name).map_err(io::Error::other)
}

/// TUNSETOFFLOAD: which super-packets reading may return.
pub(crate) fn set_offload(fd: &impl AsRawFd, offload: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offload)) })
}

/// TUNSETVNETHDRSZ: octets of the header in front of each packet.
pub(crate) fn set_header_size(fd: &impl AsRawFd, size: libc::c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int, which lives across the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })
}

/// TUNSETQUEUE: lets the kernel use this queue, or not.
pub(crate) fn set_queue(fd: &impl AsRawFd, attached: bool) -> io::Result<()> {
    let mut request = interface_request("")?;
    let flag = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
    request.ifr_ifru.ifru_flags = flag as libc::c_short;
    // SAFETY: TUNSETQUEUE reads one `ifreq`, which lives across the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETQUEUE, &raw mut request) })
}

/// Sets the MTU of an interface; `socket` is any socket.
pub(crate) fn set_mtu(socket: &impl AsRawFd, name: &str, mtu: u16) -> io::Result<()> {
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_mtu = libc::c_int::from(mtu);
    // SAFETY: SIOCSIFMTU reads one `ifreq`, which lives across the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU, &raw mut request) })
}

/// Length of the transmit queue in packets.
pub(crate) fn set_queue_len(socket: &impl AsRawFd, name: &str, len: libc::c_int) -> io::Result<()> {
    let mut request = interface_request(name)?;
    // `ifr_qlen` is the same int of the union as `ifr_metric`.
    request.ifr_ifru.ifru_metric = len;
    // SAFETY: SIOCSIFTXQLEN reads one `ifreq`, which lives across the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFTXQLEN, &raw mut request) })
}

/// Sets the interface up.
pub(crate) fn set_up(socket: &impl AsRawFd, name: &str) -> io::Result<()> {
    let mut request = interface_request(name)?;
    // SAFETY: SIOCGIFFLAGS writes one `ifreq`, which lives across the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) })?;
    // SAFETY: SIOCGIFFLAGS has just written the flags, so this member of the union is the live one.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives across the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) })
}

/// Makes a file not block, for devices that another crate opened.
pub(crate) fn set_nonblocking(file: &File) -> io::Result<()> {
    let mut on: libc::c_int = 1;
    // SAFETY: FIONBIO reads one int, which lives across the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::FIONBIO, &raw mut on) })
}

/// A file descriptor of our own for what another one refers to.
pub(crate) fn duplicate(file: &impl AsRawFd) -> io::Result<File> {
    // SAFETY: the descriptor is that of an object which is borrowed across the call.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(file.as_raw_fd()) };
    borrowed.try_clone_to_owned().map(File::from)
}
