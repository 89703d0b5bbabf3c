//! What the drain knows, as records again: whoever reads only what comes after them misses nothing.

use inferscope_spool::record::{RESUMED, Record, Text, deep};

use super::{Drain, Process, ProcessKey};

/// Records of one thread of a process; `tid` 0 are its names.
#[derive(Debug)]
pub struct Snapshot {
    pub key: ProcessKey,
    pub tid: u64,
    pub bytes: Vec<u8>,
}

impl Drain {
    /// Definitions, clocks, open frames and open scopes of every process, names before what uses them.
    pub fn snapshot(&self) -> Vec<Snapshot> {
        let mut all = Vec::new();
        for (key, process) in self.processes() {
            if !process.covered {
                continue;
            }
            let bytes = self.names_of(process);
            all.push(Snapshot { key, tid: 0, bytes });
            let mut tids: Vec<u64> = process.threads.keys().copied().collect();
            tids.sort_unstable();
            for tid in tids {
                let bytes = self.thread_of(process, tid);
                if !bytes.is_empty() {
                    all.push(Snapshot { key, tid, bytes });
                }
            }
        }
        all
    }

    fn names_of(&self, process: &Process) -> Vec<u8> {
        let mut to = Vec::new();
        let facts = serde_json::to_string(&process.facts).unwrap_or_default();
        push(&mut to, Record::Text(Text::Process(&facts)));
        for (id, defined) in process.defined.iter() {
            let define = Text::Define {
                id,
                line: defined.line.unwrap_or(0),
                name: self.names.text(defined.name),
                file: defined.file.map_or("", |file| self.names.text(file)),
            };
            push(&mut to, Record::Text(define));
            let name = self.names.text(defined.name);
            if name == "probe.call_ns" && process.throttled.cost_ns() > 0.0 {
                let value = process.throttled.cost_ns();
                push(&mut to, Record::Counter { time: 0, id, value });
            }
        }
        let (facts, shapes) = process.devices.told();
        for (name, json) in facts {
            let json = &json;
            push(&mut to, Record::Text(Text::Facts { name, json }));
        }
        for (id, json) in shapes {
            push(&mut to, Record::Text(Text::Shape { id, json }));
        }
        process.nvtx_names(|record| push(&mut to, record));
        for note in &process.notes {
            push(&mut to, Record::Text(Text::Note(note)));
        }
        for &at in &process.off_ns {
            let time = process.ticks(at);
            push(&mut to, Record::Switch { time, on: false });
        }
        for (id, burst) in process.throttled.shed() {
            let time = process.ticks(burst.time_ns);
            let pool = process.ticks_of(burst.pools_ns[1]);
            let shed = Record::Throttle {
                time,
                id,
                calls: 0,
                since: time,
                burst: 0,
                pools: [pool; 2],
            };
            push(&mut to, shed);
        }
        to
    }

    fn thread_of(&self, process: &Process, tid: u64) -> Vec<u8> {
        let mut to = Vec::new();
        if let Some(name) = process.thread_names.get(&tid) {
            push(&mut to, Record::Text(Text::Thread { tid, name }));
        }
        let Some(thread) = process.threads.get(&tid) else {
            return to;
        };
        let mut flow = None;
        for frame in &thread.stack {
            // a frame that is no task's own has the flow of the one below it
            let own = frame.flow.filter(|_| frame.flow != flow);
            flow = frame.flow;
            let begin = Record::Begin {
                time: process.ticks(frame.start_ns),
                id: frame.id,
                flags: deep(frame.depth) | if frame.resumed { RESUMED } else { 0 },
                flow: own.map_or(0, |flow| flow & 0xffff_ffff),
            };
            push(&mut to, begin);
        }
        let scopes = process.scopes.iter().filter(|(_, scope)| scope.tid == tid);
        let mut scopes: Vec<_> = scopes.collect();
        scopes.sort_by_key(|(handle, _)| **handle);
        for (&handle, scope) in scopes {
            if let Some(json) = &scope.metadata {
                push(&mut to, Record::Text(Text::Metadata(json)));
            }
            let begin = Record::ScopeBegin {
                time: process.ticks(scope.start_ns),
                id: scope.id,
                handle,
                flow: scope.flow.map_or(0, |flow| flow & 0xffff_ffff),
            };
            push(&mut to, begin);
        }
        process.nvtx_open(tid, thread, |record| push(&mut to, record));
        to
    }
}

impl Process {
    /// The inverse of `time_ns`, to the nearest tick.
    pub(super) fn ticks(&self, at_ns: i64) -> u64 {
        self.ticks_of(at_ns.saturating_sub(self.facts.base_monotonic_ns))
    }

    fn ticks_of(&self, ns: i64) -> u64 {
        (ns.max(0) as f64 / self.facts.ns_per_tick).round() as u64
    }
}

fn push(to: &mut Vec<u8>, record: Record) {
    let words = match record {
        Record::Text(text) => text.encode(),
        fixed => fixed
            .words()
            .map_or_else(Vec::new, |w| w.as_slice().to_vec()),
    };
    to.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}
