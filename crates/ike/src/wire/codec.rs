//! Reading and writing octets: the only place with arithmetic on lengths.

use super::WireError;

/// A cursor over received octets. Each read names the structure, so that an error says where the octets ended.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(what: &'static str, octets: &'a [u8]) -> Self {
        Self { rest: octets, what }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or(WireError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated { what: self.what })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[octet]| octet)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// All that is left.
    pub(super) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The content of a structure of `total` octets, of which `header` octets have been read already.
    pub(super) fn body(&mut self, total: u16, header: usize) -> Result<&'a [u8], WireError> {
        let total = usize::from(total);
        let len = total
            .checked_sub(header)
            .filter(|len| *len <= self.rest.len())
            .ok_or(WireError::Length { what: self.what, length: total })?;
        self.take(len)
    }

    /// Nothing may be left.
    pub(super) const fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Invalid { what: self.what, problem: "octets behind its end" })
        }
    }
}

/// Writes a two-octet length at `at` that counts from `start` to the end of `out`.
///
/// # Panics
/// Where the structure is longer than 65,535 octets: see [`super::encode_payloads`].
pub(super) fn fill_length(out: &mut [u8], start: usize, at: usize) {
    let length = u16::try_from(out.len() - start).expect("callers bound what goes into one payload");
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

/// Constants for the numbers of an IANA registry, and `name` for those that have one.
macro_rules! numbers {
    ($(#[$meta:meta])* $vis:vis mod $module:ident: $int:ty { $($(#[$doc:meta])* $name:ident = $value:literal,)* }) => {
        $(#[$meta])*
        $vis mod $module {
            $($(#[$doc])* pub const $name: $int = $value;)*

            /// The name that IANA gives to a number.
            pub const fn name(number: $int) -> Option<&'static str> {
                match number {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// All numbers that have a name.
            pub const ALL: &[$int] = &[$($value),*];
        }
    };
}
pub(super) use numbers;

/// Prints a number by its name, or as `kind number` where it has none.
pub(super) fn write_name(
    f: &mut std::fmt::Formatter<'_>,
    name: Option<&str>,
    kind: &str,
    number: u16,
) -> std::fmt::Result {
    match name {
        Some(name) => f.write_str(name),
        None => write!(f, "{kind} {number}"),
    }
}
