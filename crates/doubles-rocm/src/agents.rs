//! A host with two processors and GPUs between them, as `rocprofiler_agent_v0_t` of agent.h has them.

use crate::settings;
use std::ffi::c_char;
use std::sync::OnceLock;

/// What handles start from: they are opaque.
const HANDLE: u64 = 0x00A6_E000;

/// `rocprofiler_agent_mem_bank_t`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Bank {
    heap: u32,
    flags: u32,
    width: u32,
    clock: u32,
    bytes: u64,
}

#[repr(C)]
pub struct Agent {
    size: u64,
    id: u64,
    kind: u32,
    cpu_cores: u32,
    simds: u32,
    banks_count: u32,
    caches_count: u32,
    links_count: u32,
    cpu_base: u32,
    simd_base: u32,
    waves_per_simd: u32,
    lds_kb: u32,
    gds_kb: u32,
    gws: u32,
    wavefront: u32,
    xcc: u32,
    compute_units: u32,
    arrays: u32,
    shader_banks: u32,
    arrays_per_engine: u32,
    compute_units_per_array: u32,
    simds_per_unit: u32,
    scratch_slots: u32,
    gfx_version: u32,
    vendor: u16,
    device: u16,
    location: u32,
    domain: u32,
    render_minor: u32,
    sdma_engines: u32,
    xgmi_engines: u32,
    queues_per_engine: u32,
    cp_queues: u32,
    clock_cpu: u32,
    clock_gpu: u32,
    sdma_firmware: u32,
    firmware: u32,
    capability: u32,
    units_per_engine: u32,
    waves_per_unit: u32,
    family: u32,
    workgroup_most: u32,
    grid_most: u32,
    local_bytes: u64,
    hive: u64,
    gpu: u64,
    workgroup_dim: [u32; 3],
    grid_dim: [u32; 3],
    banks: *const Bank,
    caches: *const u8,
    links: *const u8,
    name: *const c_char,
    vendor_name: *const c_char,
    product_name: *const c_char,
    model_name: *const c_char,
    node: u32,
    logical_node: i32,
    logical_node_of_type: i32,
    visibility: u32,
    /// Since 0.6.
    uuid: [u8; 16],
}

/// The size before the uuid was there.
const OLD_SIZE: u64 = 296;

struct All(Vec<Agent>);

// SAFETY: the pointers are to static data, or to none.
unsafe impl Sync for All {}
// SAFETY: as above.
unsafe impl Send for All {}

static BANKS: [Bank; 3] = [
    Bank {
        heap: 1,
        flags: 0,
        width: 4096,
        clock: 1600,
        bytes: 64 << 30,
    },
    Bank {
        heap: 2,
        flags: 0,
        width: 4096,
        clock: 1600,
        bytes: 128 << 30,
    },
    Bank {
        heap: 4,
        flags: 0,
        width: 64,
        clock: 1,
        bytes: 1 << 16,
    }, // local data store: no memory
];

fn agent(node: usize, kind: u32, of_type: usize) -> Agent {
    let gpu = kind == 2;
    // SAFETY: plain integers and pointers, valid as zeros.
    let mut agent: Agent = unsafe { std::mem::zeroed() };
    agent.size = match settings::get().new_layout() {
        true => size_of::<Agent>() as u64,
        false => OLD_SIZE,
    };
    agent.id = HANDLE + node as u64;
    (agent.kind, agent.node) = (kind, node as u32);
    (agent.logical_node, agent.logical_node_of_type) = (node as i32, of_type as i32);
    agent.uuid = [0x10 + node as u8; 16];
    // what is wrong to read, so that nothing is right by chance
    (agent.simds, agent.cpu_cores, agent.local_bytes) = (1111, 2222, 0);
    agent.vendor_name = c"AMD".as_ptr();
    if gpu {
        (agent.compute_units, agent.wavefront, agent.waves_per_unit) = (304, 64, 32);
        (agent.banks, agent.banks_count) = (BANKS.as_ptr(), BANKS.len() as u32);
        agent.name = c"gfx942".as_ptr();
        agent.product_name = c"AMD Instinct MI300X".as_ptr();
        agent.model_name = c"ip discovery".as_ptr();
    } else {
        agent.name = c"AMD EPYC 9654".as_ptr();
        agent.product_name = agent.name;
    }
    agent
}

/// Node 0 is a processor, 1 a GPU, 2 a processor, 3 and on GPUs.
pub fn all() -> &'static [Agent] {
    static ALL: OnceLock<All> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let gpus = settings::get().devices as usize;
        let mut all = vec![agent(0, 1, 0)];
        for at in 0..gpus {
            if at == 1 {
                all.push(agent(all.len(), 1, 1));
            }
            all.push(agent(all.len(), 2, at));
        }
        All(all)
    });
    &all.0
}

/// The handle of a GPU, or of the first processor.
pub fn handle(gpu: Option<u32>) -> u64 {
    let wanted = match gpu {
        Some(number) => (2, number as i32),
        None => (1, 0),
    };
    let mut all = all().iter();
    let found = all.find(|agent| (agent.kind, agent.logical_node_of_type) == wanted);
    found.map_or(0, |agent| agent.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_is_that_of_the_header() {
        assert_eq!(std::mem::offset_of!(Agent, uuid), OLD_SIZE as usize);
        assert_eq!(std::mem::offset_of!(Agent, banks), 224);
        assert_eq!(size_of::<Bank>(), 24);
    }
}
