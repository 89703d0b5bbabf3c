//! NVTX: the client library in the program (one in each library that has the headers) finds us by
//! NVTX_INJECTION64_PATH, and has its functions from here.
//!
//! ABI: NVIDIA/NVTX, `nvtxDetail/nvtxTypes.h` and `nvtxInit.h` of version 3. A domain's handle is the id of its name,
//! so that one name has one handle in all clients. A registered string's is its id too or, beyond as many texts as have
//! one, the address of a copy.

mod attributes;
mod own;
mod text;

use crate::hot;
use crate::inject::{self, guard};
use attributes::Told;
use inferscope_spool::record::{Attributes, MOST_DOMAIN, Nvtx, Text, Words};
use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use text::Name;

pub use own::Own;

type Function = unsafe extern "C" fn();
/// Slots of a client: each is where the address of one of its functions is, or null.
type Table = *const *mut Option<Function>;

#[repr(C)]
pub struct ExportTable {
    struct_size: usize,
    table: Option<unsafe extern "C" fn(module: u32, table: *mut Table, size: *mut u32) -> i32>,
}

type GetExportTable = unsafe extern "C" fn(id: u32) -> *const ExportTable;

/// NVTX_ETID_CALLBACKS, NVTX_CB_MODULE_CORE and NVTX_CB_MODULE_CORE2.
const CALLBACKS: u32 = 1;
const CORE: u32 = 1;
const CORE2: u32 = 5;

/// What a call returns that went wrong.
const ERROR: i32 = -1;
/// In the id of a range whose start was not recorded.
const UNSEEN: u64 = 1 << 63;

/// Called by each client at its first call of NVTX. 1: we take its calls.
///
/// # Safety
/// As the client's ABI says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn InitializeInjectionNvtx2(get: Option<GetExportTable>) -> i32 {
    guard(0, || {
        let Some(get) = get else { return 0 };
        // SAFETY: the client's function; it returns null for what it does not have.
        let Some(exports) = (unsafe { get(CALLBACKS).as_ref() }) else {
            return 0;
        };
        let needed = size_of::<ExportTable>();
        let Some(table) = exports.table.filter(|_| exports.struct_size >= needed) else {
            return 0;
        };
        if !inject::begin() {
            return 0;
        }
        // SAFETY: the client's own tables, filled with functions of the types that its ABI gives these numbers.
        unsafe {
            fill(table, CORE, &core());
            fill(table, CORE2, &core2());
        }
        1
    })
}

/// # Safety
/// `table` is the client's; the functions are of the types that the slots of `module` have.
unsafe fn fill(
    table: unsafe extern "C" fn(u32, *mut Table, *mut u32) -> i32,
    module: u32,
    functions: &[*const ()],
) {
    let (mut slots, mut size): (Table, u32) = (std::ptr::null(), 0);
    // SAFETY: both are places for an answer.
    if unsafe { table(module, &mut slots, &mut size) } != 1 || slots.is_null() {
        return;
    }
    for (at, &function) in functions.iter().enumerate().take(size as usize) {
        if function.is_null() {
            continue;
        }
        // SAFETY: below the size the client told; a slot is null or a place for an address.
        unsafe {
            let slot = *slots.add(at);
            if !slot.is_null() {
                slot.cast::<*const ()>().write(function);
            }
        }
    }
}

/// By NVTX_CBID_CORE. The CUDA, OpenCL and synchronisation modules name objects of theirs: nothing here has them.
fn core() -> [*const (); 16] {
    [
        std::ptr::null(),
        mark_ex as *const (),
        mark_a as *const (),
        mark_w as *const (),
        start_ex as *const (),
        start_a as *const (),
        start_w as *const (),
        end as *const (),
        push_ex as *const (),
        push_a as *const (),
        push_w as *const (),
        pop as *const (),
        category_a as *const (),
        category_w as *const (),
        thread_a as *const (),
        thread_w as *const (),
    ]
}

/// By NVTX_CBID_CORE2.
fn core2() -> [*const (); 16] {
    [
        std::ptr::null(),
        domain_mark_ex as *const (),
        domain_start_ex as *const (),
        domain_end as *const (),
        domain_push_ex as *const (),
        domain_pop as *const (),
        resource_create as *const (),
        resource_destroy as *const (),
        domain_category_a as *const (),
        domain_category_w as *const (),
        string_a as *const (),
        string_w as *const (),
        domain_a as *const (),
        domain_w as *const (),
        domain_destroy as *const (),
        initialize as *const (),
    ]
}

/// A domain's number, from its handle; `None` for what is no handle of ours.
#[inline(always)]
fn domain_of(handle: usize) -> Option<u32> {
    (handle < MOST_DOMAIN as usize).then_some(handle as u32)
}

/// Writes a record and what belongs to it; `record` is given the id of the name.
#[inline(always)]
fn write(name: &Name, attributes: Option<Attributes>, record: impl FnOnce(u32) -> Nvtx) -> bool {
    let (id, text) = match name {
        Name::Id(id) => (*id, ""),
        Name::Text(text) => (0, &**text),
    };
    let words = record(id).words();
    match attributes {
        None => hot::write_words(text, words.as_slice()),
        Some(attributes) => with_attributes(text, attributes, &words),
    }
}

fn with_attributes(text: &str, attributes: Attributes, words: &Words) -> bool {
    let mut both = [0; 8];
    let (first, rest) = both.split_at_mut(4);
    let words = words.as_slice();
    first.copy_from_slice(Nvtx::Attributes(attributes).words().as_slice());
    rest[..words.len()].copy_from_slice(words);
    hot::write_words(text, &both[..4 + words.len()])
}

#[inline(always)]
fn begin_range(domain: usize, told: impl FnOnce() -> Told) -> i32 {
    let Some(domain) = domain_of(domain) else {
        return ERROR;
    };
    let on = hot::on();
    let Some(level) = own::push(domain, on) else {
        return ERROR;
    };
    if on {
        let Told { name, attributes } = told();
        let time = hot::now();
        write(&name, attributes, |id| Nvtx::Push {
            time,
            id,
            domain,
            level,
        });
    }
    level as i32
}

/// The end of a range is told while recording is paused too, if its beginning was.
#[inline(always)]
fn end_range(domain: usize) -> i32 {
    let time = hot::now();
    let Some(domain) = domain_of(domain) else {
        return ERROR;
    };
    let Some((level, seen)) = own::pop(domain) else {
        return ERROR;
    };
    if seen || hot::on() {
        let pop = Nvtx::Pop {
            time,
            domain,
            level,
        };
        hot::write_words("", pop.words().as_slice());
    }
    level as i32
}

#[inline(always)]
fn start(domain: usize, told: impl FnOnce() -> Told) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let range = NEXT.fetch_add(1, Relaxed);
    let Some(domain) = domain_of(domain).filter(|_| hot::on()) else {
        return range | UNSEEN;
    };
    let Told { name, attributes } = told();
    let time = hot::now();
    let written = write(&name, attributes, |id| Nvtx::Start {
        time,
        id,
        domain,
        range,
    });
    if written { range } else { range | UNSEEN }
}

#[inline(always)]
fn mark(domain: usize, told: impl FnOnce() -> Told) {
    if let Some(domain) = domain_of(domain).filter(|_| hot::on()) {
        let time = hot::now();
        let Told { name, attributes } = told();
        write(&name, attributes, |id| Nvtx::Mark { time, id, domain });
    }
}

fn category(domain: usize, category: u32, name: &str) {
    if let Some(domain) = domain_of(domain).filter(|_| category != 0) {
        let text = Text::NvtxCategory {
            domain,
            category,
            name,
        };
        hot::tell(&text, true);
    }
}

// What follows is what clients call. Texts are theirs, and end with a zero; attributes are of the size that they say.

unsafe extern "C" fn push_ex(event: *const c_void) -> i32 {
    guard(ERROR, || {
        // SAFETY: as the client's ABI says; so everywhere below.
        begin_range(0, || unsafe { attributes::read(event) })
    })
}

unsafe extern "C" fn push_a(text: *const c_char) -> i32 {
    // SAFETY: as above.
    guard(ERROR, || begin_range(0, || unsafe { Told::ascii(text) }))
}

unsafe extern "C" fn push_w(text: *const u32) -> i32 {
    // SAFETY: as above.
    guard(ERROR, || begin_range(0, || unsafe { Told::wide(text) }))
}

extern "C" fn pop() -> i32 {
    guard(ERROR, || end_range(0))
}

unsafe extern "C" fn domain_push_ex(domain: usize, event: *const c_void) -> i32 {
    guard(ERROR, || {
        // SAFETY: as above.
        begin_range(domain, || unsafe { attributes::read(event) })
    })
}

extern "C" fn domain_pop(domain: usize) -> i32 {
    guard(ERROR, || end_range(domain))
}

unsafe extern "C" fn start_ex(event: *const c_void) -> u64 {
    // SAFETY: as above.
    guard(0, || start(0, || unsafe { attributes::read(event) }))
}

unsafe extern "C" fn start_a(text: *const c_char) -> u64 {
    // SAFETY: as above.
    guard(0, || start(0, || unsafe { Told::ascii(text) }))
}

unsafe extern "C" fn start_w(text: *const u32) -> u64 {
    // SAFETY: as above.
    guard(0, || start(0, || unsafe { Told::wide(text) }))
}

unsafe extern "C" fn domain_start_ex(domain: usize, event: *const c_void) -> u64 {
    // SAFETY: as above.
    guard(0, || start(domain, || unsafe { attributes::read(event) }))
}

extern "C" fn end(range: u64) {
    let time = hot::now();
    if range != 0 && range & UNSEEN == 0 {
        let end = Nvtx::End { time, range };
        guard(false, || hot::write_words("", end.words().as_slice()));
    }
}

extern "C" fn domain_end(_domain: usize, range: u64) {
    end(range);
}

unsafe extern "C" fn mark_ex(event: *const c_void) {
    // SAFETY: as above.
    guard((), || mark(0, || unsafe { attributes::read(event) }));
}

unsafe extern "C" fn mark_a(text: *const c_char) {
    // SAFETY: as above.
    guard((), || mark(0, || unsafe { Told::ascii(text) }));
}

unsafe extern "C" fn mark_w(text: *const u32) {
    // SAFETY: as above.
    guard((), || mark(0, || unsafe { Told::wide(text) }));
}

unsafe extern "C" fn domain_mark_ex(domain: usize, event: *const c_void) {
    // SAFETY: as above.
    guard((), || mark(domain, || unsafe { attributes::read(event) }));
}

unsafe extern "C" fn category_a(number: u32, name: *const c_char) {
    // SAFETY: as above.
    guard((), || category(0, number, &unsafe { text::ascii(name) }));
}

unsafe extern "C" fn category_w(number: u32, name: *const u32) {
    // SAFETY: as above.
    guard((), || category(0, number, &unsafe { text::wide(name) }));
}

unsafe extern "C" fn domain_category_a(domain: usize, number: u32, name: *const c_char) {
    guard((), || {
        // SAFETY: as above.
        category(domain, number, &unsafe { text::ascii(name) })
    });
}

unsafe extern "C" fn domain_category_w(domain: usize, number: u32, name: *const u32) {
    guard((), || {
        // SAFETY: as above.
        category(domain, number, &unsafe { text::wide(name) })
    });
}

fn name_thread(tid: u32, name: &str) {
    let tid = u64::from(tid);
    hot::tell(&Text::NvtxThread { tid, name }, false);
}

unsafe extern "C" fn thread_a(tid: u32, name: *const c_char) {
    // SAFETY: as above.
    guard((), || name_thread(tid, &unsafe { text::ascii(name) }));
}

unsafe extern "C" fn thread_w(tid: u32, name: *const u32) {
    // SAFETY: as above.
    guard((), || name_thread(tid, &unsafe { text::wide(name) }));
}

/// A resource is an object with a name, of which no event tells: 0 is no handle.
extern "C" fn resource_create(_domain: usize, _attributes: *const c_void) -> usize {
    0
}

extern "C" fn resource_destroy(_resource: usize) {}

unsafe extern "C" fn string_a(_domain: usize, text: *const c_char) -> u64 {
    // SAFETY: as above.
    guard(0, || text::register(&unsafe { text::ascii(text) }))
}

unsafe extern "C" fn string_w(_domain: usize, text: *const u32) -> u64 {
    // SAFETY: as above.
    guard(0, || text::register(&unsafe { text::wide(text) }))
}

/// Domains may be some more than texts; what is told to further ones goes to the default one.
fn domain(name: &str) -> usize {
    let id = hot::text_id_below(hot::MOST_TEXTS + 1024, name);
    id.filter(|&id| id < MOST_DOMAIN).unwrap_or(0) as usize
}

unsafe extern "C" fn domain_a(name: *const c_char) -> usize {
    // SAFETY: as above.
    guard(0, || domain(&unsafe { text::ascii(name) }))
}

unsafe extern "C" fn domain_w(name: *const u32) -> usize {
    // SAFETY: as above.
    guard(0, || domain(&unsafe { text::wide(name) }))
}

/// Ranges of it that are open stay so, and another client may have it too.
extern "C" fn domain_destroy(_domain: usize) {}

extern "C" fn initialize(_reserved: *const c_void) {}
