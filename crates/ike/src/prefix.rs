//! IPv6 prefixes.

use crate::selector::{AddressRange, TrafficSelector};
use std::net::Ipv6Addr;

/// An IPv6 prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix6 {
    /// Its lowest address.
    pub address: Ipv6Addr,
    /// Its length in bits, 0..=128.
    pub len: u8,
}

impl Prefix6 {
    /// Bits behind its length are left aside. `None` where that is above 128.
    pub fn new(address: Ipv6Addr, len: u8) -> Option<Self> {
        let host_mask = Self { address, len }.host_mask();
        (len <= 128).then(|| Self { address: Ipv6Addr::from_bits(address.to_bits() & !host_mask), len })
    }

    /// The bits that differ inside it.
    fn host_mask(self) -> u128 {
        u128::MAX.checked_shr(u32::from(self.len)).unwrap_or(0)
    }

    /// Its highest address.
    pub fn last(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.address.to_bits() | self.host_mask())
    }

    /// Whether the address is inside.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & !self.host_mask() == self.address.to_bits()
    }

    /// Whether they share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// All of its traffic.
    pub fn selector(self) -> TrafficSelector {
        TrafficSelector { addresses: AddressRange::V6(self.address, self.last()), ..TrafficSelector::ANY_V6 }
    }
}

impl std::fmt::Display for Prefix6 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl std::str::FromStr for Prefix6 {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("expected an IPv6 prefix like \"2a00::100/120\", found {text:?}");
        let (address, len) = text.split_once('/').unwrap_or((text, "128"));
        let address: Ipv6Addr = address.trim().parse().map_err(|_| fault())?;
        let len: u8 = len.trim().parse().map_err(|_| fault())?;
        if len > 128 {
            return Err(fault());
        }
        let prefix = Self { address, len };
        let base = Ipv6Addr::from_bits(address.to_bits() & !prefix.host_mask());
        if base == address {
            Ok(prefix)
        } else {
            Err(format!("{text:?} has bits set behind its length; did you mean \"{base}/{len}\"?"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let prefix: Prefix6 = "2a00::100/120".parse().unwrap();
        assert_eq!(prefix.last(), "2a00::1ff".parse::<Ipv6Addr>().unwrap());
        assert!(prefix.contains("2a00::1ff".parse().unwrap()));
        assert!(!prefix.contains("2a00::200".parse().unwrap()));
        assert_eq!(
            "2a00::101/120".parse::<Prefix6>().unwrap_err(),
            "\"2a00::101/120\" has bits set behind its length; did you mean \"2a00::100/120\"?"
        );
        let all: Prefix6 = "::/0".parse().unwrap();
        assert_eq!(all.last(), Ipv6Addr::from_bits(u128::MAX));
        assert_eq!(all.selector(), TrafficSelector::ANY_V6);
        assert_eq!(prefix.selector().to_string(), "2a00::100/120");
        assert!(all.overlaps(prefix) && prefix.overlaps(all) && prefix.overlaps(prefix));
        assert!(!prefix.overlaps("2a00::200/120".parse().unwrap()));
        assert!("2a00::/129".parse::<Prefix6>().is_err());
        assert!("10.0.0.0/8".parse::<Prefix6>().is_err());
    }
}
