//! Names of kernels: a dispatch has a number only, and what it stands for is told when code is loaded.

use super::layout::{Fields, LONGEST, callback, symbol};
use super::table::Sdk;
use crate::hot::locked;
use crate::inject::guard;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Kernels that are known by name; PyTorch's own libraries have some ten thousand.
const MOST: usize = 1 << 20;
/// Version of the SDK whose callback record has an ancestor.
const ANCESTOR: u32 = 10_000;

#[derive(Clone)]
pub struct Kernel {
    pub name: CString,
    /// Vector registers of a work item.
    pub registers: u32,
}

static KERNELS: Mutex<Option<HashMap<u64, Kernel>>> = Mutex::new(None);
static DAMAGED: AtomicU64 = AtomicU64::new(0);

/// Asks to be told of the code that is loaded.
///
/// # Errors
/// What the SDK returned.
pub fn watch(sdk: &Sdk, context: u64, version: u32) -> Result<(), u32> {
    let Some(ask) = sdk.rocprofiler_configure_callback_tracing_service else {
        return Err(17);
    };
    let told = match version < ANCESTOR {
        true => told_old as *const c_void,
        false => told_new as *const c_void,
    };
    let (none, data) = (std::ptr::null(), std::ptr::null_mut());
    // SAFETY: the SDK's function of that name (callback_tracing.h). Whichever is passed takes that version's record by
    // value, and two pointers; both are ours and stay.
    match unsafe { ask(context, callback::CODE_OBJECT, none, 0, told, data) } {
        0 => Ok(()),
        result => Err(result),
    }
}

/// The kernel of that number.
pub fn get(id: u64) -> Option<Kernel> {
    locked(&KERNELS).as_ref()?.get(&id).cloned()
}

/// How many are known.
pub fn known() -> usize {
    locked(&KERNELS).as_ref().map_or(0, HashMap::len)
}

/// Records that could not be read.
pub fn damaged() -> u64 {
    DAMAGED.load(Relaxed)
}

/// `rocprofiler_callback_tracing_record_t` before 1.0, of 56 bytes.
#[repr(C)]
struct Old([u64; 7]);
/// Since then: of 64 bytes.
#[repr(C)]
struct New([u64; 8]);

/// Code is loaded or goes, on the thread that loads it.
unsafe extern "C" fn told_old(record: Old, _user: *mut c_void, _data: *mut c_void) {
    // SAFETY: the SDK's record of this version, whose payload is there for the time of this call.
    guard((), || unsafe { told(&record.0, callback::OLD_KIND) });
}

unsafe extern "C" fn told_new(record: New, _user: *mut c_void, _data: *mut c_void) {
    // SAFETY: as above.
    guard((), || unsafe { told(&record.0, callback::NEW_KIND) });
}

/// # Safety
/// If the word `kind` of the record says that it is of a code object, its payload is of one.
unsafe fn told(record: &[u64], kind: usize) {
    let (low, high) = (|word: u64| word as u32, |word: u64| (word >> 32) as u32);
    if low(record[kind]) != callback::CODE_OBJECT {
        DAMAGED.fetch_add(1, Relaxed); // another layout than the version's
        return;
    }
    // What goes keeps its name: its last records may come later, and no number is given twice.
    if high(record[kind]) != callback::KERNEL_SYMBOL || low(record[kind + 1]) != callback::LOAD {
        return;
    }
    let at = record[kind + 2] as *const u8;
    if at.is_null() {
        return;
    }
    // SAFETY: as the caller promises; every payload begins with its size.
    let size = unsafe { at.cast::<u64>().read_unaligned() };
    if !(symbol::LEAST..=LONGEST).contains(&size) {
        DAMAGED.fetch_add(1, Relaxed);
        return;
    }
    // SAFETY: as the caller promises, it is that long.
    let data = Fields(unsafe { std::slice::from_raw_parts(at, size as usize) });
    let name = data.u64(symbol::NAME) as *const c_char;
    if name.is_null() {
        return;
    }
    // SAFETY: a C string of the code object's.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    // The symbol is the kernel's descriptor.
    let name = name.strip_suffix(b".kd").unwrap_or(name);
    let kernel = Kernel {
        name: CString::new(name).unwrap_or_default(),
        registers: data.u32(symbol::REGISTERS),
    };
    let mut kernels = locked(&KERNELS);
    let kernels = kernels.get_or_insert_default();
    if kernels.len() < MOST {
        kernels.insert(data.u64(symbol::KERNEL), kernel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(id: u64, name: &CStr) -> [u64; 9] {
        let mut data = [0; 9];
        (data[0], data[1], data[3]) = (72, id, name.as_ptr() as u64);
        data[7] = 24 << 32;
        data
    }

    #[test]
    fn a_symbol_is_read_in_both_layouts_and_no_other_is() {
        let of = u64::from(callback::CODE_OBJECT) | u64::from(callback::KERNEL_SYMBOL) << 32;
        let (one, two) = (symbol(71, c"_Z1fv.kd"), symbol(72, c"plain"));
        let old = [1, 2, 3, 4, of, 1, one.as_ptr() as u64];
        let new = [1, 2, 3, 4, 5, of, 1, two.as_ptr() as u64];
        // SAFETY: the payloads are symbols' data, with C strings.
        unsafe {
            told(&old, callback::OLD_KIND);
            told(&new, callback::NEW_KIND);
        }
        let name = |id| get(id).map(|kernel| (kernel.name, kernel.registers));
        assert_eq!(name(71), Some((c"_Z1fv".to_owned(), 24)));
        assert_eq!(name(72), Some((c"plain".to_owned(), 24)));
        let before = damaged();
        // SAFETY: no word says that it is of a code object, so nothing is followed.
        unsafe { told(&[1, 2, 3, 4, 0, 0, 99], callback::OLD_KIND) };
        assert_eq!(damaged(), before + 1);
        // SAFETY: as the first; it goes, and is left alone.
        unsafe { told(&[1, 2, 3, 4, of, 2, 99], callback::OLD_KIND) };
        assert!(name(71).is_some());
    }
}
