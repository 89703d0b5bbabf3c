//! ufuncs, `__array_function__` dispatchers and torch's methods: each object has a vectorcall pointer of its own.

use super::gate;
use super::layout::{self, Library};
use crate::hot;
use crate::py::{Owned, Py, PyMethodDef, PyObject, sym};
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

type VectorCall = unsafe extern "C" fn(
    *mut PyObject,
    *const *mut PyObject,
    usize,
    *mut PyObject,
) -> *mut PyObject;

/// One wrapped type: all its objects have the same original.
struct Kind {
    of: AtomicPtr<PyObject>,
    original: AtomicPtr<c_void>,
}

impl Kind {
    const fn new() -> Kind {
        Kind {
            of: AtomicPtr::new(std::ptr::null_mut()),
            original: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    #[inline(always)]
    fn original(&self) -> VectorCall {
        let at = self.original.load(Relaxed);
        // SAFETY: only reached through a pointer that replaced this original, stored before.
        unsafe { std::mem::transmute::<*mut c_void, VectorCall>(at) }
    }
}

static UFUNC: Kind = Kind::new();
static DISPATCHER: Kind = Kind::new();
/// Method descriptors: the original depends on how a method takes its arguments, so it is kept by object.
static METHOD: Kind = Kind::new();

/// Wrapped objects by address. They are kept alive for ever, so an address stays what it is.
const CAPACITY: usize = 4096;
static KEYS: [AtomicUsize; CAPACITY] = [const { AtomicUsize::new(0) }; CAPACITY];
static IDS: [AtomicU32; CAPACITY] = [const { AtomicU32::new(0) }; CAPACITY];
/// Of methods.
static ORIGINALS: [AtomicPtr<c_void>; CAPACITY] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; CAPACITY];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Where `key` is, or else the empty place where it would be.
#[inline]
fn find(key: usize) -> usize {
    // Objects are 16-byte aligned; the multiplier is 2^64 over the golden ratio.
    let mut at = (key >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - CAPACITY.ilog2());
    loop {
        let found = KEYS[at].load(Acquire);
        if found == key || found == 0 {
            return at;
        }
        at = (at + 1) % CAPACITY;
    }
}

/// How many objects are wrapped.
pub fn count() -> usize {
    COUNT.load(Relaxed)
}

/// Whether this object's calls are recorded here.
#[inline]
pub fn wrapped(callable: *mut PyObject) -> bool {
    if callable.is_null() {
        return false;
    }
    // SAFETY: the caller passes a live object.
    let of = unsafe { (*callable).ob_type };
    [&UFUNC, &DISPATCHER, &METHOD]
        .iter()
        .any(|kind| kind.of.load(Relaxed) == of)
        && KEYS[find(callable as usize)].load(Relaxed) != 0
}

fn id(callable: *mut PyObject) -> u32 {
    IDS[find(callable as usize)].load(Relaxed)
}

unsafe extern "C" fn ufunc(
    callable: *mut PyObject,
    args: *const *mut PyObject,
    flags: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    gate::ufunc(
        // SAFETY: the original, with the caller's own arguments.
        || unsafe { UFUNC.original()(callable, args, flags, names) },
        || id(callable),
    )
}

unsafe extern "C" fn dispatcher(
    callable: *mut PyObject,
    args: *const *mut PyObject,
    flags: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    gate::function(
        // SAFETY: the original, with the caller's own arguments.
        || unsafe { DISPATCHER.original()(callable, args, flags, names) },
        || id(callable),
    )
}

unsafe extern "C" fn method(
    callable: *mut PyObject,
    args: *const *mut PyObject,
    flags: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    let at = find(callable as usize);
    let original = ORIGINALS[at].load(Relaxed);
    gate::function(
        // SAFETY: the original of this object, stored before its pointer was replaced, with the caller's own arguments.
        || unsafe {
            std::mem::transmute::<*mut c_void, VectorCall>(original)(callable, args, flags, names)
        },
        || IDS[at].load(Relaxed),
    )
}

/// Wraps the methods of torch's tensors, operators among them: those that its own library implements.
///
/// # Safety
/// The GIL is held, no exception is set, `torch` is that module.
pub unsafe fn install_methods(py: &Py, torch: *mut PyObject) -> Result<(), String> {
    // SAFETY: the GIL is held, and the objects are live.
    unsafe {
        let base = py.attr(torch, c"_C").and_then(|module| {
            py.attr(module.get(), c"TensorBase")
                .or_else(|| py.attr(module.get(), c"_TensorBase")) // before 2.1
        });
        let base = base.ok_or("it has no TensorBase")?;
        METHOD.of.store(py.method_descr_type, Relaxed);
        let before = count();
        // A mapping proxy: its copy is a dictionary.
        let own = py
            .attr(base.get(), c"__dict__")
            .and_then(|own| py.attr(own.get(), c"copy"))
            .and_then(|copy| {
                let end = std::ptr::null_mut::<PyObject>();
                Owned::new(py, (py.PyObject_CallFunctionObjArgs)(copy.get(), end))
            });
        for function in values(py, own.ok_or("TensorBase has no methods")?.get())? {
            if (*function.get()).ob_type == py.method_descr_type {
                wrap_method(py, function);
            }
        }
        match count() > before {
            true => Ok(()),
            false => Err("no method of its tensors is its own".into()),
        }
    }
}

/// `d_method` of PyMethodDescrObject, and its `vectorcall` (descrobject.h), in bytes: the head, then class, name and
/// qualified name.
const D_METHOD: usize = 40;
const D_VECTORCALL: usize = 48;

/// # Safety
/// The GIL is held; `function` is a method descriptor.
unsafe fn wrap_method(py: &Py, function: Owned) {
    let at = function.get();
    // SAFETY: a live method descriptor, laid out as above: that its type says the same of the pointer is looked at first.
    unsafe {
        let of = (*at).ob_type;
        if layout::word(of.cast(), layout::TP_FLAGS) & layout::HAVE_VECTORCALL == 0
            || layout::word(of.cast(), layout::TP_VECTORCALL_OFFSET) != D_VECTORCALL
        {
            return;
        }
        let place = layout::place(at.cast(), D_VECTORCALL);
        let original = place.load(Relaxed);
        let definition = layout::word(at.cast(), D_METHOD) as *const PyMethodDef;
        let library =
            layout::library((*definition).ml_meth).filter(|library| library.file.contains("torch"));
        let (Some(library), Some(name)) = (library, py.attr_text(at, c"__name__")) else {
            return;
        };
        if original.is_null() || count() > CAPACITY / 2 {
            return;
        }
        let slot = find(at as usize);
        let file = layout::shortened(&library.file);
        IDS[slot].store(hot::define(&format!("Tensor.{name}"), file, 0), Relaxed);
        ORIGINALS[slot].store(original, Relaxed);
        KEYS[slot].store(at as usize, Release);
        COUNT.fetch_add(1, Relaxed);
        place.store(method as *mut c_void, Release);
        function.into_raw(); // kept for ever: its address is a key
    }
}

/// Wraps the functions of numpy's public modules that are imported.
///
/// # Safety
/// The GIL is held, no exception is set, `numpy` is that module.
pub unsafe fn install(py: &Py, numpy: *mut PyObject) -> Result<(), String> {
    // SAFETY: the GIL is held, and the objects are live.
    unsafe {
        if let Some(of) = py.attr(numpy, c"ufunc") {
            UFUNC.of.store(of.into_raw(), Relaxed);
        }
        // Python functions before numpy 1.25.
        if let Some(one) = py.attr(numpy, c"concatenate") {
            let of = (*one.get()).ob_type;
            if layout::type_name(of).ends_with("_ArrayFunctionDispatcher") {
                (py.Py_IncRef)(of);
                DISPATCHER.of.store(of, Relaxed);
            }
        }
        let mut any = 0;
        for module in [
            c"numpy",
            c"numpy.linalg",
            c"numpy.fft",
            c"numpy.random",
            c"numpy.lib.stride_tricks",
        ] {
            if !py.module(module).is_null() {
                any += more(py, module)?;
            }
        }
        if any == 0 {
            return Err("no ufunc has a call pointer of its own".into());
        }
    }
    Ok(())
}

/// Wraps the functions of one module. Returns how many.
///
/// # Safety
/// The GIL is held and no exception is set.
unsafe fn more(py: &Py, module: &CStr) -> Result<usize, String> {
    // SAFETY: as the caller promises.
    unsafe {
        let module = py.module(module);
        if module.is_null() {
            return Ok(0);
        }
        let Some(dict) = py.attr(module, c"__dict__") else {
            return Ok(0);
        };
        let numpy = layout::library(UFUNC.of.load(Relaxed).cast());
        let Some(numpy) = numpy.filter(|library| library.file.contains("numpy")) else {
            return Err("its functions are in no library of its own".into());
        };
        let before = count();
        for function in values(py, dict.get())? {
            let of = (*function.get()).ob_type;
            if of == UFUNC.of.load(Relaxed) || of == DISPATCHER.of.load(Relaxed) {
                wrap(py, &numpy, function);
            }
        }
        Ok(count() - before)
    }
}

/// The values of a dictionary.
///
/// # Safety
/// The GIL is held and `dict` is a live dictionary.
unsafe fn values(py: &Py, dict: *mut PyObject) -> Result<Vec<Owned>, String> {
    type Next = unsafe extern "C" fn(
        *mut PyObject,
        *mut isize,
        *mut *mut PyObject,
        *mut *mut PyObject,
    ) -> c_int;
    let next = sym(c"PyDict_Next");
    if next.is_null() {
        return Err("no PyDict_Next".into());
    }
    // SAFETY: CPython's function of that name. The references it gives are borrowed from the dictionary, which does
    // not change here.
    unsafe {
        let next = std::mem::transmute::<*mut c_void, Next>(next);
        let mut found = Vec::new();
        let (mut at, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        while next(dict, &mut at, &mut key, &mut value) != 0 {
            (py.Py_IncRef)(value);
            found.extend(Owned::new(py, value));
        }
        Ok(found)
    }
}

/// # Safety
/// The GIL is held; `function` is of one of the two types.
unsafe fn wrap(py: &Py, numpy: &Library, function: Owned) {
    let at = function.get();
    // SAFETY: a live object, its type, and the pointer whose offset that type states and bounds.
    unsafe {
        let of = (*at).ob_type;
        let (kind, trampoline) = if of == UFUNC.of.load(Relaxed) {
            (&UFUNC, ufunc as VectorCall)
        } else {
            (&DISPATCHER, dispatcher as VectorCall)
        };
        let offset = layout::word(of.cast(), layout::TP_VECTORCALL_OFFSET);
        let size = layout::word(of.cast(), layout::TP_BASICSIZE);
        if layout::word(of.cast(), layout::TP_FLAGS) & layout::HAVE_VECTORCALL == 0
            || offset < size_of::<PyObject>()
            || !offset.is_multiple_of(8)
            || offset + 8 > size
        {
            return;
        }
        let place = layout::place(at.cast(), offset);
        let original = place.load(Relaxed);
        let known = kind.original.load(Relaxed);
        if original.is_null()
            || original == trampoline as *mut c_void
            || !(known.is_null() || known == original)
            || layout::library(original).is_none_or(|library| library.base != numpy.base)
            || count() > CAPACITY / 2
        {
            return;
        }
        let Some(name) = py.attr_text(at, c"__name__") else {
            return;
        };
        // ufuncs do not say where they are from.
        let module = if of == DISPATCHER.of.load(Relaxed) {
            py.attr_text(at, c"__module__")
        } else {
            None
        };
        let module = module.as_deref().unwrap_or("numpy");
        let slot = find(at as usize);
        let id = hot::define(
            &format!("{module}.{name}"),
            layout::shortened(&numpy.file),
            0,
        );
        IDS[slot].store(id, Relaxed);
        KEYS[slot].store(at as usize, Release);
        COUNT.fetch_add(1, Relaxed);
        kind.original.store(original, Relaxed);
        place.store(trampoline as *mut c_void, Release);
        function.into_raw(); // kept for ever: its address is a key
    }
}
