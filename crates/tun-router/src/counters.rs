//! Counters: one reason, one counter. Each set has one writer, the thread that owns it; others only read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// All of them, in the order of the packet's way.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name in `status`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

drop_reasons! {
    // --- from the TUN device to the wire
    /// Not an IPv6 packet.
    OutNotIpv6 = "out_not_ipv6",
    /// Headers that lie about lengths.
    OutMalformed = "out_malformed",
    /// No SPD entry fits (RFC 4301 section 5.1: discard).
    OutNoPolicy = "out_no_policy",
    /// Link-scope traffic (router solicitations, multicast listener reports) that no SPD entry fits.
    OutLinkScope = "out_link_scope",
    /// The SPD says protect, but there is no SA at the moment.
    OutNoSa = "out_no_sa",
    /// Larger than the tunnel's MTU; answered by Packet Too Big.
    OutTooBig = "out_too_big",
    /// The SA's sequence numbers are used up.
    OutExhausted = "out_sequence_exhausted",
    /// The cipher refused.
    OutSealFailed = "out_seal_failed",
    /// Another worker's queue was full.
    OutHandoffFull = "out_handoff_full",
    /// EMSGSIZE: too large for the path, and may not be fragmented.
    SendTooBig = "send_too_big",
    /// ENOBUFS or ENOMEM.
    SendNoBuffers = "send_no_buffers",
    /// ENETUNREACH, EHOSTUNREACH, ENETDOWN, EADDRNOTAVAIL: no route to the peer.
    SendUnreachable = "send_unreachable",
    /// EPERM or EACCES: a firewall of this host.
    SendNotPermitted = "send_not_permitted",
    /// Another error of sendmsg.
    SendFailed = "send_failed",
    // --- from the wire to the TUN device
    /// Neither IKE nor ESP nor a keepalive.
    InMalformedDatagram = "in_malformed_datagram",
    /// Longer than the receive buffer.
    InTruncated = "in_truncated",
    /// The control thread's queue was full of IKE messages.
    InIkeQueueFull = "in_ike_queue_full",
    /// Another worker's queue was full.
    InHandoffFull = "in_handoff_full",
    /// No SA has this SPI.
    InUnknownSpi = "in_unknown_spi",
    /// Not an ESP packet of the SA's suite.
    InMalformedEsp = "in_malformed_esp",
    /// Sequence number seen before.
    InReplayDuplicate = "in_replay_duplicate",
    /// Sequence number older than the window.
    InReplayTooOld = "in_replay_too_old",
    /// Sequence number zero.
    InReplayZero = "in_replay_zero",
    /// The ICV does not fit.
    InIntegrity = "in_integrity",
    /// Padding that is not 1, 2, 3, …
    InPadding = "in_padding",
    /// IPComp where none was negotiated, or an unknown CPI.
    InIpcompCpi = "in_ipcomp_unknown_cpi",
    /// A DEFLATE stream that is damaged.
    InIpcompDamaged = "in_ipcomp_damaged",
    /// A DEFLATE stream that grows beyond the bound.
    InIpcompTooLarge = "in_ipcomp_too_large",
    /// The inner packet is not IPv6.
    InNotIpv6 = "in_not_ipv6",
    /// Inner headers that lie about lengths.
    InMalformedInner = "in_malformed_inner",
    /// The inner packet is not within the SA's selectors (RFC 4301 section 5.2).
    InSelectorMismatch = "in_selector_mismatch",
    /// Congestion Experienced outside, Not-ECT inside (RFC 6040 section 4.2).
    InEcn = "in_ecn_not_capable",
    /// The TUN device refused the packet.
    InTunWrite = "in_tun_write",
}

/// One counter per [`DropReason`].
#[derive(Debug)]
pub struct Drops([AtomicU64; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; DropReason::ALL.len()])
    }
}

impl Drops {
    /// Counts one packet.
    #[inline]
    pub fn count(&self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts `packets`.
    #[inline]
    pub fn add(&self, reason: DropReason, packets: u64) {
        add(&self.0[reason as usize], packets);
    }

    /// Adds what others have counted.
    pub fn add_all(&self, others: &Drops) {
        for reason in DropReason::ALL {
            self.add(*reason, others.get(*reason));
        }
    }

    /// The count so far.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Relaxed)
    }

    /// Adds the counts that are not zero to a map for `status`.
    pub fn collect(&self, into: &mut BTreeMap<String, u64>) {
        for reason in DropReason::ALL {
            let count = self.get(*reason);
            if count > 0 {
                *into.entry(reason.name().to_owned()).or_default() += count;
            }
        }
    }
}

/// Traffic of one direction of one SA.
#[derive(Debug, Default)]
pub struct SaCounters {
    /// Inner packets.
    pub packets: AtomicU64,
    /// Octets of inner packets.
    pub bytes: AtomicU64,
    /// Those of the packets that were compressed (IPComp).
    pub compressed: AtomicU64,
    /// Drops.
    pub drops: Drops,
}

impl SaCounters {
    /// Counts packets that went through.
    #[inline]
    pub fn add(&self, packets: u64, bytes: u64) {
        add(&self.packets, packets);
        add(&self.bytes, bytes);
    }

    /// Counts compressed packets that went through, on top of [`Self::add`].
    #[inline]
    pub fn add_compressed(&self, packets: u64) {
        add(&self.compressed, packets);
    }

    /// Packets and octets so far.
    pub fn get(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}

/// One writer only, so a load and a store do, without a locked instruction.
#[inline]
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(value), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_counts_collect() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        let drops = Drops::default();
        drops.count(DropReason::InIntegrity);
        drops.add(DropReason::InIntegrity, 2);
        let mut map = BTreeMap::new();
        drops.collect(&mut map);
        assert_eq!(map.into_iter().collect::<Vec<_>>(), [("in_integrity".to_owned(), 3)]);
    }
}
