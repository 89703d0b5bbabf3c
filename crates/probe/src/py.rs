//! The interpreter in the process, by `dlsym` only: nothing here is linked.
//!
//! Layouts used (the first words of objects, types, functions and descriptors) are those of CPython 3.9 to 3.14
//! with a GIL; the bootstrap lets no other interpreter come this far.

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::sync::OnceLock;

/// The head of every object.
#[repr(C)]
pub struct PyObject {
    pub ob_refcnt: isize,
    pub ob_type: *mut PyObject,
}

/// `PyMethodDef`: a function's name, address and calling convention.
#[repr(C)]
pub struct PyMethodDef {
    pub ml_name: *const c_char,
    pub ml_meth: *mut c_void,
    pub ml_flags: c_int,
    pub ml_doc: *const c_char,
}

/// `METH_FASTCALL` of methodobject.h: the arguments come as an array.
pub const METH_FASTCALL: c_int = 0x80;

/// A `METH_FASTCALL` function.
pub type FastCall =
    unsafe extern "C" fn(*mut PyObject, *const *mut PyObject, isize) -> *mut PyObject;

/// A function called by its object's own pointer, without a look at the calling convention.
pub type VectorCall = unsafe extern "C" fn(
    *mut PyObject,
    *const *mut PyObject,
    usize,
    *mut PyObject,
) -> *mut PyObject;

/// An object that only calls.
#[repr(C)]
struct Callback {
    head: PyObject,
    call: VectorCall,
}

/// `PyType_Slot` and `PyType_Spec` of object.h, `PyMemberDef` of descrobject.h.
#[repr(C)]
struct Slot {
    slot: c_int,
    pfunc: *mut c_void,
}

#[repr(C)]
struct Spec {
    name: *const c_char,
    basicsize: c_int,
    itemsize: c_int,
    flags: c_uint,
    slots: *mut Slot,
}

#[repr(C)]
struct Member {
    name: *const c_char,
    kind: c_int,
    offset: isize,
    flags: c_int,
    doc: *const c_char,
}

/// `Py_tp_call` and `Py_tp_members` of typeslots.h; `T_PYSSIZET` and `READONLY` of structmember.h;
/// `Py_TPFLAGS_HAVE_VECTORCALL` of object.h.
const TP_CALL: c_int = 50;
const TP_MEMBERS: c_int = 72;
const SSIZE: c_int = 19;
const READONLY: c_int = 1;
const HAVE_VECTORCALL: c_uint = 1 << 11;

/// The address of an exported symbol of whatever is in the process; null if there is none.
pub fn sym(name: &CStr) -> *mut c_void {
    // SAFETY: the name is a C string, and looking up a symbol has no other effect.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

/// Where a function or object of the interpreter begins and ends, as its library's symbol table has it.
pub fn extent(name: &CStr) -> Option<(u64, u64)> {
    /// `RTLD_DL_SYMENT` of dlfcn.h: `dladdr1` gives the symbol's entry.
    const SYMENT: c_int = 1;
    type Dladdr1 =
        unsafe extern "C" fn(*const c_void, *mut libc::Dl_info, *mut *mut c_void, c_int) -> c_int;
    let (start, dladdr1) = (sym(name), sym(c"dladdr1"));
    if start.is_null() || dladdr1.is_null() {
        return None;
    }
    let mut entry: *mut c_void = std::ptr::null_mut();
    // SAFETY: the C library's function of that name; both places live for the call, and the entry it gives is an
    // Elf64_Sym of the library's own symbol table.
    let size = unsafe {
        let dladdr1 = std::mem::transmute::<*mut c_void, Dladdr1>(dladdr1);
        let mut info: libc::Dl_info = std::mem::zeroed();
        if dladdr1(start, &mut info, &mut entry, SYMENT) == 0
            || entry.is_null()
            || info.dli_saddr != start
        {
            return None;
        }
        (*entry.cast::<libc::Elf64_Sym>()).st_size
    };
    (size > 0).then(|| (start as u64, start as u64 + size))
}

macro_rules! functions {
    ($($name:ident: fn($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        /// Functions and objects that every supported interpreter has.
        #[allow(non_snake_case)]
        pub struct Py {
            $(pub $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
            /// Calls with a null-terminated list of arguments.
            pub PyObject_CallFunctionObjArgs: unsafe extern "C" fn(*mut PyObject, ...) -> *mut PyObject,
            pub none: *mut PyObject,
            pub function_type: *mut PyObject,
            pub method_type: *mut PyObject,
            pub cfunction_type: *mut PyObject,
            pub cmethod_type: *mut PyObject,
            pub method_descr_type: *mut PyObject,
            pub classmethod_descr_type: *mut PyObject,
            pub wrapper_descr_type: *mut PyObject,
            pub method_wrapper_type: *mut PyObject,
            pub instance_method_type: *mut PyObject,
            pub module_type: *mut PyObject,
            pub type_type: *mut PyObject,
            /// (major, minor), e.g. (3, 12).
            pub version: (u32, u32),
        }

        impl Py {
            #[allow(non_snake_case)]
            fn find() -> Option<Py> {
                let known = |name: &CStr| Some(sym(name)).filter(|at| !at.is_null());
                let object = |name: &CStr| known(name).map(|at| at.cast::<PyObject>());
                // The type may be missing where nothing can be of it.
                let perhaps = |name: &CStr| sym(name).cast::<PyObject>();
                $(
                    let name = CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()).ok()?;
                    // SAFETY: the symbol is CPython's function of that name, with the signature of its headers.
                    let $name = unsafe {
                        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) $(-> $ret)?>(known(name)?)
                    };
                )*
                // SAFETY: as above; the function is variadic.
                let call = unsafe {
                    std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut PyObject, ...) -> *mut PyObject>(
                        known(c"PyObject_CallFunctionObjArgs")?,
                    )
                };
                // SAFETY: CPython's function of that name; it returns a static C string that begins with the version.
                let version = unsafe {
                    let get = std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *const c_char>(
                        known(c"Py_GetVersion")?,
                    );
                    CStr::from_ptr(get())
                }
                .to_str()
                .ok()?;
                let mut parts = version.split(|c: char| !c.is_ascii_digit());
                Some(Py {
                    version: (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?),
                    $($name,)*
                    PyObject_CallFunctionObjArgs: call,
                    none: object(c"_Py_NoneStruct")?,
                    function_type: object(c"PyFunction_Type")?,
                    method_type: object(c"PyMethod_Type")?,
                    cfunction_type: object(c"PyCFunction_Type")?,
                    cmethod_type: perhaps(c"PyCMethod_Type"),
                    method_descr_type: object(c"PyMethodDescr_Type")?,
                    classmethod_descr_type: perhaps(c"PyClassMethodDescr_Type"),
                    wrapper_descr_type: perhaps(c"PyWrapperDescr_Type"),
                    method_wrapper_type: perhaps(c"_PyMethodWrapper_Type"),
                    instance_method_type: perhaps(c"PyInstanceMethod_Type"),
                    module_type: object(c"PyModule_Type")?,
                    type_type: object(c"PyType_Type")?,
                })
            }
        }
    };
}

functions! {
    Py_GetVersion: fn() -> *const c_char;
    Py_IncRef: fn(*mut PyObject);
    Py_DecRef: fn(*mut PyObject);
    PyErr_Clear: fn();
    PyErr_Occurred: fn() -> *mut PyObject;
    PyObject_GetAttrString: fn(*mut PyObject, *const c_char) -> *mut PyObject;
    PyObject_GetAttr: fn(*mut PyObject, *mut PyObject) -> *mut PyObject;
    PyObject_SetAttrString: fn(*mut PyObject, *const c_char, *mut PyObject) -> c_int;
    PyObject_Call: fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;
    PyType_IsSubtype: fn(*mut PyObject, *mut PyObject) -> c_int;
    PyUnicode_AsUTF8AndSize: fn(*mut PyObject, *mut isize) -> *const c_char;
    PyUnicode_FromStringAndSize: fn(*const c_char, isize) -> *mut PyObject;
    PyUnicode_InternFromString: fn(*const c_char) -> *mut PyObject;
    PyBytes_AsString: fn(*mut PyObject) -> *const c_char;
    PyBytes_Size: fn(*mut PyObject) -> isize;
    PyLong_AsLong: fn(*mut PyObject) -> c_long;
    PyLong_FromLong: fn(c_long) -> *mut PyObject;
    PyLong_FromUnsignedLong: fn(c_ulong) -> *mut PyObject;
    PyTuple_New: fn(isize) -> *mut PyObject;
    PyTuple_GetItem: fn(*mut PyObject, isize) -> *mut PyObject;
    PyTuple_SetItem: fn(*mut PyObject, isize, *mut PyObject) -> c_int;
    PyTuple_Size: fn(*mut PyObject) -> isize;
    PyList_Append: fn(*mut PyObject, *mut PyObject) -> c_int;
    PyDict_New: fn() -> *mut PyObject;
    PyDict_SetItemString: fn(*mut PyObject, *const c_char, *mut PyObject) -> c_int;
    PyDict_GetItemString: fn(*mut PyObject, *const c_char) -> *mut PyObject;
    PyDict_GetItemWithError: fn(*mut PyObject, *mut PyObject) -> *mut PyObject;
    PyImport_GetModuleDict: fn() -> *mut PyObject;
    PyImport_ImportModule: fn(*const c_char) -> *mut PyObject;
    PyCFunction_NewEx: fn(*mut PyMethodDef, *mut PyObject, *mut PyObject) -> *mut PyObject;
    PyEval_GetGlobals: fn() -> *mut PyObject;
    PyFrame_GetCode: fn(*mut PyObject) -> *mut PyObject;
    PyThread_get_thread_ident: fn() -> c_ulong;
    PyThreadState_Get: fn() -> *mut c_void;
    PyThreadState_GetInterpreter: fn(*mut c_void) -> *mut c_void;
    PyInterpreterState_ThreadHead: fn(*mut c_void) -> *mut c_void;
    PyThreadState_Next: fn(*mut c_void) -> *mut c_void;
}

// SAFETY: function pointers and addresses of static objects, the same for every thread.
unsafe impl Send for Py {}
// SAFETY: as above; nothing is written after it was found.
unsafe impl Sync for Py {}

static PY: OnceLock<Option<Py>> = OnceLock::new();

/// The interpreter, found at the first call; `None` if the process holds none that is supported.
pub fn get() -> Option<&'static Py> {
    PY.get_or_init(Py::find).as_ref()
}

/// A reference we own.
pub struct Owned(*mut PyObject);

impl Owned {
    /// Takes over a new reference; a null one clears the error and is `None`.
    ///
    /// # Safety
    /// `at` is null or a new reference; the GIL is held, here and when it is dropped.
    pub unsafe fn new(py: &Py, at: *mut PyObject) -> Option<Owned> {
        if at.is_null() {
            // SAFETY: the GIL is held.
            unsafe { (py.PyErr_Clear)() };
            return None;
        }
        Some(Owned(at))
    }

    pub fn get(&self) -> *mut PyObject {
        self.0
    }

    /// Gives the reference to someone else.
    pub fn into_raw(self) -> *mut PyObject {
        let at = self.0;
        std::mem::forget(self);
        at
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(py) = get() {
            // SAFETY: we own one reference, and the GIL is held (see `new`).
            unsafe { (py.Py_DecRef)(self.0) };
        }
    }
}

impl Py {
    /// The interpreter's version, e.g. "3.12.1".
    pub fn full_version(&self) -> Option<String> {
        // SAFETY: returns a static C string.
        let text = unsafe { CStr::from_ptr((self.Py_GetVersion)()) }
            .to_str()
            .ok()?;
        text.split_whitespace().next().map(str::to_owned)
    }

    /// An attribute; `None` (and no error left behind) if there is none.
    ///
    /// # Safety
    /// `of` is a live object and the GIL is held.
    pub unsafe fn attr(&self, of: *mut PyObject, name: &CStr) -> Option<Owned> {
        // SAFETY: as the caller promises.
        unsafe { Owned::new(self, (self.PyObject_GetAttrString)(of, name.as_ptr())) }
    }

    /// The characters of a str; `None` for any other object.
    ///
    /// # Safety
    /// `of` is a live object and the GIL is held.
    pub unsafe fn text(&self, of: *mut PyObject) -> Option<String> {
        let mut len = 0;
        // SAFETY: as the caller promises; a wrong type or lone surrogates set an error, which is cleared.
        unsafe {
            let at = (self.PyUnicode_AsUTF8AndSize)(of, &mut len);
            if at.is_null() {
                (self.PyErr_Clear)();
                return None;
            }
            let bytes = std::slice::from_raw_parts(at.cast::<u8>(), len as usize);
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
    }

    /// The integer in an int, if it is one.
    unsafe fn int(&self, of: Owned) -> Option<i64> {
        // SAFETY: the GIL is held.
        unsafe {
            let value = (self.PyLong_AsLong)(of.get());
            if value == -1 && !(self.PyErr_Occurred)().is_null() {
                (self.PyErr_Clear)();
                return None;
            }
            Some(value)
        }
    }

    /// A str attribute.
    ///
    /// # Safety
    /// `of` is a live object and the GIL is held.
    pub unsafe fn attr_text(&self, of: *mut PyObject, name: &CStr) -> Option<String> {
        // SAFETY: as the caller promises.
        unsafe { self.attr(of, name).and_then(|found| self.text(found.get())) }
    }

    /// An int attribute.
    ///
    /// # Safety
    /// `of` is a live object and the GIL is held.
    pub unsafe fn attr_int(&self, of: *mut PyObject, name: &CStr) -> Option<i64> {
        // SAFETY: as the caller promises.
        unsafe { self.int(self.attr(of, name)?) }
    }

    /// The interned str of a name, kept for ever: for what is asked of each code object.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn word(&self, name: &CStr) -> *mut PyObject {
        // SAFETY: as the caller promises; without memory it is null, and the name is in no object.
        unsafe { (self.PyUnicode_InternFromString)(name.as_ptr()) }
    }

    /// An attribute by a [`Py::word`].
    ///
    /// # Safety
    /// Both are live objects and the GIL is held.
    pub unsafe fn attr_by(&self, of: *mut PyObject, word: *mut PyObject) -> Option<Owned> {
        // SAFETY: as the caller promises.
        unsafe { Owned::new(self, (self.PyObject_GetAttr)(of, word)) }
    }

    /// A str attribute by a [`Py::word`].
    ///
    /// # Safety
    /// As for [`Py::attr_by`].
    pub unsafe fn text_by(&self, of: *mut PyObject, word: *mut PyObject) -> Option<String> {
        // SAFETY: as the caller promises.
        unsafe {
            self.attr_by(of, word)
                .and_then(|found| self.text(found.get()))
        }
    }

    /// An int attribute by a [`Py::word`].
    ///
    /// # Safety
    /// As for [`Py::attr_by`].
    pub unsafe fn int_by(&self, of: *mut PyObject, word: *mut PyObject) -> Option<i64> {
        // SAFETY: as the caller promises.
        unsafe { self.attr_by(of, word).and_then(|found| self.int(found)) }
    }

    /// A module that is imported already; borrowed from `sys.modules`. Null if there is none.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn module(&self, name: &CStr) -> *mut PyObject {
        // SAFETY: the GIL is held; the lookup swallows its own errors.
        unsafe { (self.PyDict_GetItemString)((self.PyImport_GetModuleDict)(), name.as_ptr()) }
    }

    /// A builtin function over ours. Its definition is never freed: the function may outlive everything.
    ///
    /// # Safety
    /// The GIL is held.
    pub unsafe fn function(
        &self,
        name: &'static CStr,
        function: FastCall,
        this: *mut PyObject,
    ) -> Option<Owned> {
        let def = Box::leak(Box::new(PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: function as *mut c_void,
            ml_flags: METH_FASTCALL,
            ml_doc: std::ptr::null(),
        }));
        // SAFETY: the definition lives for ever, and the GIL is held.
        unsafe {
            Owned::new(
                self,
                (self.PyCFunction_NewEx)(def, this, std::ptr::null_mut()),
            )
        }
    }

    /// An object that calls `function` directly: 4 ns less than a builtin function for two calls.
    ///
    /// # Safety
    /// The GIL is held, and the interpreter is 3.12 or later.
    pub unsafe fn callback(&self, function: VectorCall) -> Option<Owned> {
        static TYPE: OnceLock<usize> = OnceLock::new();
        // SAFETY: the GIL is held. The type's name and members are kept for ever, the rest is copied (typeobject.c).
        unsafe {
            let of = *TYPE
                .get_or_init(|| self.callback_type().unwrap_or(std::ptr::null_mut()) as usize)
                as *mut PyObject;
            let alloc = sym(c"PyType_GenericAlloc");
            if of.is_null() || alloc.is_null() {
                return None;
            }
            let alloc: unsafe extern "C" fn(*mut PyObject, isize) -> *mut PyObject =
                std::mem::transmute(alloc);
            let made = Owned::new(self, alloc(of, 0))?;
            (*made.get().cast::<Callback>()).call = function;
            Some(made)
        }
    }

    unsafe fn callback_type(&self) -> Option<*mut PyObject> {
        let (from_spec, call) = (sym(c"PyType_FromSpec"), sym(c"PyVectorcall_Call"));
        if from_spec.is_null() || call.is_null() {
            return None;
        }
        let none = || Member {
            name: std::ptr::null(),
            kind: 0,
            offset: 0,
            flags: 0,
            doc: std::ptr::null(),
        };
        let members = Box::leak(Box::new([none(), none()]));
        members[0] = Member {
            name: c"__vectorcalloffset__".as_ptr(),
            kind: SSIZE,
            offset: std::mem::offset_of!(Callback, call) as isize,
            flags: READONLY,
            doc: std::ptr::null(),
        };
        let slot = |slot, pfunc| Slot { slot, pfunc };
        let mut slots = [
            slot(TP_MEMBERS, members.as_mut_ptr().cast()),
            slot(TP_CALL, call),
            slot(0, std::ptr::null_mut()),
        ];
        let mut spec = Spec {
            name: c"inferscope.callback".as_ptr(),
            basicsize: size_of::<Callback>() as c_int,
            itemsize: 0,
            flags: HAVE_VECTORCALL,
            slots: slots.as_mut_ptr(),
        };
        // SAFETY: CPython's function of that name; the GIL is held.
        unsafe {
            let from_spec: unsafe extern "C" fn(*mut Spec) -> *mut PyObject =
                std::mem::transmute(from_spec);
            Owned::new(self, from_spec(&mut spec)).map(Owned::into_raw)
        }
    }

    /// The value of an int of CPython 3.12 or later that is not negative, as offsets are.
    ///
    /// # Safety
    /// `of` is a live int and the GIL is held.
    #[inline(always)]
    pub unsafe fn small_int(&self, of: *mut PyObject) -> i64 {
        // SAFETY: as the caller promises. From 3.12 on an int is its head, `lv_tag` (number of digits << 3, sign) and
        // digits of 30 bits (longintrepr.h).
        unsafe {
            let tag = *of.cast::<usize>().add(2);
            if tag == 1 << 3 {
                return i64::from(*of.cast::<u32>().add(6));
            }
            (self.PyLong_AsLong)(of)
        }
    }

    /// A new reference to None.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline(always)]
    pub unsafe fn new_none(&self) -> *mut PyObject {
        if self.version < (3, 12) {
            // SAFETY: None is never freed; from 3.12 on it is not counted at all.
            unsafe { (self.Py_IncRef)(self.none) };
        }
        self.none
    }
}
