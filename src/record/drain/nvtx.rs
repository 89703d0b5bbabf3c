//! Ranges and marks of NVTX: pushes and pops paired by thread, domain and level, starts and ends by the range's id.
//!
//! A pop whose push was not recorded is of no range. The end of a range may be in a chain that is read before the one
//! with its start, so it is kept.

use std::collections::{BTreeMap, HashMap, HashSet};

use inferscope_spool::record::{Attributes, MOST_LEVEL, Nvtx, Record, Text};

use serde_json::Value;

use super::{Names, Thread as Chain};
use crate::trace::{Event, Kind, Sym};

/// What stands for no text; as the importers have it.
const NO_TEXT: &str = "(no text)";
/// In the flow of a range: tasks count up from 1, below this.
const RANGE: u64 = 1 << 31;
/// Ends without a start, and texts of args, that are kept.
const MOST: usize = 1 << 16;
/// Names of categories, and of threads, that are kept of a process.
const MOST_NAMES: usize = 1 << 14;

/// What a process has of it.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Ranges that may end on any thread, by id.
    started: BTreeMap<u64, (u64, Open)>,
    /// Ends of ranges whose start has not come, by id.
    ended: BTreeMap<u64, i64>,
    categories: BTreeMap<(u32, u32), String>,
    /// Threads that the program gave a name.
    named: HashSet<u64>,
    /// By domain, category, colour, and whether the end is missing: few, and in many rows.
    args: HashMap<(u32, u32, Option<u32>, bool), Sym>,
}

/// What a thread has of it.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    pushed: Vec<(u32, Vec<Open>)>,
    /// Of the next record.
    attributes: Attributes,
}

/// A range that has begun, or a mark.
#[derive(Clone, Debug)]
struct Open {
    id: u32,
    /// The name, where no id has it.
    text: Option<Box<str>>,
    domain: u32,
    level: u32,
    start_ns: i64,
    attributes: Attributes,
}

/// How a range ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    At(i64),
    /// Its end is missing.
    Open(i64),
}

impl Thread {
    /// A record that tells something of the next one.
    pub fn before(&mut self, record: Nvtx) {
        if let Nvtx::Attributes(attributes) = record {
            self.attributes = attributes;
        }
    }
}

impl Process {
    /// Symbols mean nothing any more.
    pub fn forget_args(&mut self) {
        self.args.clear();
    }

    /// The thread's id may be another one's from now on.
    pub fn ended(&mut self, tid: u64) {
        self.named.remove(&tid);
    }

    pub fn has_named(&self, tid: u64) -> bool {
        self.named.contains(&tid)
    }

    pub fn name_thread(&mut self, tid: u64) {
        if self.named.len() < MOST_NAMES {
            self.named.insert(tid);
        }
    }

    pub fn name_category(&mut self, domain: u32, category: u32, name: &str) {
        if self.categories.len() < MOST_NAMES {
            self.categories.insert((domain, category), name.to_owned());
            self.args.clear();
        }
    }
}

impl super::Process {
    /// Takes a record that has a time.
    pub(super) fn nvtx_event(
        &mut self,
        names: &mut Names,
        tid: u64,
        chain: &mut Chain,
        event: Nvtx,
        at: i64,
        out: &mut Vec<Event>,
    ) {
        match event {
            Nvtx::Push {
                id, domain, level, ..
            } => {
                let open = open(chain, id, domain, level, at);
                let before_ns = chain.before_ns;
                // as deep or deeper, in a domain that now has one here: their pops were lost
                let stack = stack(chain, domain);
                let gone = match level < MOST_LEVEL {
                    true => stack.partition_point(|open| open.level < level),
                    false => stack.len(),
                };
                let left = stack.split_off(gone);
                stack.push(open);
                for open in left.into_iter().rev() {
                    let row = self.range(names, tid, open, End::Open(before_ns), None);
                    out.push(row);
                }
            }
            Nvtx::Pop { domain, level, .. } => {
                let stack = stack(chain, domain);
                let mut left = Vec::new();
                while let Some(open) = stack.pop_if(|open| open.level > level) {
                    left.push(open);
                }
                let ended = stack.pop_if(|open| open.level == level);
                for open in left {
                    out.push(self.range(names, tid, open, End::Open(at), None));
                }
                if let Some(open) = ended {
                    out.push(self.range(names, tid, open, End::At(at), None));
                }
            }
            Nvtx::Start {
                id, domain, range, ..
            } => {
                let open = open(chain, id, domain, 0, at);
                match self.nvtx.ended.remove(&range) {
                    Some(end_ns) => {
                        let row = self.range(names, tid, open, End::At(end_ns), Some(range));
                        out.push(row);
                    }
                    None => drop(self.nvtx.started.insert(range, (tid, open))),
                }
            }
            Nvtx::End { range, .. } => match self.nvtx.started.remove(&range) {
                Some((tid, open)) => {
                    let row = self.range(names, tid, open, End::At(at), Some(range));
                    out.push(row);
                }
                None => {
                    if self.nvtx.ended.len() >= MOST {
                        self.nvtx.ended.pop_first();
                    }
                    self.nvtx.ended.insert(range, at);
                }
            },
            Nvtx::Mark { id, domain, .. } => {
                let mark = open(chain, id, domain, 0, at);
                let mut row = self.range(names, tid, mark, End::At(at), None);
                (row.kind, row.dur_ns) = (Kind::Mark, None);
                row.flow = chain.stack.last().and_then(|frame| frame.flow);
                out.push(row);
            }
            Nvtx::Attributes(_) => {}
        }
    }

    /// Ends the ranges that a thread has pushed and not popped: they last to its last record.
    pub(super) fn end_pushed(
        &mut self,
        names: &mut Names,
        tid: u64,
        chain: &mut Chain,
        out: &mut Vec<Event>,
    ) {
        let mut pushed = std::mem::take(&mut chain.nvtx.pushed);
        pushed.sort_by_key(|(domain, _)| *domain);
        for open in pushed
            .into_iter()
            .flat_map(|(_, stack)| stack.into_iter().rev())
        {
            let row = self.range(names, tid, open, End::Open(chain.last_ns), None);
            out.push(row);
        }
    }

    /// Ends the ranges that were started and not ended: they last to the last record of the thread that started them.
    pub(super) fn end_started(&mut self, names: &mut Names, out: &mut Vec<Event>) {
        for (range, (tid, open)) in std::mem::take(&mut self.nvtx.started) {
            let last_ns = self.threads.get(&tid).map_or(open.start_ns, |t| t.last_ns);
            let row = self.range(names, tid, open, End::Open(last_ns), Some(range));
            out.push(row);
        }
        self.nvtx = Process::default();
    }

    fn range(
        &mut self,
        names: &mut Names,
        tid: u64,
        open: Open,
        end: End,
        range: Option<u64>,
    ) -> Event {
        let mut row = match (open.id, &open.text) {
            (0, text) => {
                let name = names.sym(text.as_deref().unwrap_or(NO_TEXT));
                Event::new(Kind::Nvtx, name, open.start_ns, self.id, self.pid, tid)
            }
            (id, _) => self.row(names, Kind::Nvtx, id, open.start_ns, tid),
        };
        let (End::At(end_ns) | End::Open(end_ns)) = end;
        row.dur_ns = Some(end_ns.saturating_sub(open.start_ns).max(0));
        row.value = open.attributes.value;
        row.flow = range.map(|range| u64::from(self.id) << 32 | RANGE | range & (RANGE - 1));
        row.args = self.nvtx_args(names, &open, matches!(end, End::Open(_)));
        row
    }

    fn nvtx_args(&mut self, names: &mut Names, of: &Open, open: bool) -> Option<Sym> {
        let Attributes {
            category, color, ..
        } = of.attributes;
        let key = (of.domain, category, color, open);
        if key == (0, 0, None, false) {
            return None;
        }
        if let Some(&known) = self.nvtx.args.get(&key) {
            return Some(known);
        }
        // in the order of the importers' rows
        let mut args = Vec::new();
        if of.domain != 0 {
            let name = self.defined.get(of.domain).map(|found| found.name);
            let domain =
                name.map_or_else(|| of.domain.into(), |name| Value::from(names.text(name)));
            args.push(format!(r#""domain":{domain}"#));
        }
        if category != 0 {
            let name = self.nvtx.categories.get(&(of.domain, category));
            let category = name.map_or_else(|| category.into(), |name| Value::from(name.as_str()));
            args.push(format!(r#""category":{category}"#));
        }
        if let Some(color) = color {
            args.push(format!(r##""color":"#{color:08x}""##));
        }
        if open {
            args.push(r#""open":true"#.to_owned());
        }
        let sym = names.sym(&format!("{{{}}}", args.join(",")));
        if self.nvtx.args.len() >= MOST {
            self.nvtx.args.clear(); // colours by chance, say
        }
        self.nvtx.args.insert(key, sym);
        Some(sym)
    }

    /// Names, and ends that wait for their start, as records of the names chain.
    pub(super) fn nvtx_names<'a>(&'a self, mut put: impl FnMut(Record<'a>)) {
        for (&(domain, category), name) in &self.nvtx.categories {
            put(Record::Text(Text::NvtxCategory {
                domain,
                category,
                name,
            }));
        }
        let mut named: Vec<u64> = self.nvtx.named.iter().copied().collect();
        named.sort_unstable();
        for tid in named {
            if let Some(name) = self.thread_names.get(&tid) {
                put(Record::Text(Text::NvtxThread { tid, name }));
            }
        }
        for (&range, &end_ns) in &self.nvtx.ended {
            let time = self.ticks(end_ns);
            put(Record::Nvtx(Nvtx::End { time, range }));
        }
    }

    /// Ranges that are open in a thread, as its records.
    pub(super) fn nvtx_open<'a>(
        &'a self,
        tid: u64,
        chain: &'a Chain,
        mut put: impl FnMut(Record<'a>),
    ) {
        let mut tell = |open: &'a Open, range: Option<u64>| {
            let (time, id, domain) = (self.ticks(open.start_ns), open.id, open.domain);
            if let Some(text) = &open.text {
                put(Record::Text(Text::Metadata(text)));
            }
            put(Record::Nvtx(Nvtx::Attributes(open.attributes)));
            put(Record::Nvtx(match range {
                Some(range) => Nvtx::Start {
                    time,
                    id,
                    domain,
                    range,
                },
                None => Nvtx::Push {
                    time,
                    id,
                    domain,
                    level: open.level,
                },
            }));
        };
        for open in chain.nvtx.pushed.iter().flat_map(|(_, stack)| stack) {
            tell(open, None);
        }
        for (&range, (started_by, open)) in &self.nvtx.started {
            if *started_by == tid {
                tell(open, Some(range));
            }
        }
    }
}

fn open(chain: &mut Chain, id: u32, domain: u32, level: u32, start_ns: i64) -> Open {
    let text = match id {
        0 => chain.metadata.take().map(String::into_boxed_str),
        _ => None,
    };
    Open {
        id,
        text,
        domain,
        level,
        start_ns,
        attributes: std::mem::take(&mut chain.nvtx.attributes),
    }
}

fn stack(chain: &mut Chain, domain: u32) -> &mut Vec<Open> {
    let pushed = &mut chain.nvtx.pushed;
    let at = pushed.iter().position(|(known, _)| *known == domain);
    let at = at.unwrap_or_else(|| {
        pushed.push((domain, Vec::new()));
        pushed.len() - 1
    });
    &mut pushed[at].1
}

#[cfg(test)]
mod tests {
    use super::super::Drain;
    use super::super::tests::{KEY, bytes, rows};
    use super::*;

    fn push(time: u64, id: u32, domain: u32, level: u32) -> Record<'static> {
        Record::Nvtx(Nvtx::Push {
            time,
            id,
            domain,
            level,
        })
    }

    fn pop(time: u64, domain: u32, level: u32) -> Record<'static> {
        Record::Nvtx(Nvtx::Pop {
            time,
            domain,
            level,
        })
    }

    fn start(time: u64, range: u64) -> Record<'static> {
        let (id, domain) = (3, 0);
        Record::Nvtx(Nvtx::Start {
            time,
            id,
            domain,
            range,
        })
    }

    fn end(time: u64, range: u64) -> Record<'static> {
        Record::Nvtx(Nvtx::End { time, range })
    }

    #[test]
    fn each_domain_pairs_by_itself() {
        let got = rows(&[
            push(1, 1, 0, 0),
            push(2, 2, 3, 0),
            push(3, 1, 0, 1),
            pop(4, 0, 1),
            pop(5, 0, 0),
            pop(6, 3, 0),
        ]);
        assert_eq!(got, ["f 3+1 - 0", "f 1+4 - 0", r#"g 2+4 {"domain":"s"} 0"#]);
    }

    #[test]
    fn pops_without_a_push_are_of_no_range_and_a_lost_pop_spoils_no_other() {
        // the push of level 1 was not recorded
        let got = rows(&[
            push(1, 1, 0, 0),
            push(3, 2, 0, 2),
            pop(4, 0, 2),
            pop(5, 0, 1),
            pop(6, 0, 0),
        ]);
        assert_eq!(got, ["g 3+1 - 0", "f 1+5 - 0"]);
        // the pop of level 1 was not
        let open = r#"{"open":true}"#;
        let lost = [push(1, 1, 0, 0), push(2, 2, 0, 1)];
        let got = rows(&[&lost[..], &[push(5, 3, 0, 1), pop(6, 0, 1), pop(7, 0, 0)]].concat());
        assert_eq!(
            got,
            [
                format!("g 2+0 {open} 0"),
                "s 5+1 - 0".into(),
                "f 1+6 - 0".into()
            ]
        );
        let got = rows(&[&lost[..], &[pop(7, 0, 0)]].concat());
        assert_eq!(got, [format!("g 2+5 {open} 0"), "f 1+6 - 0".into()]);
        assert!(rows(&[pop(1, 0, 0), end(2, 9)]).is_empty());
    }

    #[test]
    fn deeper_than_levels_are_told_apart_they_pair_as_a_stack() {
        let deep = MOST_LEVEL;
        let got = rows(&[
            push(1, 1, 0, deep),
            push(2, 2, 0, deep),
            pop(3, 0, deep),
            pop(4, 0, deep),
        ]);
        assert_eq!(got, ["g 2+1 - 0", "f 1+3 - 0"]);
    }

    #[test]
    fn attributes_and_texts_are_of_the_next_one_only() {
        let attributes = Record::Nvtx(Nvtx::Attributes(Attributes {
            category: 4,
            color: Some(0x00ff_00ff),
            value: Some(1.5),
        }));
        let text = Record::Text(Text::Metadata("a \"text\""));
        let got = rows(&[
            text,
            attributes,
            push(1, 0, 0, 0),
            push(2, 0, 0, 1),
            pop(3, 0, 1),
            pop(4, 0, 0),
        ]);
        let args = r##"{"category":4,"color":"#00ff00ff"}"##;
        assert_eq!(
            got,
            [
                "(no text) 2+1 - 0".into(),
                format!("a \"text\" 1+3 {args} 0")
            ]
        );
    }

    #[test]
    fn a_range_ends_on_any_thread_whichever_chain_is_read_first() {
        let (mut drain, mut out) = (Drain::default(), Vec::new());
        drain.records(KEY, 8, &bytes(&[end(9, 1)]), &mut out);
        drain.records(KEY, 7, &bytes(&[start(1, 1), start(2, 2)]), &mut out);
        drain.records(KEY, 8, &bytes(&[end(12, 2)]), &mut out);
        let got: Vec<_> = out
            .iter()
            .map(|row| (row.tid, row.start_ns, row.dur_ns, row.flow))
            .collect();
        assert_eq!(
            got,
            [
                (7, 1, Some(8), Some(RANGE | 1)),
                (7, 2, Some(10), Some(RANGE | 2))
            ]
        );
    }

    #[test]
    fn what_is_open_lasts_to_the_last_record() {
        let open = r#"{"open":true}"#;
        let flow = RANGE | 5;
        let got = rows(&[
            start(1, 5),
            push(2, 1, 0, 0),
            push(3, 2, 0, 1),
            pop(9, 0, 1),
        ]);
        assert_eq!(
            got,
            [
                "g 3+6 - 0".into(),
                format!("f 2+7 {open} 0"),
                format!("s 1+8 {open} {flow}")
            ]
        );
        // a thread that is forgotten takes its pushes with it
        let (mut drain, mut out) = (Drain::default(), Vec::new());
        drain.records(KEY, 7, &bytes(&[push(2, 1, 0, 0), start(4, 5)]), &mut out);
        drain.closed(KEY, 7);
        drain.retire(KEY, 0, &mut out).unwrap();
        assert_eq!(out.len(), 1);
        drain.records(KEY, 8, &bytes(&[end(6, 5)]), &mut out);
        assert_eq!((out.len(), out[1].dur_ns), (2, Some(2)));
    }

    #[test]
    fn whoever_reads_a_snapshot_and_what_follows_has_the_same_rows() {
        let text = Record::Text(Text::Metadata("long"));
        let attributes = Record::Nvtx(Nvtx::Attributes(Attributes {
            category: 4,
            ..Attributes::default()
        }));
        let category = Record::Text(Text::NvtxCategory {
            domain: 3,
            category: 4,
            name: "four",
        });
        let define = Record::Text(Text::Define {
            id: 3,
            line: 0,
            name: "s",
            file: "",
        });
        let thread = Record::Text(Text::NvtxThread { tid: 7, name: "w" });
        let mut first = Drain::default();
        let before = [
            text,
            attributes,
            push(1, 0, 3, 0),
            push(2, 3, 3, 1),
            start(3, 5),
        ];
        let mut out = Vec::new();
        first.records(KEY, 0, &bytes(&[define, category, thread]), &mut out);
        first.records(KEY, 7, &bytes(&before), &mut out);
        first.records(KEY, 8, &bytes(&[end(9, 6)]), &mut out);
        let mut second = Drain::default();
        for known in first.snapshot() {
            second.records(known.key, known.tid, &known.bytes, &mut out);
        }
        assert!(out.is_empty());
        let told = |drain: &mut Drain| {
            let mut out = Vec::new();
            let after = [start(8, 6), pop(10, 3, 1), pop(11, 3, 0), end(12, 5)];
            drain.records(KEY, 7, &bytes(&after), &mut out);
            drain.finish(&mut out);
            let told = out.iter().map(|row| {
                let args = row.args.map_or("", |args| drain.names.text(args));
                let name = drain.names.text(row.name);
                format!(
                    "{name} {}+{:?} {args} {:?}",
                    row.start_ns, row.dur_ns, row.flow
                )
            });
            let told: Vec<_> = told.collect();
            (told, drain.processes()[0].1.thread_names[&7].clone())
        };
        let told_first = told(&mut first);
        assert_eq!(told_first.0.len(), 4);
        assert!(told_first.0[2].starts_with(r#"long 1+Some(10) {"domain":"s","category":"four"}"#));
        assert_eq!(told_first, told(&mut second));
    }
}
