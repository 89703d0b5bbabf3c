//! The records of one process: begins and ends paired, thread by thread.

use inferscope_spool::record::{
    DEVICES, LOOSE, RAISED, RESUMED, Record, SUSPENDED, SpanKind, Text, UNSEEN, depth,
};

use super::super::throttle::{Burst, Row};
use super::{Defined, Gil, MOST_NS, OpenFrame, OpenScope, Process, ProcessFacts, Thread};
use crate::trace::{Event, Kind, Names};

/// Notes of one process that are kept: a probe has a dozen to give.
const MOST_NOTES: usize = 256;

/// Threads of one process whose states' addresses are kept; those of ended threads are used again.
const MOST_STATES: usize = 1 << 16;

impl Process {
    /// Its threads that wrote records: id, time of the first and of the last one.
    pub fn active(&self) -> Vec<(u64, i64, i64)> {
        let threads = (self.threads.iter()).filter(|(tid, _)| **tid != 0 && **tid < DEVICES);
        let mut all: Vec<_> = threads
            .filter_map(|(tid, thread)| Some((*tid, thread.first_ns?, thread.last_ns)))
            .collect();
        all.sort_unstable();
        all
    }

    /// Whether this thread wrote records, and is not forgotten.
    pub fn has_thread(&self, tid: u64) -> bool {
        self.threads.contains_key(&tid)
    }

    /// Takes one record; false if it makes no sense.
    #[inline(always)]
    pub(super) fn record(
        &mut self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        record: Record,
        out: &mut Vec<Event>,
    ) -> bool {
        if let Record::Begin { id: 0, .. } | Record::End { id: 0, .. } = record {
            return true; // the probe's own function, with which it measures what a call costs
        }
        if let Some(at) = self.time_ns(&record) {
            self.switch_off(names, tid, thread, at, out);
            self.shed(names, tid, thread, at, out);
            thread.first_ns.get_or_insert(at);
            thread.closed = false;
            thread.before_ns = thread.last_ns;
            thread.last_ns = thread.last_ns.max(at);
            self.timed(names, tid, thread, record, at, out);
            return true;
        }
        let text = match record {
            Record::Gil { start, end, holder } => {
                self.gil = Some(Gil { start, end, holder });
                return true;
            }
            Record::State { tid, address } => {
                if self.states.len() >= MOST_STATES {
                    self.states.clear();
                }
                self.states.insert(address, tid);
                return true;
            }
            Record::Nvtx(nvtx) => {
                thread.nvtx.before(nvtx);
                return true;
            }
            Record::Text(text) => text,
            _ => return true,
        };
        match text {
            Text::Metadata(json) => thread.metadata = Some(json.to_owned()),
            Text::Define {
                id,
                line,
                name,
                file,
            } => {
                let defined = Defined {
                    name: names.sym(name),
                    file: (!file.is_empty()).then(|| names.sym(file)),
                    line: (line != 0).then_some(line),
                };
                self.defined.insert(id, defined);
            }
            Text::Process(json) => match serde_json::from_str::<ProcessFacts>(json) {
                Ok(facts) if facts.ns_per_tick.is_finite() && facts.ns_per_tick > 0.0 => {
                    let base_monotonic_ns = facts.base_monotonic_ns.clamp(-MOST_NS, MOST_NS);
                    self.facts = ProcessFacts {
                        base_monotonic_ns,
                        ..facts
                    };
                }
                _ => return false,
            },
            Text::Thread { .. } if self.nvtx.has_named(tid) => {}
            Text::Thread { name, .. } => {
                self.thread_names.insert(tid, name.to_owned());
            }
            Text::NvtxThread { tid, name } => {
                self.nvtx.name_thread(tid);
                self.thread_names.insert(tid, name.to_owned());
            }
            Text::NvtxCategory {
                domain,
                category,
                name,
            } => self.nvtx.name_category(domain, category, name),
            Text::Note(note) if self.notes.len() < MOST_NOTES => {
                self.notes.push(note.to_owned());
            }
            Text::Note(_) => {}
            Text::Shape { id, json } => {
                return self.devices.shape(names, &self.defined, id, json);
            }
            Text::Facts { name, json } => return self.devices.tell(name, json),
        }
        true
    }

    /// The record's time in ns of the process's clock; `None` for a text, which has none.
    #[inline(always)]
    pub(super) fn time_ns(&self, record: &Record) -> Option<i64> {
        let ticks = match *record {
            Record::Begin { time, .. }
            | Record::End { time, .. }
            | Record::Span { time, .. }
            | Record::Mark { time, .. }
            | Record::ScopeBegin { time, .. }
            | Record::ScopeEnd { time, .. }
            | Record::Counter { time, .. }
            | Record::Sample { time, .. }
            | Record::Throttle { time, .. }
            | Record::Slices { time, .. }
            | Record::Missing { time, .. }
            | Record::Switch { time, .. }
            | Record::Exit { time } => time,
            Record::Clock { ticks, .. } => ticks,
            Record::Work { time, .. } | Record::Call { time, .. } => {
                let ns = i64::try_from(time).unwrap_or(MOST_NS).min(MOST_NS);
                return Some(self.facts.base_monotonic_ns.saturating_add(ns));
            }
            Record::Nvtx(event) => event.time()?,
            Record::Gil { .. } | Record::State { .. } | Record::Text(_) => return None,
        };
        Some(
            self.facts
                .base_monotonic_ns
                .saturating_add(self.ticks_ns(ticks)),
        )
    }

    #[inline(always)]
    fn ticks_ns(&self, ticks: u64) -> i64 {
        ((ticks as f64 * self.facts.ns_per_tick + 0.5) as i64).min(MOST_NS)
    }

    fn flow(&self, flow: u64) -> Option<u64> {
        let flow = flow & 0xffff_ffff;
        (flow != 0).then_some(u64::from(self.id) << 32 | flow)
    }

    /// Ends frames that were open when recording was switched off: what they did later is unknown.
    fn switch_off(
        &self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        at: i64,
        out: &mut Vec<Event>,
    ) {
        while let Some(&off_ns) = self.off_ns.get(thread.off_seen) {
            if off_ns >= at {
                break;
            }
            thread.off_seen += 1;
            while let Some(frame) = thread.stack.pop_if(|frame| frame.start_ns <= off_ns) {
                let mut event = self.python(names, tid, frame, off_ns);
                event.args = Some(names.sym(r#"{"open":true}"#));
                out.push(event);
            }
        }
    }

    /// Ends frames on top whose function the budget has shed since they began: what they did later is unknown.
    #[inline(always)]
    fn shed(
        &self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        at: i64,
        out: &mut Vec<Event>,
    ) {
        while let Some(frame) = thread.stack.last()
            && let Some(cut_ns) = self.throttled.cut_ns(frame.id, frame.start_ns, at)
        {
            let mut event = self.python(names, tid, *frame, cut_ns);
            event.args = Some(names.sym(r#"{"open":true}"#));
            out.push(event);
            thread.stack.pop();
        }
    }

    /// Ends frames that were as deep as one that begins now, or deeper: an exception left them, unseen, after the last
    /// record before this one.
    fn left(
        &self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        depth: u32,
        out: &mut Vec<Event>,
    ) {
        let at = thread.before_ns;
        while let Some(frame) = thread.stack.pop_if(|frame| frame.depth >= depth.max(1)) {
            let cut_ns = self.throttled.cut_ns(frame.id, frame.start_ns, at);
            let mut event = self.python(names, tid, frame, cut_ns.unwrap_or(at));
            event.args = Some(names.sym(r#"{"open":true}"#));
            out.push(event);
        }
    }

    /// Ends all that is open in a thread.
    pub(super) fn end_all(
        &mut self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        out: &mut Vec<Event>,
    ) {
        let end_ns = thread.last_ns;
        for frame in std::mem::take(&mut thread.stack).into_iter().rev() {
            let cut_ns = self.throttled.cut_ns(frame.id, frame.start_ns, end_ns);
            let mut event = self.python(names, tid, frame, cut_ns.unwrap_or(end_ns));
            event.args = Some(names.sym(r#"{"open":true}"#));
            out.push(event);
        }
        self.end_pushed(names, tid, thread, out);
    }

    #[inline(always)]
    fn timed(
        &mut self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        record: Record,
        at: i64,
        out: &mut Vec<Event>,
    ) {
        match record {
            Record::Begin {
                id, flags, flow, ..
            } => {
                let own = self.flow(flow);
                let depth = depth(flags);
                if flags & LOOSE != 0 {
                    self.left(names, tid, thread, depth, out);
                }
                thread.frames += 1;
                thread.stack.push(OpenFrame {
                    id,
                    start_ns: at,
                    resumed: flags & RESUMED != 0,
                    depth,
                    begun: thread.frames,
                    flow: own.or_else(|| thread.stack.last().and_then(|frame| frame.flow)),
                    segment: own
                        .map(|_| thread.frames)
                        .or_else(|| thread.stack.last().and_then(|frame| frame.segment)),
                });
            }
            Record::End { id, flags, .. } => self.end(names, tid, thread, id, flags, at, out),
            Record::Span {
                id,
                kind,
                dur,
                extra,
                ..
            } => {
                let kind_of = match kind {
                    SpanKind::Native => Kind::Native,
                    SpanKind::Gc => Kind::Gc,
                    SpanKind::Wait => Kind::Wait,
                };
                let mut event = self.row(names, kind_of, id, at, tid);
                event.dur_ns = Some(self.ticks_ns(dur));
                event.value = (kind == SpanKind::Gc).then_some(extra as f64);
                event.args = thread.metadata.take().map(|json| names.sym(&json));
                event.flow = thread.stack.last().and_then(|frame| frame.flow);
                thread.last_ns = thread.last_ns.max(event.end_ns());
                out.push(event);
            }
            Record::Mark { id, flow, .. } => {
                let mut event = self.row(names, Kind::Mark, id, at, tid);
                event.args = thread.metadata.take().map(|json| names.sym(&json));
                event.flow = self
                    .flow(flow)
                    .or(thread.stack.last().and_then(|frame| frame.flow));
                out.push(event);
            }
            Record::ScopeBegin {
                id, handle, flow, ..
            } => {
                let top = thread.stack.last();
                let scope = OpenScope {
                    id,
                    tid,
                    start_ns: at,
                    flow: self.flow(flow).or(top.and_then(|frame| frame.flow)),
                    segment: match flow & UNSEEN {
                        0 => top.and_then(|frame| frame.segment),
                        _ => Some(u64::MAX), // ends in another one, for all we know
                    },
                    metadata: thread.metadata.take(),
                };
                self.scopes.insert(handle, scope);
            }
            Record::ScopeEnd { flags, handle, .. } => {
                let Some(scope) = self.scopes.remove(&handle) else {
                    return;
                };
                let segment = thread.stack.last().and_then(|frame| frame.segment);
                let moved = scope.tid != tid || scope.segment != segment;
                let facts = [("async", moved), ("raised", flags & RAISED != 0)];
                let event = self.scope(names, scope, at, &facts);
                out.push(event);
            }
            Record::Counter { id, value, .. } => {
                let mut event = self.row(names, Kind::Counter, id, at, tid);
                event.value = Some(value);
                match names.text(event.name) {
                    "probe.call_ns" => self.throttled.set_cost(value),
                    "line.time_ns" => {
                        event.args = thread.metadata.take().map(|json| names.sym(&json));
                    }
                    _ => {}
                }
                out.push(event);
            }
            Record::Clock {
                monotonic_ns,
                realtime_ns,
                boottime_ns,
                error_ns,
                ..
            } => {
                let name = names.sym(&self.facts.clock);
                let mut event = Event::new(Kind::Clock, name, at, self.id, self.pid, tid);
                let args = serde_json::json!({"monotonic_ns": monotonic_ns, "realtime_ns": realtime_ns,
                    "boottime_ns": boottime_ns, "error_ns": error_ns});
                event.args = Some(names.sym(&args.to_string()));
                out.push(event);
            }
            Record::Sample {
                id, tid, cpu_ns, ..
            } => {
                let mut event = self.row(names, Kind::Sample, id, at, tid);
                event.value = Some(cpu_ns as f64);
                out.push(event);
            }
            Record::Throttle {
                id,
                calls,
                since,
                burst,
                pools,
                ..
            } => {
                let burst = Burst {
                    time_ns: at,
                    calls,
                    since_ns: self
                        .facts
                        .base_monotonic_ns
                        .saturating_add(self.ticks_ns(since)),
                    cpu_ns: self.ticks_ns(burst),
                    pools_ns: pools.map(|pool| self.ticks_ns(pool)),
                };
                if let Some(row) = self.throttled.add(id, burst) {
                    self.hold(id, row);
                }
                self.tell(names, at, out);
            }
            Record::Slices {
                id,
                dur_us,
                slices,
                seen,
                calls,
                chance,
                bias,
                on_us,
                off_us,
                ..
            } => {
                let row = Row {
                    start_ns: at - i64::from(dur_us) * 1000,
                    end_ns: at,
                    calls,
                    variance: f64::from(chance).powi(2),
                    bias: f64::from(bias),
                    off_ns: i64::from(off_us) * 1000,
                    on_ns: i64::from(on_us) * 1000,
                    seen: seen.into(),
                    bursts: slices.into(),
                    ..Row::default()
                };
                self.hold(id, row);
                self.tell(names, at, out);
            }
            Record::Switch { on, .. } => {
                if !on {
                    self.off_ns.push(at);
                    self.off_ns.sort_unstable();
                }
            }
            Record::Exit { .. } => self.exited = true,
            Record::Work { .. } | Record::Call { .. } => {
                let row = self.device_row(names, &record, at);
                let end_ns = row.as_ref().map_or(at, Event::end_ns);
                self.devices.last_ns = self.devices.last_ns.max(end_ns);
                out.extend(row);
            }
            Record::Missing { id, records, .. } => {
                let mut event = self.row(names, Kind::Lost, id, at, 0);
                event.value = Some(records as f64);
                out.push(event);
            }
            Record::Nvtx(event) => self.nvtx_event(names, tid, thread, event, at, out),
            Record::Gil { .. } | Record::State { .. } | Record::Text(_) => {}
        }
    }

    /// Ends the innermost frame with this id. Frames above it whose own end never came end with it; an end
    /// whose begin was before recording started has no span, and one whose begin was lost is lost with it.
    #[allow(clippy::too_many_arguments)]
    fn end(
        &mut self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        id: u32,
        flags: u32,
        at: i64,
        out: &mut Vec<Event>,
    ) {
        let depth = match thread.stack.last() {
            Some(top) if top.id == id => Some(thread.stack.len() - 1),
            _ => thread.stack.iter().rposition(|frame| frame.id == id),
        };
        let Some(depth) = depth else {
            if thread.lost > 0 {
                thread.lost -= 1;
                let name = names.sym("ends without a beginning");
                let mut event = Event::new(Kind::Lost, name, at, self.id, self.pid, tid);
                event.value = Some(1.0);
                out.push(event);
            }
            return;
        };
        let cut_ns = |frame: &OpenFrame| self.throttled.cut_ns(frame.id, frame.start_ns, at);
        if cut_ns(&thread.stack[depth]).is_some() {
            return; // a frame that began while its function was not recorded
        }
        while thread.stack.len() > depth + 1
            && let Some(frame) = thread.stack.pop()
        {
            let mut event = self.python(names, tid, frame, cut_ns(&frame).unwrap_or(at));
            event.args = Some(names.sym(r#"{"open":true}"#));
            out.push(event);
        }
        let Some(frame) = thread.stack.pop() else {
            return;
        };
        // Without what it cost to record the calls below it.
        let below = (thread.frames - frame.begun) as f64 * self.throttled.cost_ns();
        let took = at.saturating_sub(frame.start_ns) - below as i64;
        self.throttled.took(id, took.max(0), frame.resumed);
        let mut event = self.python(names, tid, frame, at);
        let json = facts_of(frame.resumed, flags);
        event.args = (!json.is_empty()).then(|| names.sym(json));
        out.push(event);
    }

    #[inline(always)]
    pub(super) fn row(&self, names: &mut Names, kind: Kind, id: u32, at: i64, tid: u64) -> Event {
        let defined = self.defined.get(id).copied().unwrap_or_else(|| Defined {
            name: names.sym("(name lost)"),
            file: None,
            line: None,
        });
        let mut event = Event::new(kind, defined.name, at, self.id, self.pid, tid);
        event.file = defined.file;
        event.line = defined.line;
        event
    }

    #[inline(always)]
    fn python(&self, names: &mut Names, tid: u64, frame: OpenFrame, end_ns: i64) -> Event {
        let mut event = self.row(names, Kind::Python, frame.id, frame.start_ns, tid);
        event.dur_ns = Some(end_ns.saturating_sub(frame.start_ns).max(0));
        event.flow = frame.flow;
        event
    }

    pub(super) fn scope(
        &self,
        names: &mut Names,
        scope: OpenScope,
        end_ns: i64,
        facts: &[(&str, bool)],
    ) -> Event {
        let mut event = self.row(names, Kind::Scope, scope.id, scope.start_ns, scope.tid);
        event.dur_ns = Some(end_ns.saturating_sub(scope.start_ns).max(0));
        event.flow = scope.flow;
        event.args = args(scope.metadata.as_deref(), facts).map(|json| names.sym(&json));
        event
    }
}

/// What is to be said of a frame's span, as [`args`] would: there are many of them.
fn facts_of(resumed: bool, flags: u32) -> &'static str {
    match (flags & RAISED != 0, resumed, flags & SUSPENDED != 0) {
        (false, false, false) => "",
        (false, false, true) => r#"{"suspended":true}"#,
        (false, true, false) => r#"{"resumed":true}"#,
        (false, true, true) => r#"{"resumed":true,"suspended":true}"#,
        (true, false, false) => r#"{"raised":true}"#,
        (true, false, true) => r#"{"raised":true,"suspended":true}"#,
        (true, true, false) => r#"{"raised":true,"resumed":true}"#,
        (true, true, true) => r#"{"raised":true,"resumed":true,"suspended":true}"#,
    }
}

/// The user's metadata and our own facts that hold, as one JSON object; `None` when there is nothing to say.
fn args(metadata: Option<&str>, facts: &[(&str, bool)]) -> Option<String> {
    let mut object = match metadata.map(serde_json::from_str) {
        Some(Ok(serde_json::Value::Object(object))) => object,
        Some(_) | None => serde_json::Map::new(),
    };
    for (name, _) in facts.iter().filter(|(_, holds)| *holds) {
        object.insert((*name).into(), true.into());
    }
    (!object.is_empty()).then(|| serde_json::Value::Object(object).to_string())
}
