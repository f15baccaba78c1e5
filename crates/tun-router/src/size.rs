//! Sizes: what fits through the tunnel when the path between the peers has an MTU, and what the outer header says.
//! Pure; `docs/mtu.md` tells the whole.

use ferry6_crypto::CipherSuite;

/// Octets of the outer headers: IPv4 without options, UDP. ESP always travels in UDP here (RFC 3948).
pub const OUTER_HEADERS: usize = 28;
/// The IPv6 minimum MTU (RFC 8200 section 5): inner packets up to here always pass; where the path is too small for them the
/// outer packet is fragmented (RFC 4213 section 3.2, RFC 2473 section 7.1).
pub const IPV6_MIN_MTU: usize = 1280;
/// What a path is taken for until something else is known, and at most: the Ethernet of the Internet.
pub const USUAL_PATH: usize = 1500;
/// The least path that is looked for: what every IPv4 host takes (RFC 791 section 3.1).
pub const MIN_PATH: usize = 576;
/// IPv6 and TCP header: what is between an MTU and the MSS (RFC 6691 section 2).
const MSS_HEADERS: usize = 60;

/// The largest inner packet whose ESP packet crosses a path of `path_mtu` octets whole. That is the worst case: sequence
/// numbers have 32 bits on the wire with ESN as well, and IPComp is used only where it makes a packet smaller. Below
/// [`IPV6_MIN_MTU`] the tunnel's own MTU is that, and outer packets are fragmented.
pub const fn largest_inner(suite: CipherSuite, path_mtu: usize) -> usize {
    ferry6_esp::size::max_payload(suite, path_mtu.saturating_sub(OUTER_HEADERS))
}

/// The MTU of a tunnel over such a path: [`largest_inner`], but what IPv6 demands at least.
pub const fn tunnel_mtu(suite: CipherSuite, path_mtu: usize) -> usize {
    let largest = largest_inner(suite, path_mtu);
    if largest < IPV6_MIN_MTU { IPV6_MIN_MTU } else { largest }
}

/// What `mtu = "auto"` or a number, `df`, `mss_clamp`, `dscp` and `ecn` of the configuration say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizePolicy {
    /// The largest inner packet whatever the path; `None`: the path alone decides.
    pub mtu: Option<u16>,
    /// Don't Fragment.
    pub df: DfPolicy,
    /// The MSS of TCP.
    pub mss: MssClamp,
    /// The outer DS field and ECN.
    pub fields: OuterFields,
}

impl Default for SizePolicy {
    fn default() -> Self {
        Self { mtu: None, df: DfPolicy::Auto, mss: MssClamp::Off, fields: OuterFields::default() }
    }
}

/// What becomes of the path's MTU (RFC 4301 section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DfPolicy {
    /// The path is observed and senders are told of it, but ESP goes without DF: should the path shrink, fragments bridge the
    /// time until that is seen.
    #[default]
    Auto,
    /// As `Auto`, and ESP packets with more than 1280 octets inside have DF: no fragment of theirs is ever on the wire.
    Set,
    /// The path is not observed: what is too large for it is fragmented outside (RFC 4213 section 3.2.1).
    Clear,
}

/// What becomes of the MSS in TCP SYNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MssClamp {
    /// It stays.
    #[default]
    Off,
    /// At most what the tunnel's MTU lets through.
    Auto,
    /// At most this, and what the tunnel's MTU lets through.
    AtMost(u16),
}

/// The outer DS field and ECN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterFields {
    /// Every outer packet has this DSCP (RFC 4301 section 5.1.2.1); `None`: that of the inner packet.
    pub dscp: Option<u8>,
    /// Whether ECN of the inner packet is copied out (RFC 6040 section 4.1, normal mode), or the outer packet says Not-ECT
    /// (compatibility mode).
    pub ecn: bool,
}

impl Default for OuterFields {
    fn default() -> Self {
        Self { dscp: None, ecn: true }
    }
}

impl OuterFields {
    /// The outer TOS octet for an inner traffic class.
    #[inline]
    pub fn tos(self, traffic_class: u8) -> u8 {
        let dscp = self.dscp.map_or(traffic_class & 0xfc, |dscp| dscp << 2);
        let ecn = if self.ecn { traffic_class & 0b11 } else { 0 };
        dscp | ecn
    }
}

/// How the packets of one SA meet its path: reckoned when the SA comes and when its path changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// The largest inner packet; a larger one is answered by Packet Too Big.
    pub mtu: usize,
    /// The largest outer packet that crosses the path whole, as far as is known.
    pub path_mtu: usize,
    /// Whether what is larger than [`IPV6_MIN_MTU`] inside has DF outside.
    pub df: bool,
    /// The largest MSS in a TCP SYN; [`NO_CLAMP`]: any.
    pub mss: u16,
    /// DS field and ECN.
    pub fields: OuterFields,
}

/// An MSS that clamps nothing.
pub const NO_CLAMP: u16 = u16::MAX;

impl Outer {
    /// For an SA of this suite over a path of so many octets.
    pub fn new(policy: &SizePolicy, suite: CipherSuite, path_mtu: usize) -> Self {
        let most = policy.mtu.map_or(usize::MAX, usize::from);
        let mtu = match (policy.df, policy.mtu) {
            // Fragments outside carry what a UDP datagram can.
            (DfPolicy::Clear, Some(_)) => most.min(largest_inner(suite, usize::from(u16::MAX))),
            _ => tunnel_mtu(suite, path_mtu).min(most),
        };
        let fits = u16::try_from(mtu.saturating_sub(MSS_HEADERS)).unwrap_or(NO_CLAMP);
        Self {
            mtu,
            path_mtu,
            df: policy.df == DfPolicy::Set,
            mss: match policy.mss {
                MssClamp::Off => NO_CLAMP,
                MssClamp::Auto => fits,
                MssClamp::AtMost(most) => fits.min(most),
            },
            fields: policy.fields,
        }
    }

    /// Inner packets of up to `mtu` octets on a path without a limit; nothing is rewritten.
    pub fn plain(mtu: usize) -> Self {
        let fields = OuterFields::default();
        Self { mtu, path_mtu: usize::MAX, df: false, mss: NO_CLAMP, fields }
    }

    /// How a datagram with `datagram` octets of UDP payload and `inner` octets inside is sent.
    #[inline]
    pub fn fit(&self, datagram: usize, inner: usize) -> Fit {
        if self.df && inner > IPV6_MIN_MTU {
            Fit::Never
        } else if datagram + OUTER_HEADERS > self.path_mtu {
            Fit::Fragments
        } else {
            Fit::Whole
        }
    }
}

/// How a datagram meets a path that is too small for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It fits, as far as is known, and has no DF.
    Whole,
    /// It does not fit: the kernel makes fragments of it, which it does with single datagrams only.
    Fragments,
    /// It has DF.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn suites() -> impl Strategy<Value = CipherSuite> {
        prop::sample::select(CipherSuite::all().collect::<Vec<_>>())
    }

    proptest! {
        /// The largest inner packet crosses the path whole, one octet more does not.
        #[test]
        fn the_tunnel_fits_into_its_path(suite in suites(), path in 68_usize..9001) {
            let inner = largest_inner(suite, path);
            let outer = |inner| ferry6_esp::size::sealed_len(suite, inner) + OUTER_HEADERS;
            if inner > 0 {
                prop_assert!(outer(inner) <= path);
            }
            prop_assert!(outer(inner + 1) > path);
            prop_assert_eq!(tunnel_mtu(suite, path), inner.max(IPV6_MIN_MTU));
        }

        /// Whatever is told to senders, the packets that they send then need no fragments, unless IPv6 allows no less.
        #[test]
        fn what_is_told_fits(suite in suites(), path in 576_usize..1501, set: bool, mtu in prop::option::of(1280_u16..9000)) {
            let df = if set { DfPolicy::Set } else { DfPolicy::Auto };
            let outer = Outer::new(&SizePolicy { mtu, df, ..SizePolicy::default() }, suite, path);
            prop_assert!(outer.mtu >= IPV6_MIN_MTU && mtu.is_none_or(|most| outer.mtu <= usize::from(most)));
            let sealed = ferry6_esp::size::sealed_len(suite, outer.mtu);
            match outer.fit(sealed, outer.mtu) {
                Fit::Whole => prop_assert!(!set || outer.mtu == IPV6_MIN_MTU),
                Fit::Fragments => prop_assert_eq!(outer.mtu, IPV6_MIN_MTU),
                Fit::Never => prop_assert!(set && sealed + OUTER_HEADERS <= path),
            }
        }
    }

    /// The table of `docs/mtu.md` is what the code says, for each suite.
    #[test]
    fn the_documented_table() {
        let document = include_str!("../../../docs/mtu.md");
        let rows: Vec<&str> =
            document.lines().filter(|line| line.starts_with("| `") && line.contains(" to ")).collect();
        let expected: Vec<String> = CipherSuite::all()
            .map(|suite| {
                let added = |inner| ferry6_esp::size::sealed_len(suite, inner) - inner + OUTER_HEADERS;
                let (least, most) = ((0..64).map(added).min().unwrap(), (0..64).map(added).max().unwrap());
                let [a, b, c, d] = [1500, 1492, 1400, 1280].map(|path| tunnel_mtu(suite, path));
                format!("| `{suite}` | {least} to {most} | {a} | {b} | {c} | {d} |")
            })
            .collect();
        assert_eq!(rows, expected, "it should be:\n{}", expected.join("\n"));
    }

    #[test]
    fn outer_fields() {
        // AF11 with ECT(0).
        let class = 10 << 2 | 0b10;
        assert_eq!(OuterFields::default().tos(class), class);
        assert_eq!(OuterFields { dscp: Some(46), ecn: true }.tos(class), 46 << 2 | 0b10);
        assert_eq!(OuterFields { dscp: None, ecn: false }.tos(class), 10 << 2);
        assert_eq!(OuterFields { dscp: Some(0), ecn: false }.tos(0xff), 0);
    }

    #[test]
    fn a_number_with_df_clear_is_the_number() {
        let suite = CipherSuite::all().next().unwrap();
        let policy = SizePolicy { mtu: Some(9000), df: DfPolicy::Clear, ..SizePolicy::default() };
        let outer = Outer::new(&policy, suite, 1500);
        assert_eq!((outer.mtu, outer.fit(9100, 9000)), (9000, Fit::Fragments));
        let clamped = SizePolicy { mss: MssClamp::Auto, ..policy };
        assert_eq!(Outer::new(&clamped, suite, 1500).mss, 8940);
        let clamped = SizePolicy { mss: MssClamp::AtMost(1200), ..policy };
        assert_eq!(Outer::new(&clamped, suite, 1500).mss, 1200);
    }
}
