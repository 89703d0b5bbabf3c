//! The operators: slots of `numpy.ndarray`, a static type, and of subclasses that inherited its pointers.

use super::layout::{self, Library, Writable};
use super::{elide, gate};
use crate::hot;
use crate::py::{Owned, Py, PyObject, sym};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed};

type Unary = unsafe extern "C" fn(*mut PyObject) -> *mut PyObject;
type Binary = unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;
type Ternary = unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;
type Assign = unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> c_int;
type Compare = unsafe extern "C" fn(*mut PyObject, *mut PyObject, c_int) -> *mut PyObject;

/// Where a slot is.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// A word of `PyNumberMethods`.
    Number(usize),
    /// A word of `PyMappingMethods`.
    Mapping(usize),
    /// `tp_richcompare`.
    Compare,
}

/// A slot: its place and name.
type Row = (At, &'static str);

const ROWS: [Row; 40] = [
    (At::Number(0), "__add__"),
    (At::Number(1), "__sub__"),
    (At::Number(2), "__mul__"),
    (At::Number(3), "__mod__"),
    (At::Number(4), "__divmod__"),
    (At::Number(11), "__lshift__"),
    (At::Number(12), "__rshift__"),
    (At::Number(13), "__and__"),
    (At::Number(14), "__xor__"),
    (At::Number(15), "__or__"),
    (At::Number(29), "__floordiv__"),
    (At::Number(30), "__truediv__"),
    (At::Number(34), "__matmul__"),
    (At::Number(19), "__iadd__"),
    (At::Number(20), "__isub__"),
    (At::Number(21), "__imul__"),
    (At::Number(22), "__imod__"),
    (At::Number(24), "__ilshift__"),
    (At::Number(25), "__irshift__"),
    (At::Number(26), "__iand__"),
    (At::Number(27), "__ixor__"),
    (At::Number(28), "__ior__"),
    (At::Number(31), "__ifloordiv__"),
    (At::Number(32), "__itruediv__"),
    (At::Number(35), "__imatmul__"),
    (At::Number(6), "__neg__"),
    (At::Number(7), "__pos__"),
    (At::Number(8), "__abs__"),
    (At::Number(10), "__invert__"),
    (At::Number(5), "__pow__"),
    (At::Number(23), "__ipow__"),
    (At::Mapping(1), "__getitem__"),
    (At::Mapping(2), "__setitem__"),
    // One slot, several names: these stand beside the row that is replaced.
    (At::Mapping(2), "__delitem__"),
    (At::Compare, "__lt__"),
    (At::Compare, "__le__"),
    (At::Compare, "__eq__"),
    (At::Compare, "__ne__"),
    (At::Compare, "__gt__"),
    (At::Compare, "__ge__"),
];
const GETITEM: usize = 31;
const SETITEM: usize = 32;
const COMPARE: usize = 34;

static ORIGINALS: [AtomicPtr<c_void>; ROWS.len()] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; ROWS.len()];
static IDS: [AtomicU32; ROWS.len()] = [const { AtomicU32::new(0) }; ROWS.len()];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// How many slots are replaced.
pub fn count() -> usize {
    COUNT.load(Relaxed)
}

/// The original of a row, as the type of function that its slot holds.
macro_rules! original {
    ($row:expr, $kind:ty) => {
        std::mem::transmute::<*mut c_void, $kind>(ORIGINALS[$row].load(Relaxed))
    };
}

/// The row's in-place twin, for [`elide`].
const fn twin(row: usize) -> Option<usize> {
    match row {
        0..=3 => Some(row + 13),
        5..=11 => Some(row + 12),
        _ => None,
    }
}

unsafe extern "C" fn binary<const ROW: usize>(a: *mut PyObject, b: *mut PyObject) -> *mut PyObject {
    let run = || {
        if let (Some(twin), Some(rule)) = (const { twin(ROW) }, const { elide::rule(ROWS[ROW].1) })
        {
            // SAFETY: the operands of the call, alive while it runs.
            if let Some((into, other)) = unsafe { elide::into(rule, a, b) }
                && !ORIGINALS[twin].load(Relaxed).is_null()
            {
                // SAFETY: the in-place slot's original, found with ours, as numpy itself would call it here.
                return unsafe { original!(twin, Binary)(into, other) };
            }
        }
        // SAFETY: this slot's original, stored before it was replaced, with the caller's own arguments.
        unsafe { original!(ROW, Binary)(a, b) }
    };
    gate::operator(run, || IDS[ROW].load(Relaxed))
}

unsafe extern "C" fn unary<const ROW: usize>(a: *mut PyObject) -> *mut PyObject {
    gate::operator(
        // SAFETY: this slot's original, stored before it was replaced, with the caller's own arguments.
        || unsafe { original!(ROW, Unary)(a) },
        || IDS[ROW].load(Relaxed),
    )
}

unsafe extern "C" fn ternary<const ROW: usize>(
    a: *mut PyObject,
    b: *mut PyObject,
    c: *mut PyObject,
) -> *mut PyObject {
    gate::operator(
        // SAFETY: this slot's original, stored before it was replaced, with the caller's own arguments.
        || unsafe { original!(ROW, Ternary)(a, b, c) },
        || IDS[ROW].load(Relaxed),
    )
}

unsafe extern "C" fn getitem(a: *mut PyObject, key: *mut PyObject) -> *mut PyObject {
    gate::function(
        // SAFETY: this slot's original, stored before it was replaced, with the caller's own arguments.
        || unsafe { original!(GETITEM, Binary)(a, key) },
        || IDS[GETITEM].load(Relaxed),
    )
}

unsafe extern "C" fn setitem(a: *mut PyObject, key: *mut PyObject, value: *mut PyObject) -> c_int {
    gate::function(
        // SAFETY: this slot's original, stored before it was replaced, with the caller's own arguments.
        || unsafe { original!(SETITEM, Assign)(a, key, value) },
        || IDS[SETITEM + usize::from(value.is_null())].load(Relaxed),
    )
}

unsafe extern "C" fn compare(a: *mut PyObject, b: *mut PyObject, how: c_int) -> *mut PyObject {
    gate::operator(
        // SAFETY: this slot's original, stored before it was replaced, with the caller's own arguments.
        || unsafe { original!(COMPARE, Compare)(a, b, how) },
        || IDS[COMPARE + (how as usize).min(5)].load(Relaxed),
    )
}

/// What replaces a row's original; null for the rows that only name.
fn trampoline(row: usize) -> *mut c_void {
    macro_rules! rows {
        ($kind:ident: $($row:literal)*) => {
            match row { $($row => return $kind::<$row> as *mut c_void,)* _ => {} }
        };
    }
    rows!(binary: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24);
    rows!(unary: 25 26 27 28);
    rows!(ternary: 29 30);
    match row {
        GETITEM => getitem as *mut c_void,
        SETITEM => setitem as *mut c_void,
        COMPARE => compare as *mut c_void,
        _ => std::ptr::null_mut(),
    }
}

/// The slot's place in a type; `None` if the type has no such methods.
///
/// # Safety
/// `of` is a type that is never freed.
unsafe fn place(of: *mut PyObject, at: At) -> Option<&'static AtomicPtr<c_void>> {
    // SAFETY: a type is as `layout` says; its method tables live as long as it.
    unsafe {
        let table = |offset| Some(layout::word(of.cast(), offset)).filter(|&at| at != 0);
        Some(match at {
            At::Number(word) => {
                layout::place(table(layout::TP_AS_NUMBER)? as *const c_void, 8 * word)
            }
            At::Mapping(word) => {
                layout::place(table(layout::TP_AS_MAPPING)? as *const c_void, 8 * word)
            }
            At::Compare => layout::place(of.cast(), layout::TP_RICHCOMPARE),
        })
    }
}

/// Replaces the slots of `numpy.ndarray` and, where they are the same, of its subclasses.
///
/// # Safety
/// The GIL is held, no exception is set, `numpy` is that module.
pub unsafe fn install(py: &Py, numpy: *mut PyObject) -> Result<(), String> {
    // SAFETY: the GIL is held; the type is live, and kept for ever below.
    unsafe {
        let ndarray = py.attr(numpy, c"ndarray").ok_or("it has no ndarray")?;
        let of = ndarray.get();
        if (*of).ob_type != py.type_type
            || layout::word(of.cast(), layout::TP_FLAGS) & layout::HEAP_TYPE != 0
            || layout::type_name(of) != "numpy.ndarray"
        {
            return Err("ndarray is not the static type we know".into());
        }
        let library = layout::library(of.cast())
            .filter(|library| library.file.contains("numpy"))
            .ok_or("ndarray is in no library of its own")?;
        let python = layout::library(py.type_type.cast()).map(|library| library.base);
        if python == Some(library.base) {
            return Err("it is part of the interpreter".into());
        }
        ndarray.into_raw();
        elide::prepare(py, of);
        name(&library);
        let writable = Writable::read();
        for (row, &(at, ..)) in ROWS.iter().enumerate() {
            let (ours, Some(place)) = (trampoline(row), place(of, at)) else {
                continue;
            };
            let original = place.load(Relaxed);
            let own = layout::library(original).is_some_and(|found| found.base == library.base);
            if !ours.is_null() && own && writable.holds(std::ptr::from_ref(place).cast()) {
                ORIGINALS[row].store(original, Relaxed);
            }
        }
        // An operator may run its in-place twin: all originals are known before the first is replaced.
        replace(of);
        if count() == 0 {
            return Err("no slot of ndarray is its own".into());
        }
        subclasses(py, of, 0);
    }
    Ok(())
}

/// # Safety
/// `of` is a type that is never freed, or one whose slots are its own.
unsafe fn replace(of: *mut PyObject) {
    for (row, &(at, ..)) in ROWS.iter().enumerate() {
        let original = ORIGINALS[row].load(Relaxed);
        // SAFETY: a type, as the caller promises.
        if let Some(place) = unsafe { place(of, at) }
            && !original.is_null()
            && place.load(Relaxed) == original
        {
            place.store(trampoline(row), Relaxed);
            COUNT.fetch_add(1, Relaxed);
        }
    }
}

fn name(library: &Library) {
    let file = layout::shortened(&library.file);
    for (row, (_, name)) in ROWS.iter().enumerate() {
        IDS[row].store(hot::define(&format!("ndarray.{name}"), file, 0), Relaxed);
    }
}

/// Replaces what subclasses inherited. Not in those that set `__array_ufunc__` to None: numpy's operators
/// give way to such a right operand if its slot is not their own, and would to ours.
///
/// # Safety
/// The GIL is held and `of` is a type.
unsafe fn subclasses(py: &Py, of: *mut PyObject, depth: usize) {
    type Size = unsafe extern "C" fn(*mut PyObject) -> isize;
    type Item = unsafe extern "C" fn(*mut PyObject, isize) -> *mut PyObject;
    let (size, item) = (sym(c"PyList_Size"), sym(c"PyList_GetItem"));
    if size.is_null() || item.is_null() || depth > 16 {
        return;
    }
    // SAFETY: CPython's functions of those names; `__subclasses__` of a type gives a list of types.
    unsafe {
        let size = std::mem::transmute::<*mut c_void, Size>(size);
        let item = std::mem::transmute::<*mut c_void, Item>(item);
        let Some(method) = py.attr(of, c"__subclasses__") else {
            return;
        };
        let list =
            (py.PyObject_CallFunctionObjArgs)(method.get(), std::ptr::null_mut::<PyObject>());
        let Some(list) = Owned::new(py, list) else {
            return;
        };
        for at in 0..size(list.get()) {
            let subclass = item(list.get(), at);
            if subclass.is_null() {
                (py.PyErr_Clear)();
                return;
            }
            let refuses = py
                .attr(subclass, c"__array_ufunc__")
                .is_none_or(|found| found.get() == py.none);
            if !refuses {
                replace(subclass);
            }
            subclasses(py, subclass, depth + 1);
        }
    }
}
