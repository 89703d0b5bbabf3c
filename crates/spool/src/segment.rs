//! The protocol of one segment: who stores what, in which order. Checked with loom.

use crate::layout::Ordering::{Acquire, Relaxed, Release};
use crate::layout::{ACTIVE, FREE, Header};

/// What the consumer found in a segment at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Bytes that may be read; to be checked against the capacity.
    pub written: u64,
    /// Records lost after them; more bytes never follow a loss.
    pub lost: u64,
}

/// Producer's side, and that of the helper beside it.
impl Header {
    /// Makes a free segment the `index`th of a chain. `take` is not 0 and new in the process.
    pub fn take(&self, take: u64, chain: u64, tid: u64, index: u64) {
        self.owner.chain.store(chain, Relaxed);
        self.owner.tid.store(tid, Relaxed);
        self.owner.index.store(index, Relaxed);
        self.owner.state.store(take << 2 | ACTIVE, Release); // pairs with `state`
    }

    /// Lets the consumer have the first `written` bytes.
    #[inline(always)]
    pub fn publish(&self, written: u64) {
        self.producer.written.store(written, Release); // pairs with `seen`
    }

    /// Counts one record lost after the last one here; nothing is written here after that.
    pub fn lose(&self) {
        let lost = self.producer.lost.load(Relaxed); // our own: no other thread stores it
        self.producer.lost.store(lost + 1, Release); // after `written`, so `seen` has all bytes before it
    }

    /// Nothing more comes: `state` is FULL or CLOSED.
    pub fn finish(&self, take: u64, state: u64) {
        self.owner.state.store(take << 2 | state, Release); // pairs with `state`: `written` and `lost` are final
    }

    /// Whether the consumer has read this use of the segment to its end.
    pub fn drained(&self, take: u64) -> bool {
        self.consumer.released.load(Acquire) == take // pairs with `release`
    }

    /// Readies a drained segment for its next use.
    pub fn reset(&self, take: u64) {
        self.owner.state.store(take << 2 | FREE, Relaxed);
        self.producer.written.store(0, Relaxed);
        self.producer.lost.store(0, Relaxed);
        self.consumer.read.store(0, Relaxed);
        self.consumer.lost_read.store(0, Relaxed);
        // the store of `take` that follows publishes all of these
    }
}

/// Consumer's side.
impl Header {
    /// The current `take` and its state.
    pub fn state(&self) -> (u64, u64) {
        let word = self.owner.state.load(Acquire);
        (word >> 2, word & 3)
    }

    /// What can be read now.
    pub fn seen(&self) -> Seen {
        let lost = self.producer.lost.load(Acquire);
        let written = self.producer.written.load(Acquire);
        Seen { written, lost }
    }

    /// What was read is safe; with `end`, this use of the segment is over and the file may be used again.
    pub fn release(&self, read: u64, lost: u64, end: Option<u64>) {
        self.consumer.read.store(read, Relaxed);
        self.consumer.lost_read.store(lost, Relaxed);
        if let Some(take) = end {
            self.consumer.released.store(take, Release); // after the last read of the bytes; pairs with `drained`
        }
    }
}

#[cfg(all(test, loom))]
mod tests {
    use crate::layout::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    struct Model {
        head: Header,
        bytes: [UnsafeCell<u64>; 2],
    }

    // SAFETY: the protocol under test is what makes the cells safe to share; loom reports where it does not.
    unsafe impl Sync for Model {}
    // SAFETY: plain integers.
    unsafe impl Send for Model {}

    fn zero() -> AtomicU64 {
        AtomicU64::new(0)
    }

    fn model() -> Arc<Model> {
        let head = Header {
            fixed: Fixed {
                magic: zero(),
                version: zero(),
                capacity: zero(),
                pid: zero(),
                start_ticks: zero(),
                pid_namespace: zero(),
            },
            owner: Owner {
                state: zero(),
                chain: zero(),
                tid: zero(),
                index: zero(),
            },
            producer: ProducerLine {
                written: zero(),
                lost: zero(),
            },
            consumer: ConsumerLine {
                read: zero(),
                lost_read: zero(),
                released: zero(),
            },
        };
        Arc::new(Model {
            head,
            bytes: [UnsafeCell::new(0), UnsafeCell::new(0)],
        })
    }

    /// Writes both records, loses one, ends the segment, and uses it again if it was drained.
    fn produce(model: &Model) {
        model.head.take(1, 1, 7, 0);
        for at in 0..2 {
            // SAFETY: not published yet; loom checks that nobody reads it.
            model.bytes[at].with_mut(|p| unsafe { *p = 10 + at as u64 });
            model.head.publish(at as u64 + 1);
        }
        model.head.lose();
        model.head.finish(1, FULL);
        if model.head.drained(1) {
            model.head.reset(1);
            model.head.take(2, 2, 8, 0);
            // SAFETY: as above.
            model.bytes[0].with_mut(|p| unsafe { *p = 20 });
            model.head.publish(1);
        }
    }

    #[test]
    fn what_is_published_is_whole_in_order_and_final_when_full() {
        loom::model(|| {
            let shared = model();
            let producer = {
                let shared = shared.clone();
                loom::thread::spawn(move || produce(&shared))
            };
            let mut done = 0;
            for _ in 0..2 {
                let (take, state) = shared.head.state();
                if take == 0 || take == done {
                    continue;
                }
                let (chain, tid) = (
                    shared.head.owner.chain.load(Ordering::Relaxed),
                    shared.head.owner.tid.load(Ordering::Relaxed),
                );
                assert_eq!((chain, tid), (take, take + 6), "facts of this use");
                let seen = shared.head.seen();
                assert!(
                    seen.lost == 0 || seen.written == 2,
                    "no bytes follow a loss"
                );
                for at in 0..seen.written as usize {
                    // SAFETY: published; loom checks that nobody writes it.
                    let value = shared.bytes[at].with(|p| unsafe { *p });
                    assert_eq!(value, take * 10 + at as u64);
                }
                let end = (state == FULL).then_some(take);
                if end.is_some() {
                    assert_eq!((seen.written, seen.lost), (2, 1), "final when full");
                    done = take;
                }
                shared.head.release(seen.written, seen.lost, end);
            }
            producer.join().unwrap();
        });
    }
}
