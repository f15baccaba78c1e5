//! The inbound Security Association Database (RFC 4301 section 4.4.2), by SPI, and the generator of our SPIs.

use ferry6_crypto::{SecureRandom, Spi};
use ferry6_ike::config::SpiGenerator;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Inbound SAs of one worker by SPI.
#[derive(Debug)]
pub struct Sad<T> {
    table: HashMap<u32, Box<T>, BuildHasherDefault<NumberHash>>,
}

impl<T> Default for Sad<T> {
    fn default() -> Self {
        Self { table: HashMap::default() }
    }
}

impl<T> Sad<T> {
    /// Enters an SA; returns the one that had this SPI.
    pub fn insert(&mut self, spi: Spi, sa: Box<T>) -> Option<Box<T>> {
        self.table.insert(spi.get(), sa)
    }
    /// Takes an SA out.
    pub fn remove(&mut self, spi: Spi) -> Option<Box<T>> {
        self.table.remove(&spi.get())
    }
    /// Looks an SA up.
    #[inline]
    pub fn get_mut(&mut self, spi: Spi) -> Option<&mut T> {
        self.table.get_mut(&spi.get()).map(|sa| &mut **sa)
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.table.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

/// A hash for SPIs and reqids. Those in our tables are our own choice, so nobody can make them collide: one multiplication
/// spreads them.
#[derive(Clone, Copy, Debug, Default)]
pub struct NumberHash(u64);

impl Hasher for NumberHash {
    #[inline]
    fn write_u32(&mut self, value: u32) {
        let product = u64::from(value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.write_u32(self.0 as u32 ^ u32::from(*octet));
        }
    }
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// The worker that owns an inbound SPI.
#[inline]
pub const fn owner(spi: Spi, workers: usize) -> usize {
    spi.get() as usize % workers
}

/// SPIs of installed inbound SAs, shared by the generator and the control thread.
#[derive(Clone, Debug, Default)]
pub struct SpisInUse(Arc<Mutex<HashSet<u32>>>);

impl SpisInUse {
    /// An SA with this SPI is installed.
    pub fn add(&self, spi: Spi) {
        self.lock().insert(spi.get());
    }
    /// It is removed: the SPI may be handed out again.
    pub fn remove(&self, spi: Spi) {
        self.lock().remove(&spi.get());
    }
    fn contains(&self, spi: Spi) -> bool {
        self.lock().contains(&spi.get())
    }
    fn lock(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Random SPIs, spread over the workers in turn.
pub struct SteeringSpis {
    random: Box<dyn SecureRandom>,
    workers: usize,
    next: usize,
    in_use: SpisInUse,
    /// The latest, which may not be installed yet. Most negotiations that fail never come to an installation, so older ones
    /// are forgotten.
    latest: VecDeque<Spi>,
}

/// More negotiations than these are hardly under way at one time.
const LATEST: usize = 1024;

impl SteeringSpis {
    /// For this many workers, at least one.
    pub fn new(random: Box<dyn SecureRandom>, workers: usize, in_use: SpisInUse) -> Self {
        Self { random, workers: workers.max(1), next: 0, in_use, latest: VecDeque::new() }
    }

    /// A fresh SPI that this worker owns.
    fn for_worker(&mut self, worker: usize) -> Spi {
        loop {
            let mut octets = [0; 4];
            self.random.fill(&mut octets).expect("the operating system's generator works once it is seeded");
            let value = u32::from_be_bytes(octets);
            let workers = self.workers as u32;
            let steered = value - value % workers;
            if let Some(spi) = steered.checked_add(worker as u32).and_then(Spi::new)
                && !self.in_use.contains(spi)
                && !self.latest.contains(&spi)
            {
                if self.latest.len() == LATEST {
                    self.latest.pop_front();
                }
                self.latest.push_back(spi);
                return spi;
            }
        }
    }
}

impl SpiGenerator for SteeringSpis {
    fn generate(&mut self) -> Spi {
        let worker = self.next;
        self.next = (self.next + 1) % self.workers;
        self.for_worker(worker)
    }

    fn generate_in_place_of(&mut self, old: Spi) -> Spi {
        self.for_worker(owner(old, self.workers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry6_crypto::{CryptoError, provider::OsRandom};

    #[test]
    fn spis_are_steered_and_unique() {
        for workers in [1, 2, 3, 7] {
            let in_use = SpisInUse::default();
            let mut spis = SteeringSpis::new(Box::new(OsRandom), workers, in_use.clone());
            let mut seen = HashSet::new();
            for i in 0..1000 {
                let spi = spis.generate();
                assert_eq!(owner(spi, workers), i % workers);
                assert!(seen.insert(spi));
                let heir = spis.generate_in_place_of(spi);
                assert_eq!(owner(heir, workers), i % workers);
                assert!(seen.insert(heir));
            }
        }
    }

    /// Gives low numbers only: most are no SPIs, the rest collide.
    struct Low(u32);
    impl SecureRandom for Low {
        fn fill(&mut self, out: &mut [u8]) -> Result<(), CryptoError> {
            self.0 += 1;
            out.copy_from_slice(&(self.0 % 260).to_be_bytes());
            Ok(())
        }
    }

    #[test]
    fn reserved_and_used_spis_are_skipped() {
        let in_use = SpisInUse::default();
        let mut spis = SteeringSpis::new(Box::new(Low(0)), 1, in_use.clone());
        let got: HashSet<_> = (0..4).map(|_| spis.generate().get()).collect();
        assert_eq!(got, HashSet::from([256, 257, 258, 259]));
        // Three of them are installed; the fourth is forgotten in the course of time.
        for spi in [256, 258, 259] {
            in_use.add(Spi::new(spi).unwrap());
        }
        spis.latest.clear();
        assert_eq!(spis.generate().get(), 257);
        in_use.remove(Spi::new(258).unwrap());
        assert_eq!(spis.generate().get(), 258);
    }

    #[test]
    fn table() {
        let mut sad = Sad::default();
        let (a, b) = (Spi::new(256).unwrap(), Spi::new(u32::MAX).unwrap());
        assert!(sad.is_empty());
        sad.insert(a, Box::new(1));
        sad.insert(b, Box::new(2));
        assert_eq!(sad.get_mut(a), Some(&mut 1));
        assert_eq!(sad.remove(a), Some(Box::new(1)));
        assert_eq!(sad.get_mut(a), None);
        assert_eq!(sad.len(), 1);
    }
}
