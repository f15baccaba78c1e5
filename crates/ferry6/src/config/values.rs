//! Words and numbers of the configuration: durations, octets, prefixes, hosts, identities.

use ferry6_ike::selector::AddressRange;
use ferry6_ike::{Identity, Prefix6, TrafficSelector};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// `"90s"`, `"15m"`, `"1h30m"`, `"2d"`, `"500ms"`; a bare number is seconds; `"0"`, `"never"` and `"off"` are zero.
///
/// # Errors
/// What was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let fault =
        || format!("expected a duration like \"30s\", \"15m\", \"8h\", \"1d\" or \"never\", found {text:?}");
    if matches!(text, "never" | "off") {
        return Ok(Duration::ZERO);
    }
    if let Ok(seconds) = text.parse::<u64>() {
        return limit(Duration::from_secs(seconds)).ok_or_else(fault);
    }
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(fault());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| fault())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let millis: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" | "sec" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(fault()),
        };
        let part = number.checked_mul(millis).ok_or_else(fault)?;
        total = total.checked_add(Duration::from_millis(part)).ok_or_else(fault)?;
        rest = rest[letters..].trim_start();
    }
    limit(total).ok_or_else(fault)
}

/// Timers add durations to the clock: a hundred years is more than anybody needs and never overflows.
fn limit(duration: Duration) -> Option<Duration> {
    (duration <= Duration::from_secs(100 * 365 * 86_400)).then_some(duration)
}

/// A duration for people: `1h30m`, `45s`, `never`.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.is_zero() {
        return "never".to_owned();
    }
    if seconds == 0 {
        return format!("{}ms", duration.as_millis());
    }
    let (d, h, m, s) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let all = [(d, "d"), (h, "h"), (m, "m"), (s, "s")];
    let first = all.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    // Two units are as exact as anybody reads.
    all[first..].iter().take(2).filter(|(n, _)| *n > 0).map(|(n, u)| format!("{n}{u}")).collect()
}

/// `"10GB"`, `"512 MiB"`, `"4G"`, a bare number; `"never"` is zero. Decimal units, unless there is an `i`.
///
/// # Errors
/// What was expected.
pub fn octets(text: &str) -> Result<u64, String> {
    let fault = || format!("expected a size like \"500MB\", \"10GB\", \"4GiB\" or \"never\", found {text:?}");
    if matches!(text, "never" | "off") {
        return Ok(0);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| fault())?;
    let factor: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "k" | "K" | "kB" | "KB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "T" | "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(fault()),
    };
    number.checked_mul(factor).ok_or_else(fault)
}

/// Octets for people: `1.5 MB`.
pub fn show_octets(octets: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    if octets < 1000 {
        return format!("{octets} B");
    }
    // Only for the eye: f64 is exact enough for three digits.
    #[allow(clippy::cast_precision_loss)]
    let mut value = octets as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// An inclusive range of addresses: of a prefix, or from one address to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range6 {
    /// The lowest address.
    pub first: Ipv6Addr,
    /// The highest.
    pub last: Ipv6Addr,
    /// The prefix it was written as.
    pub prefix: Option<Prefix6>,
}

impl Range6 {
    /// Whether the address is inside.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// The subnet-router anycast address of the prefix (RFC 4291 section 2.6.1). A /128 has none.
    pub fn anycast(self) -> Option<Ipv6Addr> {
        self.prefix.filter(|p| p.len < 128).map(|p| p.address)
    }

    /// Whether they share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The fewest prefixes that make it up.
    pub fn prefixes(self) -> Vec<Prefix6> {
        let mut list = Vec::new();
        let mut address = self.first;
        loop {
            // The largest block that starts here and does not reach beyond the end.
            let len = u8::try_from(128 - address.to_bits().trailing_zeros()).unwrap_or(128);
            let mut block = Prefix6 { address, len };
            while block.len < 128 && block.last() > self.last {
                block.len += 1;
            }
            list.push(block);
            if block.last() >= self.last {
                return list;
            }
            address = Ipv6Addr::from_bits(block.last().to_bits() + 1);
        }
    }
}

impl From<Prefix6> for Range6 {
    fn from(prefix: Prefix6) -> Self {
        Self { first: prefix.address, last: prefix.last(), prefix: Some(prefix) }
    }
}

impl std::fmt::Display for Range6 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.prefix {
            Some(prefix) => prefix.fmt(f),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// A range: `2a00::100/120` or `2a00::101-2a00::1ff`.
///
/// # Errors
/// What was expected.
pub fn range6(text: &str) -> Result<Range6, String> {
    let Some((first, last)) = text.split_once('-') else {
        return Ok(text.parse::<Prefix6>()?.into());
    };
    let (first, last) = (address6(first.trim())?, address6(last.trim())?);
    if first > last {
        return Err(format!("expected the lower address first, found {text:?}"));
    }
    Ok(Range6 { first, last, prefix: None })
}

/// A selector's IPv6 addresses as prefixes, for routes.
pub fn selector_prefixes(selector: &TrafficSelector) -> Vec<Prefix6> {
    match selector.addresses {
        AddressRange::V6(first, last) => Range6 { first, last, prefix: None }.prefixes(),
        AddressRange::V4(..) => Vec::new(),
    }
}

/// An IPv6 address.
///
/// # Errors
/// What was expected.
pub fn address6(text: &str) -> Result<Ipv6Addr, String> {
    text.parse().map_err(|_| format!("expected an IPv6 address like \"2a00::101\", found {text:?}"))
}

/// An IPv4 address.
///
/// # Errors
/// What was expected.
pub fn address4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("expected an IPv4 address like \"192.168.100.2\", found {text:?}"))
}

/// Where a broker is: an IPv4 address, or a name with A records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(Ipv4Addr),
    /// A name.
    Name(String),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A host.
///
/// # Errors
/// What was expected; an IPv6 address is refused, because the tunnel crosses an IPv4-only network.
pub fn host(text: &str) -> Result<Host, String> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => return Ok(Host::Address(address)),
        Ok(IpAddr::V6(_)) => {
            return Err(format!(
                "expected an IPv4 address or a name: the tunnel crosses IPv4, found {text:?}"
            ));
        }
        Err(_) => {}
    }
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let numeric = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    if name.len() <= 253 && name.split('.').all(label) && !numeric {
        Ok(Host::Name(text.to_owned()))
    } else {
        Err(format!("expected a host name or an IPv4 address (no port: it has its own key), found {text:?}"))
    }
}

/// An identity: `email:client@my.domain`, `fqdn:tunnel.my.domain`, `ip:192.0.2.1`, `dn:CN=client`, `keyid:...`, or bare.
///
/// # Errors
/// What was expected.
pub fn identity(text: &str) -> Result<Identity, String> {
    text.parse::<Identity>().map_err(|e| format!("expected an identity like \"email:client@my.domain\": {e}"))
}

/// A traffic selector: an IPv6 prefix, or `prefix[protocol/port]` as swanctl writes it: `2a00::/64[tcp/443]`.
///
/// # Errors
/// What was expected.
pub fn selector(text: &str) -> Result<TrafficSelector, String> {
    let fault = || {
        format!(
            "expected a traffic selector like \"::/0\", \"2a00::/32\" or \"::/0[tcp/443]\", found {text:?}"
        )
    };
    let (prefix, ports) = match text.split_once('[') {
        None => (text, None),
        Some((prefix, rest)) => (prefix, Some(rest.strip_suffix(']').ok_or_else(fault)?)),
    };
    if prefix.parse::<Ipv4Addr>().is_ok()
        || prefix.split_once('/').is_some_and(|(a, _)| a.parse::<Ipv4Addr>().is_ok())
    {
        return Err(format!("expected IPv6: ferry6 carries IPv6 only, found {text:?}"));
    }
    let prefix: Prefix6 = prefix.parse()?;
    let mut selector = TrafficSelector {
        addresses: AddressRange::V6(prefix.address, prefix.last()),
        ..TrafficSelector::ANY_V6
    };
    if let Some(ports) = ports {
        let (protocol, port) = match ports.split_once('/') {
            None => (ports, None),
            Some((protocol, port)) => (protocol, Some(port)),
        };
        selector.protocol = match protocol {
            "any" | "*" => 0,
            "tcp" => 6,
            "udp" => 17,
            "icmp6" | "icmpv6" | "ipv6-icmp" => 58,
            "sctp" => 132,
            number => number.parse().map_err(|_| fault())?,
        };
        if let Some(port) = port.filter(|p| !matches!(*p, "any" | "*")) {
            if !matches!(selector.protocol, 6 | 17 | 33 | 132 | 136) {
                return Err(format!("only TCP, UDP, SCTP and DCCP have ports, found {text:?}"));
            }
            let (from, to) = port.split_once('-').unwrap_or((port, port));
            selector.start_port = from.parse().map_err(|_| fault())?;
            selector.end_port = to.parse().map_err(|_| fault())?;
            if selector.start_port > selector.end_port {
                return Err(fault());
            }
        }
    }
    Ok(selector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(duration("never"), Ok(Duration::ZERO));
        for wrong in
            ["", "h", "1x", "1h x", "-1s", "99999999999999999999s", "300000000d", "18446744073709551615"]
        {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(show_duration(Duration::from_secs(5400)), "1h30m");
        assert_eq!(show_duration(Duration::from_secs(86_401)), "1d");
        assert_eq!(show_duration(Duration::from_secs(59)), "59s");
    }

    #[test]
    fn sizes() {
        assert_eq!(octets("10GB"), Ok(10_000_000_000));
        assert_eq!(octets("4 GiB"), Ok(4 << 30));
        assert_eq!(octets("1000"), Ok(1000));
        assert_eq!(octets("never"), Ok(0));
        for wrong in ["", "GB", "1.5GB", "10Q", "99999999999TB"] {
            assert!(octets(wrong).is_err(), "{wrong}");
        }
        assert_eq!(show_octets(999), "999 B");
        assert_eq!(show_octets(1500), "1.5 kB");
        assert_eq!(show_octets(999_999), "1.0 MB");
        assert_eq!(show_octets(u64::MAX), "18446.7 PB");
    }

    #[test]
    fn ranges() {
        let shown = |text: &str| -> Vec<String> {
            range6(text).unwrap().prefixes().iter().map(ToString::to_string).collect()
        };
        assert_eq!(shown("2a00::100/120"), ["2a00::100/120"]);
        assert_eq!(
            shown("2a00::101-2a00::106"),
            ["2a00::101/128", "2a00::102/127", "2a00::104/127", "2a00::106/128"]
        );
        assert_eq!(shown("::/0"), ["::/0"]);
        assert_eq!(shown("::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff").len(), 128);
        assert_eq!(shown("::5-::5"), ["::5/128"]);
        assert!(range6("::5-::4").is_err());
    }

    #[test]
    fn hosts() {
        assert_eq!(host("5.6.7.8"), Ok(Host::Address(Ipv4Addr::new(5, 6, 7, 8))));
        assert_eq!(host("tunnel.my.domain"), Ok(Host::Name("tunnel.my.domain".into())));
        for wrong in ["", "2a00::2", "a..b", "tunnel:500", "https://x", "1.2.3.4.5", "300.1.1.1", "-x.y"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn selectors() {
        assert_eq!(selector("::/0"), Ok(TrafficSelector::ANY_V6));
        let https = selector("2a00::/32[tcp/443]").unwrap();
        assert_eq!((https.protocol, https.start_port, https.end_port), (6, 443, 443));
        assert_eq!(selector("::/0[icmp6]").unwrap().protocol, 58);
        for wrong in ["0.0.0.0/0", "::/0[tcp/443", "::/0[icmp6/1]", "::/0[tcp/9-1]", "::1/0"] {
            assert!(selector(wrong).is_err(), "{wrong}");
        }
    }
}
