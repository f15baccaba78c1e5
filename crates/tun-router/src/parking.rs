//! How a thread sleeps until there is a message, without a message that is slept through: the part of the mailboxes that is
//! neither the channel's nor the kernel's. Apart, so that its test can run it under every interleaving.

use std::sync::atomic::{AtomicBool, Ordering};

/// An atomic flag: the standard one, or that of a model checker.
pub(crate) trait Flag {
    fn swap(&self, value: bool) -> bool;
}

impl Flag for AtomicBool {
    fn swap(&self, value: bool) -> bool {
        Self::swap(self, value, Ordering::AcqRel)
    }
}

/// Whether the owner sleeps, or is about to.
///
/// All changes are swaps, so they have one order, and each sees what came before the last one: either the owner's comes after
/// the poster's, and then the owner sees the message; or the poster's comes after, and then it sees that the owner sleeps.
#[derive(Debug, Default)]
pub(crate) struct Parking<F = AtomicBool> {
    parked: F,
}

impl<F: Flag> Parking<F> {
    /// To be called after a message was put into the mailbox. `signal` ends the owner's sleep, or its next one.
    pub(crate) fn wake(&self, signal: impl FnOnce()) {
        if self.parked.swap(false) {
            signal();
        }
    }

    /// Sleeps by `block`; not at all where `nothing_waits` is false. The caller looks into its mailbox afterwards.
    pub(crate) fn park(&self, nothing_waits: impl FnOnce() -> bool, block: impl FnOnce()) {
        self.parked.swap(true);
        if nothing_waits() {
            block();
        }
        self.parked.swap(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::sync::atomic::{AtomicBool as LoomBool, AtomicUsize};
    use loom::sync::{Condvar, Mutex};
    use loom::thread;
    use std::sync::Arc;

    impl Flag for LoomBool {
        fn swap(&self, value: bool) -> bool {
            Self::swap(self, value, Ordering::AcqRel)
        }
    }

    /// A load and a store: what the model must find out.
    struct Torn(LoomBool);

    impl Flag for Torn {
        fn swap(&self, value: bool) -> bool {
            let before = self.0.load(Ordering::Acquire);
            self.0.store(value, Ordering::Release);
            before
        }
    }

    /// An eventfd: a write is kept until it is read.
    #[derive(Default)]
    struct Event {
        written: Mutex<bool>,
        changed: Condvar,
    }

    impl Event {
        fn write(&self) {
            *self.written.lock().unwrap() = true;
            self.changed.notify_one();
        }
        /// Poll, and the read that takes it off.
        fn block(&self) {
            let mut written = self.written.lock().unwrap();
            while !*written {
                written = self.changed.wait(written).unwrap();
            }
            *written = false;
        }
    }

    /// A mailbox whose channel orders no more than a channel must.
    struct Mailbox<F> {
        sent: AtomicUsize,
        parking: Parking<F>,
        event: Event,
    }

    /// `posters` threads post a message each, and the owner takes all of them. Loom runs every interleaving with so many
    /// preemptions, and every value that a load may return; a sleep that nobody ends is a deadlock, which it reports.
    fn every_message_is_taken<F: Flag + Send + Sync + 'static>(
        posters: usize,
        preemptions: Option<usize>,
        flag: fn() -> F,
    ) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = preemptions;
        model.check(move || {
            let mailbox = Arc::new(Mailbox {
                sent: AtomicUsize::new(0),
                parking: Parking { parked: flag() },
                event: Event::default(),
            });
            for _ in 0..posters {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || {
                    mailbox.sent.fetch_add(1, Ordering::Release);
                    mailbox.parking.wake(|| mailbox.event.write());
                });
            }
            let mut taken = 0;
            while taken < posters {
                let sent = mailbox.sent.load(Ordering::Acquire);
                if sent > taken {
                    taken = sent;
                    continue;
                }
                let nothing_waits = || mailbox.sent.load(Ordering::Acquire) == taken;
                mailbox.parking.park(nothing_waits, || mailbox.event.block());
            }
        });
    }

    #[test]
    fn no_message_is_slept_through_in_any_interleaving() {
        every_message_is_taken(1, None, || LoomBool::new(false));
        every_message_is_taken(2, Some(3), || LoomBool::new(false));
    }

    /// The model can fail: where two changes can cross, message and sleeper may miss each other.
    #[test]
    #[should_panic(expected = "deadlock")]
    fn with_a_torn_swap_one_is() {
        every_message_is_taken(1, None, || Torn(LoomBool::new(false)));
    }
}
