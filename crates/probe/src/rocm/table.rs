//! rocprofiler-sdk's functions, found by name: one that a version lacks is `None`, and what they return is a number,
//! never an enumeration (a newer library has values that no list of ours has).

use std::ffi::{CStr, c_char, c_int, c_void};

/// `rocprofiler_record_header_t` of fwd.h.
#[repr(C)]
pub struct Header {
    pub category: u32,
    pub kind: u32,
    pub payload: *const u8,
}

/// `rocprofiler_buffer_tracing_cb_t` of buffer.h; a context's and a buffer's id is a structure of one u64.
pub type Completed = unsafe extern "C" fn(u64, u64, *mut *mut Header, usize, *mut c_void, u64);
/// `rocprofiler_query_available_agents_cb_t` of agent.h.
pub type Agents = unsafe extern "C" fn(c_int, *const *const u8, usize, *mut c_void) -> c_int;

macro_rules! table {
    ($($(#[$doc:meta])* $name:ident($($arg:ty),*);)*) => {
        /// What a rocprofiler-sdk has of what is used here. All return a `rocprofiler_status_t`, 0 for success.
        #[allow(non_snake_case)]
        pub struct Sdk {
            $($(#[$doc])* pub $name: Option<unsafe extern "C" fn($($arg),*) -> u32>,)*
        }

        impl Sdk {
            /// # Safety
            /// `library` is a handle of `dlopen` to a rocprofiler-sdk that is never closed.
            pub unsafe fn of(library: *mut c_void) -> Sdk {
                Sdk {
                    $($name: {
                        let symbol = concat!(stringify!($name), "\0");
                        // SAFETY: a C string; the symbol, if there, is the SDK's function of that name and signature
                        // (buffer.h, buffer_tracing.h, callback_tracing.h, context.h, agent.h, internal_threading.h,
                        // rocprofiler.h), the same in 0.4, 0.5 and 1.3.
                        unsafe {
                            let at = libc::dlsym(library, symbol.as_ptr().cast());
                            std::mem::transmute::<
                                *mut c_void,
                                Option<unsafe extern "C" fn($($arg),*) -> u32>,
                            >(at)
                        }
                    },)*
                }
            }

            /// A library that has nothing.
            #[cfg(test)]
            pub fn none() -> Sdk {
                Sdk { $($name: None,)* }
            }
        }
    };
}

table! {
    /// The id must be 0 before.
    rocprofiler_create_context(*mut u64);
    rocprofiler_start_context(u64);
    rocprofiler_stop_context(u64);
    rocprofiler_create_buffer(u64, usize, usize, u32, Completed, *mut c_void, *mut u64);
    rocprofiler_flush_buffer(u64);
    rocprofiler_create_callback_thread(*mut u64);
    rocprofiler_assign_callback_thread(u64, u64);
    rocprofiler_configure_buffer_tracing_service(u64, u32, *const i32, usize, u64);
    /// The function takes a record by value, whose length differs by version; see `kernels`.
    rocprofiler_configure_callback_tracing_service(u64, u32, *const i32, usize, *const c_void, *mut c_void);
    rocprofiler_query_buffer_tracing_kind_name(u32, *mut *const c_char, *mut u64);
    rocprofiler_query_buffer_tracing_kind_operation_name(u32, i32, *mut *const c_char, *mut u64);
    rocprofiler_query_available_agents(c_int, Agents, usize, *mut c_void);
    rocprofiler_get_timestamp(*mut u64);
}

unsafe extern "C" {
    fn strnlen(text: *const c_char, most: usize) -> usize;
}

impl Sdk {
    /// What a status means: names of fwd.h for those that a tool meets.
    pub fn words(&self, status: u32) -> String {
        let word = match status {
            4 => "no such kind",
            5 => "no such operation",
            12 => "in conflict with another tool",
            15 => "configured already",
            16 => "too late",
            17 => "not implemented",
            18 => "another ABI",
            21 => "finalized",
            28 => "the kernel's driver is too old",
            29 => "out of resources",
            37 => "not available",
            40 => "permission denied",
            _ => return format!("status {status}"),
        };
        format!("status {status}, {word}")
    }

    /// The name of a kind of records.
    pub fn kind_name(&self, kind: u32) -> Option<String> {
        let ask = self.rocprofiler_query_buffer_tracing_kind_name?;
        // SAFETY: stores the address and the length of a static text.
        text(|at, len| unsafe { ask(kind, at, len) })
    }

    /// The name of an operation: of a call, what the program calls.
    pub fn operation_name(&self, kind: u32, operation: i32) -> Option<String> {
        let ask = self.rocprofiler_query_buffer_tracing_kind_operation_name?;
        // SAFETY: as above.
        text(|at, len| unsafe { ask(kind, operation, at, len) })
    }
}

fn text(ask: impl FnOnce(*mut *const c_char, *mut u64) -> u32) -> Option<String> {
    const MOST: usize = 256;
    let (mut at, mut len) = (std::ptr::null(), 0);
    if ask(&mut at, &mut len) != 0 || at.is_null() {
        return None;
    }
    // SAFETY: a C string of the SDK's, in its read-only data (buffer_tracing.h).
    let text = unsafe {
        if strnlen(at, MOST) == MOST {
            return None;
        }
        CStr::from_ptr(at)
    };
    let text = text.to_str().ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}
