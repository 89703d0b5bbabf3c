//! What keeps a file that someone makes shorter from ending whoever has mapped it.
//!
//! A load or store behind the end of a mapped file is SIGBUS. While a [`Guard`] stands on a thread, the page in
//! question is replaced by an anonymous one of zeros and the access is made again: the file is then damaged, and the
//! reader finds that out as with any other damage.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::Once;

/// Bytes of the pages that are replaced: every page size of Linux is a multiple of it.
const PAGE: usize = 4096;

thread_local! {
    static STANDS: Cell<u32> = const { Cell::new(0) };
}

/// What SIGBUS did before; only written before the handler is there.
static mut BEFORE: MaybeUninit<libc::sigaction> = MaybeUninit::uninit();

/// Stands while this thread reads mappings that others may cut.
pub struct Guard(());

impl Guard {
    /// Installs the handler, the first time.
    pub fn new() -> Guard {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(install);
        STANDS.with(|stands| stands.set(stands.get() + 1));
        Guard(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        STANDS.with(|stands| stands.set(stands.get() - 1));
    }
}

fn install() {
    // SAFETY: all zeroes is a valid sigaction; the handler is a function of the signature that SA_SIGINFO asks for,
    // and `BEFORE` is written before it can run for the first time.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        let before = (&raw mut BEFORE).cast::<libc::sigaction>();
        libc::sigaction(libc::SIGBUS, null_mut(), before);
        libc::sigaction(libc::SIGBUS, &action, null_mut());
    }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let stands = STANDS.try_with(Cell::get).unwrap_or(0);
    // SAFETY: the kernel hands over a whole siginfo_t, and a SIGBUS has an address; mmap and sigaction are system
    // calls and touch nothing of ours. The replaced page is one that cannot be accessed as it is.
    unsafe {
        if stands > 0 && (*info).si_code == libc::BUS_ADRERR {
            let page = (*info).si_addr() as usize / PAGE * PAGE;
            let replaced = libc::mmap(
                page as *mut libc::c_void,
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            );
            if replaced != libc::MAP_FAILED {
                return;
            }
        }
        // not ours: what was there before gets it, as the access is made again
        libc::sigaction(signal, (&raw const BEFORE).cast(), null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Ordering::Relaxed;
    use crate::map::Map;

    #[test]
    fn a_file_that_is_cut_while_it_is_mapped_reads_as_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.seg");
        let made = Map::create(&path, 3 * PAGE, 1, 2).unwrap();
        made.head().producer.written.store(64, Relaxed);
        let map = Map::open(&path, 1, 2).unwrap();
        let guard = Guard::new();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(0).unwrap();
        assert_eq!(map.head().seen().written, 0);
        let mut bytes = Vec::new();
        map.copy(0, map.capacity() as u64, &mut bytes);
        assert_eq!(bytes.len(), map.capacity());
        assert!(bytes.iter().all(|byte| *byte == 0));
        drop(guard);
    }
}
