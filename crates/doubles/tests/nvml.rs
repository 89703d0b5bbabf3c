//! NVML through the C functions, in this process: the settings are the defaults.

use inferscope_doubles::nvml::*;
use std::ffi::{CStr, c_char};

/// What a function that writes a text wrote.
fn text(write: impl FnOnce(*mut c_char, u32) -> u32) -> String {
    let mut room = [0; 96];
    assert_eq!(write(room.as_mut_ptr(), 96), 0);
    // SAFETY: the function wrote a text and its NUL.
    unsafe { CStr::from_ptr(room.as_ptr()) }
        .to_str()
        .unwrap()
        .to_owned()
}

/// What a function that writes a value wrote.
fn value<T>(write: impl FnOnce(*mut T) -> u32) -> T {
    let mut value = std::mem::MaybeUninit::zeroed();
    assert_eq!(write(value.as_mut_ptr()), 0);
    // SAFETY: plain numbers, written or zero.
    unsafe { value.assume_init() }
}

#[test]
fn a_device_tells_about_itself() {
    let mut count = 0;
    // SAFETY: points to a number.
    let code = unsafe { nvmlDeviceGetCount_v2(&mut count) };
    assert_eq!(code, 1, "not initialized");
    assert_eq!(nvmlInitWithFlags(0), 0);
    // SAFETY: each points to what its function writes, in this block throughout.
    unsafe {
        assert_eq!(value(|to| nvmlDeviceGetCount_v2(to)), 1u32);
        let device: usize = value(|to| nvmlDeviceGetHandleByIndex_v2(0, to));
        let mut other = 0;
        assert_eq!(
            nvmlDeviceGetHandleByIndex_v2(1, &mut other),
            2,
            "there is but one"
        );
        assert_eq!(
            text(|to, room| nvmlDeviceGetName(device, to, room)),
            "NVIDIA H200"
        );
        let uuid = "GPU-696e6665-7273-636f-7065-2d646f756200";
        assert_eq!(text(|to, room| nvmlDeviceGetUUID(device, to, room)), uuid);
        let mut short = [0; 4];
        assert_eq!(
            nvmlDeviceGetName(device, short.as_mut_ptr(), 4),
            7,
            "no room"
        );
        assert_eq!(
            text(|to, room| nvmlSystemGetDriverVersion(to, room)),
            "580.95.05"
        );
        assert_eq!(value(|to| nvmlSystemGetCudaDriverVersion_v2(to)), 12090);
        let [gpu, memory]: [u32; 2] =
            value(|to: *mut [u32; 2]| nvmlDeviceGetUtilizationRates(device, to.cast()));
        assert!(gpu <= 100 && memory <= 100);
        let [total, free, used]: [u64; 3] =
            value(|to: *mut [u64; 3]| nvmlDeviceGetMemoryInfo(device, to.cast()));
        assert_eq!(total, free + used);
        assert_eq!(value(|to| nvmlDeviceGetClockInfo(device, 1, to)), 1_980);
        assert!((75_000..=700_000).contains(&value(|to| nvmlDeviceGetPowerUsage(device, to))));
        assert!((30..=80).contains(&value(|to| nvmlDeviceGetTemperature(device, 0, to))));
        assert_eq!(
            value(|to| nvmlDeviceGetCurrentClocksEventReasons(device, to)),
            0
        );
        assert_eq!(size_of::<PciInfo>(), 68);
        let info: [u8; 68] = value(|to: *mut [u8; 68]| nvmlDeviceGetPciInfo_v3(device, to.cast()));
        assert_eq!(&info[36..52], b"00000000:10:00.0");
        assert_eq!(CStr::from_ptr(nvmlErrorString(9)), c"Driver Not Loaded");
    }
    assert_eq!(nvmlShutdown(), 0);
    assert_eq!(nvmlShutdown(), 1);
}
