//! What a native function is called, and in which library it lives.

use crate::hot;
use crate::loaded;
use crate::py::{self, Py, PyMethodDef, PyObject};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

// Words of CPython's objects after their head of two, the same from 3.9 to 3.14.
const FIRST: usize = 2; // m_ml, im_func, d_type, descr: the first field
const SECOND: usize = 3; // m_self, im_self
const THIRD: usize = 4; // m_module
const DESCR_METHOD: usize = 5; // d_method, d_base
const DESCR_WRAPPED: usize = 6; // d_wrapped
const TP_NAME: usize = 3;
const TP_CALL: usize = 16;
const TP_FLAGS: usize = 21;
const TP_INIT: usize = 37;
const TP_NEW: usize = 39;
/// `Py_TPFLAGS_TYPE_SUBCLASS` (object.h): objects of the type are types.
const TYPE_SUBCLASS: usize = 1 << 31;
/// `Py_TPFLAGS_HEAPTYPE` (object.h).
const HEAP_TYPE: usize = 1 << 9;

unsafe fn word(of: *mut PyObject, at: usize) -> *mut PyObject {
    // SAFETY: the caller knows from the type that the object has this many words.
    unsafe { *of.cast::<*mut PyObject>().add(at) }
}

unsafe fn kind(of: *mut PyObject) -> *mut PyObject {
    // SAFETY: a live object.
    unsafe { (*of).ob_type }
}

/// The name in a type itself: "numpy.ndarray" for a static type, "Generator" for one made at run time.
unsafe fn type_name<'a>(of: *mut PyObject) -> &'a CStr {
    // SAFETY: `of` is a live type, whose fourth word points to its name.
    unsafe {
        let name = word(of, TP_NAME).cast::<c_char>();
        if name.is_null() {
            c""
        } else {
            CStr::from_ptr(name)
        }
    }
}

/// A callable taken apart.
enum Native {
    /// A function or method: its definition, what it is bound to (null for a module's), and its module's name.
    Function {
        def: *mut PyMethodDef,
        this: *mut PyObject,
        module: *mut PyObject,
    },
    /// A method of a type, not bound: the type, name and address.
    Method {
        of: *mut PyObject,
        name: *const c_char,
        address: *mut c_void,
    },
    /// A slot of a type as a method (`__add__`): the descriptor.
    Slot { descr: *mut PyObject },
    /// A class, or an object with a `__call__`: may come back into Python.
    Other,
}

unsafe fn is_cfunction(py: &Py, callable: *mut PyObject) -> bool {
    // SAFETY: a live object.
    unsafe {
        let ty = kind(callable);
        ty == py.cfunction_type
            || ty == py.cmethod_type
            // Cython's functions begin with the same fields (they hold a PyCMethodObject).
            || type_name(ty).to_bytes().ends_with(b"cython_function_or_method")
    }
}

unsafe fn take_apart(py: &Py, callable: *mut PyObject) -> Native {
    // SAFETY: each type checked has the fields read.
    unsafe {
        let ty = kind(callable);
        if is_cfunction(py, callable) {
            return Native::Function {
                def: word(callable, FIRST).cast(),
                this: word(callable, SECOND),
                module: word(callable, THIRD),
            };
        }
        if ty == py.method_type || (ty == py.instance_method_type && !ty.is_null()) {
            let function = word(callable, FIRST);
            let this = if ty == py.method_type {
                word(callable, SECOND)
            } else {
                std::ptr::null_mut()
            };
            if is_cfunction(py, function) {
                return Native::Function {
                    def: word(function, FIRST).cast(),
                    this,
                    module: word(function, THIRD),
                };
            }
            if kind(function) == py.instance_method_type && is_cfunction(py, word(function, FIRST))
            {
                let function = word(function, FIRST);
                return Native::Function {
                    def: word(function, FIRST).cast(),
                    this,
                    module: word(function, THIRD),
                };
            }
            return Native::Other;
        }
        if ty == py.method_descr_type || (ty == py.classmethod_descr_type && !ty.is_null()) {
            let def = word(callable, DESCR_METHOD).cast::<PyMethodDef>();
            return Native::Method {
                of: word(callable, FIRST),
                name: (*def).ml_name,
                address: (*def).ml_meth,
            };
        }
        if ty == py.wrapper_descr_type && !ty.is_null() {
            return Native::Slot { descr: callable };
        }
        if ty == py.method_wrapper_type && !ty.is_null() {
            return Native::Slot {
                descr: word(callable, FIRST),
            };
        }
        Native::Other
    }
}

/// Whether a bound method is one of a Python function.
///
/// # Safety
/// `method` is a live object of exactly the method type.
#[inline]
pub unsafe fn method_is_python(py: &Py, method: *mut PyObject) -> bool {
    // SAFETY: as the caller promises.
    unsafe { kind(word(method, FIRST)) == py.function_type }
}

/// The slots of classes that Python code alone makes: `tp_new` and `tp_init` of one with an `__init__`, and `tp_init` of
/// one without. All 0: not known.
#[derive(Clone, Copy, Default)]
pub struct Plain {
    new: usize,
    init: usize,
    no_init: usize,
}

impl Plain {
    /// From a class that has nothing but an `__init__`.
    ///
    /// # Safety
    /// `class` is null or a live class.
    pub unsafe fn of(class: *mut PyObject) -> Plain {
        let object = py::sym(c"PyBaseObject_Type").cast::<PyObject>();
        if class.is_null() || object.is_null() {
            return Plain::default();
        }
        // SAFETY: as the caller promises; a type has these words from 3.9 to 3.14.
        unsafe {
            Plain {
                new: word(class, TP_NEW) as usize,
                init: word(class, TP_INIT) as usize,
                no_init: word(object, TP_INIT) as usize,
            }
        }
    }
}

/// Whether no native code but the interpreter's own makes an object of this class.
///
/// # Safety
/// `class` is a live class.
#[inline]
pub unsafe fn class_is_python(class: *mut PyObject, plain: Plain) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        let init = word(class, TP_INIT) as usize;
        (init == plain.init || init == plain.no_init)
            && word(class, TP_NEW) as usize == plain.new
            && word(class, TP_FLAGS) as usize & HEAP_TYPE != 0
    }
}

/// Whether what this calls may be Python code: a class's `__init__`, an object's `__call__`.
///
/// # Safety
/// `callable` is a live object.
pub unsafe fn may_be_python(py: &Py, callable: *mut PyObject) -> bool {
    // SAFETY: as the caller promises.
    matches!(unsafe { take_apart(py, callable) }, Native::Other)
}

/// The library that makes an object of a class, or runs an object that is called; empty if Python code does, as far
/// as can be told: the class was made at run time and its slots are the interpreter's own.
unsafe fn maker(callable: *mut PyObject) -> String {
    // SAFETY: a live object; a type has these words from 3.9 to 3.14.
    unsafe {
        let class = is_type(callable);
        let ty = if class { callable } else { kind(callable) };
        let slots: &[usize] = if class {
            &[TP_INIT, TP_NEW]
        } else {
            &[TP_CALL]
        };
        let found = slots.iter().map(|&slot| library(word(ty, slot).cast()));
        let native = found
            .clone()
            .find(|file| !file.is_empty() && file != "python");
        if word(ty, TP_FLAGS) as usize & HEAP_TYPE != 0 {
            return native.unwrap_or_default();
        }
        native.unwrap_or_else(|| library(ty.cast()))
    }
}

/// Definitions and class of the functions that the program calls of ours.
static HIDDEN: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// From now on [`is_hidden`] knows these.
pub fn hide(definitions: std::ops::Range<usize>, class: usize) {
    let all = [definitions.start, definitions.end, class];
    for (place, at) in HIDDEN.iter().zip(all) {
        place.store(at, Relaxed);
    }
}

/// Whether this is ours: a scope's class or method, or `mark_event`.
///
/// # Safety
/// `callable` is a live object.
#[inline(always)]
pub unsafe fn is_hidden(py: &Py, callable: *mut PyObject) -> bool {
    let [from, to, class] = [0, 1, 2].map(|at| HIDDEN[at].load(Relaxed));
    // SAFETY: a builtin function's first field is its definition.
    unsafe {
        match kind(callable) == py.cfunction_type {
            true => (from..to).contains(&(word(callable, FIRST) as usize)),
            false => callable as usize == class,
        }
    }
}

/// What tells one native function from another, without asking for its name.
///
/// # Safety
/// `callable` is a live object.
pub unsafe fn key(py: &Py, callable: *mut PyObject) -> (usize, usize) {
    // SAFETY: as the caller promises; each type checked has the fields read.
    unsafe {
        // The most frequent two first, without a look at names.
        let ty = kind(callable);
        if ty == py.method_descr_type {
            let def = word(callable, DESCR_METHOD).cast::<PyMethodDef>();
            return ((*def).ml_meth as usize, word(callable, FIRST) as usize);
        }
        if ty == py.type_type {
            return (callable as usize, 2);
        }
        match take_apart(py, callable) {
            Native::Function { def, this, module } => {
                let of = if this.is_null() {
                    module
                } else if is_type(this) {
                    this
                } else {
                    kind(this)
                };
                (def as usize, of as usize)
            }
            Native::Method { address, of, .. } => (address as usize, of as usize),
            Native::Slot { descr } => (descr as usize, 1),
            Native::Other if is_type(callable) => (callable as usize, 2),
            Native::Other => (kind(callable) as usize, 3),
        }
    }
}

unsafe fn is_type(of: *mut PyObject) -> bool {
    // SAFETY: live objects; the check reads their types only.
    unsafe { word(kind(of), TP_FLAGS) as usize & TYPE_SUBCLASS != 0 }
}

static IDS: Mutex<Option<HashMap<(usize, usize), u32>>> = Mutex::new(None);

/// The id of a native function's name, defined at its first use; 0 if it seems to be Python code.
///
/// # Safety
/// `callable` is a live object, `key` its [`key`], and the GIL is held.
pub unsafe fn id(py: &Py, callable: *mut PyObject, key: (usize, usize)) -> u32 {
    let ids = || IDS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(&id) = ids().as_ref().and_then(|ids| ids.get(&key)) {
        return id;
    }
    // SAFETY: as the caller promises. The lock is not held: attributes may run Python.
    let (name, file) = unsafe { describe(py, callable) };
    // SAFETY: a live object.
    let python = file.is_empty() && unsafe { may_be_python(py, callable) };
    let id = if python {
        0
    } else {
        hot::define(&name, &file, 0)
    };
    ids().get_or_insert_default().insert(key, id);
    id
}

/// The name and the library of a native callable.
unsafe fn describe(py: &Py, callable: *mut PyObject) -> (String, String) {
    // SAFETY: the GIL is held and the objects live, for all calls below.
    unsafe {
        match take_apart(py, callable) {
            Native::Function { def, this, module } => {
                let name = CStr::from_ptr((*def).ml_name)
                    .to_string_lossy()
                    .into_owned();
                let file = library((*def).ml_meth);
                let ty = if this.is_null() {
                    b""
                } else {
                    type_name(kind(this)).to_bytes()
                };
                let free = this.is_null()
                    || kind(this) == py.module_type
                    || ty == b"PyCapsule"
                    || ty.starts_with(b"pybind11")
                    || ty.starts_with(b"nanobind");
                if !free {
                    let owner = if is_type(this) { this } else { kind(this) };
                    return (format!("{}.{name}", owner_name(py, owner)), file);
                }
                let module = if module.is_null() {
                    None
                } else {
                    py.text(module)
                };
                let module = module.or_else(|| {
                    (!this.is_null() && kind(this) == py.module_type)
                        .then(|| py.attr_text(this, c"__name__"))
                        .flatten()
                });
                (join(module.as_deref(), &name), file)
            }
            Native::Method { of, name, address } => {
                let name = CStr::from_ptr(name).to_string_lossy();
                (format!("{}.{name}", owner_name(py, of)), library(address))
            }
            Native::Slot { descr } => {
                let name = py
                    .attr_text(descr, c"__name__")
                    .unwrap_or_else(|| "?".into());
                let of = word(descr, FIRST);
                (
                    format!("{}.{name}", owner_name(py, of)),
                    library(word(descr, DESCR_WRAPPED).cast()),
                )
            }
            Native::Other => {
                let ty = if is_type(callable) {
                    callable
                } else {
                    kind(callable)
                };
                let file = maker(callable);
                if ty != callable
                    && let (Some(name), module) = (
                        py.attr_text(callable, c"__name__"),
                        py.attr_text(callable, c"__module__"),
                    )
                {
                    return (join(module.as_deref().map(public), &name), file);
                }
                (owner_name(py, ty), file)
            }
        }
    }
}

/// A type's name as a person would write it: "list", "ndarray", "numpy.random.Generator", "InferenceSession".
unsafe fn owner_name(py: &Py, ty: *mut PyObject) -> String {
    // SAFETY: `ty` is a live type and the GIL is held.
    let (name, module) = unsafe {
        (
            py.attr_text(ty, c"__qualname__"),
            py.attr_text(ty, c"__module__"),
        )
    };
    let name = name.unwrap_or_else(|| "?".into());
    let module = module.unwrap_or_default();
    let module = public(&module);
    // The deep modules of a library's binding say nothing; its name is the row's `file`.
    if module.is_empty()
        || module == "builtins"
        || (module, &*name) == ("numpy", "ndarray")
        || module.matches('.').count() > 1
    {
        return name;
    }
    format!("{module}.{name}")
}

/// A module without its private parts: "numpy.random._generator" is "numpy.random".
fn public(module: &str) -> &str {
    module.find("._").map_or(module, |at| &module[..at])
}

fn join(module: Option<&str>, name: &str) -> String {
    match module.map(public) {
        Some(module) if !module.is_empty() => format!("{module}.{name}"),
        _ => name.to_owned(),
    }
}

/// The shared library an address lies in, as traces name it; empty if it lies in none.
pub fn library(address: *mut c_void) -> String {
    let Some(found) = loaded::library(address) else {
        return String::new();
    };
    // Ours is what stands in for a function of the interpreter's (see `profile`).
    let own = library as fn(*mut c_void) -> String as *mut c_void;
    for python in [py::sym(c"PyDict_Type"), own] {
        if loaded::library(python).is_some_and(|python| python.base == found.base) {
            return "python".into();
        }
    }
    shorten(&found.file).to_owned()
}

/// A library's path from where it says something: after site-packages or lib-dynload, else its last part.
pub fn shorten(path: &str) -> &str {
    for folder in ["/site-packages/", "/dist-packages/", "/lib-dynload/"] {
        if let Some((_, rest)) = path.rsplit_once(folder) {
            return rest;
        }
    }
    path.rsplit_once('/').map_or(path, |(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_to_what_says_something() {
        assert_eq!(
            shorten("/v/lib/python3.12/site-packages/numpy/_core/x.so"),
            "numpy/_core/x.so"
        );
        assert_eq!(shorten("/v/lib-dynload/math.so"), "math.so");
        assert_eq!(shorten("/lib/libc.so.6"), "libc.so.6");
        assert_eq!(join(Some("numpy.random._generator"), "f"), "numpy.random.f");
        assert_eq!(join(Some("_io"), "open"), "_io.open");
        assert_eq!(join(None, "f"), "f");
        assert_eq!(library(std::ptr::null_mut()), "");
    }
}
