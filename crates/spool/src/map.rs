//! Files as mappings: made whole before they have their name, checked before they are believed.

use crate::layout::{
    AtomicU64, HEADER, Header, MAGIC, MOST_SEGMENT, Ordering::Relaxed, PLACES, Place, VERSION,
};
use crate::record::SLOT;
use crate::sys;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Addresses of mappings are multiples of this. Where pages are larger, each is looked at more than once.
const PAGE: usize = 4096;

/// A segment file in memory. The header was checked, and the capacity is our own copy of it.
#[derive(Debug)]
pub struct Map {
    raw: MmapRaw,
    capacity: usize,
}

impl Map {
    /// Makes a file of `bytes`, allocated on its file system (a store to a hole in a full one would be SIGBUS) and
    /// in memory, at `path`. It has no owner.
    ///
    /// # Errors
    /// The file system's: no space, no right.
    pub fn create(path: &Path, bytes: usize, pid: u32, start_ticks: u64) -> io::Result<Map> {
        let unnamed = path.with_extension("new");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true) // and so never through a link
            .mode(0o600)
            .open(&unnamed)?;
        let made = Map::fill(&file, bytes, pid, start_ticks)
            .and_then(|map| fs::rename(&unnamed, path).map(|()| map));
        if made.is_err() {
            let _ = fs::remove_file(&unnamed); // the error that matters is the first one
        }
        made
    }

    fn fill(file: &File, bytes: usize, pid: u32, start_ticks: u64) -> io::Result<Map> {
        // SAFETY: an open descriptor and plain numbers.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) } {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        let raw = MmapOptions::new().len(bytes).map_raw(file)?;
        if !populate(&raw) {
            // before Linux 5.14: touch each page
            for at in (0..raw.len()).step_by(PAGE) {
                // SAFETY: inside the mapping, which nobody else has yet.
                unsafe { raw.as_mut_ptr().add(at).write_volatile(0) };
            }
        }
        let map = Map {
            raw,
            capacity: (bytes - HEADER) / SLOT * SLOT,
        };
        let fixed = &map.head().fixed;
        fixed.version.store(VERSION, Relaxed);
        fixed.capacity.store(map.capacity as u64, Relaxed);
        fixed.pid.store(pid.into(), Relaxed);
        fixed.start_ticks.store(start_ticks, Relaxed);
        fixed.pid_namespace.store(sys::pid_namespace(), Relaxed);
        fixed.magic.store(MAGIC, Relaxed);
        Ok(map)
    }

    /// Maps a file that someone else made.
    ///
    /// # Errors
    /// `InvalidData` for what is not a segment of this version, of this process and of this user; else the file
    /// system's.
    pub fn open(path: &Path, pid: u32, start_ticks: u64) -> io::Result<Map> {
        let no = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let facts = file.metadata()?;
        if facts.uid() != sys::user() {
            return Err(no("another user's"));
        }
        if !facts.is_file() || facts.len() < HEADER as u64 || facts.len() > MOST_SEGMENT {
            return Err(no("not the size of a segment"));
        }
        let raw = MmapOptions::new()
            .len(facts.len() as usize)
            .map_raw(&file)?;
        let map = Map {
            capacity: raw.len() - HEADER,
            raw,
        };
        let fixed = &map.head().fixed;
        if fixed.magic.load(Relaxed) != MAGIC {
            return Err(no("not a segment"));
        }
        if fixed.version.load(Relaxed) != VERSION {
            return Err(no("a segment of another version"));
        }
        if fixed.pid.load(Relaxed) != u64::from(pid)
            || fixed.start_ticks.load(Relaxed) != start_ticks
        {
            return Err(no("a segment of another process"));
        }
        let capacity = fixed.capacity.load(Relaxed);
        if capacity > map.capacity as u64 || !capacity.is_multiple_of(SLOT as u64) {
            return Err(no("a segment shorter than it says"));
        }
        Ok(Map {
            capacity: capacity as usize,
            ..map
        })
    }

    /// The header.
    pub fn head(&self) -> &Header {
        // SAFETY: the mapping is at least HEADER long, page-aligned, lives as long as `self`, and the header is only
        // atomic integers, valid in any bits.
        unsafe { &*self.raw.as_ptr().cast::<Header>() }
    }

    /// Bytes for records.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The places of the process's own file; as many as there are.
    pub fn places(&self) -> &[Place] {
        let count = (self.capacity / size_of::<Place>()).min(PLACES);
        // SAFETY: so many are inside the mapping, 8-aligned, and they are only atomic integers.
        unsafe { std::slice::from_raw_parts(self.records().cast::<Place>(), count) }
    }

    /// Where the records begin; `capacity` bytes from there are mapped.
    pub fn records(&self) -> *mut u64 {
        // SAFETY: HEADER is inside the mapping.
        unsafe { self.raw.as_mut_ptr().add(HEADER).cast() }
    }

    /// A copy of the bytes from `from` to `to`, as much of it as is inside: bytes that a hostile producer may change
    /// are looked at once only.
    pub fn copy(&self, from: u64, to: u64, into: &mut Vec<u8>) {
        into.clear();
        let to = to.min(self.capacity as u64) as usize / 8;
        let from = (from.min(self.capacity as u64) as usize / 8).min(to);
        into.resize((to - from) * 8, 0);
        for (at, word) in (from..to).zip(into.chunks_exact_mut(8)) {
            // SAFETY: below the capacity, 8-aligned; an atomic may be read whatever others do.
            let read = unsafe { (*self.records().add(at).cast::<AtomicU64>()).load(Relaxed) };
            word.copy_from_slice(&read.to_le_bytes());
        }
    }

    /// Writes to `count` pages from the one on that byte `from` of the records is on, or to as many as there are, and
    /// changes nothing in them: what it takes to have a page at hand is not the producer's then. How many there were.
    ///
    /// A machine that is a guest may have to wait for its host at the first store to a page since the host last looked which
    /// ones changed: for 0.13 ms where that was measured, the time of a thousand records.
    pub fn touch(&self, from: u64, count: usize) -> usize {
        let first = (HEADER + from.min(self.capacity as u64) as usize) / PAGE;
        let pages = (first..self.raw.len() / PAGE).take(count);
        let found = pages.len();
        for page in pages {
            // SAFETY: inside the mapping.
            unsafe { touch(self.raw.as_mut_ptr().add(page * PAGE)) };
        }
        found
    }

    /// Has the memory that [`Map::forget_pages`] gave back again, before it is written to.
    pub fn recall_pages(&self) {
        populate(&self.raw); // if not, whoever writes there takes the page faults
    }

    /// Gives the memory of the records back to the kernel, which has them in the file.
    pub fn forget_pages(&self) {
        // the header stays
        if self.raw.len() > PAGE {
            // SAFETY: inside the mapping, which is shared with a file: no byte changes.
            unsafe {
                let at = self.raw.as_mut_ptr().add(PAGE);
                libc::madvise(at.cast(), self.raw.len() - PAGE, libc::MADV_DONTNEED);
            }
        }
    }
}

/// A store that changes nothing, also to a byte that its producer writes at the same moment. No operation of an atomic: the
/// compiler may take one that changes nothing for a load, and the producer's stores are none.
///
/// # Safety
/// The byte is mapped.
unsafe fn touch(at: *mut u8) {
    // SAFETY: as the caller promises; one locked instruction, which leaves the byte as it is.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("lock or byte ptr [{}], 0", in(reg) at, options(nostack));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at; // whoever writes there first takes what comes
}

/// Takes the page faults now, off the producer's path; false if this kernel cannot.
fn populate(raw: &MmapRaw) -> bool {
    // SAFETY: the mapping's own address and length; no byte of it changes.
    let failed = unsafe {
        libc::madvise(
            raw.as_mut_ptr().cast(),
            raw.len(),
            libc::MADV_POPULATE_WRITE,
        )
    };
    failed == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::RING_SEGMENT;

    #[test]
    fn touching_a_page_loses_no_store_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let map = Map::create(&dir.path().join("0.seg"), RING_SEGMENT, 1, 1).unwrap();
        let at = map.records() as usize;
        let bytes = (RING_SEGMENT - HEADER) / 8;
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                for round in 1..=200_u64 {
                    for word in 0..bytes {
                        // SAFETY: inside the mapping, which outlives this thread.
                        unsafe { (at as *mut u64).add(word).write_volatile(round) };
                    }
                }
            });
            while !writer.is_finished() {
                map.touch(0, RING_SEGMENT / PAGE);
            }
        });
        let mut got = Vec::new();
        map.copy(0, u64::MAX, &mut got);
        assert_eq!(got.len(), bytes * 8);
        assert!(got.chunks(8).all(|word| word == 200_u64.to_le_bytes()));
        assert_eq!(map.touch(u64::MAX, usize::MAX), 0); // there is nothing behind the end
    }
}
