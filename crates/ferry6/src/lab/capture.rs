//! Captures on a link: what kinds of frames crossed it, and all of them as a pcap file on request.

use super::packet_ring::{Frame, GSO_UDP_L4, PacketRing, RETIRE_MS};
use super::{Error, Host};
use nix::poll::{PollFd, PollFlags, poll};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const IKE_PORT: u16 = 500;
const NAT_PORT: u16 = 4500;
const ETHERNET: usize = 14;
const UDP: usize = 8;
/// Bounds on what is remembered: distinct SPIs, kinds of other frames, open fragment trains.
const MAX_SPIS: usize = 4096;
const MAX_OTHER_KINDS: usize = 32;
const MAX_TRAINS: usize = 64;

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FrameKind {
    /// ARP: the link's own, no IP.
    Arp,
    /// An IKEv2 message on UDP/500.
    Ike,
    /// An IKEv2 message behind a non-ESP marker on UDP/4500 (RFC 3948 section 2.2).
    IkeNat,
    /// UDP-encapsulated ESP (RFC 3948 section 2.1) with its SPI.
    EspInUdp(u32),
    /// A NAT-keepalive (RFC 3948 section 2.3).
    Keepalive,
    /// ESP straight in IPv4 (protocol 50) with its SPI.
    Esp(u32),
    /// Anything else, in words.
    Other(String),
}

/// What crossed the link. Of a super-packet (GSO) each datagram counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// ARP frames.
    pub arp: u64,
    /// IKE messages on UDP/500.
    pub ike: u64,
    /// IKE messages on UDP/4500.
    pub ike_nat: u64,
    /// ESP in UDP/4500.
    pub esp_in_udp: u64,
    /// Octets of those, from the IPv4 header on.
    pub esp_in_udp_bytes: u64,
    /// NAT-keepalives.
    pub keepalives: u64,
    /// ESP straight in IPv4.
    pub esp: u64,
    /// All else.
    pub other: u64,
    /// All else by kind, the first few kinds.
    pub other_kinds: BTreeMap<String, u64>,
    /// SPIs seen in ESP.
    pub spis: BTreeSet<u32>,
    /// Frames that the capture could not take, and so knows nothing of.
    pub missed: u64,
}

impl Counts {
    /// Nothing but IKE, ESP and their NAT-keepalives crossed, and the link's own ARP; and no frame went by unseen.
    pub fn only_ipsec(&self) -> bool {
        self.other == 0 && self.missed == 0
    }

    fn add(&mut self, kind: FrameKind, bytes: u64) {
        let spi = match kind {
            FrameKind::Arp => return self.arp += 1,
            FrameKind::Ike => return self.ike += 1,
            FrameKind::IkeNat => return self.ike_nat += 1,
            FrameKind::Keepalive => return self.keepalives += 1,
            FrameKind::EspInUdp(spi) => {
                self.esp_in_udp += 1;
                self.esp_in_udp_bytes += bytes;
                spi
            }
            FrameKind::Esp(spi) => {
                self.esp += 1;
                spi
            }
            FrameKind::Other(kind) => {
                self.other += 1;
                if self.other_kinds.len() < MAX_OTHER_KINDS || self.other_kinds.contains_key(&kind) {
                    *self.other_kinds.entry(kind).or_default() += 1;
                }
                return;
            }
        };
        if self.spis.len() < MAX_SPIS {
            self.spis.insert(spi);
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ESP in UDP/4500, {} IKE in UDP/4500, {} IKE in UDP/500",
            self.esp_in_udp, self.ike_nat, self.ike
        )?;
        for (count, name) in
            [(self.keepalives, "NAT keepalives"), (self.esp, "ESP in IPv4"), (self.arp, "ARP")]
        {
            if count > 0 {
                write!(f, ", {count} {name}")?;
            }
        }
        write!(f, ", {} other", self.other)?;
        for (position, (kind, count)) in self.other_kinds.iter().enumerate() {
            write!(f, "{}{count} {kind}", if position == 0 { ": " } else { ", " })?;
        }
        if self.missed > 0 {
            write!(f, ", {} not seen (the capture could not keep up)", self.missed)?;
        }
        Ok(())
    }
}

/// How to capture.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// Write all frames to this file. UDP super-packets are cut into their datagrams.
    pub pcap: Option<PathBuf>,
    /// Octets of the ring between kernel and capture.
    pub memory: usize,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        CaptureOptions { pcap: None, memory: 32 << 20 }
    }
}

/// A running capture of one interface, both directions.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    place: String,
}

impl Capture {
    /// Starts to capture on an interface of a host.
    ///
    /// # Errors
    /// No such interface, no packet socket, or the file cannot be made.
    pub fn start(host: &Host, interface: &str, options: CaptureOptions) -> Result<Capture, Error> {
        let index = host.index(interface)?;
        let fail = |e: io::Error| Error::new(host.name(), format!("capture on {interface}"), e);
        let mut ring = host.run(|| PacketRing::open(index, options.memory)).map_err(fail)?;
        let mut pcap = options.pcap.map(PcapWriter::create).transpose().map_err(fail)?;
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Counts::default())));
        let (stopped, shared) = (stop.clone(), counts.clone());
        let work = move || {
            let mut classifier = Classifier::default();
            let mut failure = None;
            // After the stop, what the kernel still holds is handed over within RETIRE_MS: wait for several of those.
            let mut quiet_after_stop = 0;
            while quiet_after_stop < 4 {
                let stopping = stopped.load(Ordering::Acquire);
                let mut any = false;
                let mut counts = shared.lock().expect("the capture thread alone can fail in here");
                while ring.read_block(|frame| {
                    classifier.count(&frame, &mut counts);
                    if let Some(pcap) = &mut pcap
                        && let Err(e) = pcap.write(&frame)
                    {
                        failure.get_or_insert(e);
                    }
                }) {
                    any = true;
                }
                counts.missed += ring.missed()?;
                drop(counts);
                quiet_after_stop = if stopping && !any { quiet_after_stop + 1 } else { 0 };
                let wait = if stopping { RETIRE_MS as u16 } else { 50 };
                poll(&mut [PollFd::new(ring.as_fd(), PollFlags::POLLIN)], wait)?;
            }
            if let Some(pcap) = pcap {
                pcap.finish()?;
            }
            failure.map_or(Ok(()), Err)
        };
        let thread = std::thread::Builder::new().name("capture".into()).spawn(work).map_err(fail)?;
        Ok(Capture { stop, counts, thread: Some(thread), place: format!("{} {interface}", host.name()) })
    }

    /// What has crossed so far; up to some 50 ms late.
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// The socket failed, or the file could not be written.
    pub fn stop(mut self) -> Result<Counts, Error> {
        self.end()?;
        Ok(self.counts())
    }

    fn end(&mut self) -> Result<(), Error> {
        self.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let result = thread.join().unwrap_or_else(|_| Err(io::Error::other("the capture thread panicked")));
        result.map_err(|e| Error::new(&self.place, "capture", e))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Whoever did not call `stop` does not ask for the outcome.
        let _ = self.end();
    }
}

/// Tells kinds of frames apart. It remembers IPv4 datagrams in fragments: only the first fragment has ports.
#[derive(Debug, Default)]
struct Classifier {
    trains: VecDeque<(Train, FrameKind)>,
}

/// Source, destination, protocol and identification: what the fragments of one datagram share (RFC 791 section 3.2).
type Train = ([u8; 8], u8, [u8; 2]);

impl Classifier {
    fn count(&mut self, frame: &Frame<'_>, counts: &mut Counts) {
        let segment = frame.gso.filter(|gso| gso.0 == GSO_UDP_L4).map(|gso| gso.1);
        for (kind, bytes) in segments(frame.data, segment).map(|(head, payload)| {
            let bytes = (head.len() - ETHERNET.min(head.len()) + payload.len()) as u64;
            (self.classify(head, payload), bytes)
        }) {
            counts.add(kind, bytes);
        }
    }

    /// What an Ethernet frame is. `head` may hold it all; where it ends behind a UDP header, `payload` is the rest.
    fn classify(&mut self, head: &[u8], payload: &[u8]) -> FrameKind {
        let Some(kind) = head.get(12..ETHERNET) else { return FrameKind::Other("runt frame".into()) };
        let packet = &head[ETHERNET..];
        match u16::from_be_bytes([kind[0], kind[1]]) {
            0x0806 => FrameKind::Arp,
            0x0800 => self.ipv4(packet, payload),
            0x86dd => FrameKind::Other(match packet.get(6) {
                Some(58) if packet.len() > 40 => format!("IPv6, ICMPv6 type {}", packet[40]),
                Some(next) => format!("IPv6, next header {next}"),
                None => "IPv6, truncated".into(),
            }),
            other => FrameKind::Other(format!("EtherType {other:#06x}")),
        }
    }

    fn ipv4(&mut self, packet: &[u8], payload: &[u8]) -> FrameKind {
        let malformed = || FrameKind::Other("malformed IPv4".into());
        let Some(header) = packet.first().map(|b| usize::from(b & 15) * 4) else { return malformed() };
        if header < 20 || packet.len() < header {
            return malformed();
        }
        let (protocol, flags) = (packet[9], u16::from_be_bytes([packet[6], packet[7]]));
        let (offset, more) = (flags & 0x1fff, flags & 0x2000 != 0);
        let mut addresses = [0; 8];
        addresses.copy_from_slice(&packet[12..20]);
        let train: Train = (addresses, protocol, [packet[4], packet[5]]);
        if offset != 0 {
            let known = self.trains.iter().find(|(t, _)| *t == train).map(|(_, kind)| kind.clone());
            return known.unwrap_or_else(|| FrameKind::Other(format!("IPv4 fragment, protocol {protocol}")));
        }
        // A short frame is padded to 60 octets: the length in the header rules.
        let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let whole = if payload.is_empty() { &packet[..total.clamp(header, packet.len())] } else { packet };
        let body = &whole[header..];
        let kind = match protocol {
            17 if body.len() >= UDP => {
                let payload = if payload.is_empty() { &body[UDP..] } else { payload };
                udp(body, payload, more)
            }
            50 => FrameKind::Esp(body.first_chunk().map_or(0, |b| u32::from_be_bytes(*b))),
            1 => FrameKind::Other(match body {
                [kind, code, ..] => format!("ICMP type {kind} code {code}"),
                _ => "ICMP, truncated".into(),
            }),
            _ => FrameKind::Other(format!("IPv4, protocol {protocol}")),
        };
        if more {
            if self.trains.len() == MAX_TRAINS {
                self.trains.pop_front();
            }
            self.trains.push_back((train, kind.clone()));
        }
        kind
    }
}

fn udp(header: &[u8], payload: &[u8], fragment: bool) -> FrameKind {
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (source, destination) = (port(0), port(2));
    let other = |what: &str| FrameKind::Other(format!("UDP {source} to {destination}{what}"));
    let either = |port| source == port || destination == port;
    if either(NAT_PORT) {
        match payload {
            [0xff] => FrameKind::Keepalive,
            [0, 0, 0, 0, message @ ..] if is_ike(message, fragment) => FrameKind::IkeNat,
            [0, 0, 0, 0, ..] => other(" with a non-ESP marker, not IKEv2"),
            // RFC 4303 section 2.1: SPIs below 256 are reserved.
            [a, b, c, d, _, _, _, _, ..] if [*a, *b, *c] != [0; 3] => {
                FrameKind::EspInUdp(u32::from_be_bytes([*a, *b, *c, *d]))
            }
            _ => other(", neither IKE nor ESP"),
        }
    } else if either(IKE_PORT) {
        if is_ike(payload, fragment) { FrameKind::Ike } else { other(", not IKEv2") }
    } else {
        other("")
    }
}

/// A header of IKE version 2 whose length is that of the datagram (RFC 7296 section 3.1).
fn is_ike(message: &[u8], fragment: bool) -> bool {
    let Some(length) = message.get(24..28).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes) else {
        return false;
    };
    message[17] >> 4 == 2 && (fragment || length as usize == message.len())
}

/// Cuts a UDP super-packet into (headers, payload) per datagram. Any other frame comes as one, all in the first part.
fn segments(frame: &[u8], segment: Option<usize>) -> impl Iterator<Item = (&[u8], &[u8])> {
    let header = frame.get(ETHERNET).map_or(0, |b| usize::from(b & 15) * 4) + ETHERNET + UDP;
    let (head, payload, size) = match segment {
        Some(size) if frame.len() > header => (&frame[..header], &frame[header..], size),
        _ => (frame, &[][..], usize::MAX),
    };
    let whole = payload.is_empty().then_some((head, payload));
    whole.into_iter().chain(payload.chunks(size).map(move |chunk| (head, chunk)))
}

/// A pcap file of Ethernet frames with nanoseconds.
#[derive(Debug)]
struct PcapWriter {
    file: BufWriter<File>,
    scratch: Vec<u8>,
}

impl PcapWriter {
    fn create(path: PathBuf) -> io::Result<PcapWriter> {
        let failed = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let mut file = BufWriter::new(File::create(&path).map_err(failed)?);
        for word in [0xa1b2_3c4d, 0x0004_0002, 0, 0, 0x0004_0000, 1u32] {
            file.write_all(&word.to_ne_bytes()).map_err(failed)?;
        }
        Ok(PcapWriter { file, scratch: Vec::new() })
    }

    fn write(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let size = frame.gso.filter(|gso| gso.0 == GSO_UDP_L4).map(|gso| gso.1);
        for (position, (head, payload)) in segments(frame.data, size).enumerate() {
            self.scratch.clear();
            self.scratch.extend_from_slice(head);
            if !payload.is_empty() {
                finish_segment(&mut self.scratch, position as u16, payload.len());
                self.scratch.extend_from_slice(payload);
            }
            let length = self.scratch.len() as u32;
            for word in [frame.time.0, frame.time.1, length, length] {
                self.file.write_all(&word.to_ne_bytes())?;
            }
            self.file.write_all(&self.scratch)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Sets lengths, identification and checksums in the headers of one datagram of a super-packet, as a network card would.
/// The UDP checksum becomes 0: none (RFC 768).
fn finish_segment(frame: &mut [u8], position: u16, payload: usize) {
    let udp = frame.len() - UDP;
    let length = (UDP + payload) as u16;
    frame[udp + 4..udp + 6].copy_from_slice(&length.to_be_bytes());
    frame[udp + 6..udp + 8].fill(0);
    let ip = &mut frame[ETHERNET..udp];
    let total = ip.len() as u16 + length;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(position);
    ip[4..6].copy_from_slice(&id.to_be_bytes());
    ip[10..12].fill(0);
    let sum: u32 = ip.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests;
