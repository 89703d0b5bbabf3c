//! `wait` rows on their way into the measures, and what waits hold up.

use super::super::waited::{self, In, Place, Waits};
use super::stack::{Frame, Stack};
use super::{Measures, Pass, Track, json};
use crate::trace::{Event, Kind, Names};

/// A thread that ran for less than this part of a row hardly ran at all, and a sample in it says nothing of the rest.
const MOST_SHORT: f64 = 20.0;

impl Pass {
    /// A thread waited, in what it was in when it was first seen to.
    pub(super) fn wait(&mut self, event: &Event, names: &Names) {
        let track = (event.process, event.tid);
        let ns = event.value.map_or(event.dur_ns.unwrap_or(0), |v| v as i64);
        let thread = self.measures.thread(track, event.pid);
        if names.text(event.name) == "runnable" {
            thread.runnable_ns += ns;
            // As if it had run for the rest of the row. Where it also waited, that is too little, and a sample stands
            // for less than it should.
            let ran_ns = (event.dur_ns.unwrap_or(0) - ns).max(1);
            let short = (ns as f64 / ran_ns as f64).min(MOST_SHORT);
            thread.short_of_cpu = (event.end_ns(), short);
            self.shade(track, event, ns, None, names);
            return;
        }
        let mut waits = Waits::of_row(names.text(event.name));
        thread.blocked_ns += ns;
        *thread.seen.entry(waits).or_default() += ns;
        let args = json(event.args, names);
        self.measures.wait_error2 += args["error_ns"].as_f64().unwrap_or(0.0).powi(2);
        self.pop_until(track, event.start_ns, names);
        if let Some(holder) = args["holder"].as_u64().filter(|_| waits == Waits::Gil) {
            let holder = (event.process, holder);
            self.pop_until(holder, event.start_ns, names);
            let top = self.stacks.get(holder).and_then(|s| s.frames.last());
            let function = top.and_then(|frame| frame.within.python());
            let key = (track, holder, function);
            *self.measures.holders.entry(key).or_default() += ns;
        }
        let Some(Stack { frames: stack, .. }) = self.stacks.get(track) else {
            return;
        };
        let Some(top) = stack.last().filter(|top| !top.importing) else {
            return;
        };
        let call = args["call"].as_str().unwrap_or("");
        // Who reads from a connection that was accepted waits for the client's next request.
        let of_client = match args["file"].as_str() {
            Some("client") => Some(call.starts_with("re")),
            Some("socket") => Some(false),
            _ => None,
        };
        if let (Some(of_client), Some(path)) = (of_client, top.path) {
            let (clients_ns, others_ns) = self.clients.entry(path).or_default();
            *(if of_client { clients_ns } else { others_ns }) += ns;
        }
        if of_client == Some(true) {
            waits = Waits::Idle;
        }
        let function = top.within.python();
        let place = match (top.kind, top.waits, top.function()) {
            (Kind::Native | Kind::Op, Some(known), _) if waits == Waits::Gil => In::Waiting(known),
            (Kind::Native | Kind::Op, Some(_), _) => return, // it says so itself
            (Kind::Native | Kind::Op, None, Some(native)) => {
                // What a library waits for within itself, for its own threads say, is its own time.
                if matches!(waits, Waits::Lock | Waits::Blocked) {
                    return;
                }
                let file = self.measures.functions[native].0.file;
                let file = file.map_or("", |file| names.text(file));
                let places = places(&self.measures, stack, names);
                if waited::is_idle(waits, call, file, places) {
                    waits = Waits::Idle;
                }
                In::Native(native)
            }
            (Kind::Python | Kind::Scope, ..) => {
                let Some(function) = function else { return };
                let places = places(&self.measures, stack, names);
                if waited::is_idle(waits, call, "", places) {
                    waits = Waits::Idle;
                }
                In::Python(function)
            }
            _ => return,
        };
        self.measures
            .waited(track, waits, ns, function, stack, names);
        match top.path {
            // The recorder had no time to find out whose connection it is.
            Some(path)
                if waits == Waits::Io && call.starts_with("re") && args["file"].is_null() =>
            {
                *self.unclear.entry((track, place, path)).or_default() += ns;
            }
            _ => self.waited.add(track, place, waits, ns),
        }
        self.shade(track, event, ns, Some(waits), names);
    }
}

impl Pass {
    /// Makes reads of clients' connections waits for work: what rows said of calls along a path says it of those too that
    /// were too short for one, or came before it.
    pub(super) fn settle_reads(&mut self) {
        let of_clients = |path: u32| {
            let rows = self.clients.get(&path);
            rows.is_some_and(|(clients_ns, others_ns)| clients_ns > others_ns)
        };
        for (&(track, place, path), &ns) in &self.unclear {
            let waits = if of_clients(path) {
                Waits::Idle
            } else {
                Waits::Io
            };
            self.waited.add(track, place, waits, ns);
        }
        let m = &mut self.measures;
        for (&(track, path), &ns) in self.reads.iter().filter(|((_, path), _)| of_clients(*path)) {
            let function = m.paths[path as usize].function;
            if let Some(own) = m.own.get_mut(&(track, function)) {
                own.idle_ns += ns;
            }
            if let Some(thread) = m.threads.get_mut(&track) {
                let waits = &mut thread.times.waits;
                *waits.entry(Waits::Io).or_default() -= ns;
                *waits.entry(Waits::Idle).or_default() += ns;
            }
        }
    }
}

/// The Python frames of a stack, innermost first.
pub(super) fn places<'a>(
    m: &'a Measures,
    stack: &'a [Frame],
    names: &'a Names,
) -> impl Iterator<Item = Place<'a>> {
    let python = stack.iter().rev().filter(|f| f.kind == Kind::Python);
    python.filter_map(Frame::function).map(|function| {
        let key = &m.functions[function].0;
        Place {
            name: names.text(key.name),
            file: key.file.map_or("", |file| names.text(file)),
        }
    })
}

impl Measures {
    /// Notes a wait of `function` where it holds others up: in an event loop, at a lock.
    pub(super) fn waited(
        &mut self,
        track: Track,
        waits: Waits,
        ns: i64,
        function: Option<usize>,
        stack: &[Frame],
        names: &Names,
    ) {
        let Some(function) = function else { return };
        let blocks = !matches!(waits, Waits::Idle | Waits::Gil);
        if blocks && stack.last().is_some_and(|frame| frame.within.step) {
            *self.loops.waiting.entry(function).or_default() += ns;
        }
        let top = places(self, stack, names).next();
        if waits == Waits::Lock && waited::is_contended(top) {
            *self.contended.entry((track, function)).or_default() += ns;
            self.threads.entry(track).or_default().times.contended_ns += ns;
        }
    }

    /// Adds time that a function waited within what is known of it, up to what there is.
    pub(in super::super) fn book_wait(
        &mut self,
        track: Track,
        function: usize,
        ns: i64,
        idle_ns: i64,
    ) {
        let Some(own) = self.own.get_mut(&(track, function)) else {
            return;
        };
        let native = self.functions[function].0.kind == Kind::Native;
        let rest = if native { 0 } else { own.native_ns };
        let taken = ns.min(own.self_ns - rest - own.wait_ns).max(0);
        own.wait_ns += taken;
        own.idle_ns += idle_ns.min(taken);
        self.functions[function].1.wait_ns += taken;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Measures, measure};
    use crate::analyze::waited::Waits;
    use crate::trace::provenance::Stage;
    use crate::trace::text::reader;

    #[test]
    fn who_reads_from_a_connection_it_took_waits_for_work() {
        let text = r#"
track    kind    start  end    name              file    value     line  args
py:main  python  0ms    200ms  handle            app.py  -         1     -
py:main  native  5ms    7ms    socket.recv_into  s.so    -         -     -
py:main  native  10ms   50ms   socket.recv_into  s.so    -         -     -
py:main  wait    11ms   49ms   io                -       38000000  -     {"call":"recv","file":"client"}
py:main  native  60ms   61ms   socket.recv_into  s.so    -         -     -
py:main  python  70ms   100ms  ask               app.py  -         9     -
py:main  native  70ms   100ms  socket.recv_into  s.so    -         -     -
py:main  wait    71ms   99ms   io                -       28000000  -     {"call":"recv","file":"socket"}
py:main  wait    110ms  150ms  io                -       40000000  -     {"call":"read","file":"client"}
py:main  wait    160ms  170ms  io                -       10000000  -     {"call":"send","file":"client"}
py:main  wait    180ms  190ms  io                -       10000000  -     {"call":"recv"}
"#;
        let reader = reader(text, Stage::Timeline).unwrap();
        let m: Measures = measure(reader, &Default::default(), &Default::default()).unwrap();
        let waits = &m.threads.values().next().unwrap().times.waits;
        let ms = |waits: &i64| waits / 1_000_000;
        assert_eq!(waits.get(&Waits::Idle).map(ms), Some(2 + 40 + 1 + 40 + 10));
        assert_eq!(waits.get(&Waits::Io).map(ms), Some(30 + 10));
    }
}
