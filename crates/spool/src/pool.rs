//! The producer's side: a process's segments, and a chain of them per thread.

use crate::layout::{
    ACTIVE, CLOSED, CONTROL, FULL, HEADER, Header, Ordering, RING_SEGMENT, SPILL_SEGMENT,
};
use crate::map::Map;
use crate::sys;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Where a process's segments go, and how many.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The run's directory, in shared memory if there is room.
    pub dir: PathBuf,
    /// Where segments go when the ring is exhausted: on disk.
    pub spill: PathBuf,
    /// Bytes of the ring segments of one process.
    pub ring_bytes: u64,
    /// Bytes of the spill files of one process; beyond them records are lost, and counted.
    pub spill_limit_bytes: u64,
}

/// Most segments that wait to be taken.
const SLOTS: usize = 64;
/// Segments kept ready when none is taken: 256 KiB. A thread that finds none makes its own, in about 50 µs; each that is
/// ready costs every program as much at its start.
const LEAST_READY: usize = 4;
/// How long a thread that finds none ready waits for the helper, which is making some right now. On a machine with
/// more work than processors the helper may stand still for tens of ms, and a record lost is worse than a wait.
const PATIENCE: Duration = Duration::from_millis(200);
/// Segments are ready for so long at the rate at which they are taken; when half are gone, the helper is woken. Waking a
/// thread costs the process about 50 µs.
const AHEAD: Duration = Duration::from_millis(20);
/// Pages that a thread may write to before the next tick: a burst fills a few.
const PAGES_AHEAD: usize = 8;
/// Ticks between two tries to make a spill file after one failed (a full disk).
const PAUSE: u32 = 64;
/// Ticks between two times that the memory of spill segments is given back.
const FORGET: u32 = 8;
/// Ticks after which drained spill files are removed.
const REST: u32 = 32;

/// One segment as its own process sees it.
struct Segment {
    map: Map,
    path: PathBuf,
    spill: bool,
    /// Which use of the file this is; see [`crate::layout::Owner::state`].
    take: AtomicU64,
    /// Its thread went on: set last, after everything in the header.
    used: AtomicBool,
    /// Its memory was given back to the kernel.
    cold: AtomicBool,
    /// Bytes that were written at the last tick.
    written: AtomicU64,
}

/// What producers share with the pool.
struct Shared {
    ready: [AtomicPtr<Segment>; SLOTS],
    /// How many of these are spill segments.
    ready_spill: AtomicU32,
    /// Segments taken since the last tick, and at how many the helper is woken.
    taken: AtomicU32,
    low: AtomicU32,
    /// The helper's thread, while there is one.
    bell: Mutex<Option<Thread>>,
    takes: AtomicU64,
    chains: AtomicU64,
    /// Places of the process's own file that are taken.
    places: AtomicU32,
    /// There is no segment to be had, as the last try showed.
    dry: AtomicBool,
    /// A thread has waited long enough for whoever holds the helper; the others need not, until that one is done.
    stuck: AtomicBool,
    helper: Mutex<Helper>,
    /// The process's own file: counts segment files, and losses of threads that never had a segment.
    control: Map,
}

impl Shared {
    /// A ready segment, if there is one: a bounded number of steps, whatever others do.
    fn pop(&self) -> Option<Arc<Segment>> {
        for slot in &self.ready {
            if slot.load(Ordering::Relaxed).is_null() {
                continue;
            }
            let at = slot.swap(null_mut(), Ordering::AcqRel); // pairs with `put`
            if !at.is_null() {
                let taken = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
                if taken == self.low.load(Ordering::Relaxed) {
                    self.ring();
                }
                // SAFETY: `put` stored it from `Arc::into_raw`, and the swap gave it to us alone.
                let segment = unsafe { Arc::from_raw(at) };
                if segment.spill {
                    self.ready_spill.fetch_sub(1, Ordering::Relaxed);
                }
                return Some(segment);
            }
        }
        None
    }

    /// Adds a segment to the ready ones; false if there is no place. Only called by the helper.
    fn put(&self, segment: &Arc<Segment>) -> bool {
        let Some(slot) = self
            .ready
            .iter()
            .find(|slot| slot.load(Ordering::Relaxed).is_null())
        else {
            return false;
        };
        if segment.spill {
            self.ready_spill.fetch_add(1, Ordering::Relaxed); // before a thread can take it
        }
        slot.store(
            Arc::into_raw(segment.clone()).cast_mut(),
            Ordering::Release, // pairs with `pop`
        );
        true
    }

    /// Whether [`Shared::pop`] would give this one now.
    fn is_next(&self, segment: &Arc<Segment>) -> bool {
        let ready = |slot: &AtomicPtr<Segment>| slot.load(Ordering::Relaxed).cast_const();
        let next = self.ready.iter().map(ready).find(|at| !at.is_null());
        next == Some(Arc::as_ptr(segment))
    }

    /// A segment where none was ready: this thread makes one itself, or waits for whoever is making some.
    #[cold]
    #[inline(never)]
    fn make(&self) -> Option<Arc<Segment>> {
        let mut since = None;
        while !self.dry.load(Ordering::Relaxed) {
            match self.helper.try_lock() {
                Ok(mut helper) => {
                    if self.ready() == 0 {
                        let _ = helper.tick(self, 1); // `dry` then says that there was none
                    }
                }
                Err(TryLockError::Poisoned(_)) => return None,
                Err(TryLockError::WouldBlock) => {
                    let since = *since.get_or_insert_with(Instant::now);
                    if self.stuck.load(Ordering::Relaxed) || since.elapsed() > PATIENCE {
                        self.stuck.store(true, Ordering::Relaxed);
                        return None;
                    }
                    std::thread::yield_now();
                }
            }
            if let Some(segment) = self.pop() {
                return Some(segment);
            }
        }
        None
    }

    /// Wakes the helper.
    #[cold]
    fn ring(&self) {
        if let Some(helper) = &*locked(&self.bell) {
            helper.unpark();
        }
    }

    fn ready(&self) -> usize {
        let here = |slot: &&AtomicPtr<Segment>| !slot.load(Ordering::Relaxed).is_null();
        self.ready.iter().filter(here).count()
    }

    /// The same in ring segments: what is ready is counted by its bytes.
    fn ready_size(&self) -> usize {
        let spill = self.ready_spill.load(Ordering::Relaxed) as usize;
        self.ready() + spill * (SPILL_SEGMENT / RING_SEGMENT - 1)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// All segments of one process.
///
/// A forked child must not touch its parent's: it lets go of it with [`std::mem::forget`] and makes its own.
pub struct Pool {
    shared: Arc<Shared>,
    names: Mutex<Producer>,
}

/// What the helper thread keeps.
struct Helper {
    pid: u32,
    start_ticks: u64,
    ring_dir: PathBuf,
    spill_dir: PathBuf,
    most_ring: usize,
    ring: usize,
    spill_limit_bytes: u64,
    spill_bytes: u64,
    /// Ticks until a spill file is tried again.
    pause: u32,
    /// Ticks so far, and when the last one was.
    ticks: u32,
    ticked: Instant,
    /// The last try found none to be had.
    exhausted: bool,
    /// The tick at which the ring was last not enough.
    spilled: u32,
    /// Next file's number.
    number: u64,
    /// In use or ready.
    live: Vec<Arc<Segment>>,
    /// Drained, not ready yet.
    idle: Vec<Arc<Segment>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // what these guard is whole at every moment, so a panic elsewhere does not spoil it
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Makes a directory in one that is there: a run that is over is not begun again.
fn make_dir(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// The directory of a run is believed if it is this user's own, and no link.
fn check_dir(path: &Path) -> io::Result<()> {
    match sys::is_own_dir(path) {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is not a directory of this user's",
        )),
    }
}

impl Pool {
    /// Makes the process's directories and first segments.
    ///
    /// # Errors
    /// Neither the ring's nor the spill's directory takes a segment.
    pub fn create(settings: &Settings, pid: u32, start_ticks: u64) -> io::Result<Pool> {
        let name = format!("{pid}-{start_ticks}");
        let (ring_dir, spill_dir) = (settings.dir.join(&name), settings.spill.join(&name));
        check_dir(&settings.dir)?;
        make_dir(&ring_dir)?;
        let control = Map::create(&ring_dir.join("process"), CONTROL, pid, start_ticks);
        let control = control.or_else(|_| {
            // not even a page is left in shared memory
            check_dir(&settings.spill)?;
            make_dir(&spill_dir)?;
            Map::create(&spill_dir.join("process"), CONTROL, pid, start_ticks)
        })?;
        let helper = Helper {
            pid,
            start_ticks,
            ring_dir,
            spill_dir,
            most_ring: usize::try_from(settings.ring_bytes / RING_SEGMENT as u64)
                .unwrap_or(usize::MAX)
                .max(2),
            ring: 0,
            spill_limit_bytes: settings.spill_limit_bytes,
            spill_bytes: 0,
            pause: 0,
            ticks: 0,
            ticked: Instant::now(),
            exhausted: false,
            spilled: 0,
            number: 0,
            live: Vec::new(),
            idle: Vec::new(),
        };
        let shared = Arc::new(Shared {
            ready: std::array::from_fn(|_| AtomicPtr::new(null_mut())),
            ready_spill: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            low: AtomicU32::new(LEAST_READY as u32 / 2),
            bell: Mutex::new(None),
            takes: AtomicU64::new(1),
            chains: AtomicU64::new(1),
            places: AtomicU32::new(0),
            dry: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            helper: Mutex::new(helper),
            control,
        });
        locked(&shared.helper).tick(&shared, LEAST_READY)?;
        let names = Mutex::new(Producer::new(&shared, 0));
        Ok(Pool { shared, names })
    }

    /// Readies segments ahead of the threads and takes back the drained ones. To be called when [`Pool::serve`]'s thread is
    /// woken, and every ten ms or so. Returns false if there are none to be had: to be called again in a ms.
    pub fn tick(&self) -> bool {
        let taken = self.shared.taken.swap(0, Ordering::Relaxed) as usize;
        let mut helper = locked(&self.shared.helper);
        let since = helper.ticked.elapsed().max(Duration::from_millis(1));
        helper.ticked = Instant::now();
        let ahead = AHEAD.as_secs_f64() / since.as_secs_f64();
        let target = (taken as f64 * ahead) as usize + LEAST_READY;
        // no segment to be had is no news here: producers count what they lose
        let _ = helper.tick(&self.shared, target.min(SLOTS));
        let low = (self.shared.ready() / 2).max(1);
        self.shared.low.store(low as u32, Ordering::Relaxed);
        !helper.exhausted
    }

    /// This thread is the helper, which waits with [`std::thread::park_timeout`]: it is woken when segments run low.
    pub fn serve(&self) {
        *locked(&self.shared.bell) = Some(std::thread::current());
    }

    /// A new chain for a thread. Takes its first segment with its first record.
    pub fn producer(&self, tid: u64) -> Producer {
        Producer::new(&self.shared, tid)
    }

    /// Appends to the process's names chain; false = lost and counted. Waits for other threads that do the same.
    pub fn push_names(&self, words: &[u64]) -> bool {
        let mut names = locked(&self.names);
        names.push(words)
    }

    /// Appends two records of the process that belong together.
    pub fn push_names_pair(&self, first: &[u64], second: &[u64]) -> bool {
        let mut names = locked(&self.names);
        names.push_pair(first, second)
    }

    /// Counts records of no thread's chain that were lost before they came here.
    pub fn lose(&self, records: u64) {
        let lost = &self.shared.control.head().producer.lost;
        lost.fetch_add(records, Ordering::Relaxed);
    }
}

impl Helper {
    /// Takes back what was drained, and has `target` ring segments, or the bytes of so many, ready if they can be had.
    fn tick(&mut self, shared: &Shared, target: usize) -> io::Result<()> {
        self.recycle();
        self.pause = self.pause.saturating_sub(1);
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(FORGET) {
            self.forget();
        }
        let mut result = Ok(());
        let mut exhausted = false;
        while shared.ready_size() < target {
            match self.segment(shared) {
                Ok(Some(segment)) => {
                    if !shared.put(&segment) {
                        self.idle.push(segment);
                        break;
                    }
                    self.live.push(segment);
                }
                Ok(None) => {
                    exhausted = true;
                    break;
                }
                Err(error) => {
                    exhausted = true;
                    self.pause = PAUSE;
                    if shared.ready() == 0 {
                        result = Err(error);
                    }
                    break;
                }
            }
        }
        self.touch(shared);
        self.exhausted = exhausted;
        // not when threads took what was made just now: there is more where that came from
        let dry = exhausted && shared.ready() == 0;
        shared.dry.store(dry, Ordering::Relaxed);
        shared.stuck.store(false, Ordering::Relaxed);
        self.retire();
        result
    }

    /// Takes back the segments that the consumer has read to their end.
    fn recycle(&mut self) {
        let mut at = 0;
        while at < self.live.len() {
            let segment = &self.live[at];
            let take = segment.take.load(Ordering::Relaxed);
            // the count tells that its thread has let go of it, so that unmapping never happens there
            if segment.used.load(Ordering::Acquire) && Arc::strong_count(segment) == 1 {
                if segment.map.head().drained(take) {
                    let segment = self.live.swap_remove(at);
                    segment.map.head().reset(take);
                    segment.used.store(false, Ordering::Relaxed);
                    self.idle.push(segment);
                    continue;
                }
                if segment.spill && !segment.cold.swap(true, Ordering::Relaxed) {
                    segment.map.forget_pages();
                }
            }
            at += 1;
        }
    }

    /// A free segment: a drained one, else a new one in the ring, else a new one on disk. `None` at the limit.
    fn segment(&mut self, shared: &Shared) -> io::Result<Option<Arc<Segment>>> {
        if let Some(at) = self.idle.iter().position(|segment| !segment.spill) {
            return Ok(Some(self.idle.swap_remove(at)));
        }
        if self.ring < self.most_ring {
            match self.make(shared, false) {
                Ok(segment) => {
                    self.ring += 1;
                    return Ok(Some(segment));
                }
                Err(_) => self.most_ring = self.ring, // shared memory is full: go on with what there is
            }
        }
        self.spilled = self.ticks;
        if let Some(segment) = self.idle.pop() {
            if segment.cold.swap(false, Ordering::Relaxed) {
                segment.map.recall_pages();
            }
            return Ok(Some(segment));
        }
        let bytes = SPILL_SEGMENT as u64;
        if self.pause > 0 || self.spill_bytes + bytes > self.spill_limit_bytes {
            return Ok(None);
        }
        let segment = self.make(shared, true)?;
        self.spill_bytes += bytes;
        Ok(Some(segment))
    }

    fn make(&mut self, shared: &Shared, spill: bool) -> io::Result<Arc<Segment>> {
        let (dir, bytes) = if spill {
            self.spill_dir.parent().map_or(Ok(()), check_dir)?;
            make_dir(&self.spill_dir)?;
            (&self.spill_dir, SPILL_SEGMENT)
        } else {
            (&self.ring_dir, RING_SEGMENT)
        };
        let path = dir.join(format!("{}.seg", self.number));
        let map = Map::create(&path, bytes, self.pid, self.start_ticks)?;
        self.number += 1;
        shared.control.head().publish(self.number);
        Ok(Arc::new(Segment {
            map,
            path,
            spill,
            take: AtomicU64::new(0),
            used: AtomicBool::new(false),
            cold: AtomicBool::new(false),
            written: AtomicU64::new(0),
        }))
    }

    /// Has the pages at hand that threads come to next, of those that have written since the last tick: what others
    /// hold may not be needed for long, and each page that is touched may cost this thread what its producer would pay.
    fn touch(&self, shared: &Shared) {
        for segment in self.live.iter().filter(|segment| !segment.spill) {
            let (head, map) = (segment.map.head(), &segment.map);
            let written = head.seen().written;
            if segment.written.swap(written, Ordering::Relaxed) == written
                || head.state().1 != ACTIVE
            {
                continue;
            }
            let rest = PAGES_AHEAD - map.touch(written, PAGES_AHEAD);
            if rest > 0
                && let Some(next) = self.live.iter().find(|next| shared.is_next(next))
            {
                next.map.touch(0, rest);
            }
        }
    }

    /// Gives back the memory of spill segments that are written to: a thread needs the page that it is at, and takes it
    /// again. Without this, each thread that ever got one holds 1 MiB for as long as it fills it.
    fn forget(&self) {
        let spills = self.live.iter().filter(|segment| segment.spill);
        let active = |segment: &&Arc<Segment>| segment.map.head().state().1 == ACTIVE;
        spills
            .filter(active)
            .for_each(|segment| segment.map.forget_pages());
    }

    /// Removes drained spill files when the ring has been enough for a while: to make one anew costs as much as a tenth of
    /// the records that go there.
    fn retire(&mut self) {
        if self.ticks.wrapping_sub(self.spilled) < REST {
            return;
        }
        self.idle.retain(|segment| {
            if segment.spill {
                let take = segment.take.load(Ordering::Relaxed);
                segment.map.head().finish(take, CLOSED); // tells the reader to let go
                let _ = fs::remove_file(&segment.path); // if it stays, the recorder removes it with the run
                self.spill_bytes -= SPILL_SEGMENT as u64;
            }
            !segment.spill
        });
    }
}

/// The end of a thread's chain that is written to.
pub struct Producer {
    shared: Arc<Shared>,
    segment: Option<Arc<Segment>>,
    /// Where the next record goes, and where there is no more room; our own copies, never read back.
    at: *mut u64,
    end: *mut u64,
    /// Of the segment; null while there is none.
    head: *const Header,
    written: u64,
    tid: u64,
    chain: u64,
    index: u64,
    /// Its place in the process's own file, if it has lost records before it had a segment.
    place: Option<usize>,
}

// SAFETY: the pointers are into the mapping that `segment` keeps, and only this producer writes there.
unsafe impl Send for Producer {}

impl Producer {
    fn new(shared: &Arc<Shared>, tid: u64) -> Producer {
        Producer {
            shared: shared.clone(),
            segment: None,
            at: null_mut(),
            end: null_mut(),
            head: null(),
            written: 0,
            tid,
            chain: shared.chains.fetch_add(1, Ordering::Relaxed),
            index: 0,
            place: None,
        }
    }

    #[inline(always)]
    fn fits(&self, words: usize) -> bool {
        (self.end as usize).wrapping_sub(self.at as usize) >= words * 8
    }

    /// Appends one record, whole or not at all; false: it was lost, and counted.
    ///
    /// Makes no system call and waits for nobody while the helper keeps up; see [`Pool::tick`].
    #[inline(always)]
    pub fn push(&mut self, words: &[u64]) -> bool {
        if words.is_empty() {
            return true; // costs nothing: callers' records have a known length
        }
        if !self.fits(words.len()) && !self.next(words.len()) {
            return false;
        }
        self.append(words);
        self.publish();
        true
    }

    /// Appends a text and the record it belongs to, side by side. If they are lost, that counts as one.
    pub fn push_pair(&mut self, first: &[u64], second: &[u64]) -> bool {
        let words = first.len() + second.len();
        if words == 0 {
            return true;
        }
        if !self.fits(words) && !self.next(words) {
            return false;
        }
        self.append(first);
        self.append(second);
        self.publish();
        true
    }

    /// The thread ended.
    pub fn close(self) {}

    #[inline(always)]
    fn append(&mut self, words: &[u64]) {
        // SAFETY: the caller saw that they fit before `end`; the consumer reads them only after `publish`.
        unsafe {
            std::ptr::copy_nonoverlapping(words.as_ptr(), self.at, words.len());
            self.at = self.at.add(words.len());
        }
        self.written += words.len() as u64 * 8;
    }

    #[inline(always)]
    fn publish(&mut self) {
        // SAFETY: records fit only where there is a segment, which keeps its mapping while it is here.
        unsafe { (*self.head).publish(self.written) };
    }

    /// Goes on to the next ready segment, or counts one loss.
    #[cold]
    #[inline(never)]
    fn next(&mut self, words: usize) -> bool {
        // a record larger than a ring segment would be lost in any: texts are cut well below that
        let most = (RING_SEGMENT - HEADER) / 8;
        let next = if words <= most {
            self.shared.pop().or_else(|| self.shared.make())
        } else {
            None
        };
        let Some(next) = next else {
            self.end = self.at; // no record goes where an earlier one was lost
            match &self.segment {
                Some(segment) => segment.map.head().lose(),
                None => self.lose_without_segment(),
            }
            return false;
        };
        let take = self.shared.takes.fetch_add(1, Ordering::Relaxed);
        next.take.store(take, Ordering::Relaxed);
        next.map.head().take(take, self.chain, self.tid, self.index);
        self.index += 1;
        self.written = 0;
        self.head = next.map.head();
        self.at = next.map.records();
        // SAFETY: one past the records of the mapping.
        self.end = unsafe { self.at.add(next.map.capacity() / 8) };
        if let Some(last) = self.segment.replace(next) {
            finish(last, FULL);
        }
        true
    }
}

impl Producer {
    /// Counts a loss in the process's own file: in a place of this thread's, while there are any.
    fn lose_without_segment(&mut self) {
        let places = self.shared.control.places();
        let at = *self.place.get_or_insert_with(|| {
            let at = self.shared.places.fetch_add(1, Ordering::Relaxed) as usize;
            if let Some(place) = places.get(at) {
                place.tid.store(self.tid, Ordering::Relaxed);
            }
            at
        });
        let lost = match places.get(at) {
            Some(place) => &place.lost,
            None => &self.shared.control.head().producer.lost,
        };
        lost.fetch_add(1, Ordering::Release); // after `tid`
    }
}

/// Ends a segment's use and lets go of it.
fn finish(segment: Arc<Segment>, state: u64) {
    let take = segment.take.load(Ordering::Relaxed);
    segment.map.head().finish(take, state);
    segment.used.store(true, Ordering::Release); // pairs with `recycle`
}

impl Drop for Producer {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take() {
            finish(segment, CLOSED);
        }
    }
}
