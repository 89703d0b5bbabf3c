//! Device work over the union of all devices: the definitions of formats/analysis-v1.md.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::idle::Work;
use super::kinds::{Kinds, Memory};
use super::launches::{Launch, Launches};
use super::replay::Launched;
use crate::trace::{Event, HashMap, Kind, Names, Sym};

/// Intervals of one kind of work, in ns; sorted by start as long as the timeline is.
#[derive(Clone, Debug, Default)]
pub struct Intervals(Vec<(i64, i64)>);

impl Intervals {
    fn add(&mut self, start_ns: i64, end_ns: i64) {
        match self.0.last_mut() {
            // A timeline is sorted, so overlapping work can be joined as it comes.
            Some(last) if start_ns >= last.0 && start_ns <= last.1 => last.1 = last.1.max(end_ns),
            _ => self.0.push((start_ns, end_ns)),
        }
    }

    /// Length of the union.
    pub fn union_ns(&self) -> i64 {
        // A timeline's are, and lists of them are runs: a sort that looks for runs has little to do.
        let mut sorted = std::borrow::Cow::Borrowed(&self.0);
        if !sorted.is_sorted() {
            sorted.to_mut().sort();
        }
        let (mut total, mut reach) = (0, i64::MIN);
        for &(start, end) in sorted.iter() {
            if end > reach {
                total += end - start.max(reach);
                reach = end;
            }
        }
        total
    }

    /// Length of the part of the union that lies between two moments.
    pub fn within_ns(&self, from: i64, to: i64) -> i64 {
        let parts = self.0.iter().map(|&(a, b)| (a.max(from), b.min(to)));
        Intervals(parts.filter(|(a, b)| a < b).collect()).union_ns()
    }

    /// Length of the part of this union that lies in none of the others.
    pub fn exposed_ns(&self, others: &[&Intervals]) -> i64 {
        let others = others.iter().flat_map(|other| other.0.iter().copied());
        let others = Intervals(others.collect());
        let both = Intervals(self.0.iter().chain(&others.0).copied().collect());
        both.union_ns() - others.union_ns()
    }

    /// From the first start to the last end.
    pub fn span_ns(&self) -> i64 {
        let first = self.0.iter().map(|i| i.0).min();
        let last = self.0.iter().map(|i| i.1).max();
        last.zip(first).map_or(0, |(last, first)| last - first)
    }
}

/// A device of one machine: every rank's own is its number 0, 1, …
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpu {
    /// Whose it is, in [`Devices::owners`].
    pub owner: usize,
    pub device: u32,
}

/// Whose a device is, as far as process rows tell; left out where all have one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<i64>,
}

/// What ran on devices.
#[derive(Debug, Default)]
pub struct Devices {
    /// By the order of their processes. Processes of one host share its devices, but ranks have their own.
    pub owners: Vec<Owner>,
    owner_of: HashMap<u32, usize>,
    pub work: Intervals,
    pub by_device: BTreeMap<Gpu, Intervals>,
    pub compute: Intervals,
    pub compute_by_device: BTreeMap<Gpu, Intervals>,
    pub comm: Intervals,
    pub memcpy: Intervals,
    pub kernels: u64,
    pub kernel_sum_ns: i64,
    /// max(0, device start − launch end), sorted once all are in.
    pub launch_delays_ns: Vec<i64>,
    /// Lengths of the calls that started device work, sorted once all are in; a graph's launch is one of them.
    pub launch_durs_ns: Vec<i64>,
    /// Kernels that ran shorter than the call that launched them, and only them, took.
    pub shorter: u64,
    /// Launches of kernels that started nothing in this trace.
    pub unstarted: u64,
    /// By device and stream.
    pub streams: BTreeMap<Track, Stream>,
    launches: Launches,
    rows: Vec<Row>,
    /// Whether kernels of a name are a collective's.
    comms: HashMap<Sym, bool>,
    /// Names and starts of the kernels of each stream.
    pub kernel_names: BTreeMap<Track, Vec<(Sym, i64)>>,
    /// All device work whose launch is a call of the replay, by start; once all are in.
    pub launched: Vec<Launched>,
    /// What kernels and copies are like.
    pub kinds: Kinds,
}

/// So many launches that started nothing to each kernel, and it is a graph that was captured.
const CAPTURED: u64 = 10;

/// Device and stream.
type Track = (Gpu, Option<u32>);

/// Device work on one stream.
#[derive(Debug, Default)]
pub struct Stream {
    pub count: u64,
    pub busy: Intervals,
    pub queue: Queue,
}

/// How much work waits on a stream: launched, in this trace, and not begun.
#[derive(Debug, Default)]
pub struct Queue {
    /// Moments at which one more was launched or begun.
    pub changes: u64,
    /// Mean and greatest length over these moments; after each of them.
    pub mean: f64,
    pub max: i64,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    key: Option<(u32, u64)>,
    /// Its launch, where that came first.
    launch: Option<u32>,
    start_ns: i64,
    dur_ns: i64,
    stream: Track,
    copies: bool,
    pageable: bool,
}

impl Devices {
    /// A process, and whose devices it uses.
    pub fn process(&mut self, process: u32, owner: Owner) {
        let known = self.owners.iter().position(|other| *other == owner);
        let at = known.unwrap_or(self.owners.len());
        if known.is_none() {
            self.owners.push(owner);
        }
        self.owner_of.insert(process, at);
    }

    /// The number in the replay of a launch that was taken before.
    pub fn replayed(&mut self, event: &Event, op: u32) {
        let key = event.correlation.map(|c| (event.process, c));
        if let Some(at) = key.and_then(|key| self.launches.find(key)) {
            self.launches.all[at as usize].op = Some(op);
        }
    }

    /// The number of the launch with a process and correlation.
    pub fn launch_of(&self, key: (u32, u64)) -> Option<u32> {
        self.launches.find(key)
    }

    /// The thread of a launch, its start and its end.
    pub fn launched_by(&self, launch: u32) -> Option<((u32, u64), i64, i64)> {
        let launch = self.launches.all.get(launch as usize)?;
        Some((launch.track, launch.start_ns, launch.end_ns))
    }

    /// Takes a row of any kind; gives back what is device work.
    pub fn event(&mut self, event: &Event, names: &Names, row: i64) -> Option<Work> {
        let key = event
            .correlation
            .map(|correlation| (event.process, correlation));
        if event.kind == Kind::Launch {
            if let Some(key) = key {
                self.launches.add(Launch {
                    key,
                    track: (event.process, event.tid),
                    op: None,
                    start_ns: event.start_ns,
                    end_ns: event.end_ns(),
                    started: 0,
                });
            }
            return None;
        }
        if event.kind == Kind::Api && names.text(event.name).contains("LaunchKernel") {
            self.unstarted += 1;
        }
        if !event.kind.on_device() {
            return None;
        }
        let (start, end) = (event.start_ns, event.end_ns());
        self.work.add(start, end);
        let gpu = Gpu {
            owner: self.owner_of.get(&event.process).copied().unwrap_or(0),
            device: event.device.unwrap_or(0),
        };
        self.by_device.entry(gpu).or_default().add(start, end);
        let place = (gpu, event.stream);
        let stream = self.streams.entry(place).or_default();
        stream.count += 1;
        stream.busy.add(start, end);
        self.kinds.add(event, names, row);
        match event.kind {
            Kind::Kernel => {
                self.kernels += 1;
                self.kernel_sum_ns += end - start;
                let comm = *self.comms.entry(event.name).or_insert_with(|| {
                    let name = names.text(event.name).to_ascii_lowercase();
                    name.contains("nccl") || name.contains("rccl")
                });
                if comm {
                    &mut self.comm
                } else {
                    &mut self.compute
                }
                .add(start, end);
                if !comm {
                    let own = self.compute_by_device.entry(gpu).or_default();
                    own.add(start, end);
                }
                let names = self.kernel_names.entry(place).or_default();
                names.push((event.name, start));
            }
            Kind::Memcpy => self.memcpy.add(start, end),
            _ => {}
        }
        let launch = key.and_then(|key| self.launch_of(key));
        self.rows.push(Row {
            key,
            launch,
            start_ns: start,
            dur_ns: end - start,
            stream: place,
            copies: event.kind == Kind::Memcpy,
            pageable: event.kind == Kind::Memcpy
                && self.kinds.kind(event.name, names).1 == Memory::Pageable,
        });
        Some(Work {
            start_ns: start,
            end_ns: end,
            gpu,
            key,
            launch,
            row,
        })
    }

    /// Launches were captured into a graph rather than run: that the device is idle says nothing then.
    pub fn captured(&self) -> bool {
        self.unstarted > CAPTURED * self.kernels
    }

    /// Joins device work to its launches: a kernel may stand before its launch's end.
    pub fn finish(&mut self) {
        let mut known = std::mem::take(&mut self.launches);
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by_key(|row| row.start_ns);
        let streams: BTreeMap<Track, u32> = self.streams.keys().copied().zip(0..).collect();
        for row in &mut rows {
            let later = || known.find(row.key?);
            row.launch = row.launch.or_else(later);
            let Some(launch) = row.launch.map(|at| &mut known.all[at as usize]) else {
                continue;
            };
            self.launched.extend(launch.op.map(|op| Launched {
                op,
                start_ns: row.start_ns,
                end_ns: row.start_ns + row.dur_ns,
                stream: streams[&row.stream],
                copies: row.copies,
            }));
            launch.started += 1;
            if row.copies {
                let long = launch.end_ns - launch.start_ns;
                let add = |(count, ns): &mut (u64, i64)| {
                    *count += 1;
                    *ns += long;
                };
                if launch.end_ns >= row.start_ns + row.dur_ns {
                    add(&mut self.kinds.blocking);
                }
                if row.pageable {
                    add(&mut self.kinds.pageable);
                }
            }
        }
        let mut changes: BTreeMap<Track, Vec<(i64, i64)>> = BTreeMap::new();
        for work in &rows {
            // What has none was launched before the trace began.
            let Some(launch) = work.launch.map(|at| known.all[at as usize]) else {
                continue;
            };
            let delay = (work.start_ns - launch.end_ns).max(0);
            self.launch_delays_ns.push(delay);
            let long = launch.end_ns - launch.start_ns;
            self.shorter += u64::from(launch.started == 1 && work.dur_ns < long);
            let changes = changes.entry(work.stream).or_default();
            changes.push((launch.start_ns, 1));
            changes.push((work.start_ns, -1));
        }
        for (place, mut changes) in changes {
            // Of one moment the launch comes first: nothing begins that was not launched.
            changes.sort_unstable_by_key(|&(at, change)| (at, -change));
            let (mut length, mut sum, mut max) = (0i64, 0i64, 0i64);
            for (_, change) in &changes {
                length += change;
                sum += length;
                max = max.max(length);
            }
            self.streams.entry(place).or_default().queue = Queue {
                changes: changes.len() as u64,
                mean: sum as f64 / changes.len() as f64,
                max,
            };
        }
        let started = known.all.iter().filter(|launch| launch.started > 0);
        self.launch_durs_ns = started.map(|l| l.end_ns - l.start_ns).collect();
        self.launch_durs_ns.sort_unstable();
        self.launch_delays_ns.sort_unstable();
        self.kinds.kernel_durs_ns.sort_unstable();
    }
}

/// Element ⌊n/100·len⌋ of a sorted list, as the contract defines percentiles; 0 of an empty one.
pub fn percentile(sorted: &[i64], n: usize) -> i64 {
    let at = (sorted.len() * n / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_counts_each_instant_once_in_any_order() {
        let mut work = Intervals::default();
        for (start, end) in [(10, 20), (0, 5), (15, 30), (2, 4), (30, 31)] {
            work.add(start, end);
        }
        assert_eq!((work.union_ns(), work.span_ns()), (26, 31));
        assert_eq!((work.within_ns(3, 12), work.within_ns(40, 50)), (4, 0));
        assert_eq!(Intervals::default().union_ns(), 0);
    }

    #[test]
    fn each_rank_and_each_host_has_a_device_0() {
        let mut devices = Devices::default();
        let owner = |host: Option<&str>, rank| Owner {
            host: host.map(str::to_owned),
            rank,
        };
        devices.process(0, owner(None, Some(0)));
        devices.process(1, owner(None, Some(1)));
        devices.process(2, owner(Some("a"), None));
        devices.process(3, owner(Some("a"), None));
        let names = Names::default();
        for process in 0..4 {
            let mut event = Event::new(Kind::Kernel, Sym(0), 10, process, 7, 0);
            (event.dur_ns, event.device) = (Some(5), Some(0));
            devices.event(&event, &names, 0);
        }
        let gpus: Vec<_> = devices.by_device.keys().map(|gpu| gpu.owner).collect();
        assert_eq!(gpus, [0, 1, 2]);
    }

    #[test]
    fn percentiles_are_elements() {
        assert_eq!(percentile(&[1, 2, 3, 4], 50), 3);
        assert_eq!(percentile(&[1, 2, 3, 4], 100), 4);
        assert_eq!(percentile(&[], 50), 0);
    }
}
