//! What kernels and copies are like, by their rows alone.

use std::collections::BTreeMap;

use crate::trace::{Event, HashMap, Kind, Names, Sym};

/// A kernel below this is short: starting it costs about as much (TraceLens' limit, `generate_perf_report_pytorch`).
pub const SHORT_NS: i64 = 10_000;

/// From where to where a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    ToDevice,
    ToHost,
    OnDevice,
    Between,
    Unknown,
}

/// What memory of the host it has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Memory {
    Pageable,
    Pinned,
    Unknown,
}

/// Sums of one kind of copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copies {
    pub count: u64,
    pub bytes: i64,
    pub time_ns: i64,
    /// The longest, and its row.
    pub longest: (i64, i64),
}

/// Sums of one kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelSums {
    pub count: u64,
    pub time_ns: i64,
    pub longest: (i64, i64),
}

/// Kernels and copies.
#[derive(Debug, Default)]
pub struct Kinds {
    /// Sorted once all are in.
    pub kernel_durs_ns: Vec<i64>,
    pub kernels: HashMap<Sym, KernelSums>,
    pub copies: BTreeMap<(Direction, Memory), Copies>,
    /// Copies whose call came back only when they were over: count, and time in these calls.
    pub blocking: (u64, i64),
    /// The same of those with pageable memory.
    pub pageable: (u64, i64),
    directions: HashMap<Sym, (Direction, Memory)>,
}

impl Kinds {
    /// Takes a row of device work.
    pub fn add(&mut self, event: &Event, names: &Names, row: i64) {
        let dur_ns = event.dur_ns.unwrap_or(0);
        match event.kind {
            Kind::Kernel => {
                self.kernel_durs_ns.push(dur_ns);
                let sums = self.kernels.entry(event.name).or_default();
                sums.count += 1;
                sums.time_ns += dur_ns;
                sums.longest = sums.longest.max((dur_ns, row));
            }
            Kind::Memcpy => {
                let kind = self.kind(event.name, names);
                let sums = self.copies.entry(kind).or_default();
                sums.count += 1;
                sums.bytes += event.bytes.unwrap_or(0);
                sums.time_ns += dur_ns;
                sums.longest = sums.longest.max((dur_ns, row));
            }
            _ => {}
        }
    }

    /// What a copy's name says; CUPTI, Kineto and Nsight agree: `Memcpy HtoD (Pageable -> Device)`.
    pub fn kind(&mut self, name: Sym, names: &Names) -> (Direction, Memory) {
        *self.directions.entry(name).or_insert_with(|| {
            let name = names.text(name);
            let has = |part: &str| name.contains(part);
            let direction = if has("HtoD") || has("HOST_TO_DEVICE") {
                Direction::ToDevice
            } else if has("DtoH") || has("DEVICE_TO_HOST") {
                Direction::ToHost
            } else if has("DtoD") || has("DEVICE_TO_DEVICE") {
                Direction::OnDevice
            } else if has("PtoP") {
                Direction::Between
            } else {
                Direction::Unknown
            };
            let memory = if has("Pageable") {
                Memory::Pageable
            } else if has("Pinned") {
                Memory::Pinned
            } else {
                Memory::Unknown
            };
            (direction, memory)
        })
    }

    /// The kernel with most time.
    pub fn top(&self) -> Option<(Sym, KernelSums)> {
        let most = self.kernels.iter();
        let most = most.max_by_key(|(name, sums)| (sums.time_ns, std::cmp::Reverse(name.0)));
        most.map(|(name, sums)| (*name, *sums))
    }

    /// Sums over copies of some kinds.
    pub fn sum(&self, of: impl Fn(Direction, Memory) -> bool) -> Copies {
        let chosen = self.copies.iter().filter(|((d, m), _)| of(*d, *m));
        chosen.fold(Copies::default(), |sum, (_, c)| Copies {
            count: sum.count + c.count,
            bytes: sum.bytes + c.bytes,
            time_ns: sum.time_ns + c.time_ns,
            longest: sum.longest.max(c.longest),
        })
    }
}
