//! AES-CBC encryption of several packets side by side.
//!
//! In CBC each block waits for the one before, so one packet leaves the processor's AES units idle most of the time.
//! The packets of a batch are independent: taken in turns, block by block, they fill the pipeline.

use crate::provider::{LANES, Packet};
use aes::cipher::consts::U16;
use aes::cipher::{Block, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser};

/// Encrypts the texts in place. Lengths are checked before: whole blocks, IVs of 16 octets.
pub(crate) fn encrypt<C: BlockCipherEncrypt<BlockSize = U16>>(cipher: &C, packets: &mut [Packet<'_>; LANES]) {
    cipher.encrypt_with_backend(SideBySide { packets });
}

struct SideBySide<'a, 'p> {
    packets: &'a mut [Packet<'p>; LANES],
}

impl BlockSizeUser for SideBySide<'_, '_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for SideBySide<'_, '_> {
    // Inlined, so that it is compiled for the instructions that the backend has found.
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let mut states = self.packets.each_ref().map(|packet| {
            let mut state = Block::<B>::default();
            state.copy_from_slice(packet.iv);
            state
        });
        let mut texts = self.packets.each_mut().map(|packet| packet.text.as_chunks_mut::<16>().0);
        let shortest = texts.iter().map(|text| text.len()).min().unwrap_or(0);
        for at in 0..shortest {
            for (state, text) in states.iter_mut().zip(&texts) {
                xor(&mut state.0, &text[at]);
            }
            for state in &mut states {
                backend.encrypt_block_inplace(state);
            }
            for (state, text) in states.iter().zip(&mut texts) {
                text[at] = state.0;
            }
        }
        // The rest of those that are longer than the shortest.
        for (state, text) in states.iter_mut().zip(texts) {
            for block in &mut text[shortest..] {
                xor(&mut state.0, block);
                backend.encrypt_block_inplace(state);
                *block = state.0;
            }
        }
    }
}

#[inline(always)]
fn xor(state: &mut [u8; 16], block: &[u8; 16]) {
    for (state, octet) in state.iter_mut().zip(block) {
        *state ^= octet;
    }
}
