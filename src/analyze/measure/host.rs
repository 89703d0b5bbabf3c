//! What host threads did while devices had nothing to do, and between their calls of a runtime.

use std::rc::Rc;

use super::super::idle::{self, Cause, FOLLOW_NS, Part, STALL_NS, WORK_NS};
use super::super::trail::{Doing, Label, Place, Shade, Trail, follows};
use super::super::waited::{self, Waits};
use super::stack::{Frame, Stack};
use super::wait::places;
use super::{FunctionKey, Measures, Pass, Track};
use crate::trace::{Event, Kind, Names};

/// Parts of a stretch of a thread's time.
pub(super) type Parts = Vec<Part>;

fn part(cause: Cause, label: Option<Label>, ns: i64) -> Part {
    Part {
        cause,
        label,
        ns,
        asked: None,
    }
}

/// Functions of compilers that run within a program: file, and a part of the name. What they have compiled runs in others.
const COMPILERS: [(&str, &str); 4] = [
    ("torch/_dynamo/convert_frame.py", "_compile"),
    ("torch/_inductor/compile_fx.py", "compile_fx"),
    ("triton/compiler/compiler.py", "compile"),
    ("triton/runtime/jit.py", "_do_compile"),
];

/// Files of frameworks and of Python itself: a function there says less than the one that called it.
const FRAMEWORKS: [&str; 6] = [
    "torch/",
    "tensorflow/",
    "jax/",
    "triton/",
    "flax/",
    "/lib/python3",
];

/// Whether a Python function is the program's own, or a library's that does what its name says.
pub(super) fn is_sourced(file: &str) -> bool {
    let installed = file.rsplit_once("site-packages/");
    let within = installed.map_or(file, |(_, within)| within);
    let framework = match installed {
        Some(_) => FRAMEWORKS[..5].iter().any(|part| within.starts_with(part)),
        None => FRAMEWORKS
            .iter()
            .any(|part| within.starts_with(part) || part.starts_with('/') && within.contains(part)),
    };
    !file.is_empty() && !file.starts_with('<') && !framework
}

/// What a thread does in a span of this function, unless it waits there or imports.
pub(super) fn doing(key: &FunctionKey, names: &Names) -> Doing {
    let name = names.text(key.name);
    let copies = name.contains("emcpy");
    match key.kind {
        Kind::Launch | Kind::Api if copies => Doing::Copy,
        Kind::Launch => Doing::Launch,
        Kind::Api if name.contains("Launch") => Doing::Launch,
        Kind::Api if name.contains("Synchronize") => Doing::Sync,
        Kind::Api if name.contains("Module") || name.contains("Library") => Doing::Import,
        Kind::Api => Doing::Driver,
        Kind::Overhead => Doing::Profiler,
        Kind::Gc => Doing::Gc,
        Kind::Op => Doing::Op,
        Kind::Python => {
            let file = key.file.map_or("", |file| names.text(file));
            let compiles = |(of, part): &(&str, &str)| file.ends_with(of) && name.contains(part);
            match COMPILERS.iter().any(compiles) {
                true => Doing::Import,
                false => Doing::Code,
            }
        }
        _ => Doing::Code,
    }
}

/// Frames that have a place of their own; what is deeper is taken for the deepest of them. A chain is let go link by link,
/// and no program's stack is so deep.
const DEEPEST: usize = 4096;

/// The place of a stack's frame `at`, made now if it has none yet.
fn place(frames: &mut [Frame], at: usize, trail: &mut Trail) -> Option<Rc<Place>> {
    let at = at.min(DEEPEST);
    if let Some(place) = &frames[at].place {
        return Some(place.clone());
    }
    let missing = (0..=at).rev().take_while(|&at| frames[at].place.is_none());
    let first = missing.last().unwrap_or(at + 1);
    for at in first..=at {
        let around = match at {
            0 => None,
            _ => frames[at - 1].place.clone(),
        };
        let frame = &mut frames[at];
        let label = match (frame.function, frame.scope) {
            (Some(function), _) => Some(Label::Function(function)),
            (None, scope) => scope.map(Label::Scope),
        };
        frame.place = match label {
            Some(label) => Some(trail.place(Place {
                label,
                start_ns: frame.start_ns,
                end_ns: frame.end_ns,
                sourced: frame.sourced,
                asked: frame.asked,
                around,
            })),
            None => around,
        };
    }
    frames[at].place.clone()
}

/// Tells a thread's time up to `to_ns`, in the span it is in.
pub(super) fn tell(stack: &mut Stack, to_ns: i64, reach_ns: Option<i64>) {
    let Stack { trail, frames, .. } = stack;
    if !trail.wants(to_ns, reach_ns) {
        trail.cursor_ns = trail.cursor_ns.max(to_ns);
        return;
    }
    if let Some(reach_ns) = reach_ns {
        if !trail.launches() {
            trail.cursor_ns = trail.cursor_ns.max(reach_ns);
        }
        trail.forget(reach_ns);
    }
    if trail.cursor_ns == i64::MIN {
        trail.cursor_ns = to_ns;
        return;
    }
    let (doing, at) = match frames.len().checked_sub(1) {
        None => (Doing::Outside, None),
        Some(top) => (frames[top].doing, place(frames, top, trail)),
    };
    trail.add(to_ns, doing, at);
}

impl Pass {
    /// Tells a thread's time up to `at_ns`, all that ended before included.
    pub(super) fn told(&mut self, track: Track, at_ns: i64, names: &Names) {
        self.pop_until(track, at_ns, names);
        let reach_ns = self.gaps.reach_ns();
        if let Some(stack) = self.stacks.get_mut(track) {
            tell(stack, at_ns, reach_ns);
        }
    }

    /// A `wait` row, as it shades what the thread was in.
    pub(super) fn shade(
        &mut self,
        track: Track,
        event: &Event,
        wait_ns: i64,
        waits: Option<Waits>,
        names: &Names,
    ) {
        let reach_ns = self.gaps.reach_ns();
        let Some(stack) = self.stacks.get(track) else {
            return;
        };
        if !stack.trail.launches() && reach_ns.is_none_or(|reach_ns| event.end_ns() <= reach_ns) {
            return;
        }
        let contended = waits == Some(Waits::Lock)
            && waited::is_contended(places(&self.measures, &stack.frames, names).next());
        if let Some(stack) = self.stacks.get_mut(track) {
            stack.trail.shades.push_back(Shade {
                from_ns: event.start_ns,
                to_ns: event.end_ns(),
                wait_ns,
                waits,
                contended,
            });
        }
    }

    /// Works off the device work whose launch is known by now.
    pub(super) fn idle(&mut self, now_ns: i64, names: &Names) {
        loop {
            let devices = &self.measures.devices;
            let known = |key| devices.launch_of(key).is_some();
            let Some(work) = self.gaps.due(now_ns, known) else {
                return;
            };
            let later = || devices.launch_of(work.key?);
            let launch = work.launch.or_else(later);
            let launch = launch.and_then(|launch| devices.launched_by(launch));
            let mut last: Option<(i64, i64, Parts)> = None;
            for gap in self.gaps.next(&work) {
                let (_, from, to) = gap;
                let parts = match last.take().filter(|(f, t, _)| (*f, *t) == (from, to)) {
                    Some((.., parts)) => parts,
                    None => self.parts_of_gap(launch, from, to, names),
                };
                self.gaps.book(gap, &parts, work.row);
                let returned = launch.map_or(to, |(.., returned)| returned.clamp(from, to));
                if gap.0.is_none() && to - returned >= STALL_NS {
                    self.gaps.stalled_ns += to - returned;
                }
                last = Some((from, to, parts));
            }
        }
    }

    fn parts_of_gap(
        &mut self,
        launch: Option<(Track, i64, i64)>,
        from: i64,
        to: i64,
        names: &Names,
    ) -> Parts {
        let Some((track, begun, returned)) = launch else {
            return vec![part(Cause::Unknown, None, to - from)];
        };
        let begun = begun.clamp(from, to);
        let returned = returned.clamp(begun, to);
        let mut parts = Parts::new();
        self.explain(track, (from, begun), begun, names, &mut parts);
        if returned > begun {
            // In the call itself; which may wait, as one that copies does.
            self.explain(track, (begun, returned), to, names, &mut parts);
        }
        if to - returned < STALL_NS {
            parts.push(part(Cause::Queued, None, to - returned));
            return parts;
        }
        // The device did not begin what it had: what does the host wait for?
        let first = parts.len();
        self.explain(track, (returned, to), to, names, &mut parts);
        for of in &mut parts[first..] {
            if !matches!(of.cause, Cause::Sync | Cause::Copy) {
                *of = part(Cause::Queued, None, of.ns);
            }
        }
        parts
    }

    /// Adds what a thread did from `from` to `to`, if its next launch begins at `launch_ns`. The parts add up.
    pub(super) fn explain(
        &mut self,
        track: Track,
        (from, to): (i64, i64),
        launch_ns: i64,
        names: &Names,
        parts: &mut Parts,
    ) {
        if to <= from {
            return;
        }
        self.told(track, to, names);
        let trail = self.stacks.get(track).map(|stack| &stack.trail);
        if to - from >= FOLLOW_NS && trail.is_some_and(|trail| trail.follows(from, to)) {
            let others = self.stacks.others(track);
            for other in others.map(|other| other.track).collect::<Vec<_>>() {
                self.told(other, to, names);
            }
        }
        let Some(Stack { trail, .. }) = self.stacks.get(track) else {
            parts.push(part(Cause::Host, None, to - from));
            return;
        };
        let mut at = from;
        let unseen = |ns: i64| match ns < WORK_NS {
            true => Cause::Launch,
            false => Cause::Host,
        };
        for (a, b, piece) in trail.within(from, to) {
            if a > at {
                parts.push(part(unseen(a - at), None, a - at));
            }
            let place = piece.place.as_ref().map(|place| place.label);
            let mut rest = b - a;
            let first = parts.len();
            // A row tells that a thread waits; what it is in tells more, but not that it has no GIL behind a call's end.
            let over = trail.shades.iter().take_while(|shade| shade.from_ns < b);
            let over = over.filter(|shade| match piece.doing {
                Doing::Wait(..) => false,
                Doing::Sync | Doing::Copy => shade.waits == Some(Waits::Gil),
                _ => true,
            });
            for shade in over.filter(|shade| shade.to_ns > a) {
                let (f, t) = (shade.from_ns.max(a), shade.to_ns.min(b));
                let ns = shade.within_ns(a, b).clamp(0, rest);
                rest -= ns;
                match shade.waits {
                    None => parts.push(part(Cause::Runnable, place, ns)),
                    Some(waits) => {
                        let follow = follows(waits, shade.contended);
                        self.waiting(track, (f, t), ns, waits, follow, place, parts);
                    }
                }
            }
            let (cause, label) = idle::cause(piece, launch_ns, rest);
            match piece.doing {
                Doing::Wait(waits, contended) => {
                    let follow = follows(waits, contended);
                    self.waiting(track, (a, b), rest, waits, follow, label, parts);
                }
                _ => parts.push(part(cause, label, rest)),
            }
            if let Some(asked) = piece.place.as_ref().and_then(|place| place.asked) {
                let own = parts[first..].iter_mut();
                own.for_each(|part| part.asked = part.asked.or(Some(asked)));
            }
            at = b;
        }
        if at < to {
            parts.push(part(unseen(to - at), None, to - at));
        }
    }

    /// A wait of `ns` in a window: what another thread of the process did meanwhile, where it is for that.
    #[allow(clippy::too_many_arguments)]
    fn waiting(
        &self,
        track: Track,
        (from, to): (i64, i64),
        ns: i64,
        waits: Waits,
        follow: bool,
        label: Option<Label>,
        parts: &mut Parts,
    ) {
        let mut rest = ns;
        if follow && to - from >= FOLLOW_NS {
            let works = |other: &Stack| -> i64 {
                let pieces = other.trail.within(from, to);
                let works = pieces.filter(|(.., p)| matches!(p.doing, Doing::Code | Doing::Op));
                works.map(|(a, b, _)| b - a).sum()
            };
            let others = self.stacks.others(track);
            let most = others.map(|other| (works(other), other));
            let most = most.max_by_key(|(ns, other)| (*ns, std::cmp::Reverse(other.track)));
            if let Some((_, Stack { trail, .. })) = most.filter(|(ns, _)| *ns > 0) {
                for (a, b, piece) in trail.within(from, to) {
                    if !matches!(piece.doing, Doing::Code | Doing::Op) {
                        continue;
                    }
                    let ns = (b - a).min(rest);
                    rest -= ns;
                    let label = helper(piece.place.as_ref(), to - from);
                    let asked = piece.place.as_ref().and_then(|place| place.asked);
                    parts.push(Part {
                        asked,
                        ..part(Cause::Preprocessing, label, ns)
                    });
                }
            }
        }
        parts.push(part(Cause::of_wait(waits), label, rest));
    }

    /// A thread's time since its last call, for the replay.
    fn since(&mut self, track: Track, at_ns: i64, names: &Names, parts: &mut Parts) {
        parts.clear();
        let Some(stack) = self.stacks.get(track) else {
            return;
        };
        let from = match (stack.trail.booked_ns, stack.trail.pieces.front()) {
            // Its first call: since the device has been idle.
            (i64::MIN, Some(first)) => first.from_ns,
            (booked_ns, _) => booked_ns,
        };
        if from == i64::MIN || from >= at_ns {
            return;
        }
        if let Some((op, start, end)) = stack.trail.called {
            let gil = stack
                .trail
                .shades
                .iter()
                .filter(|s| s.waits == Some(Waits::Gil));
            let held = gil.map(|shade| shade.within_ns(start, end)).sum();
            self.ops.held(op, held);
        }
        self.explain(track, (from, at_ns), at_ns, names, parts);
        // While another thread launches, work that launches nothing is that thread's, and is waited for.
        let elsewhere = self.ops.launched_elsewhere(track, from);
        for part in parts {
            let waits = match part.cause {
                Cause::Preprocessing => elsewhere && part.asked.is_none(),
                Cause::Host => elsewhere || part.ns >= WORK_NS,
                _ => false,
            };
            part.cause = if waits { Cause::Blocked } else { part.cause };
        }
    }

    /// A call of a runtime begins: it goes into the replay.
    pub(super) fn call(&mut self, event: &Event, names: &Names) {
        let track = (event.process, event.tid);
        let launches = event.kind == Kind::Launch;
        let Some(stack) = self.stacks.get(track) else {
            return;
        };
        let doing = stack.frames.last().map_or(Doing::Code, |top| top.doing);
        let waits = stack.trail.launches() && doing == Doing::Sync;
        if !launches && !waits {
            return;
        }
        let mut parts = std::mem::take(&mut self.parts);
        self.since(track, event.start_ns, names, &mut parts);
        let span = (event.start_ns, event.end_ns());
        let op = match launches {
            true => {
                let op = self.ops.launch(track, span, doing == Doing::Copy, &parts);
                self.measures.devices.replayed(event, op);
                op
            }
            false => self.ops.sync(track, span, &parts),
        };
        self.parts = parts;
        if let Some(Stack { trail, .. }) = self.stacks.get_mut(track) {
            trail.booked_ns = trail.booked_ns.max(span.1);
            trail.called = Some((op, span.0, span.1));
            if launches {
                trail.launched_ns = trail.launched_ns.max(span.1);
            }
        }
    }

    /// A scope of a thread that launches begins or ends.
    pub(super) fn edge(
        &mut self,
        track: Track,
        scope: crate::trace::Sym,
        begins: bool,
        at_ns: i64,
        names: &Names,
    ) {
        let known = self.stacks.get(track).is_some_and(|s| s.trail.launches());
        if !known {
            return;
        }
        let mut parts = std::mem::take(&mut self.parts);
        self.since(track, at_ns, names, &mut parts);
        self.ops.edge(track, scope, begins, at_ns, &parts);
        self.parts = parts;
        if let Some(Stack { trail, .. }) = self.stacks.get_mut(track) {
            trail.booked_ns = trail.booked_ns.max(at_ns);
        }
    }
}

/// The span of another thread that a wait was for: the outermost that is about as long as the wait.
fn helper(place: Option<&Rc<Place>>, wait_ns: i64) -> Option<Label> {
    let mut label = place?.label;
    let mut next = place;
    while let Some(place) = next {
        if place.end_ns - place.start_ns > 2 * wait_ns {
            break;
        }
        label = place.label;
        next = place.around.as_ref();
    }
    Some(label)
}

impl Measures {
    /// The name of what is to blame.
    pub fn label(&self, label: Label) -> &str {
        match label {
            Label::Function(function) => self.name(function as usize),
            Label::Scope(scope) => self.names.text(scope),
        }
    }
}
