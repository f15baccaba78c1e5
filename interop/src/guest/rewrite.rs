//! Rewrites in the guest's kernel what a daemon installs there, because Linux cannot carry IPv6 in IPv4 that way.
//!
//! - [`How::AfUnspec`]: through PF_KEY a tunnel-mode SA gets a selector of the outer family, and the kernel drops the IPv6 that
//!   comes out of it. The same SA is put in its place with `flag af-unspec` (`XFRM_STATE_AF_UNSPEC`).
//! - [`How::Sit`]: Linux has no tunnel-mode IPComp for IPv6 in IPv4. The same SAs are put in their place in transport mode, below
//!   a `sit` device, which does the encapsulation: on the wire all octets are the same.
//!
//! Keys, SPIs, CPIs, reqids, lifetimes and ESP's replay windows are those of the daemon.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{NetlinkAddr, bind};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::str::FromStr;

/// How to rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    AfUnspec,
    Sit,
}

impl How {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::AfUnspec => "af-unspec",
            Self::Sit => "sit",
        }
    }
}

impl FromStr for How {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        [Self::AfUnspec, Self::Sit]
            .into_iter()
            .find(|how| how.word() == word)
            .with_context(|| format!("no way to rewrite: {word}"))
    }
}

const AF_NETLINK: i32 = 16;
const NETLINK_XFRM: i32 = 6;
/// Bits of XFRMNLGRP_SA and XFRMNLGRP_POLICY.
const GROUPS: u32 = 1 << 2 | 1 << 3;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const XFRM_MSG_NEWSA: u16 = 0x10;
const XFRM_MSG_DELSA: u16 = 0x11;
const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_DELPOLICY: u16 = 0x14;
const XFRM_MSG_UPDPOLICY: u16 = 0x19;
const XFRM_MSG_UPDSA: u16 = 0x1a;

const HEADER: usize = 16;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_ESP: u8 = 50;
const IPPROTO_COMP: u8 = 108;
const MODE_TRANSPORT: u8 = 0;
const MODE_TUNNEL: u8 = 1;
const XFRM_STATE_AF_UNSPEC: u8 = 32;
const XFRMA_REPLAY_VAL: u16 = 10;
const XFRMA_REPLAY_ESN_VAL: u16 = 23;

/// `struct xfrm_selector`: 56 octets, the family at 40.
const SELECTOR: usize = 56;
const SELECTOR_FAMILY: usize = 40;
/// `struct xfrm_usersa_info`: selector, id, source, lifetimes, counters, …
const SA_ID: usize = SELECTOR;
const SA_SPI: usize = SA_ID + 16;
const SA_PROTO: usize = SA_ID + 20;
const SA_REQID: usize = 208;
const SA_FAMILY: usize = 212;
const SA_MODE: usize = 214;
const SA_REPLAY_WINDOW: usize = 215;
const SA_FLAGS: usize = 216;
const SA_INFO: usize = 224;
/// `struct xfrm_userpolicy_info`: selector, lifetimes, counters, priority, index, direction.
const POLICY_INDEX: usize = SELECTOR + 64 + 32 + 4;
const POLICY_DIR: usize = POLICY_INDEX + 4;
const POLICY_INFO: usize = 168;

/// Starts to rewrite, in a thread, for a tunnel with this peer and, by [`How::Sit`], this route into it.
pub fn start(how: How, peer: Ipv4Addr, route: String) -> Result<()> {
    let events = netlink(GROUPS)?;
    let requests = netlink(0)?;
    let mut rewriter = Rewriter { how, peer, route, requests, sequence: 0, below_sit: false };
    std::thread::spawn(move || {
        if let Err(error) = rewriter.run(events) {
            eprintln!("rewriting in the kernel has ended: {error:#}");
        }
    });
    Ok(())
}

fn netlink(groups: u32) -> Result<Socket> {
    let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_XFRM)))
        .context("NETLINK_XFRM")?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("NETLINK_XFRM")?;
    Ok(socket)
}

struct Rewriter {
    how: How,
    peer: Ipv4Addr,
    route: String,
    requests: Socket,
    sequence: u32,
    /// The sit device and its policies are there.
    below_sit: bool,
}

impl Rewriter {
    fn run(&mut self, mut events: Socket) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = events.read(&mut buffer)?;
            for (kind, body) in messages(&buffer[..n]) {
                let result = match kind {
                    XFRM_MSG_NEWSA | XFRM_MSG_UPDSA => self.state(body),
                    XFRM_MSG_NEWPOLICY | XFRM_MSG_UPDPOLICY => self.policy(body),
                    _ => Ok(()),
                };
                // A daemon that is faster has taken it away again: no fault.
                if let Err(error) = result {
                    eprintln!("rewriting in the kernel: {error:#}");
                }
            }
        }
    }

    fn state(&mut self, body: &[u8]) -> Result<()> {
        ensure!(body.len() >= SA_INFO, "an SA of {} octets", body.len());
        let tunnel = body[SA_MODE] == MODE_TUNNEL;
        let esp = match body[SA_PROTO] {
            IPPROTO_ESP => true,
            IPPROTO_COMP => false,
            _ => return Ok(()),
        };
        if self.how == How::Sit && esp && !self.below_sit {
            self.below_sit = true;
            self.put_sit(&body[SA_REQID..SA_REQID + 4])?;
        }
        let mut new = body.to_vec();
        match self.how {
            How::AfUnspec if esp && tunnel && body[SA_FLAGS] & XFRM_STATE_AF_UNSPEC == 0 => {
                new[..SELECTOR].fill(0);
                new[SA_FLAGS] |= XFRM_STATE_AF_UNSPEC;
            }
            // Only daemons set the mode of such an SA to tunnel or leave its selector without a family.
            How::Sit if tunnel || body[SA_FLAGS] & XFRM_STATE_AF_UNSPEC != 0 => {
                new[..SELECTOR].fill(0);
                new[SELECTOR_FAMILY..SELECTOR_FAMILY + 2].copy_from_slice(&AF_INET.to_ne_bytes());
                new[SA_FLAGS] &= !XFRM_STATE_AF_UNSPEC;
                new[SA_MODE] = MODE_TRANSPORT;
            }
            _ => return Ok(()),
        }
        if esp {
            skip_sequence_numbers(&mut new[SA_INFO..]);
        } else {
            // iked asks for a window; but IPComp has no sequence numbers, so that the kernel takes each packet for a replay.
            new[SA_REPLAY_WINDOW] = 0;
        }
        // `struct xfrm_usersa_id`: destination, SPI, family, protocol.
        let mut id = body[SA_ID..SA_SPI + 4].to_vec();
        id.extend_from_slice(&body[SA_FAMILY..SA_FAMILY + 2]);
        id.extend_from_slice(&[body[SA_PROTO], 0]);
        self.ask(XFRM_MSG_DELSA, &id)?;
        self.ask(XFRM_MSG_NEWSA, &new)
    }

    /// Takes the daemon's IPv6 policies away: the sit device is in their place.
    fn policy(&mut self, body: &[u8]) -> Result<()> {
        ensure!(body.len() >= POLICY_INFO, "a policy of {} octets", body.len());
        let family = u16::from_ne_bytes([body[SELECTOR_FAMILY], body[SELECTOR_FAMILY + 1]]);
        if self.how != How::Sit || family != AF_INET6 {
            return Ok(());
        }
        // `struct xfrm_userpolicy_id`: selector, index, direction.
        let mut id = body[..SELECTOR].to_vec();
        id.extend_from_slice(&body[POLICY_INDEX..POLICY_INDEX + 4]);
        id.extend_from_slice(&[body[POLICY_DIR], 0, 0, 0]);
        self.ask(XFRM_MSG_DELPOLICY, &id)
    }

    /// The device that encapsulates, and policies that compress and encrypt what it sends.
    fn put_sit(&self, reqid: &[u8]) -> Result<()> {
        let (peer, route, reqid) = (self.peer, &self.route, u32::from_ne_bytes(reqid.try_into()?));
        let own =
            format!("$(ip -4 -o addr show dev {} | sed 's/.*inet \\([0-9.]*\\).*/\\1/')", super::INTERFACE);
        // IPComp is optional inbound: what does not shrink comes without.
        let policy = |way: &str, from: &str, to: &str| {
            format!(
                "ip xfrm policy add src {from}/32 dst {to}/32 proto 41 dir {way} \
                 tmpl src {from} dst {to} proto comp mode transport reqid {reqid} level use \
                 tmpl src {from} dst {to} proto esp mode transport reqid {reqid}\n"
            )
        };
        let script = format!(
            "set -e; own={own}\nip tunnel add sit1 mode sit local $own remote {peer} ttl 64\n\
             ip link set sit1 mtu 1400 up\n\
             ip -6 route replace {route} dev sit1\n{}{}",
            policy("out", "$own", &peer.to_string()),
            policy("in", &peer.to_string(), "$own"),
        );
        let output = Command::new("/bin/sh").args(["-c", &script]).output()?;
        ensure!(output.status.success(), "sit: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// One request, and the kernel's verdict.
    fn ask(&mut self, kind: u16, body: &[u8]) -> Result<()> {
        self.sequence += 1;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(body);
        self.requests.write_all(&message)?;
        let mut buffer = vec![0; 1 << 16];
        let n = self.requests.read(&mut buffer)?;
        for (answer, body) in messages(&buffer[..n]) {
            if answer == NLMSG_ERROR && body.len() >= 4 {
                let code = i32::from_ne_bytes([body[0], body[1], body[2], body[3]]);
                ensure!(code == 0, "request {kind:#x}: {}", std::io::Error::from_raw_os_error(-code));
                return Ok(());
            }
        }
        bail!("request {kind:#x}: no acknowledgement")
    }
}

/// An SA that has sent already shall not send a number twice: the new one starts behind.
fn skip_sequence_numbers(mut attributes: &mut [u8]) {
    const SKIP: u32 = 256;
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let oseq = match u16::from_ne_bytes([attributes[2], attributes[3]]) {
            XFRMA_REPLAY_VAL => Some(4),
            XFRMA_REPLAY_ESN_VAL => Some(8),
            _ => None,
        };
        if let Some(field) = oseq.and_then(|at| attributes.get_mut(at..at + 4)) {
            let value = u32::from_ne_bytes([field[0], field[1], field[2], field[3]]);
            field.copy_from_slice(&(value + SKIP).to_ne_bytes());
        }
        let next = length.max(4).next_multiple_of(4);
        attributes = attributes.get_mut(next..).unwrap_or_default();
    }
}

/// The netlink messages in a datagram: kind and body.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = datagram.get(..HEADER)?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = datagram.get(HEADER..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}
