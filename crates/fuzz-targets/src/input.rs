//! Takes decisions off the front of the fuzzer's octets; whatever is missing is zero, so each input means something.

use ferry6_crypto::CipherSuite;

pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let taken = N.min(self.0.len());
        let mut octets = [0; N];
        octets[..taken].copy_from_slice(&self.0[..taken]);
        self.0 = &self.0[taken..];
        octets
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(crate) fn suite(&mut self) -> CipherSuite {
        let index = usize::from(self.u8()) % CipherSuite::all().count();
        CipherSuite::all().nth(index).expect("below their number")
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
