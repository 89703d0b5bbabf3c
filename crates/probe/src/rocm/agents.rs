//! Agents to devices: a GPU's number is what HIP calls it while no variable hides another.

use super::layout::{Fields, LONGEST, agent, bank};
use super::table::Sdk;
use crate::hot;
use crate::inject::guard;
use crate::json::quote;
use std::ffi::{CStr, c_char, c_int, c_void};

/// `ROCPROFILER_AGENT_INFO_VERSION_0`.
const VERSION: c_int = 1;
/// `ROCPROFILER_AGENT_TYPE_GPU`.
const GPU: u32 = 2;
/// Agents and banks that are believed.
const MOST: usize = 4096;

/// A GPU: its handle, which records have, and its number.
pub type Gpu = (u64, u32);

/// Tells what each GPU is; their handles and numbers.
///
/// # Errors
/// What the SDK returned.
pub fn all(sdk: &Sdk) -> Result<Vec<Gpu>, u32> {
    let ask = sdk.rocprofiler_query_available_agents.ok_or(17u32)?;
    let mut found: Vec<Gpu> = Vec::new();
    // SAFETY: the SDK's function of that name (agent.h): it calls `each` before it returns, with our vector. The size
    // is that of the oldest structure, and it refuses only one that is longer than its own.
    match unsafe { ask(VERSION, each, agent::SIZE, (&raw mut found).cast()) } {
        0 => Ok(found),
        result => Err(result),
    }
}

unsafe extern "C" fn each(
    _version: c_int,
    agents: *const *const u8,
    count: usize,
    found: *mut c_void,
) -> c_int {
    guard((), || {
        if agents.is_null() {
            return;
        }
        // SAFETY: the SDK passes that many agents, each of which begins with its size, and what we gave it.
        let (agents, found) = unsafe {
            (
                std::slice::from_raw_parts(agents, count.min(MOST)),
                &mut *found.cast::<Vec<Gpu>>(),
            )
        };
        for at in agents.iter().filter(|at| !at.is_null()) {
            // SAFETY: as above.
            let size = unsafe { at.cast::<u64>().read_unaligned() };
            if !(agent::SIZE as u64..=LONGEST).contains(&size) {
                continue;
            }
            // SAFETY: as above: it is that long, and what it points to is there until the tool is finalized.
            unsafe {
                gpu(
                    Fields(std::slice::from_raw_parts(*at, size as usize)),
                    found,
                )
            };
        }
    });
    0
}

/// # Safety
/// The agent's names are C strings or null, and it has as many memory banks as it says.
unsafe fn gpu(record: Fields, found: &mut Vec<Gpu>) {
    if record.u32(agent::TYPE) != GPU {
        return;
    }
    let number = record.u32(agent::NUMBER);
    found.push((record.u64(agent::ID), number));
    let text = |at| {
        let at = record.u64(at) as *const c_char;
        // SAFETY: as the caller promises.
        let text = (!at.is_null()).then(|| unsafe { CStr::from_ptr(at) }.to_string_lossy());
        text.filter(|text| !text.is_empty())
    };
    let name = [agent::PRODUCT, agent::MODEL, agent::NAME]
        .into_iter()
        .find_map(text);
    let mut json = format!(
        "{{\"device\":{number},\"name\":{},\"sms\":{},\"warp\":{}",
        quote(name.as_deref().unwrap_or("GPU")),
        record.u32(agent::COMPUTE_UNITS),
        record.u32(agent::WAVEFRONT),
    );
    if let Some(compute) = text(agent::NAME) {
        json += &format!(",\"compute\":{}", quote(&compute)); // such as gfx942
    }
    // SAFETY: as the caller promises.
    let bytes = match unsafe { frame_buffers(record) } {
        0 => record.u64(agent::LOCAL_BYTES), // the kernel's own number, which is often 0
        bytes => bytes,
    };
    if bytes > 0 {
        json += &format!(",\"bytes\":{bytes}");
    }
    let uuid = record.0.get(agent::UUID..agent::UUID + 16);
    if let Some(uuid) = uuid.filter(|uuid| uuid.iter().any(|byte| *byte != 0)) {
        let uuid: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        json += &format!(",\"uuid\":\"{uuid}\"");
    }
    hot::facts(&format!("device {number}"), &(json + "}"));
}

/// Bytes of the device's own memory.
///
/// # Safety
/// As for [`gpu`].
unsafe fn frame_buffers(record: Fields) -> u64 {
    let at = record.u64(agent::MEMORY) as *const u8;
    let count = (record.u32(agent::BANKS) as usize).min(MOST);
    if at.is_null() {
        return 0;
    }
    // SAFETY: as the caller promises.
    let banks = unsafe { std::slice::from_raw_parts(at, count * bank::SIZE) };
    let banks = banks.chunks_exact(bank::SIZE).map(Fields);
    banks
        .filter(|one| matches!(one.u32(bank::TYPE), 1 | 2))
        .map(|one| one.u64(bank::BYTES))
        .fold(0, u64::saturating_add)
}
