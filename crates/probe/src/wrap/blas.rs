//! numpy's calls of its BLAS, with the sizes of what is multiplied; only on request.
//!
//! numpy calls `cblas_sgemm` and the like through its global offset table, whose slots are replaced. The slots' own
//! content may be the loader's, which would put the function back in at the first call, so the function is looked up.
//! Names have a prefix and, where integers have 64 bits, a suffix, as the wheel was built (numpy's npy_cblas.h:
//! `scipy_cblas_sgemm64_`). Arguments are those of the reference CBLAS (netlib.org/blas/cblas.h).

use super::gate;
use super::layout::{self, Writable};
use crate::hot;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// An integer of the library's.
trait Whole: Copy {
    fn wide(self) -> i64;
}

impl Whole for i32 {
    fn wide(self) -> i64 {
        self.into()
    }
}

impl Whole for i64 {
    fn wide(self) -> i64 {
        self
    }
}

/// A function that is replaced.
struct Row {
    name: &'static str,
    /// With integers of 32 bits, and of 64.
    ours: [*const c_void; 2],
}

// SAFETY: pointers to functions.
unsafe impl Sync for Row {}

macro_rules! rows {
    ($($at:literal $name:literal $function:ident<$scalar:ty>),* $(,)?) => {
        static ROWS: [Row; COUNT] = [$(Row {
            name: $name,
            ours: [
                $function::<i32, $scalar, $at> as *const c_void,
                $function::<i64, $scalar, $at> as *const c_void,
            ],
        }),*];
    };
}

const COUNT: usize = 12;

// Complex scalars are passed by address.
rows! {
    0 "cblas_sgemm" gemm<f32>,
    1 "cblas_dgemm" gemm<f64>,
    2 "cblas_cgemm" gemm<*const c_void>,
    3 "cblas_zgemm" gemm<*const c_void>,
    4 "cblas_sgemv" gemv<f32>,
    5 "cblas_dgemv" gemv<f64>,
    6 "cblas_cgemv" gemv<*const c_void>,
    7 "cblas_zgemv" gemv<*const c_void>,
    8 "cblas_ssyrk" syrk<f32>,
    9 "cblas_dsyrk" syrk<f64>,
    10 "cblas_csyrk" syrk<*const c_void>,
    11 "cblas_zsyrk" syrk<*const c_void>,
}

static ORIGINALS: [AtomicPtr<c_void>; COUNT] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; COUNT];
static IDS: [AtomicU32; COUNT] = [const { AtomicU32::new(0) }; COUNT];
static REPLACED: AtomicUsize = AtomicUsize::new(0);

/// Runs the call, and records it with its sizes if it is worth that.
#[inline(always)]
fn call<const AT: usize>(sizes: [Option<i64>; 3], original: impl FnOnce()) {
    gate::told(original, |start, dur| {
        let known = ["m", "n", "k"].iter().zip(sizes);
        let parts: Vec<String> = known
            .filter_map(|(name, size)| Some(format!("\"{name}\":{}", size?)))
            .collect();
        let json = format!("{{{}}}", parts.join(","));
        hot::native_with(&json, start, dur, IDS[AT].load(Relaxed));
    });
}

#[inline(always)]
fn original<F: Copy, const AT: usize>() -> F {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    let at = ORIGINALS[AT].load(Acquire);
    // SAFETY: a slot leads here only after the original of this row was stored, a function of this type by its name.
    unsafe { std::mem::transmute_copy::<*mut c_void, F>(&at) }
}

unsafe extern "C" fn gemm<I: Whole, S: Copy, const AT: usize>(
    order: c_int,
    trans_a: c_int,
    trans_b: c_int,
    m: I,
    n: I,
    k: I,
    alpha: S,
    a: *const c_void,
    lda: I,
    b: *const c_void,
    ldb: I,
    beta: S,
    c: *mut c_void,
    ldc: I,
) {
    type Gemm<I, S> = unsafe extern "C" fn(
        c_int,
        c_int,
        c_int,
        I,
        I,
        I,
        S,
        *const c_void,
        I,
        *const c_void,
        I,
        S,
        *mut c_void,
        I,
    );
    let function = original::<Gemm<I, S>, AT>();
    let sizes = [m, n, k].map(|size| Some(size.wide()));
    // SAFETY: the original, with the caller's own arguments.
    call::<AT>(sizes, || unsafe {
        function(
            order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc,
        );
    });
}

unsafe extern "C" fn gemv<I: Whole, S: Copy, const AT: usize>(
    order: c_int,
    trans: c_int,
    m: I,
    n: I,
    alpha: S,
    a: *const c_void,
    lda: I,
    x: *const c_void,
    inc_x: I,
    beta: S,
    y: *mut c_void,
    inc_y: I,
) {
    type Gemv<I, S> = unsafe extern "C" fn(
        c_int,
        c_int,
        I,
        I,
        S,
        *const c_void,
        I,
        *const c_void,
        I,
        S,
        *mut c_void,
        I,
    );
    let function = original::<Gemv<I, S>, AT>();
    let sizes = [Some(m.wide()), Some(n.wide()), None];
    // SAFETY: the original, with the caller's own arguments.
    call::<AT>(sizes, || unsafe {
        function(order, trans, m, n, alpha, a, lda, x, inc_x, beta, y, inc_y);
    });
}

unsafe extern "C" fn syrk<I: Whole, S: Copy, const AT: usize>(
    order: c_int,
    uplo: c_int,
    trans: c_int,
    n: I,
    k: I,
    alpha: S,
    a: *const c_void,
    lda: I,
    beta: S,
    c: *mut c_void,
    ldc: I,
) {
    type Syrk<I, S> =
        unsafe extern "C" fn(c_int, c_int, c_int, I, I, S, *const c_void, I, S, *mut c_void, I);
    let function = original::<Syrk<I, S>, AT>();
    let sizes = [None, Some(n.wide()), Some(k.wide())];
    // SAFETY: the original, with the caller's own arguments.
    call::<AT>(sizes, || unsafe {
        function(order, uplo, trans, n, k, alpha, a, lda, beta, c, ldc);
    });
}

/// The row of a symbol, and whether its integers have 64 bits.
fn row(symbol: &str) -> Option<(usize, bool)> {
    let name = symbol.strip_prefix("scipy_").unwrap_or(symbol);
    let (name, wide) = match name.strip_suffix("64_") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let at = ROWS.iter().position(|row| row.name == name)?;
    Some((at, wide))
}

/// A loaded library.
struct Library {
    base: usize,
    /// Its dynamic section; 0: none.
    dynamic: usize,
    file: CString,
}

/// Replaces the slots of numpy's libraries, once. Returns how many.
///
/// # Errors
/// In words, why there are none.
pub fn install() -> Result<usize, String> {
    if REPLACED.load(Relaxed) == 0 {
        // The loader's lock is held while it lists them: what else is asked of it comes later.
        let mut found: Vec<Library> = Vec::new();
        // SAFETY: `list` is called before this returns, with the vector that it expects.
        unsafe { libc::dl_iterate_phdr(Some(list), std::ptr::from_mut(&mut found).cast()) };
        let writable = Writable::read();
        for library in found.iter().filter(|library| library.dynamic != 0) {
            // SAFETY: as the loader has described it; numpy's modules are never unloaded.
            unsafe { replace_in(library, &writable) };
        }
    }
    match REPLACED.load(Relaxed) {
        0 => Err("it calls no BLAS through a slot that can be replaced".into()),
        count => Ok(count),
    }
}

unsafe extern "C" fn list(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    found: *mut c_void,
) -> c_int {
    // SAFETY: the loader passes its own description, valid over the call, and what `install` gave it.
    unsafe {
        let (info, found) = (&*info, &mut *found.cast::<Vec<Library>>());
        if info.dlpi_name.is_null() {
            return 0;
        }
        let file = CStr::from_ptr(info.dlpi_name);
        if file.to_string_lossy().contains("/numpy/") {
            let base = info.dlpi_addr as usize;
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
            let dynamic = headers.iter().find(|one| one.p_type == libc::PT_DYNAMIC);
            found.push(Library {
                base,
                dynamic: dynamic.map_or(0, |one| base + one.p_vaddr as usize),
                file: file.to_owned(),
            });
        }
    }
    0
}

/// elf.h: the tags of what is read here, and the two relocations that fill a slot with a function's address.
const DT_PLTRELSZ: u64 = 2;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_JMPREL: u64 = 23;
#[cfg(target_arch = "x86_64")]
const FILLS: [u64; 2] = [6, 7]; // R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT
#[cfg(target_arch = "aarch64")]
const FILLS: [u64; 2] = [1025, 1026]; // R_AARCH64_GLOB_DAT, R_AARCH64_JUMP_SLOT

/// # Safety
/// The library is loaded, stays so, and is as the loader has described it.
unsafe fn replace_in(library: &Library, writable: &Writable) {
    let base = library.base;
    let mut tags = [0usize; 24];
    // SAFETY: the loader keeps the dynamic section of what is loaded, which ends with a tag of 0.
    unsafe {
        let mut at = library.dynamic as *const [u64; 2];
        while (*at)[0] != 0 {
            if let Some(tag) = tags.get_mut((*at)[0] as usize) {
                *tag = (*at)[1] as usize;
            }
            at = at.add(1);
        }
    }
    // glibc writes addresses there when it loads a library; others leave what the file has.
    let address = |tag: u64| match tags[tag as usize] {
        at if at < base => at + base,
        at => at,
    };
    let [symbols, strings] = [DT_SYMTAB, DT_STRTAB].map(address);
    // SAFETY: the same file, which stays loaded: numpy's modules are never unloaded.
    let handle =
        unsafe { libc::dlopen(library.file.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return;
    }
    for (table, bytes) in [(DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ)] {
        if tags[table as usize] == 0 {
            continue;
        }
        let count = tags[bytes as usize] / size_of::<libc::Elf64_Rela>();
        // SAFETY: the table of relocations and those of symbols and their names, as the dynamic section has them.
        let relocations =
            unsafe { std::slice::from_raw_parts(address(table) as *const libc::Elf64_Rela, count) };
        for relocation in relocations {
            if !FILLS.contains(&(relocation.r_info & 0xffff_ffff)) {
                continue;
            }
            // SAFETY: as above; a name is a C string.
            let name = unsafe {
                let symbol =
                    (symbols as *const libc::Elf64_Sym).add((relocation.r_info >> 32) as usize);
                CStr::from_ptr((strings + (*symbol).st_name as usize) as *const c_char)
            };
            if let Some((at, wide)) = name.to_str().ok().and_then(row) {
                let slot = (base + relocation.r_offset as usize) as *mut c_void;
                // SAFETY: a handle of ours; a slot of a library that stays loaded.
                unsafe { replace(handle, name, slot, (at, wide), writable) };
            }
        }
    }
}

/// # Safety
/// `slot` is a slot of a library that stays loaded, `handle` that library's.
unsafe fn replace(
    handle: *mut c_void,
    name: &CStr,
    slot: *mut c_void,
    (at, wide): (usize, bool),
    writable: &Writable,
) {
    // SAFETY: as the caller promises.
    let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
    let known = ORIGINALS[at].load(Relaxed);
    // Another library's BLAS would be another function.
    if found.is_null() || !writable.holds(slot) || !(known.is_null() || known == found) {
        return;
    }
    if known.is_null() {
        let file = layout::library(found)
            .map(|library| library.file)
            .unwrap_or_default();
        let id = hot::define(ROWS[at].name, layout::shortened(&file), 0);
        IDS[at].store(id, Relaxed);
        ORIGINALS[at].store(found, Release);
    }
    // SAFETY: as the caller promises; a slot is aligned, and holds nothing but a function's address.
    let place = unsafe { layout::place(slot, 0) };
    place.store(ROWS[at].ours[usize::from(wide)].cast_mut(), Release);
    REPLACED.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_says_which_function_it_is_and_how_wide_its_integers_are() {
        assert_eq!(row("scipy_cblas_dgemm64_"), Some((1, true)));
        assert_eq!(row("cblas_sgemm"), Some((0, false)));
        assert_eq!(row("cblas_zsyrk64_"), Some((11, true)));
        assert_eq!(row("cblas_ddot"), None);
        assert_eq!(row("dgemm_"), None);
    }
}
