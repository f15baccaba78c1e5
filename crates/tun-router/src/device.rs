//! The TUN device: found out step by step what this kernel has.
//!
//! 1. multi-queue with virtio-net header, TSO and USO; 2. without USO (before Linux 6.2); 3. one queue;
//!    4. one packet a system call, through the `tun-tap` crate, which is also a choice of its own.
//!
//! The interface is not persistent: the kernel removes it with the last file descriptor, after SIGKILL too.

use crate::config::DeviceKind;
use crate::gro::TunSink;
use crate::router::StartError;
use crate::sys::tun;
use crate::virtio::{HEADER_LEN, Header};
use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

/// Octets of a buffer for one read: a virtio-net header and the largest super-packet.
pub const READ_BUFFER_LEN: usize = HEADER_LEN + 40 + 65_535;

/// An open device with its queues, one per worker, or one for all.
#[derive(Debug)]
pub struct Device {
    name: String,
    queues: Vec<TunQueue>,
    description: String,
    segmentation: bool,
    udp_segmentation: bool,
}

/// One queue. Reading is one thread's; any thread may write.
#[derive(Clone, Debug)]
pub struct TunQueue {
    file: Arc<File>,
    virtio: bool,
    /// Whether the kernel distributes packets to it.
    steered: bool,
}

impl Device {
    /// Opens a device. Without `offload` its packets are single ones, none above the MTU.
    ///
    /// # Errors
    /// [`StartError::Tun`] with what to do, [`StartError::Io`] where the interface can't be set up.
    pub fn open(
        name: &str,
        kind: DeviceKind,
        offload: bool,
        mtu: u16,
        queues: usize,
    ) -> Result<Self, StartError> {
        let fail =
            |source: io::Error| StartError::Tun { name: name.to_owned(), hint: hint(&source, name), source };
        let device = match kind {
            DeviceKind::TunTap => Self::tun_tap(name).map_err(fail)?,
            DeviceKind::Auto => match Self::fast(name, offload, queues) {
                // Flags that this kernel does not know.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && name.len() < libc::IFNAMSIZ => {
                    Self::tun_tap(name).map_err(fail)?
                }
                other => other.map_err(fail)?,
            },
        };
        device.set_up(mtu)?;
        Ok(device)
    }

    /// A device in memory, for tests: a packet written to the other end, with a virtio-net header in front, is read
    /// here, and the other way round.
    ///
    /// # Errors
    /// Those of `socketpair`.
    pub fn in_memory(name: &str) -> io::Result<(Self, UnixDatagram)> {
        let (device, mut others) = Self::in_memory_with_queues(name, 1)?;
        Ok((device, others.remove(0)))
    }

    /// The same with several queues. Which one a packet comes to is the business of who writes to the other ends, as it is
    /// the kernel's with a real device.
    ///
    /// # Errors
    /// Those of `socketpair`.
    pub fn in_memory_with_queues(name: &str, queues: usize) -> io::Result<(Self, Vec<UnixDatagram>)> {
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for _ in 0..queues {
            let (ours, theirs) = UnixDatagram::pair()?;
            ours.set_nonblocking(true)?;
            inside.push(TunQueue {
                file: Arc::new(File::from(OwnedFd::from(ours))),
                virtio: true,
                steered: false,
            });
            outside.push(theirs);
        }
        let device = Self {
            name: name.to_owned(),
            queues: inside,
            description: "in memory".to_owned(),
            segmentation: true,
            udp_segmentation: true,
        };
        Ok((device, outside))
    }

    fn fast(name: &str, offload: bool, queues: usize) -> io::Result<Self> {
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let multi = flags | libc::IFF_MULTI_QUEUE;
        let first = tun::open_clone_device()?;
        // Without IFF_TUN_EXCL the name of another program's multi-queue device would make us a queue of that one.
        let exclusive = libc::IFF_TUN_EXCL;
        let (name, multi_queue) = if queues > 1 {
            match tun::set_interface(&first, name, multi | exclusive) {
                Ok(name) => (name, true),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    (tun::set_interface(&first, name, flags | exclusive)?, false)
                }
                Err(error) => return Err(error),
            }
        } else {
            (tun::set_interface(&first, name, flags | exclusive)?, false)
        };
        tun::set_header_size(&first, HEADER_LEN as libc::c_int)?;
        let tso = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        // One of USO4 and USO6 alone is refused.
        let uso = offload && tun::set_offload(&first, tso | libc::TUN_F_USO4 | libc::TUN_F_USO6).is_ok();
        let tso = uso || offload && tun::set_offload(&first, tso).is_ok();
        let mut files = vec![first];
        while multi_queue && files.len() < queues {
            let next = tun::open_clone_device()?;
            tun::set_interface(&next, &name, multi)?;
            tun::set_header_size(&next, HEADER_LEN as libc::c_int)?;
            // Idle until its worker owns a tunnel, so that a lone tunnel stays on one worker.
            tun::set_queue(&next, false)?;
            files.push(next);
        }
        let description = format!(
            "virtio-net header{}{}, {} queue{}",
            if tso { ", TSO" } else { "" },
            if uso { ", USO" } else { "" },
            files.len(),
            if files.len() == 1 { "" } else { "s" }
        );
        let queues = files
            .into_iter()
            .map(|fd| TunQueue { file: Arc::new(File::from(fd)), virtio: true, steered: true })
            .collect();
        Ok(Self { name, queues, description, segmentation: tso, udp_segmentation: uso })
    }

    fn tun_tap(name: &str) -> io::Result<Self> {
        let iface = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tun)?;
        let name = iface.name().to_owned();
        // A duplicate that is ours: the crate's own is closed with `iface`.
        let file = tun::duplicate(&iface)?;
        tun::set_nonblocking(&file)?;
        Ok(Self {
            name,
            queues: vec![TunQueue { file: Arc::new(file), virtio: false, steered: false }],
            description: "tun-tap".to_owned(),
            segmentation: false,
            udp_segmentation: false,
        })
    }

    fn set_up(&self, mtu: u16) -> Result<(), StartError> {
        let io = |what| move |source| StartError::Io { what, source };
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")
            .or_else(|_| std::net::UdpSocket::bind("0.0.0.0:0"))
            .map_err(io("cannot make a socket to configure the TUN device"))?;
        tun::set_mtu(&socket, &self.name, mtu).map_err(io("cannot set the MTU of the TUN device"))?;
        // The default of 500 packets is less than a TCP window's worth of segments when a peer sends no super-packets.
        if let Err(error) = tun::set_queue_len(&socket, &self.name, 1000) {
            tracing::debug!("cannot set the queue length of {}: {error}", self.name);
        }
        // No link-local address, so no router solicitations or multicast reports go into the tunnel. Where /proc is
        // read-only they do, and the SPD drops them.
        for (key, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("autoconf", "0")] {
            let path = format!("/proc/sys/net/ipv6/conf/{}/{key}", self.name);
            if let Err(error) = std::fs::write(&path, value) {
                tracing::debug!("cannot write {path}: {error}");
            }
        }
        tun::set_up(&socket, &self.name).map_err(io("cannot set the TUN device up"))
    }

    /// The interface's real name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was found out, for `status`.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The queues: as many as asked for, or one. All but the first have to be attached before packets come.
    pub fn queues(&self) -> &[TunQueue] {
        &self.queues
    }

    /// Whether it takes and gives TCP super-packets.
    pub fn segmentation(&self) -> bool {
        self.segmentation
    }

    /// Whether it takes and gives UDP super-packets.
    pub fn udp_segmentation(&self) -> bool {
        self.udp_segmentation
    }
}

impl TunQueue {
    /// Reads one packet; returns its header and where it lies in `buffer`.
    ///
    /// # Errors
    /// `WouldBlock` where there is none; others where the device is gone.
    #[inline]
    pub fn read<'b>(&self, buffer: &'b mut [u8]) -> io::Result<(Header, &'b mut [u8])> {
        let len = (&*self.file).read(buffer)?;
        let packet = &mut buffer[..len];
        if !self.virtio {
            return Ok((Header::default(), packet));
        }
        match packet.split_first_chunk_mut::<HEADER_LEN>() {
            Some((header, packet)) => Ok((Header::decode(header), packet)),
            None => Ok((Header::default(), &mut [])),
        }
    }

    /// Writes one packet or super-packet in parts.
    ///
    /// # Errors
    /// Those of `writev`.
    #[inline]
    pub fn write(&self, header: &Header, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let encoded = header.encode();
        let mut all = [IoSlice::new(&[]); 1 + crate::gro::MAX_PIECES];
        let skip = usize::from(self.virtio);
        if self.virtio {
            all[0] = IoSlice::new(&encoded);
        }
        all[skip..skip + parts.len()].copy_from_slice(parts);
        nix::sys::uio::writev(&*self.file, &all[..skip + parts.len()])?;
        Ok(())
    }

    /// Lets the kernel give packets to this queue.
    ///
    /// # Errors
    /// Those of TUNSETQUEUE.
    pub fn attach(&self) -> io::Result<()> {
        if self.steered { tun::set_queue(&*self.file, true) } else { Ok(()) }
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// All queues, for writing; counts errors.
#[derive(Debug)]
pub struct TunWriter {
    queues: Vec<TunQueue>,
    drops: Arc<crate::counters::Drops>,
}

impl TunWriter {
    /// Writes to these queues.
    pub fn new(queues: Vec<TunQueue>, drops: Arc<crate::counters::Drops>) -> Self {
        Self { queues, drops }
    }
}

impl TunSink for TunWriter {
    #[inline]
    fn write(&mut self, queue: usize, header: &Header, parts: &[IoSlice<'_>]) {
        let queue = &self.queues[queue.min(self.queues.len() - 1)];
        if queue.write(header, parts).is_err() {
            self.drops.count(crate::counters::DropReason::InTunWrite);
        }
    }
}

fn hint(error: &io::Error, name: &str) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "This kernel has no TUN driver loaded: run `modprobe tun`, or give the container the device /dev/net/tun"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "Run as root, or give the program CAP_NET_ADMIN and access to /dev/net/tun"
        }
        Some(libc::EBUSY) => {
            "The name is in use by another program or interface: choose another name, or `ferry%d` to let the kernel count"
        }
        Some(libc::EINVAL) if !name.is_empty() => {
            "An interface of this name exists already, so choose another name; or this kernel's TUN driver is too old"
        }
        _ if error.kind() == io::ErrorKind::InvalidInput => "Choose an interface name of at most 15 octets",
        _ => "See the cause above",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_memory_both_ways() {
        let (device, other) = Device::in_memory("mem").unwrap();
        let queue = &device.queues()[0];
        let mut buffer = vec![0; READ_BUFFER_LEN];
        assert_eq!(queue.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let header =
            Header { gso: crate::virtio::Gso::Tcp6, gso_size: 9, needs_csum: true, ..Header::default() };
        let mut sent = header.encode().to_vec();
        sent.extend(b"packet");
        other.send(&sent).unwrap();
        let (got, packet) = queue.read(&mut buffer).unwrap();
        assert_eq!((got, &*packet), (header, &b"packet"[..]));
        queue.write(&header, &[IoSlice::new(b"pac"), IoSlice::new(b"ket")]).unwrap();
        let mut back = [0; 100];
        let len = other.recv(&mut back).unwrap();
        assert_eq!(back[..len], sent);
    }

    #[test]
    fn names_that_cannot_be() {
        let Err(StartError::Tun { hint, .. }) =
            Device::open("much-too-long-a-name", DeviceKind::Auto, true, 1400, 1)
        else {
            panic!("a name of 20 octets was taken");
        };
        assert!(hint.contains("15 octets") || hint.contains("root") || hint.contains("modprobe"), "{hint}");
    }
}
