//! What runs over and over: the user's scopes, an engine's steps, tasks, functions, and what a device repeats.
//!
//! Serving engines name each of their steps, with numbers in it: names that differ in numbers only are one step. Where
//! nothing names them, the device's kernels tell: a kernel that comes back after as many others each time.

use std::collections::{BTreeMap, HashMap};

use super::Step;
use super::device::percentile;
use super::facts::MOST_STEPS;
use super::measure::{FunctionKey, FunctionSums, Measures, Natives, library};
use crate::trace::{Kind, Sym};

/// A function is a step when it takes at least this share of the timeline …
const STEP_SHARE: f64 = 0.03;
/// … and runs at least this often.
const STEP_CALLS: u64 = 3;
/// The fewest kernels that are a repetition's turn, and the fewest times that it comes.
const TURN_KERNELS: usize = 4;
const TURNS: usize = 3;

/// The share of a kernel's distances that are the same, and of the device's kernels that lie in them, if it marks a
/// repetition. A step now and then is another: a longer prompt, a warm-up.
const REGULAR: f64 = 0.8;
const COVERED: f64 = 0.6;

/// Bytes of a kernel's name that are shown.
const NAME: usize = 48;

/// Native time of all files, and the library with most of it.
fn native(m: &Measures, natives: Option<&Natives>) -> (i64, Option<String>) {
    let mut libraries: BTreeMap<&str, i64> = BTreeMap::new();
    for (file, ns) in natives.iter().flat_map(|natives| &natives.0) {
        let file = file.map_or("", |file| m.names.text(file));
        *libraries.entry(library(file)).or_default() += ns;
    }
    let most = libraries.iter().rev().max_by_key(|(_, ns)| **ns);
    (
        libraries.values().sum(),
        most.map(|(library, _)| (*library).to_owned()),
    )
}

pub(super) fn step(
    scope: String,
    kind: &str,
    mut spans: Vec<(i64, i64)>,
    native: (i64, Option<String>),
) -> Step {
    spans.sort_unstable();
    let mut durations: Vec<i64> = spans.iter().map(|(_, dur_ns)| *dur_ns).collect();
    durations.sort_unstable();
    let total_ns: i64 = durations.iter().sum();
    Step {
        scope,
        kind: kind.into(),
        count: durations.len() as u64,
        total_ns,
        dur_ns_mean: total_ns / durations.len().max(1) as i64,
        dur_ns_p50: percentile(&durations, 50),
        dur_ns_p90: percentile(&durations, 90),
        dur_ns_p99: percentile(&durations, 99),
        native_ns: native.0.min(total_ns), // samples are estimates
        library: native.1,
        spans,
        nests: false,
    }
}

/// Whether a function of this file may be a step: it is the program's, neither Python's nor an installed package's.
pub(super) fn is_own(file: &str) -> bool {
    !file.starts_with('<') && !file.contains("site-packages") && !file.contains("/lib/python")
}

/// Scopes, what a device repeats, then tasks, then functions that look like steps: the heaviest of each first.
pub(super) fn steps(m: &Measures) -> Vec<Step> {
    let heaviest = |mut steps: Vec<Step>| {
        steps.sort_by(|a, b| b.total_ns.cmp(&a.total_ns).then(a.scope.cmp(&b.scope)));
        steps.truncate(MOST_STEPS);
        steps
    };
    let named = named(&m.scopes);
    let scopes = named.into_iter().map(|((name, kind), spans)| {
        let natives = native(m, m.scope_natives.get(&name));
        step(name, kind, spans, natives)
    });
    let tasks = m
        .tasks
        .iter()
        .map(|(f, spans)| step(m.name(*f).to_owned(), "task", spans.clone(), (0, None)));
    let repeats = |key: &FunctionKey, sums: &FunctionSums| {
        let file = key.file.map_or("", |file| m.names.text(file));
        key.kind == Kind::Python
            && is_own(file)
            && sums.spans.len() as u64 >= STEP_CALLS
            && sums.total_ns as f64 >= STEP_SHARE * m.span_ns() as f64
    };
    let functions = m
        .functions
        .iter()
        .filter(|(key, sums)| repeats(key, sums))
        .map(|(key, sums)| {
            let found = step(
                m.names.text(key.name).to_owned(),
                "function",
                sums.spans.clone(),
                native(m, Some(&sums.natives)),
            );
            // What is open twice on one thread counts once there; on several, threads run it side by side.
            let nests = found.total_ns > sums.total_ns;
            Step { nests, ..found }
        });
    let mut all = heaviest(scopes.collect());
    let busiest = m
        .devices
        .kernel_names
        .values()
        .rev()
        .max_by_key(|k| k.len());
    if let Some(found) = busiest.and_then(|kernels| repetition(kernels)) {
        let name = m.names.text(found.kernel);
        let end = (0..=name.len().min(NAME))
            .rev()
            .find(|&at| name.is_char_boundary(at));
        let short = &name[..end.unwrap_or(0)];
        let scope = format!("{} kernels from {short}", found.kernels);
        all.push(step(scope, "repetition", found.spans, (0, None)));
    }
    all.extend(heaviest(tasks.collect()));
    all.extend(heaviest(functions.collect()));
    all
}

/// A scope says that its author takes it for a unit of work: it counts for so much more than what was found.
const NAMED: i64 = 2;
/// What kernels repeat may be a part of a step only.
const GUESSED: f64 = 0.8;
/// The fewest of a step, one after the other, that tell something of the next one.
const FEW: f64 = 3.0;

/// What several threads do side by side may be what another one's steps wait for: these are the work then, if they take at least
/// so much of the time.
const BESIDE: f64 = 0.8;

/// What the program's work is counted in: the heaviest of what repeats.
pub(super) fn main(steps: &[Step]) -> Option<&Step> {
    let again = |step: &Step| {
        if step.nests || step.scope == "<module>" {
            return None;
        }
        let covered_ns = covered_ns(step);
        // How many threads run a function, while one does.
        let beside = match step.kind.as_str() {
            "function" => (step.total_ns as f64 / covered_ns.max(1) as f64).max(1.0),
            _ => 1.0,
        };
        let weight = match step.kind.as_str() {
            "scope" | "phase" => covered_ns.saturating_mul(NAMED),
            "repetition" => (covered_ns as f64 * GUESSED) as i64,
            _ => (covered_ns as f64 * (2.0 - beside).max(BESIDE)) as i64,
        };
        (step.count as f64 >= FEW * beside).then_some(weight)
    };
    // Of those that come again and again the one around the others is it. A function that calls itself is none, and what each of
    // several threads or processes runs once neither.
    let weighed = steps.iter().rev();
    let weighed = weighed.filter_map(|step| Some((again(step)?, step)));
    let most = weighed.max_by_key(|(weight, _)| *weight);
    most.map(|(_, step)| step)
}

/// Time in which at least one of them runs.
pub(super) fn covered_ns(step: &Step) -> i64 {
    union_ns(&step.spans)
}

/// Time in which at least one of some spans runs, which are in the order of their starts.
pub(super) fn union_ns(spans: &[(i64, i64)]) -> i64 {
    let (mut sum, mut reach) = (0, i64::MIN);
    for &(start, dur) in spans {
        sum += (start + dur - start.max(reach)).max(0);
        reach = reach.max(start + dur);
    }
    sum
}

/// Steps that are much longer than the median, warm-ups not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Long {
    pub count: usize,
    /// Of all steps.
    pub share: f64,
    /// Of all time: by how much they are longer than the median.
    pub excess: f64,
    /// The share of them that come as far behind the last as most do: 1 for every tenth step, near 0 for noise.
    pub regular: f64,
}

/// Sets a step's times against their median.
pub(super) fn long(step: &Step) -> Long {
    let spans = &step.spans[warmups(step)..];
    let median = step.dur_ns_p50;
    let is = |(_, span): &(usize, &(i64, i64))| is_long(step, span);
    let found: Vec<(usize, i64)> = spans
        .iter()
        .enumerate()
        .filter(is)
        .map(|(at, s)| (at, s.1))
        .collect();
    let sum: i64 = spans.iter().map(|(_, dur)| dur).sum();
    let excess: i64 = found.iter().map(|(_, dur)| dur - median).sum();
    // And of those alone that nearly all of it is in: others are only a little longer, by chance.
    let mut most = found.clone();
    most.sort_by_key(|(at, dur)| (std::cmp::Reverse(*dur), *at));
    let mut in_most = 0;
    most.retain(|(_, dur)| {
        let counts = (in_most as f64) < NEARLY * excess as f64;
        in_most += dur - median;
        counts
    });
    most.sort_unstable();
    Long {
        count: found.len(),
        share: found.len() as f64 / spans.len().max(1) as f64,
        excess: excess as f64 / sum.max(1) as f64,
        regular: regular(&found).max(regular(&most)),
    }
}

/// Start and length of the steps that are long.
pub(super) fn long_spans(step: &Step) -> Vec<(i64, i64)> {
    let spans = step.spans[warmups(step)..].iter();
    spans.filter(|span| is_long(step, span)).copied().collect()
}

/// Whether one of its spans is much longer than the median.
fn is_long(step: &Step, (_, dur_ns): &(i64, i64)) -> bool {
    *dur_ns as f64 > WARM * step.dur_ns_p50 as f64
}

/// Of the distances between steps, in steps, the part that is within a tenth of the median.
fn regular(found: &[(usize, i64)]) -> f64 {
    let mut apart: Vec<usize> = found.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    apart.sort_unstable();
    let usual = apart.get(apart.len() / 2).copied().unwrap_or(0);
    let same = apart
        .iter()
        .filter(|apart| apart.abs_diff(usual) <= usual / 10);
    same.count() as f64 / apart.len().max(1) as f64
}

/// The part of the long steps' excess that is looked at for how regularly they come.
const NEARLY: f64 = 0.9;

/// A step that takes so many times the median of those behind it is a warm-up: compiling, filling caches.
const WARM: f64 = 1.5;

/// How many of the first steps are warm-ups: up to a fifth of them, each much longer than the median of all.
pub(super) fn warmups(step: &Step) -> usize {
    let first = step.spans.iter().take(step.spans.len() / 5);
    first.take_while(|span| is_long(step, span)).count()
}

/// A scope's name without its numbers, if it has any.
fn without_numbers(name: &str) -> Option<String> {
    let mut short = String::new();
    let mut last = ' ';
    for letter in name.chars() {
        let letter = if letter.is_ascii_digit() { '*' } else { letter };
        if letter != '*' || last != '*' {
            short.push(letter);
        }
        last = letter;
    }
    (short.len() < name.len() || name.contains(|c: char| c.is_ascii_digit())).then_some(short)
}

/// Other names that a scope goes by in the table of steps.
pub(super) fn names(name: &str) -> impl Iterator<Item = String> {
    let phase = phase(name).map(str::to_owned);
    without_numbers(name).into_iter().chain(phase)
}

/// What a serving engine did in a step, as its name for it says.
///
/// # Source
/// vLLM, vllm/v1/worker/gpu_worker.py: `execute_new_{n}_cached_{m}`, `execute_context_{n}({tokens})_generation_{m}({tokens})`;
/// SGLang: `step[DECODE bs={n}]`, and vLLM's with the batch size in front.
pub(super) fn phase(name: &str) -> Option<&'static str> {
    if let Some(mode) = name.strip_prefix("step[") {
        return match mode.split([' ', ']']).next()? {
            "DECODE" => Some("decode"),
            "EXTEND" | "PREFILL" => Some("prefill"),
            "MIXED" => Some("prefill and decode"),
            _ => None,
        };
    }
    let rest = name.strip_prefix("execute_")?;
    let number = |after: &str| -> Option<u64> {
        let text = &rest[rest.find(after)? + after.len()..];
        let end = text.find(|c: char| !c.is_ascii_digit());
        text[..end.unwrap_or(text.len())].parse().ok()
    };
    let requests = |new: &str, old: &str| Some((number(new)?, number(old)?));
    match requests("context_", "generation_").or_else(|| requests("new_", "cached_"))? {
        (0, 0) => None,
        (0, _) => Some("decode"),
        (_, 0) => Some("prefill"),
        _ => Some("prefill and decode"),
    }
}

/// Start and length of each.
type Spans = Vec<(i64, i64)>;

/// Scopes by name: those that differ in numbers only and come once each are one, and so are an engine's steps of a phase.
fn named(scopes: &BTreeMap<String, Spans>) -> BTreeMap<(String, &'static str), Spans> {
    let mut alike: HashMap<String, u64> = HashMap::new();
    let once = |spans: &Spans| spans.len() == 1;
    for (name, _) in scopes.iter().filter(|(_, spans)| once(spans)) {
        if let Some(short) = without_numbers(name) {
            *alike.entry(short).or_default() += 1;
        }
    }
    // Where both ways of naming a step are used, one is inside the other.
    let detailed = |name: &String| name.starts_with("execute_") && phase(name).is_some();
    let detailed = scopes.keys().any(detailed);
    let mut named: BTreeMap<(String, &'static str), Spans> = BTreeMap::new();
    for (name, spans) in scopes {
        if let Some(phase) = phase(name).filter(|_| name.starts_with("execute_") == detailed) {
            let steps = named.entry((phase.into(), "phase")).or_default();
            steps.extend(spans);
        }
        let short = without_numbers(name).filter(|_| once(spans));
        let short = short.filter(|short| alike.get(short).is_some_and(|&names| names > 1));
        let name = short.unwrap_or_else(|| name.clone());
        named.entry((name, "scope")).or_default().extend(spans);
    }
    named
}

/// What a stream of a device does over and over.
#[derive(Debug, PartialEq, Eq)]
struct Repetition {
    /// The kernel that it is told by, and how many there are from one to the next.
    kernel: Sym,
    kernels: usize,
    /// Start and length of each turn.
    spans: Vec<(i64, i64)>,
}

/// The longest turn in which kernels, by name and start, come again.
fn repetition(kernels: &[(Sym, i64)]) -> Option<Repetition> {
    let mut places: HashMap<Sym, Vec<usize>> = HashMap::new();
    for (at, (name, _)) in kernels.iter().enumerate() {
        places.entry(*name).or_default().push(at);
    }
    let turn = |name: &Sym, places: &Vec<usize>| {
        if places.len() <= TURNS {
            return None;
        }
        let mut sorted: Vec<usize> = places.windows(2).map(|pair| pair[1] - pair[0]).collect();
        sorted.sort_unstable();
        let turn = sorted[sorted.len() / 2];
        let same = |distance: usize| distance.abs_diff(turn) <= turn / 50;
        let regular = sorted.iter().filter(|&&distance| same(distance));
        let (count, covered) = regular.fold((0, 0), |(n, sum), distance| (n + 1, sum + distance));
        let holds = turn >= TURN_KERNELS
            && count >= TURNS
            && count as f64 >= REGULAR * sorted.len() as f64
            && covered as f64 >= COVERED * kernels.len() as f64;
        holds.then(|| (turn, std::cmp::Reverse(places[0]), *name))
    };
    let longest = places.iter().filter_map(|(name, at)| turn(name, at)).max();
    let (kernels_of_turn, _, kernel) = longest?;
    let pairs = places[&kernel].windows(2);
    let pairs = pairs.filter(|p| (p[1] - p[0]).abs_diff(kernels_of_turn) <= kernels_of_turn / 50);
    Some(Repetition {
        kernel,
        kernels: kernels_of_turn,
        spans: pairs
            .map(|p| (kernels[p[0]].1, kernels[p[1]].1 - kernels[p[0]].1))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_numbers_only_are_one_step() {
        let scopes = [
            ("ProfilerStep#7", vec![5]),
            ("ProfilerStep#12", vec![7]),
            ("execute_context_0(0)_generation_32(32)", vec![1, 2]),
            ("execute_context_1(96)_generation_31(31)", vec![9]),
            ("execute_new_2_cached_0", vec![4]),
            ("step[DECODE bs=8]", vec![3]),
            ("layer1", vec![1, 1]),
            ("layer2", vec![1, 1]),
        ];
        let scopes = scopes.map(|(name, durations): (&str, Vec<i64>)| {
            let spans = durations.into_iter().map(|dur_ns| (0, dur_ns)).collect();
            (name.to_owned(), spans)
        });
        let named = named(&BTreeMap::from(scopes));
        let got: Vec<_> = named
            .iter()
            .map(|((name, kind), spans)| {
                let durations: Vec<i64> = spans.iter().map(|(_, dur_ns)| *dur_ns).collect();
                (name.as_str(), *kind, durations)
            })
            .collect();
        let want: [(&str, &str, &[i64]); 10] = [
            ("ProfilerStep#*", "scope", &[7, 5]),
            ("decode", "phase", &[1, 2]),
            ("execute_context_0(0)_generation_32(32)", "scope", &[1, 2]),
            ("execute_context_1(96)_generation_31(31)", "scope", &[9]),
            ("execute_new_2_cached_0", "scope", &[4]),
            ("layer1", "scope", &[1, 1]),
            ("layer2", "scope", &[1, 1]),
            ("prefill", "phase", &[4]),
            ("prefill and decode", "phase", &[9]),
            ("step[DECODE bs=8]", "scope", &[3]),
        ];
        let want = want.map(|(name, kind, durations)| (name, kind, durations.to_vec()));
        assert_eq!(got, want);
    }

    /// Kernels `names` one after the other, each a microsecond behind the last.
    fn kernels(names: impl IntoIterator<Item = u32>) -> Vec<(Sym, i64)> {
        let starts = (0..).step_by(1000);
        names.into_iter().map(Sym).zip(starts).collect()
    }

    #[test]
    fn the_longest_turn_in_which_a_kernel_comes_back_is_a_step() {
        // embed, 8 layers of 5 kernels, sample; one step is longer
        let step = |layers: u32| {
            let layers = (0..layers * 5).map(|at| 10 + at % 5);
            std::iter::once(1).chain(layers).chain([2, 3])
        };
        let mut all: Vec<u32> = (0..6).flat_map(|_| step(8)).collect();
        all.extend(step(13));
        all.extend((0..6).flat_map(|_| step(8)));
        let found = repetition(&kernels(all)).unwrap();
        assert_eq!((found.kernel, found.kernels), (Sym(1), 43));
        assert!(found.spans.len() == 11 && found.spans.iter().all(|(_, ns)| *ns == 43_000));
    }

    #[test]
    fn what_comes_by_chance_is_no_repetition() {
        let mut seed = 7u32;
        let random = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 28
        });
        assert_eq!(repetition(&kernels(random.take(500))), None);
        assert_eq!(repetition(&kernels([1, 2, 3, 4, 1, 2, 3, 4])), None);
    }
}
