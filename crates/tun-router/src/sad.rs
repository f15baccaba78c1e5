//! The inbound Security Association Database (RFC 4301 section 4.4.2), by SPI, and the generator of our SPIs.
//!
//! We choose our inbound SPIs, so an SPI says where its SA is: `SPI % workers` is the worker that owns it, and the high
//! bits are its slot in that worker's table. A lookup is an array access and a comparison, however many SAs there are.

use ferry6_crypto::{SecureRandom, Spi};
use ferry6_ike::config::SpiGenerator;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The low bits of an SPI: random but for the owner, so that a slot's next SA has another SPI.
const RANDOM_BITS: u32 = 12;
/// Slots of one worker.
const SLOTS: usize = 1 << (u32::BITS - RANDOM_BITS);
/// Slots are made in chunks of so many.
const CHUNK: usize = 64;

/// Inbound SAs of one worker by SPI.
#[derive(Debug)]
pub struct Sad<T> {
    chunks: Vec<Option<Box<[Slot<T>; CHUNK]>>>,
    /// Those whose slot is another's: none, as long as the SPIs come from one [`SteeringSpis`].
    strays: HashMap<u32, Box<T>, BuildHasherDefault<NumberHash>>,
    len: usize,
}

#[derive(Debug)]
struct Slot<T> {
    spi: u32,
    sa: Option<Box<T>>,
}

impl<T> Default for Sad<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), strays: HashMap::default(), len: 0 }
    }
}

/// The slot of an SPI: which chunk, and where in it.
#[inline]
const fn place(spi: u32) -> (usize, usize) {
    let slot = (spi >> RANDOM_BITS) as usize;
    (slot / CHUNK, slot % CHUNK)
}

impl<T> Sad<T> {
    /// Enters an SA; returns the one that had this SPI.
    pub fn insert(&mut self, spi: Spi, sa: Box<T>) -> Option<Box<T>> {
        let spi = spi.get();
        let old = self.take(spi);
        let (chunk, at) = place(spi);
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let chunk =
            self.chunks[chunk].get_or_insert_with(|| Box::new([const { Slot { spi: 0, sa: None } }; CHUNK]));
        let slot = &mut chunk[at];
        if slot.sa.is_none() {
            *slot = Slot { spi, sa: Some(sa) };
        } else {
            self.strays.insert(spi, sa);
        }
        self.len += 1;
        old
    }

    /// Takes an SA out.
    pub fn remove(&mut self, spi: Spi) -> Option<Box<T>> {
        self.take(spi.get())
    }

    fn take(&mut self, spi: u32) -> Option<Box<T>> {
        let sa = match self.slot(spi) {
            Some(slot) => {
                slot.spi = 0;
                slot.sa.take()
            }
            None => self.strays.remove(&spi),
        };
        self.len -= usize::from(sa.is_some());
        sa
    }

    #[inline]
    fn slot(&mut self, spi: u32) -> Option<&mut Slot<T>> {
        let (chunk, at) = place(spi);
        let slot = &mut self.chunks.get_mut(chunk)?.as_mut()?[at];
        (slot.spi == spi).then_some(slot)
    }

    /// Looks an SA up.
    #[inline]
    pub fn get_mut(&mut self, spi: Spi) -> Option<&mut T> {
        let spi = spi.get();
        let (chunk, at) = place(spi);
        if let Some(Some(chunk)) = self.chunks.get_mut(chunk)
            && chunk[at].spi == spi
        {
            return chunk[at].sa.as_deref_mut();
        }
        if self.strays.is_empty() { None } else { self.strays.get_mut(&spi).map(|sa| &mut **sa) }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
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
#[derive(Clone, Debug)]
pub struct SpisInUse(Arc<Mutex<InUse>>);

#[derive(Debug)]
struct InUse {
    spis: HashSet<u32>,
    /// Of each worker.
    slots: Vec<Slots>,
}

/// The slots of one worker, and where the search for a free one goes on.
#[derive(Debug, Default)]
struct Slots {
    /// One bit each.
    used: Vec<u64>,
    count: usize,
    last: usize,
}

impl Slots {
    fn mark(&mut self, slot: usize, used: bool) {
        let (word, bit) = (slot / 64, 1 << (slot % 64));
        if self.used.len() <= word {
            self.used.resize(word + 1, 0);
        }
        if (self.used[word] & bit != 0) != used {
            self.used[word] ^= bit;
            self.count = if used { self.count + 1 } else { self.count - 1 };
        }
    }

    /// The next slot that is free, in turn, among so many that one that was given comes again only after a thousand
    /// others: by then it is marked as used, or its negotiation has failed. Few enough that the table stays dense.
    /// `None`: all are used.
    fn next(&mut self) -> Option<usize> {
        let span = (2 * self.count + 1024).min(SLOTS);
        let mut slot = self.last + 1;
        // Slot 0 has the SPIs below 256 in it; two turns come by every slot.
        for _ in 0..2 {
            while slot < span {
                let taken = self.used.get(slot / 64).map_or(0, |word| word >> (slot % 64));
                if taken & 1 == 0 {
                    self.last = slot;
                    return Some(slot);
                }
                slot += taken.trailing_ones() as usize;
            }
            slot = 1;
        }
        None
    }
}

impl SpisInUse {
    /// None, of so many workers.
    pub fn new(workers: usize) -> Self {
        let slots = (0..workers.max(1)).map(|_| Slots::default()).collect();
        Self(Arc::new(Mutex::new(InUse { spis: HashSet::new(), slots })))
    }
    /// An SA with this SPI is installed.
    pub fn add(&self, spi: Spi) {
        self.lock().set(spi, true);
    }
    /// It is removed: the SPI may be handed out again.
    pub fn remove(&self, spi: Spi) {
        self.lock().set(spi, false);
    }
    fn lock(&self) -> MutexGuard<'_, InUse> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InUse {
    fn set(&mut self, spi: Spi, used: bool) {
        let changed = if used { self.spis.insert(spi.get()) } else { self.spis.remove(&spi.get()) };
        if changed {
            let owner = owner(spi, self.slots.len());
            self.slots[owner].mark((spi.get() >> RANDOM_BITS) as usize, used);
        }
    }
}

/// SPIs with a slot of their own, spread over the workers in turn.
pub struct SteeringSpis {
    random: Box<dyn SecureRandom>,
    workers: usize,
    next: usize,
    in_use: SpisInUse,
    /// Of each worker.
    given: Vec<Given>,
}

/// The youngest SPIs that were handed out, installed or not: an SPI whose negotiation still goes on is in no table yet, and
/// must not go to another one.
#[derive(Default)]
struct Given {
    known: HashSet<u32>,
    order: VecDeque<u32>,
}

impl Given {
    fn remember(&mut self, spi: Spi, most: usize) {
        self.known.insert(spi.get());
        self.order.push_back(spi.get());
        if self.order.len() > most
            && let Some(old) = self.order.pop_front()
        {
            self.known.remove(&old);
        }
    }
}

/// How many are remembered for each of so many workers. The slots come in turn, a thousand at least, so this leaves half of
/// each slot's SPIs free; and more negotiations than that do not go on at once.
fn remembered(workers: usize) -> usize {
    (512 * ((1 << RANDOM_BITS) / workers)).clamp(1, 65_536)
}

/// After so many numbers that were taken, any SPI of the worker will do.
const TRIES: u16 = 256;

impl SteeringSpis {
    /// For the workers of `in_use`.
    pub fn new(random: Box<dyn SecureRandom>, in_use: SpisInUse) -> Self {
        let workers = in_use.lock().slots.len();
        let given = (0..workers).map(|_| Given::default()).collect();
        Self { random, workers, next: 0, in_use, given }
    }

    /// A fresh SPI that this worker owns.
    fn for_worker(&mut self, worker: usize) -> Spi {
        let mut in_use = self.in_use.lock();
        let mut slot = in_use.slots[worker].next();
        let given = &mut self.given[worker];
        let mut tries = 0_u16;
        loop {
            if tries == TRIES {
                slot = None;
            }
            tries = tries.saturating_add(1);
            let mut octets = [0; 4];
            self.random.fill(&mut octets).expect("the operating system's generator works once it is seeded");
            let mut value = u32::from_be_bytes(octets);
            // A million SAs on one worker: any SPI will do, the table takes it as a stray.
            if let Some(slot) = slot {
                value = ((slot as u32) << RANDOM_BITS) | (value % (1 << RANDOM_BITS));
            }
            let steered = value - value % self.workers as u32;
            let in_slot = |spi: &Spi| slot.is_none_or(|slot| (spi.get() >> RANDOM_BITS) as usize == slot);
            if let Some(spi) = steered.checked_add(worker as u32).and_then(Spi::new).filter(in_slot)
                && !in_use.spis.contains(&spi.get())
                && !given.known.contains(&spi.get())
            {
                given.remember(spi, remembered(self.workers));
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

    /// In turn, among the workers that own the fewest of the others.
    fn generate_beside(&mut self, others: &[Spi]) -> Spi {
        let owned = |worker: usize| others.iter().filter(|spi| owner(**spi, self.workers) == worker).count();
        let in_turn = (0..self.workers).map(|n| (self.next + n) % self.workers);
        let worker = in_turn.min_by_key(|worker| owned(*worker)).unwrap_or(self.next);
        self.next = (worker + 1) % self.workers;
        self.for_worker(worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry6_crypto::{CryptoError, provider::OsRandom};
    use proptest::prelude::*;

    fn generator(workers: usize) -> (SteeringSpis, SpisInUse) {
        let in_use = SpisInUse::new(workers);
        (SteeringSpis::new(Box::new(OsRandom), in_use.clone()), in_use)
    }

    #[test]
    fn spis_are_steered_and_unique() {
        for workers in [1, 2, 3, 7, 256] {
            let (mut spis, in_use) = generator(workers);
            let mut seen = HashSet::new();
            for i in 0..1000 {
                let spi = spis.generate();
                assert_eq!(owner(spi, workers), i % workers);
                assert!(seen.insert(spi));
                in_use.add(spi);
                let heir = spis.generate_in_place_of(spi);
                assert_eq!(owner(heir, workers), i % workers);
                assert!(seen.insert(heir));
                in_use.add(heir);
            }
        }
    }

    /// Negotiations that do not end, while many others begin, succeed or fail: no SPI of theirs is handed out again.
    #[test]
    fn what_is_not_installed_yet_is_not_given_again() {
        for workers in [1, 4, 256] {
            let (mut spis, in_use) = generator(workers);
            let mut seen = HashSet::new();
            let mut first = None;
            for i in 0..remembered(workers) {
                // All on one worker, which is the worst.
                let spi = match first {
                    None => *first.insert(spis.generate()),
                    Some(first) => spis.generate_in_place_of(first),
                };
                assert!(seen.insert(spi), "{workers} workers: {spi} was handed out twice, after {i}");
                // Some come and go at once.
                if i % 5 == 0 {
                    in_use.add(spi);
                    in_use.remove(spi);
                }
            }
            let strays = seen.iter().filter(|spi| owner(**spi, workers) != 0).count();
            assert_eq!(strays, 0);
            assert!(spis.given.iter().all(|given| given.order.len() <= remembered(workers)));
        }
    }

    #[test]
    fn those_of_one_tunnel_are_spread() {
        for workers in [1, 2, 3, 4] {
            let (mut spis, _in_use) = generator(workers);
            let mut all = vec![spis.generate()];
            // Meanwhile other tunnels come up.
            for n in 1..2 * workers {
                (0..n % 3).for_each(|_| assert!(!all.contains(&spis.generate())));
                all.push(spis.generate_beside(&all));
                let owners: HashSet<_> = all.iter().map(|spi| owner(*spi, workers)).collect();
                assert_eq!(owners.len(), workers.min(n + 1), "{workers} workers, {} SAs", n + 1);
            }
        }
    }

    #[test]
    fn each_installed_sa_has_a_slot_of_its_own_and_the_table_is_dense() {
        let (mut spis, in_use) = generator(2);
        let mut sads = [Sad::default(), Sad::default()];
        let mut installed = VecDeque::new();
        let mut rounds = 0;
        while rounds < 30_000 {
            rounds += 1;
            let spi = spis.generate();
            // Every third negotiation fails.
            if rounds % 3 != 0 {
                in_use.add(spi);
                assert!(sads[owner(spi, 2)].insert(spi, Box::new(rounds)).is_none());
                installed.push_back(spi);
            }
            if installed.len() > 5000 {
                let old = installed.pop_front().unwrap();
                in_use.remove(old);
                assert!(sads[owner(old, 2)].remove(old).is_some());
            }
        }
        for sad in &sads {
            assert!(sad.strays.is_empty(), "two SAs were given one slot");
            assert_eq!(sad.len(), 2500);
            assert!(sad.chunks.len() * CHUNK <= 2 * 2501 + 1024 + CHUNK, "{} chunks", sad.chunks.len());
        }
    }

    /// What is free is found, also behind long rows of used slots, and the last one too; then nothing is.
    #[test]
    fn slots_run_out() {
        let mut slots = Slots::default();
        let mut given = 0;
        while let Some(slot) = slots.next() {
            assert!(slot > 0 && slot < SLOTS);
            slots.mark(slot, true);
            given += 1;
        }
        assert_eq!((given, slots.count), (SLOTS - 1, SLOTS - 1));
        slots.mark(7, false);
        assert_eq!(slots.next(), Some(7));
    }

    #[test]
    fn without_a_slot_any_free_spi_is_given() {
        /// Gives low numbers only: most are no SPIs, the rest collide.
        struct Low(u32);
        impl SecureRandom for Low {
            fn fill(&mut self, out: &mut [u8]) -> Result<(), CryptoError> {
                self.0 += 1;
                out.copy_from_slice(&(self.0 % 260).to_be_bytes());
                Ok(())
            }
        }
        let in_use = SpisInUse::new(1);
        let mut spis = SteeringSpis::new(Box::new(Low(0)), in_use.clone());
        for slot in 0..SLOTS {
            in_use.lock().slots[0].mark(slot, true);
        }
        for spi in [256, 258, 259] {
            in_use.add(Spi::new(spi).unwrap());
        }
        assert_eq!(spis.generate().get(), 257);
    }

    proptest! {
        /// Whatever the SPIs, those of one slot among them, it does what a plain map does.
        #[test]
        fn equals_a_map(steps in proptest::collection::vec((0_u8..3, 0_u32..3, 0_u32..4), 1..200)) {
            let (mut sad, mut map) = (Sad::default(), HashMap::new());
            for (i, (step, slot, low)) in steps.into_iter().enumerate() {
                let number = (slot * 0x7ff_u32) << RANDOM_BITS | (256 + low);
                let spi = Spi::new(number).unwrap();
                match step {
                    0 => prop_assert_eq!(sad.insert(spi, Box::new(i)).map(|old| *old), map.insert(number, i)),
                    1 => prop_assert_eq!(sad.remove(spi).map(|old| *old), map.remove(&number)),
                    _ => prop_assert_eq!(sad.get_mut(spi).copied(), map.get(&number).copied()),
                }
                prop_assert_eq!(sad.len(), map.len());
                prop_assert_eq!(sad.is_empty(), map.is_empty());
            }
        }
    }
}
