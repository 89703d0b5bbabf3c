//! Memory that CUPTI writes records to: zeroed, whole pages, handed out without a lock, since CUPTI asks for it on the
//! program's own threads.

use std::sync::atomic::{
    AtomicPtr, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// One buffer: CUPTI's documentation advises 1 to 10 MiB.
pub const BYTES: usize = 1 << 20;
/// Buffers that exist at most; beyond them records are dropped, and CUPTI counts those.
const MOST: usize = 256;
/// Buffers that are kept for the next time.
const KEPT: usize = 32;

static FREE: [AtomicPtr<u8>; KEPT] = [const { AtomicPtr::new(std::ptr::null_mut()) }; KEPT];
static MADE: AtomicUsize = AtomicUsize::new(0);

/// A buffer of [`BYTES`] zeros. `None` if there are too many and not one `more` is to be had, or no memory.
pub fn take(more: bool) -> Option<*mut u8> {
    for place in &FREE {
        if !place.load(Relaxed).is_null() {
            let found = place.swap(std::ptr::null_mut(), Acquire);
            if !found.is_null() {
                return Some(found);
            }
        }
    }
    if MADE.load(Relaxed) >= MOST && !more {
        return None;
    }
    // SAFETY: new memory of our own.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return None;
    }
    MADE.fetch_add(1, Relaxed);
    Some(at.cast())
}

/// Takes a buffer back whose first `used` bytes are written.
///
/// # Safety
/// It is from [`take`], and nobody uses it any more.
pub unsafe fn give(buffer: *mut u8, used: usize) {
    // SAFETY: as the caller promises; `used` is cut to the buffer's length.
    unsafe { std::ptr::write_bytes(buffer, 0, used.min(BYTES)) };
    for place in &FREE {
        let set = place.compare_exchange(std::ptr::null_mut(), buffer, Release, Relaxed);
        if set.is_ok() {
            return;
        }
    }
    // SAFETY: as above: the mapping is ours, and all of it.
    unsafe { libc::munmap(buffer.cast(), BYTES) };
    MADE.fetch_sub(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_zeroed_and_are_used_again() {
        let first = take(false).unwrap();
        // SAFETY: a buffer of our own, of BYTES.
        unsafe {
            first.write_bytes(7, 100);
            give(first, 100);
        }
        let again = take(false).unwrap();
        assert_eq!(again, first);
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts(again, BYTES) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        let many: Vec<_> = (0..MOST - 1).map_while(|_| take(false)).collect();
        assert_eq!(many.len(), MOST - 1);
        assert_eq!(take(false), None);
        let more = take(true).unwrap();
        // SAFETY: each is given back once.
        unsafe {
            for buffer in many.into_iter().chain([again, more]) {
                give(buffer, BYTES);
            }
        }
        assert_eq!(MADE.load(Relaxed), KEPT);
    }
}
