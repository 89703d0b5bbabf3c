//! As `libnvidia-ml.so.1`: devices that idle and work in turns, by the clock.

use crate::clock;
use crate::record::{DEVICE_MEMORY, DEVICE_NAME};
use crate::settings;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// `nvmlReturn_t`.
mod code {
    pub const SUCCESS: u32 = 0;
    pub const UNINITIALIZED: u32 = 1;
    pub const INVALID_ARGUMENT: u32 = 2;
    pub const NOT_SUPPORTED: u32 = 3;
    pub const INSUFFICIENT_SIZE: u32 = 7;
    pub const DRIVER_NOT_LOADED: u32 = 9;
}

/// What handles start from.
const DEVICE: usize = 0xD000_0000;
const DRIVER_VERSION: &CStr = c"580.95.05";
/// Memory in use, in bytes.
const USED: u64 = 20 << 30;
/// How long a device takes from idle to busy and back.
const SWING_NS: u64 = 2_000_000_000;

/// How often it was initialized and not shut down.
static USERS: AtomicUsize = AtomicUsize::new(0);

/// How busy a device is now, in percent: up and down, each device ahead of the one before.
fn busy(device: u32) -> u32 {
    let at = (clock::monotonic_ns() + u64::from(device) * SWING_NS / 8) % SWING_NS;
    let percent = (at * 200 / SWING_NS) as u32;
    percent.min(200 - percent)
}

/// The number of a device of this handle, if the library is initialized.
fn device(handle: usize) -> Result<u32, u32> {
    if USERS.load(SeqCst) == 0 {
        return Err(code::UNINITIALIZED);
    }
    let index = handle
        .checked_sub(DEVICE)
        .and_then(|index| u32::try_from(index).ok());
    index
        .filter(|&index| index < settings::get().devices)
        .ok_or(code::INVALID_ARGUMENT)
}

/// Writes an out parameter about a device.
///
/// # Safety
/// `to` is null or may be written to.
unsafe fn about<T>(handle: usize, to: *mut T, value: impl FnOnce(u32) -> T) -> u32 {
    match device(handle) {
        Err(code) => code,
        Ok(_) if to.is_null() => code::INVALID_ARGUMENT,
        Ok(index) => {
            // SAFETY: not null, so the caller's promise holds.
            unsafe { to.write(value(index)) };
            code::SUCCESS
        }
    }
}

/// Writes a text and its NUL.
///
/// # Safety
/// `to` is null or has room for `room` bytes.
unsafe fn say(to: *mut c_char, room: c_uint, text: &[u8]) -> u32 {
    if to.is_null() {
        return code::INVALID_ARGUMENT;
    }
    if text.len() >= room as usize {
        return code::INSUFFICIENT_SIZE;
    }
    // SAFETY: there is room for the text and one byte.
    unsafe {
        to.cast::<u8>()
            .copy_from_nonoverlapping(text.as_ptr(), text.len());
        to.add(text.len()).write(0);
    }
    code::SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> u32 {
    if settings::get().no_driver {
        return code::DRIVER_NOT_LOADED;
    }
    USERS.fetch_add(1, SeqCst);
    code::SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> u32 {
    nvmlInit_v2()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> u32 {
    let less = |users: usize| users.checked_sub(1);
    if USERS.fetch_update(SeqCst, SeqCst, less).is_ok() {
        code::SUCCESS
    } else {
        code::UNINITIALIZED
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(code: u32) -> *const c_char {
    let text = match code {
        code::SUCCESS => c"Success",
        code::UNINITIALIZED => c"Uninitialized",
        code::INVALID_ARGUMENT => c"Invalid Argument",
        code::NOT_SUPPORTED => c"Not Supported",
        code::INSUFFICIENT_SIZE => c"Insufficient Size",
        code::DRIVER_NOT_LOADED => c"Driver Not Loaded",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

/// # Safety
/// The pointer is null or may be written to; so in all functions below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> u32 {
    // SAFETY: the caller's promise; device 0 stands for the library.
    unsafe { about(DEVICE, count, |_| settings::get().devices) }
}

/// # Safety
/// See [`nvmlDeviceGetCount_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, handle: *mut usize) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        about(DEVICE + index as usize, handle, |index| {
            DEVICE + index as usize
        })
    }
}

/// # Safety
/// `name` is null or has room for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(handle: usize, name: *mut c_char, room: c_uint) -> u32 {
    match device(handle) {
        // SAFETY: the caller's promise.
        Ok(_) => unsafe { say(name, room, DEVICE_NAME.to_bytes()) },
        Err(code) => code,
    }
}

/// # Safety
/// `uuid` is null or has room for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(handle: usize, uuid: *mut c_char, room: c_uint) -> u32 {
    let index = match device(handle) {
        Ok(index) => index,
        Err(code) => return code,
    };
    let mut text = String::from("GPU");
    for (at, byte) in crate::record::uuid(index).into_iter().enumerate() {
        let dash = if [0, 4, 6, 8, 10].contains(&at) {
            "-"
        } else {
            ""
        };
        text.push_str(&format!("{dash}{byte:02x}"));
    }
    // SAFETY: the caller's promise.
    unsafe { say(uuid, room, text.as_bytes()) }
}

/// `nvmlUtilization_t`, in percent.
#[repr(C)]
pub struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

/// # Safety
/// See [`nvmlDeviceGetCount_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    handle: usize,
    rates: *mut Utilization,
) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        about(handle, rates, |index| Utilization {
            gpu: busy(index),
            memory: busy(index) / 2,
        })
    }
}

/// `nvmlMemory_t`, in bytes.
#[repr(C)]
pub struct Memory {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// # Safety
/// See [`nvmlDeviceGetCount_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo(handle: usize, memory: *mut Memory) -> u32 {
    let all = Memory {
        total: DEVICE_MEMORY,
        free: DEVICE_MEMORY - USED,
        used: USED,
    };
    // SAFETY: the caller's promise.
    unsafe { about(handle, memory, |_| all) }
}

/// `nvmlMemory_v2_t`: the caller has set the version.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MemoryV2 {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// # Safety
/// See [`nvmlDeviceGetCount_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: usize, memory: *mut MemoryV2) -> u32 {
    let all = MemoryV2 {
        version: 0x0200_0000 | size_of::<MemoryV2>() as c_uint,
        total: DEVICE_MEMORY,
        reserved: 0,
        free: DEVICE_MEMORY - USED,
        used: USED,
    };
    // SAFETY: the caller's promise.
    unsafe { about(handle, memory, |_| all) }
}

/// In MHz; `which` is 0 graphics, 1 SM, 2 memory, 3 video.
///
/// # Safety
/// See [`nvmlDeviceGetCount_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(
    handle: usize,
    which: c_uint,
    mhz: *mut c_uint,
) -> u32 {
    let throttled = settings::get().throttle & !1 != 0; // bit 0 is idle
    let clock = match which {
        0 | 1 => {
            if throttled {
                1_200
            } else {
                1_980
            }
        }
        2 => 3_201,
        3 => 1_590,
        _ => return code::INVALID_ARGUMENT,
    };
    // SAFETY: the caller's promise.
    unsafe { about(handle, mhz, |_| clock) }
}

/// In mW.
///
/// # Safety
/// See [`nvmlDeviceGetCount_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(handle: usize, power: *mut c_uint) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { about(handle, power, |index| 75_000 + busy(index) * 6_250) }
}

/// In °C; `sensor` 0 is the GPU, the only one.
///
/// # Safety
/// See [`nvmlDeviceGetCount_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    handle: usize,
    sensor: c_uint,
    degrees: *mut c_uint,
) -> u32 {
    if sensor != 0 {
        return code::INVALID_ARGUMENT;
    }
    // SAFETY: the caller's promise.
    unsafe { about(handle, degrees, |index| 30 + busy(index) / 2) }
}

/// # Safety
/// See [`nvmlDeviceGetCount_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    handle: usize,
    mask: *mut c_ulonglong,
) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { about(handle, mask, |_| settings::get().throttle) }
}

/// The name that came later for the same.
///
/// # Safety
/// See [`nvmlDeviceGetCount_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksEventReasons(
    handle: usize,
    mask: *mut c_ulonglong,
) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { nvmlDeviceGetCurrentClocksThrottleReasons(handle, mask) }
}

/// # Safety
/// `version` is null or has room for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, room: c_uint) -> u32 {
    if USERS.load(SeqCst) == 0 {
        return code::UNINITIALIZED;
    }
    // SAFETY: the caller's promise.
    unsafe { say(version, room, DRIVER_VERSION.to_bytes()) }
}

/// As `cuDriverGetVersion`; works before `nvmlInit_v2`.
///
/// # Safety
/// See [`nvmlDeviceGetCount_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> u32 {
    // SAFETY: the caller's promise.
    match unsafe { crate::cuda::cuDriverGetVersion(version) } {
        0 => code::SUCCESS,
        _ => code::INVALID_ARGUMENT,
    }
}

/// `nvmlPciInfo_t`.
#[repr(C)]
pub struct PciInfo {
    legacy: [u8; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    device_id: c_uint,
    subsystem_id: c_uint,
    id: [u8; 32],
}

/// # Safety
/// See [`nvmlDeviceGetCount_v2`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(handle: usize, info: *mut PciInfo) -> u32 {
    let of = |index: u32| {
        let bus = 0x10 + index;
        let mut info = PciInfo {
            legacy: [0; 16],
            domain: 0,
            bus,
            device: 0,
            device_id: 0x2335_10de,
            subsystem_id: 0x18be_10de,
            id: [0; 32],
        };
        let (legacy, id) = (
            format!("0000:{bus:02X}:00.0"),
            format!("00000000:{bus:02X}:00.0"),
        );
        info.legacy[..legacy.len()].copy_from_slice(legacy.as_bytes());
        info.id[..id.len()].copy_from_slice(id.as_bytes());
        info
    };
    // SAFETY: the caller's promise.
    unsafe { about(handle, info, of) }
}
