//! `scope` and `mark_event` as the program calls them: a type and a function written against CPython's own interface,
//! because they stand in the program's loops. What is rare (metadata, decorators, `async with`) is Python code.
//!
//! Everything here runs with the GIL held.

use crate::{API, Api};
use pyo3::ffi::{self, PyObject, PyTypeObject};
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed};

/// One `scope(...)`.
#[repr(C)]
struct Scope {
    head: PyObject,
    /// A str.
    name: *mut PyObject,
    /// A dict; null if there is none.
    metadata: *mut PyObject,
    /// How often it is open now, the handle of the innermost, and those of the others.
    open: usize,
    handle: u64,
    others: *mut Vec<u64>,
}

static TYPE: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());

/// Python functions for what is rare: `text(metadata)`, `decorate(name, metadata, function)`, `enter(scope)`,
/// `leave(scope, kind, error, traceback)`.
static HELPERS: [AtomicPtr<PyObject>; 4] = [const { AtomicPtr::new(null_mut()) }; 4];
const TEXT: usize = 0;
const DECORATE: usize = 1;
const ENTER: usize = 2;
const LEAVE: usize = 3;

/// `METH_FASTCALL` of methodobject.h, part of the stable interface from 3.10 on and there before.
const METH_FASTCALL: c_int = 0x80;
/// Offset of `tp_vectorcall` in a type (cpython/object.h of 3.9 to 3.14): a class that has one is called without a tuple
/// of arguments. There is no slot for it before 3.14.
const TP_VECTORCALL: usize = 400;

unsafe extern "C" {
    /// Part of the stable interface from 3.10 on; 3.9 has it too.
    fn PyUnicode_AsUTF8AndSize(of: *mut PyObject, len: *mut isize) -> *const c_char;
}

/// What the GIL guards.
struct Guarded<T>(UnsafeCell<T>);
// SAFETY: only touched with the GIL held.
unsafe impl<T> Sync for Guarded<T> {}

/// Scopes that are not used now, so that one need not be allocated.
static FREE: Guarded<(usize, [*mut Scope; 16])> = Guarded(UnsafeCell::new((0, [null_mut(); 16])));

/// Names by the address of their str, each kept alive, and their ids.
static IDS: Guarded<[(*mut PyObject, u32); 256]> = Guarded(UnsafeCell::new([(null_mut(), 0); 256]));

static NEVER: AtomicBool = AtomicBool::new(false);

/// The probe's table, and whether records are kept, or a scope is waited for.
#[inline(always)]
fn probe() -> Option<(&'static Api, bool, bool)> {
    let api = *API.get()?;
    // SAFETY: flags of the probe, which is never unloaded.
    let flag = |at: *const AtomicBool| unsafe { at.as_ref() }.unwrap_or(&NEVER).load(Relaxed);
    Some((api, flag(api.on), flag(api.awaits)))
}

/// The characters of a str; empty for lone surrogates.
unsafe fn text<'a>(of: *mut PyObject) -> &'a str {
    let mut len = 0;
    // SAFETY: `of` is a live str, which keeps its UTF-8; the GIL is held.
    unsafe {
        let at = PyUnicode_AsUTF8AndSize(of, &mut len);
        if at.is_null() {
            ffi::PyErr_Clear();
            return "";
        }
        std::str::from_utf8_unchecked(std::slice::from_raw_parts(at.cast(), len as usize))
    }
}

/// The id of a name, which is a live str.
#[inline(always)]
unsafe fn id(api: &Api, name: *mut PyObject) -> u32 {
    let slot = (name as usize >> 4 ^ name as usize >> 12) % 256;
    // SAFETY: the GIL is held, and no other reference to the table is in use.
    let entry = unsafe { &mut (*IDS.0.get())[slot] };
    if entry.0 != name {
        // SAFETY: live strs; an old name may die here, which runs no code.
        unsafe {
            let of = text(name);
            entry.1 = (api.text_id)(of.as_ptr(), of.len());
            ffi::Py_IncRef(name);
            ffi::Py_DecRef(std::mem::replace(&mut entry.0, name));
        }
    }
    entry.1
}

/// What `text(metadata)` makes of it: JSON, as a new reference; null if there is nothing to say.
#[cold]
unsafe fn json(metadata: *mut PyObject) -> *mut PyObject {
    let helper = HELPERS[TEXT].load(Relaxed);
    if helper.is_null() {
        return null_mut();
    }
    // SAFETY: live objects and the GIL held; a failure is ours to keep quiet.
    unsafe {
        let made = ffi::PyObject_CallFunctionObjArgs(helper, metadata, null_mut::<PyObject>());
        if made.is_null() || ffi::PyUnicode_Check(made) == 0 {
            ffi::PyErr_Clear();
            ffi::Py_DecRef(made);
            return null_mut();
        }
        made
    }
}

unsafe extern "C" fn enter(this: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by the interpreter on an object of our type.
    unsafe {
        let scope = this.cast::<Scope>();
        let handle = match probe() {
            Some((api, true, _)) if (*scope).metadata.is_null() => {
                (api.scope_begin)(id(api, (*scope).name))
            }
            Some((api, on, awaits)) if on || awaits => enter_slowly(api, scope),
            _ => 0,
        };
        if (*scope).open > 0 {
            if (*scope).others.is_null() {
                (*scope).others = Box::into_raw(Box::default());
            }
            (*(*scope).others).push((*scope).handle);
        }
        (*scope).open += 1;
        (*scope).handle = handle;
        ffi::Py_IncRef(this);
        this
    }
}

#[cold]
unsafe fn enter_slowly(api: &Api, scope: *mut Scope) -> u64 {
    // SAFETY: as in `enter`; the texts are alive over the call.
    unsafe {
        let made = match (*scope).metadata.is_null() {
            true => null_mut(),
            false => json((*scope).metadata),
        };
        let metadata = if made.is_null() { "" } else { text(made) };
        let name = text((*scope).name);
        let handle =
            (api.scope_enter)(name.as_ptr(), name.len(), metadata.as_ptr(), metadata.len());
        ffi::Py_DecRef(made);
        handle
    }
}

unsafe extern "C" fn exit(
    this: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
) -> *mut PyObject {
    // SAFETY: called by the interpreter on an object of our type with `count` arguments.
    unsafe {
        let scope = this.cast::<Scope>();
        if (*scope).open > 0 {
            let raised = count > 0 && *args != ffi::Py_None();
            if (*scope).handle != 0
                && let Some(api) = API.get()
            {
                (api.scope_exit)((*scope).handle, raised.into());
            }
            (*scope).open -= 1;
            (*scope).handle = match (*scope).others.as_mut() {
                Some(others) => others.pop().unwrap_or(0),
                None => 0,
            };
        }
        let none = ffi::Py_None();
        ffi::Py_IncRef(none);
        none
    }
}

unsafe extern "C" fn async_enter(this: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by the interpreter; the helper is kept for ever.
    unsafe {
        let helper = HELPERS[ENTER].load(Relaxed);
        ffi::PyObject_CallFunctionObjArgs(helper, this, null_mut::<PyObject>())
    }
}

unsafe extern "C" fn async_exit(
    this: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
) -> *mut PyObject {
    // SAFETY: called by the interpreter with `count` arguments; the helper is kept for ever.
    unsafe {
        let none = ffi::Py_None();
        let arg = |at: isize| if at < count { *args.offset(at) } else { none };
        let end = null_mut::<PyObject>();
        let helper = HELPERS[LEAVE].load(Relaxed);
        ffi::PyObject_CallFunctionObjArgs(helper, this, arg(0), arg(1), arg(2), end)
    }
}

/// `scope("name")(function)`: as a decorator.
unsafe extern "C" fn call(
    this: *mut PyObject,
    args: *mut PyObject,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the interpreter with a tuple and null or a dict; the helper is kept for ever.
    unsafe {
        if ffi::PyTuple_Size(args) != 1 || !(names.is_null() || ffi::PyDict_Size(names) == 0) {
            return refuse(c"a scope decorates one function");
        }
        let scope = this.cast::<Scope>();
        let none = ffi::Py_None();
        let metadata = (*scope).metadata;
        let metadata = if metadata.is_null() { none } else { metadata };
        let (function, end) = (ffi::PyTuple_GetItem(args, 0), null_mut::<PyObject>());
        let helper = HELPERS[DECORATE].load(Relaxed);
        ffi::PyObject_CallFunctionObjArgs(helper, (*scope).name, metadata, function, end)
    }
}

unsafe fn refuse(why: &CStr) -> *mut PyObject {
    // SAFETY: a C string, and the GIL is held.
    unsafe { ffi::PyErr_SetString(ffi::PyExc_TypeError, why.as_ptr()) };
    null_mut()
}

/// A new scope of `of`. Takes over a reference to `metadata`, which is null or a dict.
#[inline(always)]
unsafe fn made(
    of: *mut PyTypeObject,
    name: *mut PyObject,
    metadata: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: live objects and the GIL held. A scope of FREE is whole but for its fields and count.
    unsafe {
        let name = match ffi::PyUnicode_CheckExact(name) {
            0 => ffi::PyObject_Str(name),
            _ => {
                ffi::Py_IncRef(name);
                name
            }
        };
        let free = &mut *FREE.0.get();
        let scope = if name.is_null() {
            null_mut()
        } else if free.0 > 0 && of == TYPE.load(Relaxed) {
            free.0 -= 1;
            let scope = free.1[free.0];
            (*scope.cast::<Head>()).count = 1;
            scope
        } else {
            ffi::PyType_GenericAlloc(of, 0).cast::<Scope>()
        };
        if scope.is_null() {
            ffi::Py_DecRef(name);
            ffi::Py_DecRef(metadata);
            return null_mut();
        }
        (*scope).name = name;
        (*scope).metadata = metadata;
        (*scope).open = 0;
        (*scope).handle = 0;
        (*scope).others = null_mut();
        scope.cast()
    }
}

/// The count as `object.h` of builds with a GIL has it.
#[repr(C)]
struct Head {
    count: isize,
    of: *mut PyTypeObject,
}

unsafe extern "C" fn vectorcall(
    of: *mut PyObject,
    args: *const *mut PyObject,
    flags: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    let count = flags & !(1 << 63); // without PY_VECTORCALL_ARGUMENTS_OFFSET
    if count != 1 {
        // SAFETY: the GIL is held.
        return unsafe { refuse(c"scope() takes a name and keyword arguments") };
    }
    // SAFETY: called by the interpreter with one argument, and one value for each of `names`.
    unsafe {
        let metadata = if names.is_null() || ffi::PyTuple_Size(names) == 0 {
            null_mut()
        } else {
            let dict = ffi::PyDict_New();
            for at in 0..ffi::PyTuple_Size(names) {
                let value = *args.offset(1 + at);
                if dict.is_null()
                    || ffi::PyDict_SetItem(dict, ffi::PyTuple_GetItem(names, at), value) != 0
                {
                    ffi::Py_DecRef(dict);
                    return null_mut();
                }
            }
            dict
        };
        made(of.cast(), *args, metadata)
    }
}

/// `tp_new`, for subclasses.
unsafe extern "C" fn new(
    of: *mut PyTypeObject,
    args: *mut PyObject,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the interpreter with a tuple and null or a dict.
    unsafe {
        if ffi::PyTuple_Size(args) != 1 {
            return refuse(c"scope() takes a name and keyword arguments");
        }
        let metadata = match names.is_null() || ffi::PyDict_Size(names) == 0 {
            true => null_mut(),
            false => ffi::PyDict_Copy(names),
        };
        made(of, ffi::PyTuple_GetItem(args, 0), metadata)
    }
}

unsafe extern "C" fn dealloc(this: *mut PyObject) {
    // SAFETY: called by the interpreter on an object of our type that nobody has any more.
    unsafe {
        let scope = this.cast::<Scope>();
        ffi::Py_DecRef((*scope).name);
        ffi::Py_DecRef((*scope).metadata);
        if !(*scope).others.is_null() {
            drop(Box::from_raw((*scope).others));
        }
        let free = &mut *FREE.0.get();
        let of = ffi::Py_TYPE(this);
        if of == TYPE.load(Relaxed) && free.0 < free.1.len() {
            free.1[free.0] = scope; // with its reference to the type
            free.0 += 1;
            return;
        }
        let release = ffi::PyType_GetSlot(of, ffi::Py_tp_free);
        let release: unsafe extern "C" fn(*mut c_void) = std::mem::transmute(release);
        release(this.cast());
        ffi::Py_DecRef(of.cast());
    }
}

/// `mark_event(name, metadata=None)`.
unsafe extern "C" fn mark(
    _: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by the interpreter with `count` arguments, and one value for each of `names`.
    unsafe {
        let none = ffi::Py_None();
        let named = if names.is_null() {
            0
        } else {
            ffi::PyTuple_Size(names)
        };
        let (mut name, mut metadata) = (null_mut(), none);
        for at in 0..count + named {
            let value = *args.offset(at);
            let key = match at < count {
                true => ["name", "metadata"].get(at as usize).copied().unwrap_or(""),
                false => text(ffi::PyTuple_GetItem(names, at - count)),
            };
            match key {
                "name" => name = value,
                "metadata" => metadata = value,
                _ => return refuse(c"mark_event() takes a name and metadata"),
            }
        }
        if name.is_null() {
            return refuse(c"mark_event() takes a name and metadata");
        }
        if let Some((api, true, _)) = probe() {
            let name = match ffi::PyUnicode_CheckExact(name) {
                0 => ffi::PyObject_Str(name),
                _ => {
                    ffi::Py_IncRef(name);
                    name
                }
            };
            if name.is_null() {
                return null_mut();
            }
            if metadata == none {
                (api.mark_id)(id(api, name));
            } else {
                let (made, of) = (json(metadata), text(name));
                let metadata = if made.is_null() { "" } else { text(made) };
                (api.mark)(of.as_ptr(), of.len(), metadata.as_ptr(), metadata.len());
                ffi::Py_DecRef(made);
            }
            ffi::Py_DecRef(name);
        }
        ffi::Py_IncRef(none);
        none
    }
}

/// `PyMethodDef` with the address as it is.
#[repr(C)]
struct Method {
    name: *const c_char,
    address: *const c_void,
    flags: c_int,
    doc: *const c_char,
}

struct Methods([Method; 6]);
// SAFETY: addresses of functions and of constants.
unsafe impl Sync for Methods {}

const fn method(name: &'static CStr, address: *const c_void, flags: c_int) -> Method {
    Method {
        name: name.as_ptr(),
        address,
        flags,
        doc: std::ptr::null(),
    }
}

/// The methods of a scope, an empty entry that ends them, and `mark_event`.
static METHODS: Methods = Methods([
    method(c"__enter__", enter as *const c_void, ffi::METH_NOARGS),
    method(c"__exit__", exit as *const c_void, METH_FASTCALL),
    method(
        c"__aenter__",
        async_enter as *const c_void,
        ffi::METH_NOARGS,
    ),
    method(c"__aexit__", async_exit as *const c_void, METH_FASTCALL),
    Method {
        name: std::ptr::null(),
        address: std::ptr::null(),
        flags: 0,
        doc: std::ptr::null(),
    },
    method(
        c"mark_event",
        mark as *const c_void,
        METH_FASTCALL | ffi::METH_KEYWORDS,
    ),
]);

/// Tells the probe which calls are ours, so that they are not recorded.
pub fn hide(api: &Api) {
    let methods = METHODS.0.as_ptr_range();
    // SAFETY: addresses that the probe compares only.
    unsafe {
        (api.hide)(
            methods.start.cast(),
            methods.end.cast(),
            TYPE.load(Relaxed).cast(),
        )
    };
}

/// Keeps the Python functions for what is rare.
pub fn help(helpers: [*mut PyObject; 4]) {
    for (place, helper) in HELPERS.iter().zip(helpers) {
        // SAFETY: live objects and the GIL held; what was here before is kept.
        unsafe { ffi::Py_IncRef(helper) };
        place.store(helper, Relaxed);
    }
}

/// The class and the function, as new references; null with an exception set.
pub fn make() -> (*mut PyObject, *mut PyObject) {
    const DOC: &CStr = c"A named stretch of the program: a context manager (also asynchronous) and a decorator.

As a decorator it covers each call: of a coroutine function until it has finished, of a generator until it is
exhausted. One object may be entered again while it is open.";
    let slot = |slot: c_int, pfunc: *const c_void| ffi::PyType_Slot {
        slot,
        pfunc: pfunc.cast_mut(),
    };
    let mut slots = [
        slot(ffi::Py_tp_new, new as *const c_void),
        slot(ffi::Py_tp_dealloc, dealloc as *const c_void),
        slot(ffi::Py_tp_call, call as *const c_void),
        slot(ffi::Py_tp_methods, METHODS.0.as_ptr().cast()),
        slot(ffi::Py_tp_doc, DOC.as_ptr().cast()),
        slot(0, std::ptr::null()),
    ];
    let mut spec = ffi::PyType_Spec {
        name: c"inferscope.scope".as_ptr(),
        basicsize: size_of::<Scope>() as c_int,
        itemsize: 0,
        flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_BASETYPE) as _,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the GIL is held; the methods are static, the rest is copied. A heap type has its `tp_vectorcall` where
    // every type has it, and nobody has called it yet.
    unsafe {
        let of = ffi::PyType_FromSpec(&mut spec);
        if !of.is_null() {
            let place = of.byte_add(TP_VECTORCALL).cast::<*const c_void>();
            place.write(vectorcall as *const c_void);
            TYPE.store(of.cast(), Relaxed);
        }
        let def = (&raw const METHODS.0[5])
            .cast_mut()
            .cast::<ffi::PyMethodDef>();
        (of, ffi::PyCFunction_NewEx(def, null_mut(), null_mut()))
    }
}
