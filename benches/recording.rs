//! Writes a raw trace as isc-record would, of any length: `recording EVENTS FILE`. Used by scripts/bench-timeline.
//!
//! One process, four threads that call functions up to twelve deep, 2000 functions, a call about every 200 ns on each thread;
//! spans are written as they end, thread by thread in batches of 10 ms, as the drain takes them.

use std::path::Path;
use std::process::ExitCode;

use inferscope::cli::Sink;
use inferscope::error::Result;
use inferscope::trace::{Event, Kind, Names, Provenance, Step, Sym, Writer};

const THREADS: u64 = 4;
const FUNCTIONS: u32 = 2000;
const DEEPEST: usize = 12;
const BATCH_NS: i64 = 10_000_000;

struct Thread {
    tid: u64,
    now_ns: i64,
    stack: Vec<(u32, i64)>,
    seed: u64,
}

impl Thread {
    fn random(&mut self) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.seed >> 33
    }

    /// The next span that ends, by function, start and length.
    fn next(&mut self) -> (u32, i64, i64) {
        loop {
            let random = self.random();
            self.now_ns += 50 + (random % 100) as i64;
            let deep = self.stack.len() >= DEEPEST;
            if self.stack.is_empty() || (!deep && random % 5 < 2) {
                let function = (random / 5) as u32 % FUNCTIONS;
                self.stack.push((function, self.now_ns));
            } else if let Some((function, start)) = self.stack.pop() {
                return (function, start, self.now_ns - start);
            }
        }
    }
}

fn write(events: u64, path: &Path) -> Result<()> {
    let provenance = Provenance::raw(Step::new("recording", vec![], vec![]));
    let mut writer = Writer::create(&Sink::from(path), &provenance)?;
    let mut names = Names::default();
    let functions: Vec<(Sym, Sym)> = (0..FUNCTIONS)
        .map(|f| {
            (
                names.sym(&format!("function_{f}")),
                names.sym(&format!("app/module_{}.py", f % 60)),
            )
        })
        .collect();
    let mut process = Event::new(Kind::Process, names.sym("app.py"), 0, 0, 4242, 0);
    process.args = Some(names.sym(r#"{"covered":true,"host":"bench","clock":"tsc"}"#));
    writer.push(&process, &names)?;
    let mut threads: Vec<Thread> = (0..THREADS)
        .map(|at| Thread {
            tid: 4242 + at,
            now_ns: 1000,
            stack: Vec::new(),
            seed: at,
        })
        .collect();
    let (mut written, mut until_ns) = (0, 0);
    while written < events {
        let text = format!(
            r#"{{"monotonic_ns":{},"realtime_ns":{},"error_ns":50}}"#,
            until_ns + 7,
            until_ns + 99
        );
        let mut clock = Event::new(Kind::Clock, names.sym("tsc"), until_ns, 0, 4242, 0);
        let mut once = Names::default();
        clock.name = once.sym("tsc");
        clock.args = Some(once.sym(&text));
        writer.push(&clock, &once)?;
        until_ns += BATCH_NS;
        for thread in &mut threads {
            while thread.now_ns < until_ns && written < events {
                let (function, start, dur) = thread.next();
                let (name, file) = functions[function as usize];
                let mut event = Event::new(Kind::Python, name, start, 0, 4242, thread.tid);
                (event.dur_ns, event.file, event.line) = (Some(dur), Some(file), Some(function));
                writer.push(&event, &names)?;
                written += 1;
            }
        }
    }
    writer.finish()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [events, path] = arguments.as_slice() else {
        eprintln!("usage: recording EVENTS FILE");
        return ExitCode::FAILURE;
    };
    let done = events.parse().map_err(|error| format!("{events}: {error}"));
    match done.and_then(|events| write(events, Path::new(path)).map_err(|error| error.to_string()))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("recording: {error}");
            ExitCode::FAILURE
        }
    }
}
