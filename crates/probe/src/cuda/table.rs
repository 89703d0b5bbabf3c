//! CUPTI's functions, found by name: one that a version lacks is `None`, and what they return is a number, never an
//! enumeration (a newer library has values that no list of ours has).

use std::ffi::{CStr, c_char, c_void};

pub type Requested = unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
pub type Completed = unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);
pub type Timestamp = unsafe extern "C" fn() -> u64;

macro_rules! table {
    ($($(#[$doc:meta])* $name:ident($($arg:ty),*);)*) => {
        /// What a libcupti has of what is used here. All return a `CUptiResult`, 0 for success.
        #[allow(non_snake_case)]
        pub struct Cupti {
            $($(#[$doc])* pub $name: Option<unsafe extern "C" fn($($arg),*) -> u32>,)*
        }

        impl Cupti {
            /// # Safety
            /// `library` is a handle of `dlopen` to a libcupti that is never closed.
            pub unsafe fn of(library: *mut c_void) -> Cupti {
                Cupti {
                    $($name: {
                        let symbol = concat!(stringify!($name), "\0");
                        // SAFETY: a C string; the symbol, if there, is CUPTI's function of that name and signature
                        // (cupti_activity.h, cupti_version.h), the same in all versions that have it.
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
        }
    };
}

table! {
    cuptiGetVersion(*mut u32);
    cuptiGetResultString(u32, *mut *const c_char);
    cuptiGetTimestamp(*mut u64);
    /// 1: threads are told by gettid(2).
    cuptiSetThreadIdType(u32);
    cuptiActivityRegisterTimestampCallback(Timestamp);
    cuptiActivitySetAttribute(u32, *mut usize, *mut c_void);
    cuptiActivityRegisterCallbacks(Requested, Completed);
    cuptiActivityEnable(u32);
    cuptiActivityEnableRuntimeApi(u32, u8);
    cuptiActivityEnableDriverApi(u32, u8);
    /// 0: only buffers whose records are complete; 1: all.
    cuptiActivityFlushAll(u32);
    cuptiActivityGetNextRecord(*mut u8, usize, *mut *mut u8);
    cuptiActivityGetNumDroppedRecords(*mut c_void, u32, *mut usize);
    cuptiGetCallbackName(u32, u32, *mut *const c_char);
}

impl Cupti {
    /// A result in CUPTI's words.
    pub fn words(&self, result: u32) -> String {
        let mut at = std::ptr::null();
        if let Some(text) = self.cuptiGetResultString
            // SAFETY: stores the address of a static text, if it knows the number.
            && unsafe { text(result, &mut at) } == 0
            && !at.is_null()
        {
            // SAFETY: a C string of the library, which stays.
            let text = unsafe { CStr::from_ptr(at) }.to_string_lossy();
            return format!("{result} {text}");
        }
        result.to_string()
    }
}
