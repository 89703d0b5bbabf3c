//! Theoretical occupancy: how many of a multiprocessor's warps a kernel could have at once.
//!
//! The rules and the granularities of allocation are those of NVIDIA's CUDA Occupancy Calculator (the spreadsheet of
//! CUDA 11, tab "GPU Data"). What the kernel gets in fact depends on its grid and on what else runs.

use serde_json::{Map, Value};

/// Registers are given to a warp in multiples of this, and warps in multiples of that (compute capability 3.0 on).
const REGISTER_UNIT: u64 = 256;
const WARP_UNIT: u64 = 4;
/// Shared memory is given in multiples of this, from compute capability 8.0 on and before.
const SHARED_UNIT: (u64, u64) = (128, 256);
/// What the system keeps of each block's shared memory, from compute capability 8.0 on.
const SYSTEM_SHARED: u64 = 1024;

/// What a multiprocessor has.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    warp: u64,
    warps: u64,
    blocks: u64,
    registers: u64,
    shared_bytes: u64,
    major: u64,
}

/// What a block of a kernel takes.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    threads: u64,
    /// Of each thread.
    registers: u64,
    shared_bytes: u64,
}

impl Block {
    /// From a kernel's args.
    pub fn of(args: &Map<String, Value>) -> Option<Block> {
        let sides = args.get("block")?.as_array()?;
        let mut sides = sides.iter().map(Value::as_u64);
        let threads = sides.try_fold(1u64, |all, side| all.checked_mul(side?))?;
        let number = |key: &str| args.get(key).and_then(Value::as_u64);
        Some(Block {
            threads,
            registers: number("registers")?,
            shared_bytes: number("shared_bytes")?,
        })
    }
}

impl Limits {
    /// From a device's facts.
    pub fn of(facts: &Map<String, Value>) -> Option<Limits> {
        let number = |key: &str| facts.get(key).and_then(Value::as_u64);
        let compute = facts.get("compute")?.as_str()?;
        Some(Limits {
            warp: number("warp").filter(|&warp| warp > 0)?,
            warps: number("warps_per_sm").filter(|&warps| warps > 0)?,
            blocks: number("blocks_per_sm")?,
            registers: number("registers_per_sm")?,
            shared_bytes: number("shared_bytes_per_sm")?,
            major: compute.split('.').next()?.parse().ok()?,
        })
    }

    /// The share of its warps, in ten thousandths; `None` of a block that cannot run.
    pub fn occupancy(&self, block: &Block) -> Option<f64> {
        let warps = block.threads.div_ceil(self.warp);
        if warps == 0 || warps > self.warps {
            return None;
        }
        let by_warps = self.warps / warps;
        let by_registers = match block.registers.checked_mul(self.warp)? {
            0 => u64::MAX,
            of_warp => {
                let fit = self.registers / of_warp.next_multiple_of(REGISTER_UNIT);
                fit / WARP_UNIT * WARP_UNIT / warps
            }
        };
        let (unit, system) = match self.major >= 8 {
            true => (SHARED_UNIT.0, SYSTEM_SHARED),
            false => (SHARED_UNIT.1, 0),
        };
        let shared = block
            .shared_bytes
            .checked_add(system)?
            .checked_next_multiple_of(unit)?;
        let by_shared = self.shared_bytes.checked_div(shared).unwrap_or(u64::MAX);
        let blocks = by_warps.min(by_registers).min(by_shared).min(self.blocks);
        let share = (blocks * warps) as f64 / self.warps as f64;
        (blocks > 0).then(|| (share * 1e4).round() / 1e4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An H100 (compute capability 9.0: CUDA C++ Programming Guide, table "Technical Specifications per Compute
    /// Capability") and a V100.
    const H100: Limits = Limits {
        warp: 32,
        warps: 64,
        blocks: 32,
        registers: 65536,
        shared_bytes: 233_472,
        major: 9,
    };
    const V100: Limits = Limits {
        shared_bytes: 98_304,
        major: 7,
        ..H100
    };

    #[test]
    fn what_is_scarce_limits_it() {
        let share = |limits: Limits, threads, registers, shared_bytes| {
            limits.occupancy(&Block {
                threads,
                registers,
                shared_bytes,
            })
        };
        assert_eq!(share(H100, 256, 32, 0), Some(1.0));
        assert_eq!(share(H100, 32, 16, 0), Some(0.5)); // 32 blocks of one warp
        assert_eq!(share(H100, 256, 64, 0), Some(0.5)); // 32 warps' registers
        assert_eq!(share(H100, 256, 65, 0), Some(0.375)); // 72 registers each: 28 warps, 3 blocks of 8
        assert_eq!(share(H100, 128, 32, 100_000), Some(0.125)); // two blocks' shared memory
        assert_eq!(share(V100, 128, 32, 49_152), Some(0.125));
        assert_eq!(share(H100, 1024, 255, 0), None); // not one block's registers
        assert_eq!(share(H100, 0, 0, 0), None);
    }
}
