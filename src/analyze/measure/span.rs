//! Spans as they begin and end: what each adds to its function, its thread, its path and those around it.

use std::collections::BTreeSet;

use super::super::blind::Blind;
use super::super::sampled;
use super::super::trail::Doing;
use super::super::waited::{self, Waits};
use super::functions::Traits;
use super::host::tell;
use super::stack::{Frame, Stack, Within};
use super::wait::places;
use super::{Flags, FunctionKey, MOST_DURATIONS, Measures, Pass, Track, json, library};
use crate::trace::{Event, Kind, Names};

impl Pass {
    /// A span begins.
    pub(super) fn span(&mut self, event: &Event, names: &Names) {
        let Some(dur_ns) = event.dur_ns else { return };
        let flags = self.flags(event, names);
        if event.kind == Kind::Scope {
            let span = (event.start_ns, dur_ns);
            let name = names.text(event.name);
            match self.measures.scopes.get_mut(name) {
                Some(spans) => spans.push(span),
                None => drop(self.measures.scopes.insert(name.to_owned(), vec![span])),
            }
            if flags.crossed {
                return;
            }
        }
        if event.kind == Kind::Nvtx && crate::correlate::crosses(event, names) {
            return;
        }
        let track = (event.process, event.tid);
        self.pop_until(track, event.start_ns, names);
        let processes = &self.measures.processes;
        let imported = || processes.get(&track.0).is_some_and(|p| p.imported);
        let stack = self.stacks.or_new(track, imported);
        let end_ns = event.end_ns();
        if stack.frames.last().is_some_and(|top| end_ns > top.end_ns) {
            return; // it does not nest: what it overlaps already has this time
        }
        tell(stack, event.start_ns, self.gaps.reach_ns());
        let thread = &mut stack.thread;
        thread.pid = event.pid;
        let first_ns = thread.first_ns.unwrap_or(event.start_ns);
        thread.first_ns = Some(first_ns.min(event.start_ns));
        thread.last_ns = thread.last_ns.max(end_ns);
        match stack.frames.last_mut() {
            Some(top) => top.child_ns += dur_ns,
            None => thread.covered_ns += dur_ns,
        }
        let caller = stack.frames.last();
        let within = caller.map_or(Within::default(), |frame| frame.within);
        let within_asked = caller.and_then(|frame| frame.asked);
        let frame = Frame {
            scope: (event.kind == Kind::Scope).then_some(event.name),
            natives: stack.natives_end(),
            function: None,
            path: caller.and_then(|frame| frame.path),
            called: None,
            kind: event.kind,
            start_ns: event.start_ns,
            end_ns,
            child_ns: 0,
            native_ns: 0,
            flow: event.flow,
            importing: caller.is_some_and(|frame| frame.importing),
            waits: None,
            step: false,
            polls: false,
            new_call: !flags.resumed,
            within,
            doing: Doing::Code,
            sourced: event.kind == Kind::Scope,
            asked: match self.asks.is_empty() {
                true => None,
                false => self.asks.number(names.text(event.name)).or(within_asked),
            },
            place: None,
        };
        stack.frames.push(frame);
        if event.kind == Kind::Scope {
            self.edge(track, event.name, true, event.start_ns, names);
        } else {
            self.call_of(event, dur_ns, flags, names);
        }
        if matches!(event.kind, Kind::Launch | Kind::Api) {
            self.call(event, names);
        }
    }

    fn flags(&mut self, event: &Event, names: &Names) -> Flags {
        let Some(args) = event.args else {
            return Flags::default();
        };
        *self.flags.entry(args).or_insert_with(|| {
            let args = json(Some(args), names);
            let holds = |key: &str| args[key].as_bool().unwrap_or(false);
            Flags {
                resumed: holds("resumed"),
                suspended: holds("suspended"),
                crossed: holds("async"),
                sampled: holds("sampled"),
                error_ns: args["error_ns"].as_i64().unwrap_or(0),
            }
        })
    }

    /// What has begun, and is the innermost, is a call of a function.
    fn call_of(&mut self, event: &Event, dur_ns: i64, flags: Flags, names: &Names) {
        let track = (event.process, event.tid);
        let key = FunctionKey {
            kind: event.kind,
            name: event.name,
            file: event.file,
            line: event.line,
        };
        let m = &mut self.measures;
        let function = self.functions.number(&mut m.functions, key, names);
        let traits = self.functions.traits(function);
        let Some(stack) = self.stacks.get_mut(track) else {
            return;
        };
        let open = stack.open(function);
        *open += 1;
        let outermost = *open == 1;
        let Some((frame, around)) = stack.frames.split_last_mut() else {
            return;
        };
        let caller_function = frame.within.python();
        let depth = around.len();
        let caller = around.last_mut();
        let caller_flow = caller.as_ref().and_then(|caller| caller.flow);
        let before = caller.as_ref().and_then(|caller| caller.called);
        let native = caller.as_ref().filter(|caller| caller.kind == Kind::Native);
        let native = native.and_then(|caller| caller.function());
        let path = self.functions.path(frame.path, before, function);
        if let Some(caller) = caller.filter(|caller| caller.path != path) {
            caller.called = path;
        }
        frame.path = path;
        frame.function = Some(function as u32);
        frame.importing |= traits.imports;
        frame.sourced = traits.sourced;
        frame.doing = match frame.importing || frame.within.compiles {
            true => Doing::Import,
            false => traits.doing,
        };
        frame.within.compiles = frame.doing == Doing::Import;
        if event.kind == Kind::Python && !stack.imported {
            self.unseen.seen(caller_function, native, function, dur_ns);
        }
        let sums = &mut m.functions[function].1;
        sums.calls += u64::from(!flags.resumed);
        if sums.calls == 1 || dur_ns > sums.longest.1 {
            sums.longest = (self.row, dur_ns);
        }
        if frame.importing {
            sums.import_ns += dur_ns;
        }
        if outermost {
            sums.total_ns += dur_ns;
        }
        if flags.sampled {
            let error_ns = flags.error_ns as f64;
            sums.sampled = true;
            sums.variance += error_ns * error_ns;
        } else if traits.repeats && !flags.resumed && !flags.suspended && !sums.too_many {
            sums.spans.push((event.start_ns, dur_ns));
            if sums.spans.len() > MOST_DURATIONS {
                sums.spans = Vec::new();
                sums.too_many = true;
            }
        }
        let mut since_ns = None;
        if let Some(flow) = event.flow {
            if flags.resumed {
                since_ns = self.suspended.remove(&(flow, function, depth));
            }
            if let Some(since_ns) = since_ns {
                sums.await_ns += event.start_ns - since_ns;
                sums.awaits += 1;
            }
            if flags.suspended {
                self.suspended
                    .insert((flow, function, depth), event.end_ns());
            }
        }
        if traits.waits {
            let (name, accepts) = (names.text(event.name), &mut self.accepts);
            wait_of(m, accepts, name, frame, around, names);
        }
        frame.polls = frame.waits == Some(Waits::Idle) || traits.poll;
        let begins = event.flow.is_some() && caller_flow != event.flow;
        let loops = &mut m.loops;
        if (begins || traits.callback) && !frame.within.step {
            frame.step = true;
            frame.within.step = true;
            loops.begin(track);
        }
        if let Some(flow) = event.flow.filter(|_| begins) {
            loops.segment(track, flow, event.start_ns, since_ns);
            if let Some(turn_ns) = frame.within.turn_ns {
                loops.ready(track, turn_ns, event.start_ns);
            }
        }
        if traits.turn {
            frame.within.turn_ns = Some(event.start_ns);
        }
        if event.kind == Kind::Python {
            frame.within.python = Some(function as u32);
        }
        if let Some(flow) = event.flow.filter(|_| begins) {
            self.task(flow, function, event, flags);
        }
    }

    /// Ends every span that is over at `at_ns`, and books the time it did not spend in others.
    pub(super) fn pop_until(&mut self, track: Track, at_ns: i64, names: &Names) {
        let Some(stack) = self.stacks.get_mut(track) else {
            return;
        };
        let reach_ns = self.gaps.reach_ns();
        let mut edges = Vec::new();
        while let Some(top) = stack.frames.last().filter(|top| top.end_ns <= at_ns) {
            let end_ns = top.end_ns;
            tell(stack, end_ns, reach_ns);
            let Some(frame) = stack.frames.pop() else {
                break;
            };
            if let Some(scope) = frame.scope.filter(|_| stack.trail.launches()) {
                edges.push((scope, end_ns));
            }
            let own_ns = (frame.end_ns - frame.start_ns - frame.child_ns).max(0);
            if let Some(path) = frame.path {
                self.functions.spent(path, own_ns);
                if frame.waits == Some(Waits::Io) && !frame.importing {
                    *self.reads.entry((track, path)).or_default() += own_ns;
                }
            }
            let traits = frame.function().map(|f| self.functions.traits(f));
            if !stack.imported && !frame.importing {
                self.blind
                    .ended(&mut self.measures, stack, &frame, own_ns, names);
            }
            self.measures.ended(stack, &frame, traits, own_ns, names);
            stack.hand_on(&frame);
        }
        for (scope, end_ns) in edges {
            self.edge(track, scope, false, end_ns, names);
        }
    }
}

impl Blind {
    /// Takes a span that has ended, and was the stack's innermost, for what bursts do not show.
    fn ended(
        &mut self,
        m: &mut Measures,
        stack: &mut Stack,
        frame: &Frame,
        own_ns: i64,
        names: &Names,
    ) {
        let Some(function) = frame.function() else {
            return;
        };
        match frame.kind {
            Kind::Native if frame.waits.is_none() => {
                let mut around = stack.frames.iter_mut().rev();
                if let Some(around) = around.find(|around| around.kind == Kind::Python)
                    && let Some(caller) = around.function()
                {
                    around.native_ns += own_ns;
                    self.native(stack.track, (caller, function), frame.end_ns, own_ns);
                }
            }
            Kind::Python => {
                let file = |native: usize| m.functions[native].0.file;
                let in_library = |native: usize| {
                    !sampled::interprets(file(native).map_or("python", |file| names.text(file)))
                };
                let times = (own_ns, frame.native_ns);
                let natives = self.frame(stack.track, function, frame.end_ns, times, in_library);
                for &(native, ns) in &natives {
                    let file = file(native);
                    let library = library(file.map_or("", |file| names.text(file)));
                    stack.add_native(frame.natives, file, ns);
                    stack.thread.times.native(library, ns);
                    stack.thread.times.python_ns -= ns;
                }
                let ns = natives.iter().map(|(_, ns)| ns).sum();
                if ns > 0 {
                    m.book_on(stack, function, false, 0, ns);
                }
            }
            _ => {}
        }
    }
}

impl Measures {
    /// Books a span that has ended, and was the stack's innermost.
    fn ended(
        &mut self,
        stack: &mut Stack,
        frame: &Frame,
        traits: Option<Traits>,
        own_ns: i64,
        names: &Names,
    ) {
        let caller = stack.frames.last().and_then(|frame| frame.within.python());
        self.spent(stack, frame, traits, own_ns, names);
        if let Some(name) = frame.scope.filter(|_| !stack.natives(frame).is_empty()) {
            let name = names.text(name);
            if !self.scope_natives.contains_key(name) {
                self.scope_natives
                    .insert(name.to_owned(), Default::default());
            }
            if let Some(natives) = self.scope_natives.get_mut(name) {
                natives.add_all(stack.natives(frame));
            }
        }
        if frame.kind == Kind::Gc {
            self.gc_count += 1;
            self.gc_ns += own_ns;
        }
        if let Some(waits) = frame.waits.filter(|_| !frame.importing) {
            self.waited(stack.track, waits, own_ns, caller, &stack.frames, names);
        }
        if frame.polls {
            self.loops.polled(stack.track, frame.end_ns);
        }
        let Some(function) = frame.function() else {
            if let Some(caller) = caller {
                // A scope's own time is that of the function it stands in.
                self.book_on(stack, caller, frame.importing, own_ns, 0);
            }
            return;
        };
        if frame.within.step {
            self.loops.spent(stack.track, function, own_ns);
        }
        if frame.step {
            let (start_ns, end_ns) = (frame.start_ns, frame.end_ns);
            self.loops
                .end(stack.track, frame.function(), start_ns, end_ns);
        }
        let native_ns = match frame.kind {
            Kind::Native | Kind::Op | Kind::Launch | Kind::Api => own_ns,
            _ => 0,
        };
        let sums = &mut self.functions[function].1;
        sums.self_ns += own_ns;
        sums.native_ns += native_ns;
        if frame.waits.is_some() {
            sums.wait_ns += own_ns;
        }
        let open = stack.open(function);
        *open -= 1;
        if *open == 0 {
            sums.natives.add_all(stack.natives(frame));
        }
        if !frame.importing {
            let own = stack.own(function);
            if let Some(waits) = frame.waits {
                own.wait_ns += own_ns;
                own.idle_ns += if waits == Waits::Idle { own_ns } else { 0 };
            }
            own.calls += u64::from(frame.new_call);
            own.self_ns += own_ns;
            own.native_ns += native_ns;
        }
        if let Some(caller) = caller.filter(|_| frame.kind == Kind::Native) {
            self.book_on(stack, caller, frame.importing, own_ns, own_ns);
        }
    }

    /// Books a span's own time on its thread, by what it was spent in.
    fn spent(
        &mut self,
        stack: &mut Stack,
        frame: &Frame,
        traits: Option<Traits>,
        own_ns: i64,
        names: &Names,
    ) {
        let times = &mut stack.thread.times;
        match frame.kind {
            _ if frame.importing && frame.kind != Kind::Gc => times.import_ns += own_ns,
            Kind::Python => times.python_ns += own_ns,
            Kind::Gc => times.gc_ns += own_ns,
            Kind::Native if frame.waits.is_some() => {
                times.wait_ns += own_ns;
                let waits = frame.waits.unwrap_or(Waits::Blocked);
                *times.waits.entry(waits).or_default() += own_ns;
            }
            Kind::Native | Kind::Op => {
                let file = frame.function().and_then(|f| self.functions[f].0.file);
                let library = match (frame.kind, file) {
                    (Kind::Op, None) => "framework",
                    _ => library(file.map_or("", |file| names.text(file))),
                };
                times.native(library, own_ns);
                stack.add_native(frame.natives, file, own_ns);
            }
            Kind::Launch | Kind::Api => {
                let waits = traits.is_some_and(|traits| traits.syncs);
                if waits {
                    self.syncs.0 += 1;
                    self.syncs.1 += own_ns;
                }
                let what = match (frame.kind, waits) {
                    (Kind::Launch, _) => "launch",
                    (_, true) => "gpu wait",
                    (_, false) => "driver",
                };
                *times.calls_ns.entry(what).or_default() += own_ns;
            }
            _ if stack
                .frames
                .last()
                .is_some_and(|f| f.within.python.is_some()) =>
            {
                times.python_ns += own_ns;
            }
            _ => {}
        }
    }

    /// Adds time that a function of a thread spent in something it called itself.
    fn book_on(
        &mut self,
        stack: &mut Stack,
        function: usize,
        importing: bool,
        self_ns: i64,
        native_ns: i64,
    ) {
        let sums = &mut self.functions[function].1;
        sums.self_ns += self_ns;
        sums.native_ns += native_ns;
        if !importing {
            let own = stack.own(function);
            own.self_ns += self_ns;
            own.native_ns += native_ns;
        }
    }
}

/// What has begun is a native call that is known to wait: for what. `accepts`: functions that take connections.
fn wait_of(
    m: &Measures,
    accepts: &mut BTreeSet<usize>,
    name: &str,
    frame: &mut Frame,
    around: &[Frame],
    names: &Names,
) {
    let waits = Waits::of_call(name);
    // Who takes connections and then polls waits for the next one, or for what they send.
    if name.ends_with("accept") {
        let python = around.iter().rev().filter(|f| f.kind == Kind::Python);
        accepts.extend(python.take(2).filter_map(Frame::function));
    }
    let serves = frame.within.python().is_some_and(|f| accepts.contains(&f))
        && (name.ends_with("select") || name.ends_with("poll"));
    let stack = || places(m, around, names);
    frame.waits = Some(match serves || waited::is_idle(waits, name, "", stack()) {
        true => Waits::Idle,
        false => waits,
    });
    let contended = waits == Waits::Lock && waited::is_contended(stack().next());
    frame.doing = Doing::Wait(frame.waits.unwrap_or(waits), contended);
}
