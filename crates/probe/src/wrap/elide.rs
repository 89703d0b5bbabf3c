//! Keeps numpy's reuse of large temporaries, which a wrap alone would end.
//!
//! In `a * b + c` numpy adds into the temporary `a * b`, if that is large and nothing but the evaluation loop can
//! hold it: it walks the machine stack and goes on only if every frame up to the loop is the interpreter's or
//! its own. A trampoline on that stack makes it allocate a new array each time. So the trampoline asks the same
//! questions, for operands of one type and shape and for plain Python numbers with float64, and calls the in-place
//! operator as numpy would. Where it does not know, numpy makes a new array: the same values, some more memory.

use crate::py::{Py, PyObject, sym};
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// Which operands numpy reuses for an operator (number.c).
#[derive(Clone, Copy)]
pub struct Rule {
    /// The right operand too.
    commutes: bool,
    /// Floating and complex types only.
    inexact: bool,
}

/// The rule of a slot; `None` if numpy never reuses its operands, or we leave it.
pub const fn rule(name: &str) -> Option<Rule> {
    let (commutes, inexact) = match name.as_bytes() {
        b"__add__" | b"__mul__" | b"__and__" | b"__xor__" | b"__or__" => (true, false),
        b"__sub__" => (false, false),
        b"__truediv__" => (false, true),
        _ => return None,
    };
    Some(Rule { commutes, inexact })
}

/// The least size of an array that numpy reuses, in bytes (NPY_MIN_ELIDE_BYTES of temp_elide.c).
const LEAST_BYTES: i64 = 256 * 1024;

/// ndarraytypes.h: owns its data, writeable, and writes back to another array on release.
const OWNDATA: c_int = 0x4;
const WRITEABLE: c_int = 0x400;
const WRITEBACK: c_int = 0x2000;

/// The head of an array, the same in numpy 1 and 2 (`PyArrayObject_fields`).
#[repr(C)]
struct Array {
    head: PyObject,
    data: *mut c_void,
    nd: c_int,
    dimensions: *const i64,
    strides: *const i64,
    base: *mut PyObject,
    descr: *mut Descr,
    flags: c_int,
}

/// The head of a dtype, the same in numpy 1 and 2 (`PyArray_Descr`).
#[repr(C)]
struct Descr {
    head: PyObject,
    typeobj: *mut PyObject,
    kind: u8,
    letter: u8,
    byteorder: u8,
    flags: u8,
    type_num: c_int,
}

/// Bytes of one element by type number: bool to clongdouble, on 64-bit Linux.
const SIZES: [i64; 17] = [1, 1, 1, 2, 2, 4, 4, 8, 8, 8, 8, 4, 8, 16, 8, 16, 32];
const FLOAT64: c_int = 12;
const HALF: c_int = 23;

type Unique = unsafe extern "C" fn(*mut PyObject) -> c_int;

static NDARRAY: AtomicPtr<PyObject> = AtomicPtr::new(std::ptr::null_mut());
static FLOAT: AtomicPtr<PyObject> = AtomicPtr::new(std::ptr::null_mut());
static INT: AtomicPtr<PyObject> = AtomicPtr::new(std::ptr::null_mut());
/// From 3.14 on, a reference count of 1 does not mean a temporary; this function tells.
static UNIQUE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static COUNT_TELLS: AtomicBool = AtomicBool::new(false);
static PYTHON: AtomicUsize = AtomicUsize::new(0);
static OWN: AtomicUsize = AtomicUsize::new(0);

/// Looks up once what the questions need.
pub fn prepare(py: &Py, ndarray: *mut PyObject) {
    let base = |at| super::layout::library(at).map_or(0, |library| library.base);
    FLOAT.store(sym(c"PyFloat_Type").cast(), Relaxed);
    INT.store(sym(c"PyLong_Type").cast(), Relaxed);
    COUNT_TELLS.store(py.version < (3, 14), Relaxed);
    UNIQUE.store(
        sym(c"PyUnstable_Object_IsUniqueReferencedTemporary"),
        Relaxed,
    );
    // numpy looks at where PyNumber_Or is.
    PYTHON.store(base(sym(c"PyNumber_Or")), Relaxed);
    OWN.store(base(prepare as *const c_void), Relaxed);
    NDARRAY.store(ndarray, Relaxed);
}

#[inline(always)]
unsafe fn counted_once(at: *mut PyObject) -> bool {
    // SAFETY: a live object. The low half is the count in every version.
    unsafe { (*at).ob_refcnt as u32 == 1 }
}

/// The operand that this operation may be done into, and the other one; `None` nearly always, and quickly so.
///
/// # Safety
/// `a` and `b` are the operands of a call in progress; the GIL is held.
#[inline(always)]
pub unsafe fn into(
    rule: Rule,
    a: *mut PyObject,
    b: *mut PyObject,
) -> Option<(*mut PyObject, *mut PyObject)> {
    // SAFETY: as the caller promises.
    unsafe {
        if counted_once(a) || rule.commutes && counted_once(b) {
            slowly(rule, a, b)
        } else {
            None
        }
    }
}

/// # Safety
/// As for [`into`].
#[inline(never)]
unsafe fn slowly(
    rule: Rule,
    a: *mut PyObject,
    b: *mut PyObject,
) -> Option<(*mut PyObject, *mut PyObject)> {
    // SAFETY: as the caller promises.
    unsafe {
        let pair = if fits(rule, a, b) {
            (a, b)
        } else if rule.commutes && fits(rule, b, a) {
            (b, a)
        } else {
            return None;
        };
        called_by_the_loop().then_some(pair)
    }
}

/// Whether `target` is a large temporary of a number type that takes `other` without a change of type or shape.
///
/// # Safety
/// As for [`into`].
unsafe fn fits(rule: Rule, target: *mut PyObject, other: *mut PyObject) -> bool {
    let ndarray = NDARRAY.load(Relaxed);
    // SAFETY: live objects; `Array` is read only from exact arrays, `Descr` from their dtypes, and there are `nd`
    // dimensions.
    unsafe {
        if !counted_once(target) || (*target).ob_type != ndarray {
            return false;
        }
        let array = &*target.cast::<Array>();
        let number = (*array.descr).type_num;
        let size = match number {
            0..17 => SIZES[number as usize],
            HALF => 2,
            _ => return false,
        };
        let inexact = number == HALF || (11..17).contains(&number);
        let dimensions = dimensions(array);
        let length = dimensions
            .iter()
            .try_fold(size, |product, &n| product.checked_mul(n));
        if length.is_none_or(|bytes| bytes < LEAST_BYTES)
            || array.flags & (OWNDATA | WRITEABLE | WRITEBACK) != OWNDATA | WRITEABLE
            || rule.inexact && !inexact
        {
            return false;
        }
        let of = (*other).ob_type;
        let same = if of == ndarray {
            let other = &*other.cast::<Array>();
            other.descr == array.descr && self::dimensions(other) == dimensions
        } else {
            number == FLOAT64 && (of == FLOAT.load(Relaxed) || of == INT.load(Relaxed))
        };
        same && (COUNT_TELLS.load(Relaxed) || unique(target))
    }
}

/// # Safety
/// `array` is an array.
unsafe fn dimensions(array: &Array) -> &[i64] {
    match usize::try_from(array.nd) {
        // SAFETY: an array has that many dimensions.
        Ok(nd) if nd > 0 => unsafe { std::slice::from_raw_parts(array.dimensions, nd) },
        _ => &[],
    }
}

/// # Safety
/// As for [`into`].
unsafe fn unique(target: *mut PyObject) -> bool {
    let ask = UNIQUE.load(Relaxed);
    // SAFETY: CPython's function of that name.
    !ask.is_null() && unsafe { std::mem::transmute::<*mut c_void, Unique>(ask)(target) } != 0
}

#[derive(Clone, Copy, PartialEq)]
enum Frame {
    Foreign = 0,
    Own = 1,
    Python = 2,
    Loop = 3,
}

/// What return addresses were found to be: `address << 2 | Frame`. Asking the loader takes microseconds.
static SEEN: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];

fn frame(at: *mut c_void) -> Frame {
    let address = at as usize;
    let seen = &SEEN[(address ^ address >> 6) % SEEN.len()];
    let known = seen.load(Acquire);
    if known >> 2 == address & (usize::MAX >> 2) {
        return match known & 3 {
            1 => Frame::Own,
            2 => Frame::Python,
            3 => Frame::Loop,
            _ => Frame::Foreign,
        };
    }
    let found = asked(at);
    seen.store(address << 2 | found as usize, Release);
    found
}

fn asked(at: *mut c_void) -> Frame {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: dladdr takes any address; on success it has filled in `info`, whose name is null or a C string.
    let (base, name) = unsafe {
        if libc::dladdr(at, info.as_mut_ptr()) == 0 {
            return Frame::Foreign;
        }
        let info = info.assume_init();
        let name = Some(info.dli_sname).filter(|name| !name.is_null());
        (
            info.dli_fbase as usize,
            name.map(|name| CStr::from_ptr(name)),
        )
    };
    if base == OWN.load(Relaxed) {
        Frame::Own
    } else if base != PYTHON.load(Relaxed) {
        Frame::Foreign
    } else if name == Some(c"_PyEval_EvalFrameDefault") {
        Frame::Loop
    } else {
        Frame::Python
    }
}

/// Whether only the interpreter stands between us and its evaluation loop: then nobody else holds the operands.
fn called_by_the_loop() -> bool {
    let mut buffer = [std::ptr::null_mut(); 16];
    // SAFETY: the buffer holds as many addresses as it says.
    let depth = unsafe { libc::backtrace(buffer.as_mut_ptr(), buffer.len() as c_int) };
    let mut left = false;
    for &at in buffer.iter().take(usize::try_from(depth).unwrap_or(0)) {
        match frame(at) {
            Frame::Own if !left => {}
            Frame::Python => left = true,
            Frame::Loop => return true,
            _ => return false,
        }
    }
    false
}
