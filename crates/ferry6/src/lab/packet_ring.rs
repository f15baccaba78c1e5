//! A packet socket with a receive ring (packet(7), TPACKET_V3): frames of one interface, both directions, without a copy per
//! system call, and with the kernel's own count of those that did not fit.
//!
//! The ring is an array of blocks. The kernel fills a block with frames of any length, hands it over when it is full or after
//! [`RETIRE_MS`], and gets it back by a write to its status word.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

const BLOCK: usize = 1 << 20;
/// After so many milliseconds the kernel hands over a block that is not full.
pub(super) const RETIRE_MS: u32 = 5;

// Offsets in `struct tpacket_block_desc`, `struct tpacket3_hdr` and `struct virtio_net_hdr` of the kernel's ABI.
const BLOCK_STATUS: usize = 8;
const BLOCK_PACKETS: usize = 12;
const BLOCK_FIRST: usize = 16;
const FRAME_NEXT: usize = 0;
const FRAME_SECONDS: usize = 4;
const FRAME_NANOSECONDS: usize = 8;
const FRAME_SNAPLEN: usize = 12;
const FRAME_MAC: usize = 24;
const VNET_HEADER: usize = 10;
const VNET_GSO_TYPE: usize = 1;
const VNET_GSO_SIZE: usize = 4;
const GSO_NONE: u8 = 0;
/// UDP_SEGMENT: a run of datagrams of `gso_size` octets each.
pub(super) const GSO_UDP_L4: u8 = 5;

/// A captured frame.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// From the Ethernet header on.
    pub(super) data: &'a [u8],
    /// Of a super-packet: its kind, and the octets of payload in each segment.
    pub(super) gso: Option<(u8, usize)>,
    /// Since 1970: seconds, nanoseconds.
    pub(super) time: (u32, u32),
}

#[derive(Debug)]
pub(super) struct PacketRing {
    socket: OwnedFd,
    memory: NonNull<u8>,
    blocks: usize,
    next: usize,
}

// SAFETY: the mapping belongs to this value alone, and only `&mut self` reads it.
unsafe impl Send for PacketRing {}

impl PacketRing {
    /// Opens a ring of about `memory` octets on an interface of the calling thread's network namespace.
    pub(super) fn open(interface: u32, memory: usize) -> io::Result<PacketRing> {
        // SAFETY: socket(2) takes integers. Protocol 0: nothing arrives before bind.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us alone.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        set(&socket, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as libc::c_int))?;
        set(&socket, libc::PACKET_VNET_HDR, &1 as &libc::c_int)?;
        let blocks = (memory / BLOCK).max(2);
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: 2048,
            tp_frame_nr: (BLOCK / 2048 * blocks) as u32,
            tp_retire_blk_tov: RETIRE_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(&socket, libc::PACKET_RX_RING, &request)?;
        // SAFETY: a new shared mapping of the ring just made, of exactly its size; the kernel picks the place.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                blocks * BLOCK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory =
            NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("the ring was mapped at 0"))?;
        let ring = PacketRing { socket, memory, blocks, next: 0 };
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = interface as i32;
        // SAFETY: the address is a sockaddr_ll of the length given.
        let bound = unsafe {
            libc::bind(
                ring.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(ring) }
    }

    /// Hands each frame of the next full block to `each`; false if the kernel has none ready.
    pub(super) fn read_block(&mut self, mut each: impl FnMut(Frame<'_>)) -> bool {
        // SAFETY: `next < blocks`, so the block lies in the mapping; its status word is aligned to 4 as blocks are to pages.
        let start = unsafe { self.memory.add(self.next * BLOCK) };
        // SAFETY: as above; kernel and program share this word as an atomic.
        let status = unsafe { AtomicU32::from_ptr(start.as_ptr().add(BLOCK_STATUS).cast()) };
        if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return false;
        }
        // SAFETY: the status says that the kernel will not write to this block until we give it back below.
        let block = unsafe { std::slice::from_raw_parts(start.as_ptr(), BLOCK) };
        let mut at = word(block, BLOCK_FIRST);
        for _ in 0..word(block, BLOCK_PACKETS) {
            let Some(header) = block.get(at..) else { break };
            if let Some(frame) = frame(header) {
                each(frame);
            }
            at = at.saturating_add(word(header, FRAME_NEXT));
        }
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % self.blocks;
        true
    }

    /// How many frames did not fit since the last call.
    pub(super) fn missed(&self) -> io::Result<u64> {
        let mut stats = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        let mut length = size_of_val(&stats) as libc::socklen_t;
        // SAFETY: the buffer is as long as `length` says.
        let got = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        if got < 0 { Err(io::Error::last_os_error()) } else { Ok(stats.tp_drops.into()) }
    }
}

impl AsFd for PacketRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `open` with this length, and no slice of it is alive.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.blocks * BLOCK) };
    }
}

fn frame(header: &[u8]) -> Option<Frame<'_>> {
    let mac = usize::from(half(header, FRAME_MAC));
    let vnet = header.get(mac.checked_sub(VNET_HEADER)?..mac)?;
    let data = header.get(mac..)?.get(..word(header, FRAME_SNAPLEN))?;
    let gso = (vnet[VNET_GSO_TYPE], usize::from(half(vnet, VNET_GSO_SIZE)));
    let time = (word(header, FRAME_SECONDS) as u32, word(header, FRAME_NANOSECONDS) as u32);
    Some(Frame { data, gso: (gso.0 != GSO_NONE && gso.1 != 0).then_some(gso), time })
}

fn word(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, |b| u32::from_ne_bytes(b) as usize)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is a plain C value of the length given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
