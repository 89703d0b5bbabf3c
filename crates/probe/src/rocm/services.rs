//! What the SDK is asked to record.

use super::table::Sdk;
use crate::cuda::calls;

/// Kinds that are looked at; 1.3 has 40.
const MOST_KINDS: u32 = 128;
/// Numbers of operations that are looked at: HIP's runtime has 500, and none of them is left out.
const MOST_OPERATIONS: i32 = 4096;
/// So many numbers without a name end the list.
const GAP: i32 = 64;
/// Version since which allocations are read: records before had other layouts.
const ALLOCATIONS: u32 = 10_000;

/// What a kind of records tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Runtime,
    /// What compiled code calls to prepare a launch.
    Compiler,
    Rccl,
    Copy,
    Kernel,
    Memory,
}

impl Service {
    const ALL: [Service; 6] = [
        Service::Runtime,
        Service::Compiler,
        Service::Rccl,
        Service::Copy,
        Service::Kernel,
        Service::Memory,
    ];

    /// What a person calls it.
    pub fn word(self) -> &'static str {
        match self {
            Service::Runtime => "HIP calls",
            Service::Compiler => "HIP compiler calls",
            Service::Rccl => "RCCL calls",
            Service::Copy => "memcpy",
            Service::Kernel => "kernel",
            Service::Memory => "memory",
        }
    }

    /// What the SDK calls it: the end of the name of a `rocprofiler_buffer_tracing_kind_t`.
    fn name(self) -> &'static str {
        match self {
            Service::Runtime => "HIP_RUNTIME_API",
            Service::Compiler => "HIP_COMPILER_API",
            Service::Rccl => "RCCL_API",
            Service::Copy => "MEMORY_COPY",
            Service::Kernel => "KERNEL_DISPATCH",
            Service::Memory => "MEMORY_ALLOCATION",
        }
    }

    /// The number that it has in every version, for a library that does not tell names.
    fn number(self) -> Option<u32> {
        match self {
            Service::Runtime => Some(5),
            Service::Compiler => Some(6),
            Service::Copy => Some(10),
            Service::Kernel => Some(11),
            Service::Rccl | Service::Memory => None,
        }
    }
}

/// Services that there are, by number, and those of their operations that are wanted; of none: all.
pub struct Services(Vec<(u32, Service, Vec<i32>)>);

impl Services {
    /// Every call if `all`, else those that matter; allocations if `memory`.
    pub fn of(sdk: &Sdk, version: u32, all: bool, memory: bool) -> Services {
        let named: Vec<(u32, String)> = (1..MOST_KINDS)
            .map_while(|kind| Some((kind, sdk.kind_name(kind)?)))
            .collect();
        let mut found = Vec::new();
        for service in Service::ALL {
            let skipped = match service {
                Service::Compiler => !all,
                Service::Memory => !memory || version < ALLOCATIONS,
                _ => false,
            };
            let by_name = named.iter().find(|(_, name)| name == service.name());
            let kind = match named.is_empty() {
                true => service.number(),
                false => by_name.map(|(kind, _)| *kind),
            };
            if let Some(kind) = kind.filter(|_| !skipped) {
                let some = service == Service::Runtime && !all;
                let operations = if some { wanted(sdk, kind) } else { Vec::new() };
                found.push((kind, service, operations));
            }
        }
        Services(found)
    }

    /// What records of a kind tell of.
    pub fn get(&self, kind: u32) -> Option<Service> {
        let found = self.0.iter().find(|known| known.0 == kind);
        found.map(|known| known.1)
    }

    /// Asks for all of them; those that are refused, and with which status.
    pub fn configure(&self, sdk: &Sdk, context: u64, buffer: u64) -> Vec<(Service, u32)> {
        let Some(ask) = sdk.rocprofiler_configure_buffer_tracing_service else {
            return vec![(Service::Kernel, u32::MAX)];
        };
        let mut refused = Vec::new();
        if !self.0.iter().any(|known| known.1 == Service::Kernel) {
            refused.push((Service::Kernel, 4));
        }
        for (kind, service, operations) in &self.0 {
            let at = match operations.is_empty() {
                true => std::ptr::null(),
                false => operations.as_ptr(),
            };
            // SAFETY: the SDK's function of that name (buffer_tracing.h); it copies the operations.
            let result = unsafe { ask(context, *kind, at, operations.len(), buffer) };
            if result != 0 {
                refused.push((*service, result));
            }
        }
        refused
    }
}

/// Calls of the default. None at all if the SDK does not tell names: then all are recorded.
fn wanted(sdk: &Sdk, kind: u32) -> Vec<i32> {
    let (mut found, mut last) = (Vec::new(), 0);
    for operation in 0..MOST_OPERATIONS {
        if operation - last > GAP {
            break;
        }
        if let Some(name) = sdk.operation_name(kind, operation) {
            last = operation;
            if calls::wanted(&name) {
                found.push(operation);
            }
        }
    }
    found
}
