//! Calls of the driver and the runtime: their names, and which are recorded.

use super::layout::kind;
use super::table::Cupti;
use std::ffi::CStr;

/// Calls of the default: those that start device work, wait for it, or take and give back memory.
const WANTED: [&str; 15] = [
    "Launch",
    "Memcpy",
    "Memset",
    "MemPrefetch",
    "Synchronize",
    "WaitEvent",
    "WaitValue",
    "Malloc",
    "MemAlloc",
    "HostAlloc",
    "HostRegister",
    "Free",
    "ModuleLoad",
    "LibraryLoad",
    "Instantiate",
];
/// `CUpti_CallbackDomain` of cupti_callbacks.h.
const DRIVER: u32 = 1;
const RUNTIME: u32 = 2;
/// Numbers that are looked at: CUPTI 13.4 has 486 and 806 of them.
const MOST: u32 = 2048;

/// Whose calls records of this kind are.
pub fn domain(kind: u32) -> u32 {
    if kind == kind::RUNTIME {
        RUNTIME
    } else {
        DRIVER
    }
}

/// What a person calls it: without the version that a number stands for, and the default stream's suffix.
pub fn name(cupti: &Cupti, domain: u32, callback: u32) -> Option<String> {
    let mut at = std::ptr::null();
    let ask = cupti.cuptiGetCallbackName?;
    // SAFETY: stores the address of a static text, if it knows the numbers.
    let result = unsafe { ask(domain, callback, &mut at) };
    if result != 0 || at.is_null() {
        return None;
    }
    // SAFETY: a C string of the library, which stays.
    let text = unsafe { CStr::from_ptr(at) }.to_str().ok()?;
    let short = plain(text);
    (!short.is_empty() && !short.contains("INVALID")).then(|| short.to_owned())
}

/// `cudaLaunchKernel` of `cudaLaunchKernel_ptsz_v7000`, `cuMemcpyHtoDAsync_v2` of `cuMemcpyHtoDAsync_v2_ptsz`.
fn plain(text: &str) -> &str {
    let text = match text.rsplit_once("_v") {
        Some((short, digits))
            if digits.len() >= 4 && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            short
        }
        _ => text,
    };
    let text = text.strip_suffix("_ptsz").unwrap_or(text);
    text.strip_suffix("_ptds").unwrap_or(text)
}

/// Whether the default records it.
pub fn wanted(name: &str) -> bool {
    WANTED.iter().any(|word| name.contains(word))
}

/// Asks for the calls of a kind, `all` or those that are [`wanted`].
///
/// # Errors
/// What CUPTI returned.
pub fn enable(cupti: &Cupti, kind: u32, all: bool) -> Result<(), u32> {
    let one = match kind {
        kind::RUNTIME => cupti.cuptiActivityEnableRuntimeApi,
        _ => cupti.cuptiActivityEnableDriverApi,
    };
    // SAFETY: CUPTI's function of that name.
    let whole = || match cupti
        .cuptiActivityEnable
        .map_or(u32::MAX, |enable| unsafe { enable(kind) })
    {
        0 => Ok(()),
        result => Err(result),
    };
    let Some(one) = one.filter(|_| !all && cupti.cuptiGetCallbackName.is_some()) else {
        return whole();
    };
    let mut any = false;
    for callback in 1..MOST {
        if name(cupti, domain(kind), callback).is_some_and(|name| wanted(&name)) {
            // SAFETY: CUPTI's function of that name.
            any |= unsafe { one(callback, 1) } == 0;
        }
    }
    // Before CUPTI 12.5 there are no single calls: then what is not wanted is left out when it comes.
    if any { Ok(()) } else { whole() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_says_nothing() {
        for (text, short) in [
            ("cudaLaunchKernel_v7000", "cudaLaunchKernel"),
            ("cudaLaunchKernel_ptsz_v7000", "cudaLaunchKernel"),
            ("cuMemcpyHtoDAsync_v2_ptsz", "cuMemcpyHtoDAsync_v2"),
            ("cuMemcpy_ptds", "cuMemcpy"),
            ("cuLaunchKernel", "cuLaunchKernel"),
        ] {
            assert_eq!(plain(text), short);
        }
        assert!(
            wanted("cuLaunchKernelEx")
                && wanted("cudaStreamSynchronize")
                && wanted("cudaFreeAsync")
        );
        assert!(
            !wanted("cudaGetDevice") && !wanted("cudaEventRecord") && !wanted("cuCtxGetCurrent")
        );
    }
}
