//! Requests, their tokens, and the phases they go through, as scopes, ranges and marks name them.

use super::steps::phase;
use crate::trace::{Event, Kind, Names};

/// Kept of each list; more is not needed for percentiles.
const MOST: usize = 1 << 20;

/// A request: scopes of one name, from start to end.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub start_ns: i64,
    pub end_ns: i64,
    whose: Whose,
}

/// What tells which request a token is of: the coroutine, else the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Whose {
    process: u32,
    tid: u64,
    flow: Option<u64>,
}

impl Whose {
    fn of(event: &Event) -> Whose {
        Whose {
            process: event.process,
            tid: event.tid,
            flow: event.flow,
        }
    }

    fn is(&self, other: &Whose) -> bool {
        self.process == other.process
            && match (self.flow, other.flow) {
                (Some(a), Some(b)) => a == b,
                _ => self.tid == other.tid,
            }
    }
}

/// What requests did, in the order of the timeline.
#[derive(Debug, Default)]
pub struct Requests {
    pub requests: Vec<Request>,
    /// When a token was ready, and whose.
    tokens: Vec<(i64, Whose)>,
    /// Length of each prefill and decode step.
    pub prefill: Vec<i64>,
    pub decode: Vec<i64>,
    /// Requests in each step of an engine that says so.
    pub batches: Vec<u64>,
}

/// A request's times.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// To the first token, from the request's start.
    pub ttft_ns: Vec<i64>,
    /// From the first token to the last, for each token after the first; one value for a request.
    pub tpot_ns: Vec<i64>,
    /// From one token to the next.
    pub itl_ns: Vec<i64>,
    pub tokens: u64,
}

impl Requests {
    /// Looks at a scope, range or mark.
    pub fn see(&mut self, event: &Event, names: &Names) {
        let name = names.text(event.name);
        let whose = Whose::of(event);
        if event.kind == Kind::Mark {
            if matches!(name, "token" | "first_token") && self.tokens.len() < MOST {
                self.tokens.push((event.start_ns, whose));
            }
            return;
        }
        let Some(dur_ns) = event.dur_ns else { return };
        let lists = [self.requests.len(), self.prefill.len(), self.decode.len()];
        let full = |len: usize| len >= MOST;
        if lists
            .into_iter()
            .chain([self.tokens.len(), self.batches.len()])
            .any(full)
        {
            return;
        }
        if let Some(batch) = batch(name) {
            self.batches.push(batch);
        }
        match name {
            "request" => self.requests.push(Request {
                start_ns: event.start_ns,
                end_ns: event.end_ns(),
                whose,
            }),
            "prefill" => {
                self.prefill.push(dur_ns);
                self.tokens.push((event.end_ns(), whose));
            }
            "decode" | "decode_step" => {
                self.decode.push(dur_ns);
                self.tokens.push((event.end_ns(), whose));
            }
            _ => match phase(name) {
                Some("prefill") => self.prefill.push(dur_ns),
                Some("decode") => self.decode.push(dur_ns),
                _ => {}
            },
        }
    }

    /// Sets tokens against their requests. A token is ready where its mark is; where there are no marks, at the end of each
    /// prefill and decode scope within the request.
    pub fn times(&self) -> Times {
        let mut times = Times::default();
        let mut tokens = self.tokens.clone();
        tokens.sort_by_key(|(at, _)| *at);
        for request in &self.requests {
            let from = tokens.partition_point(|(at, _)| *at <= request.start_ns);
            let within = tokens[from..]
                .iter()
                .take_while(|(at, _)| *at <= request.end_ns);
            let own = within.filter(|(_, whose)| request.whose.is(whose));
            let own: Vec<i64> = own.map(|(at, _)| *at).collect();
            let (Some(first), Some(last)) = (own.first(), own.last()) else {
                continue;
            };
            times.tokens += own.len() as u64;
            times.ttft_ns.push(first - request.start_ns);
            if own.len() > 1 {
                times.tpot_ns.push((last - first) / (own.len() as i64 - 1));
            }
            times
                .itl_ns
                .extend(own.windows(2).map(|pair| pair[1] - pair[0]));
        }
        times
    }
}

/// Requests in a step, as vLLM (`execute_context_1(96)_generation_31(31)`) and SGLang (`step[DECODE bs=32]`) say.
fn batch(name: &str) -> Option<u64> {
    let number = |after: &str| -> Option<u64> {
        let text = &name[name.find(after)? + after.len()..];
        let end = text.find(|c: char| !c.is_ascii_digit());
        text[..end.unwrap_or(text.len())].parse().ok()
    };
    if name.starts_with("step[") {
        return number("bs=");
    }
    if !name.starts_with("execute_") {
        return None;
    }
    Some(number("context_")? + number("generation_")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Sym;

    #[test]
    fn tokens_are_their_request_s() {
        let mut names = Names::default();
        let mut requests = Requests::default();
        let mut see = |kind, name: &str, start_ns, dur_ns, flow| {
            let sym: Sym = names.sym(name);
            let mut event = Event::new(kind, sym, start_ns, 0, 7, 9);
            event.dur_ns = dur_ns;
            event.flow = Some(flow);
            requests.see(&event, &names);
        };
        see(Kind::Scope, "request", 0, Some(100), 1);
        see(Kind::Scope, "request", 5, Some(60), 2);
        see(Kind::Scope, "prefill", 10, Some(20), 1);
        see(Kind::Scope, "prefill", 12, Some(30), 2);
        see(Kind::Scope, "decode", 40, Some(10), 1);
        see(Kind::Scope, "decode", 60, Some(30), 1);
        let times = requests.times();
        let want = Times {
            ttft_ns: vec![30, 37],
            tpot_ns: vec![30],
            itl_ns: vec![20, 40],
            tokens: 4,
        };
        assert_eq!(times, want);
        assert_eq!((requests.prefill.len(), requests.decode.len()), (2, 2));
    }

    #[test]
    fn engines_say_how_many_requests_a_step_has() {
        assert_eq!(batch("execute_context_1(96)_generation_31(31)"), Some(32));
        assert_eq!(batch("step[DECODE bs=8]"), Some(8));
        assert_eq!(batch("execute_model"), None);
    }
}
