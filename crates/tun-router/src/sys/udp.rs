//! sendmmsg, recvmmsg with their control messages, and the socket options that steer a SO_REUSEPORT group.
#![allow(unsafe_code)]

use crate::batch::{Received, Run, UdpPath};
use socket2::Socket;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

/// Octets for the control messages of one message: each is at most a header of 16 and data of 12, padded to 8.
const CONTROL_LEN: usize = 128;

/// Aligned as `cmsghdr` must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_LEN]);

/// What stays allocated between calls: headers, addresses, control messages for up to `slots` messages.
pub(crate) struct Messages {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    names: Box<[libc::sockaddr_in]>,
    controls: Box<[Control]>,
}

// SAFETY: the raw pointers in `headers` and `iovecs` are rewritten before each system call and never followed by anything
// else; nothing in them belongs to a thread.
unsafe impl Send for Messages {}

fn zeroed<T: Copy>(slots: usize) -> Box<[T]> {
    // SAFETY: used for `mmsghdr`, `iovec` and `sockaddr_in` only, plain data for which all zeros is a value.
    let zero: T = unsafe { MaybeUninit::zeroed().assume_init() };
    vec![zero; slots].into_boxed_slice()
}

fn socket_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

/// Writes control messages one behind the other; returns the length in all.
struct ControlWriter<'a> {
    octets: &'a mut [u8],
    used: usize,
}

impl ControlWriter<'_> {
    fn put(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let header = size_of::<libc::cmsghdr>();
        let end = self.used + header + data.len();
        let message = &mut self.octets[self.used..end];
        // `cmsghdr`: length, level, type, each in host order, then the data, aligned to 8.
        message[..8].copy_from_slice(&(header + data.len()).to_ne_bytes());
        message[8..12].copy_from_slice(&level.to_ne_bytes());
        message[12..16].copy_from_slice(&kind.to_ne_bytes());
        message[16..].copy_from_slice(data);
        self.used = end.next_multiple_of(8);
    }
}

/// `cmsghdr` as [`ControlWriter`] and [`control_messages`] spell it out.
const _: () = assert!(size_of::<libc::cmsghdr>() == 16 && size_of::<usize>() == 8);

/// The control messages in a buffer that the kernel filled: (level, type, data).
fn control_messages(mut octets: &[u8]) -> impl Iterator<Item = (libc::c_int, libc::c_int, &[u8])> {
    std::iter::from_fn(move || {
        let header = octets.first_chunk::<16>()?;
        let [l0, l1, l2, l3, l4, l5, l6, l7, rest @ ..] = *header;
        let len = usize::from_ne_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
        let level = i32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]);
        let kind = i32::from_ne_bytes([rest[4], rest[5], rest[6], rest[7]]);
        let data = octets.get(16..len)?;
        octets = octets.get(len.next_multiple_of(8)..).unwrap_or(&[]);
        Some((level, kind, data))
    })
}

impl Messages {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            headers: zeroed(slots),
            iovecs: zeroed(slots),
            names: zeroed(slots),
            controls: vec![Control([0; CONTROL_LEN]); slots].into_boxed_slice(),
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.headers.len()
    }

    fn send_header(&mut self, slot: usize, octets: &[u8], segment: Option<u16>, path: &UdpPath, tos: u8) {
        let mut control = ControlWriter { octets: &mut self.controls[slot].0, used: 0 };
        if let Some(segment) = segment {
            control.put(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        if !path.local.is_unspecified() {
            // `in_pktinfo`: interface index 0, the local address, and an address that is not used in sending.
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&path.local.octets());
            control.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        if tos != 0 {
            control.put(libc::IPPROTO_IP, libc::IP_TOS, &libc::c_int::from(tos).to_ne_bytes());
        }
        let control_len = control.used;
        self.names[slot] = socket_address(path.remote);
        self.iovecs[slot] =
            libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() };
        let header = &mut self.headers[slot].msg_hdr;
        header.msg_name = (&raw mut self.names[slot]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_iov = &raw mut self.iovecs[slot];
        header.msg_iovlen = 1;
        header.msg_control =
            if control_len == 0 { std::ptr::null_mut() } else { self.controls[slot].0.as_mut_ptr().cast() };
        header.msg_controllen = control_len;
        header.msg_flags = 0;
    }

    fn send(&mut self, socket: &Socket, count: usize, flags: libc::c_int) -> io::Result<usize> {
        // SAFETY: the first `count` headers were just written by `send_header`: their pointers are to fields of `self` and
        // to octets that the callers of this private function hold borrowed until it returns. The kernel only reads them.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count as libc::c_uint, flags as _)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }

    /// Sends runs, each as one GSO message. Returns how many were taken.
    pub(crate) fn send_runs(&mut self, socket: &Socket, buffer: &[u8], runs: &[Run]) -> io::Result<usize> {
        let count = runs.len().min(self.slots());
        for (slot, run) in runs[..count].iter().enumerate() {
            let octets = &buffer[run.start..run.start + run.len];
            let segment = if run.count > 1 { Some(run.segment as u16) } else { None };
            self.send_header(slot, octets, segment, &run.path, run.tos);
        }
        self.send(socket, count, 0)
    }

    /// Sends datagrams one by one, in one system call. Returns how many were taken.
    pub(crate) fn send_singles<'a>(
        &mut self,
        socket: &Socket,
        datagrams: impl Iterator<Item = &'a [u8]>,
        path: &UdpPath,
        tos: u8,
    ) -> io::Result<usize> {
        let slots = self.slots();
        let mut count = 0;
        for datagram in datagrams.take(slots) {
            self.send_header(count, datagram, None, path, tos);
            count += 1;
        }
        self.send(socket, count, 0)
    }

    /// Receives up to one message per slot without blocking; each has `slot_len` octets of `buffer`. What was cut off for
    /// want of room is left out of `received` and counted in the result.
    pub(crate) fn receive(
        &mut self,
        socket: &Socket,
        buffer: &mut [u8],
        slot_len: usize,
        received: &mut Vec<Received>,
    ) -> io::Result<Arrived> {
        let slots = self.slots().min(buffer.len() / slot_len);
        for (slot, part) in buffer.chunks_exact_mut(slot_len).take(slots).enumerate() {
            self.iovecs[slot] = libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() };
            let header = &mut self.headers[slot].msg_hdr;
            header.msg_name = (&raw mut self.names[slot]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_iov = &raw mut self.iovecs[slot];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[slot].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_LEN;
            header.msg_flags = 0;
        }
        // SAFETY: the first `slots` headers were just written: their pointers are to fields of `self` and to disjoint parts
        // of `buffer`, which is borrowed mutably, with the right lengths.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                slots as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        let count = count as usize;
        let mut arrived = Arrived { full: count == slots, truncated: 0 };
        for slot in 0..count {
            let header = &self.headers[slot];
            let name = &self.names[slot];
            let len = header.msg_len as usize;
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                arrived.truncated += 1;
                continue;
            }
            let mut meta = Received {
                start: slot * slot_len,
                len,
                segment: len.max(1),
                source: SocketAddrV4::new(
                    Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
                    u16::from_be(name.sin_port),
                ),
                local: Ipv4Addr::UNSPECIFIED,
                tos: 0,
            };
            let controls = &self.controls[slot].0[..header.msg_hdr.msg_controllen.min(CONTROL_LEN)];
            for (level, kind, data) in control_messages(controls) {
                match (level, kind, data) {
                    (libc::IPPROTO_IP, libc::IP_PKTINFO, [_, _, _, _, a, b, c, d, ..]) => {
                        meta.local = Ipv4Addr::new(*a, *b, *c, *d);
                    }
                    (libc::IPPROTO_IP, libc::IP_TOS, [tos, ..]) => meta.tos = *tos,
                    (libc::SOL_UDP, libc::UDP_GRO, [a, b, c, d, ..]) => {
                        let segment = i32::from_ne_bytes([*a, *b, *c, *d]);
                        meta.segment = usize::try_from(segment).unwrap_or(0).clamp(1, len.max(1));
                    }
                    _ => {}
                }
            }
            received.push(meta);
        }
        Ok(arrived)
    }
}

/// What a receive brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    /// All slots were used: there may be more.
    pub(crate) full: bool,
    /// Messages that were longer than their slot.
    pub(crate) truncated: u64,
}

fn set_option<T>(socket: &Socket, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<T>()` octets at `value`, which is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A socket option that is an int.
pub(crate) fn set_int(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    set_option(socket, level, name, &value)
}

/// Reads a socket option that is an int.
pub(crate) fn get_int(socket: &Socket, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` octets to `value`, and the length to `len`; both are borrowed mutably.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

const fn op(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_OCTET: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Which lane an IKE message at offset `at` goes to: the second socket of the group where it says that we know its sender, by a
/// responder's SPI, or by a notify in front, which is where a cookie stands (RFC 7296 sections 2.6 and 3.1). Else the
/// first, as does what is too short for the loads: they end the program with 0.
const fn lane_of_ike(at: u32) -> [libc::sock_filter; 11] {
    [
        // major version 2
        op(LOAD_OCTET, at + 17, 0, 0),
        op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0xf0, 0, 0),
        op(IF_EQUAL, 0x20, 0, 6),
        // a responder's SPI
        op(LOAD_WORD, at + 8, 0, 0),
        op(IF_EQUAL, 0, 0, 5),
        op(LOAD_WORD, at + 12, 0, 0),
        op(IF_EQUAL, 0, 0, 3),
        // next payload: a notify
        op(LOAD_OCTET, at + 16, 0, 0),
        op(IF_EQUAL, 41, 1, 0),
        op(RETURN, 0, 0, 0),
        op(RETURN, 1, 0, 0),
    ]
}

fn attach(socket: &Socket, program: &[libc::sock_filter]) -> io::Result<()> {
    // The kernel copies the program in the call, and does not write to it.
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

/// The steering program of the SO_REUSEPORT group of the IKE port: strangers' socket, and that of those we know.
pub(crate) fn steer_ike(socket: &Socket) -> io::Result<()> {
    attach(socket, &lane_of_ike(0))
}

/// The same for the port that ESP comes to: strangers' socket, that of those we know, and those of `workers` workers. What
/// has an SPI of `ceiling` or above is none of our SAs', and goes to the strangers.
pub(crate) fn steer(socket: &Socket, workers: u32, ceiling: u32) -> io::Result<()> {
    let esp = [
        // A = the first four octets: the non-ESP marker or the SPI
        op(LOAD_WORD, 0, 0, 0),
        op(IF_AT_LEAST, ferry6_crypto::Spi::MIN, 0, 4),
        op(IF_AT_LEAST, ceiling, 4, 0),
        // the owner's socket
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, workers, 0, 0),
        op(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, 2, 0, 0),
        op(libc::BPF_RET | libc::BPF_A, 0, 0, 0),
        // below 256: IKE behind its marker, or no SPI at all
        op(IF_EQUAL, 0, 1, 0),
        op(RETURN, 0, 0, 0),
    ];
    attach(socket, &[&esp[..], &lane_of_ike(4)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_round_trip() {
        let mut octets = [0; CONTROL_LEN];
        let mut writer = ControlWriter { octets: &mut octets, used: 0 };
        writer.put(1, 2, &[1, 2, 3]);
        writer.put(3, 4, &[4; 12]);
        let used = writer.used;
        let got: Vec<_> = control_messages(&octets[..used]).map(|(l, k, d)| (l, k, d.to_vec())).collect();
        assert_eq!(got, [(1, 2, vec![1, 2, 3]), (3, 4, vec![4; 12])]);
        // A length that lies ends the walk.
        octets[0] = 255;
        assert_eq!(control_messages(&octets[..used]).count(), 0);
        octets[..8].fill(0);
        assert_eq!(control_messages(&octets[..used]).count(), 0);
    }
}
