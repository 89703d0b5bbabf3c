//! Bottlenecks that no single function of the path shows: work spread over many, workers' locks, children, long steps.

use inferscope::analyze::{self, Analysis, Rules};
use inferscope::trace::provenance::Stage;
use inferscope::trace::text;

fn analysis(text: &str) -> Analysis {
    let reader = text::reader(text, Stage::Timeline).unwrap();
    analyze::run(reader, &Rules::built_in().unwrap()).unwrap()
}

/// Ids and places of what was found.
fn found(analysis: &Analysis) -> Vec<(&str, &str)> {
    let all = analysis.findings.iter();
    all.map(|finding| (&*finding.id, &*finding.place)).collect()
}

/// A hundred steps of 10 ms: Python for `python` ms in ten functions below one, then a model.
fn spread(python: f64) -> String {
    let mut text =
        String::from("track kind start end name file line\npy:main python 0ms 1s main app.py 1\n");
    for step in 0..100 {
        let at = f64::from(step) * 10.0;
        let mut row = |kind: &str, from: f64, to: f64, name: &str, file: &str| {
            text += &format!(
                "py:main {kind} {}ms {}ms {name} {file} 7\n",
                at + from,
                at + to
            );
        };
        row("python", 0.0, 9.9, "step", "app.py");
        row("python", 0.0, python, "parse", "app.py");
        for part in 0..10 {
            let from = python * (f64::from(part) + 0.05) / 10.0;
            row(
                "python",
                from,
                from + python * 0.09,
                &format!("part{part}"),
                "app.py",
            );
            row("native", from, from + python * 0.005, "str.join", "python");
        }
        row("python", python + 0.1, 9.8, "model", "app.py");
        row("native", python + 0.2, 9.7, "numpy.matmul", "numpy/core.so");
    }
    text
}

/// A hundred steps of 10 ms: `read` has a parser that calls ten handlers in Python, of which the budget showed one call
/// each, then a model.
fn handlers() -> String {
    let mut text = String::from(
        "track kind start end name file line value args\npy:main python 0ms 1s main app.py 1 - -\n",
    );
    let mut row = |kind: &str, from: f64, to: f64, what: &str| {
        text += &format!("py:main {kind} {from}ms {to}ms {what}\n");
    };
    for step in 0..100 {
        let at = f64::from(step) * 10.0;
        row("python", at, at + 9.9, "step app.py 5 - -");
        row("python", at, at + 6.1, "read app.py 7 - -");
        row(
            "native",
            at + 0.1,
            at + 6.0,
            "pyexpat.xmlparser.Parse pyexpat.so - - -",
        );
        for handler in (0..10).filter(|_| step == 0) {
            let from = 0.2 + 0.1 * f64::from(handler);
            row(
                "python",
                from,
                from + 0.05,
                &format!("handler{handler} app.py 3{handler} - -"),
            );
        }
        row(
            "native",
            at + 6.2,
            at + 9.8,
            "numpy.matmul numpy/core.so - - -",
        );
    }
    for handler in 0..10 {
        let unseen = r#"999 {"calls_low":990,"calls_high":1008,"time_ns":50000000}"#;
        row(
            "throttled",
            1.2,
            999.0,
            &format!("handler{handler} app.py 3{handler} {unseen}"),
        );
    }
    text
}

#[test]
fn a_parser_whose_handlers_are_python_prepares() {
    let analysis = analysis(&handlers());
    assert_eq!(
        found(&analysis)[0],
        ("preprocessing-bound", "read (app.py:7)")
    );
    let share = analysis.facts["prepare.share"].as_f64().unwrap();
    assert!((0.55..0.65).contains(&share), "{share}");
}

#[test]
fn python_that_is_spread_over_many_functions_is_found_at_the_one_that_holds_it() {
    let analysis = analysis(&spread(5.0));
    assert_eq!(
        found(&analysis)[0],
        ("preprocessing-bound", "parse (app.py:7)")
    );
    let share = analysis.facts["prepare.share"].as_f64().unwrap();
    assert!((0.49..0.51).contains(&share), "{share}");
    let little = self::analysis(&spread(2.0));
    let ids: Vec<_> = found(&little).iter().map(|(id, _)| *id).collect();
    assert!(!ids.contains(&"preprocessing-bound"), "{ids:?}");
}

/// Steps of the main thread wait for the answers of four workers. These queue for a lock in `fetch` for so many of 100 ms,
/// and wait for a socket for 30 more.
fn pool(queue_ms: u32) -> String {
    let mut text = String::from("track kind start end name file line value args\n");
    for turn in 0..10 {
        let at = turn * 100;
        let (end, last) = (at + 100, at + 99);
        text += &format!(
            "py:main python {at}ms {end}ms step app.py 1
             py:main python {}ms {last}ms Queue.get /lib/python3.12/queue.py 154
             py:main native {}ms {last}ms _thread.lock.acquire python\n",
            at + 1,
            at + 2
        );
        for worker in 0..4 {
            text += &format!(
                "py:w{worker} python {at}ms {end}ms fetch app.py 9
                 py:w{worker} native {at}ms {}ms _socket.socket.recv _socket.so
                 py:w{worker} wait {}ms {last}ms lock - - {queue_ms}000000 {{\"error_ns\":0}}\n",
                at + 30,
                at + 31
            );
        }
    }
    text
}

#[test]
fn a_lock_that_workers_queue_for_is_found_though_the_path_only_waits_for_them() {
    let queued = analysis(&pool(60));
    assert_eq!(found(&queued)[0], ("lock-convoy", "fetch (app.py:9)"));
    assert_eq!(queued.facts["lock.contended.share"], 0.0);
    let gain = queued.findings[0].gain.as_ref().unwrap();
    // 60 of 100 ms are in the queue; nine tenths of that saved
    assert!((gain.speedup - 1.0 / (1.0 - 0.54)).abs() < 0.02, "{gain:?}");
    let fine = analysis(&pool(10));
    assert!(found(&fine).iter().all(|(id, _)| *id != "lock-convoy"));
}

#[test]
fn a_thread_that_keeps_the_gil_from_those_that_answer_is_named() {
    // One counts all the time, two answer for 100 ms in 900, of which they wait for 80.
    let mut text = String::from("track kind start end name file line value args\n");
    text += "py:count python 0ms 900ms recount app.py 3\n";
    for worker in 0..2 {
        for at in (0..900).step_by(100) {
            text += &format!(
                "py:w{worker} python {at}ms {}ms answer app.py 9
                 py:w{worker} wait {at}ms {}ms gil - - 80000000 {{\"error_ns\":0,\"holder\":1}}\n",
                at + 99,
                at + 98
            );
        }
    }
    let analysis = analysis(&text);
    assert!(analysis.facts["threads.gil"].as_f64().unwrap() > 1.5);
    assert_eq!(
        found(&analysis)[0],
        ("gil-contention", "recount (app.py:3)"),
        "{:?}",
        found(&analysis)
    );
    let gain = analysis.findings[0].gain.as_ref().unwrap();
    assert!((gain.speedup - 5.0).abs() < 0.3, "{gain:?}"); // 80 of 100 ms
}

#[test]
fn a_program_that_waits_for_its_children_is_told_so_at_its_own_function() {
    let mut text =
        String::from("track kind start end name file line\npy:main python 0ms 1s main app.py 1\n");
    let lib = "/usr/lib/python3.12/subprocess.py";
    for step in 0..20 {
        let at = step * 50;
        text += &format!(
            "py:main python {at}ms {}ms convert app.py 12
             py:main python {at}ms {}ms Popen.communicate {lib} 1165
             py:main native {at}ms {}ms select.poll.poll select.so\n",
            at + 48,
            at + 45,
            at + 44
        );
    }
    let analysis = analysis(&text);
    assert_eq!(found(&analysis)[0], ("waiting", "convert (app.py:12)"));
    assert!(found(&analysis).iter().all(|(id, _)| *id != "blocking-io"));
    assert_eq!(analysis.facts["child.time_ns"], 900_000_000);
}

/// Twenty steps wait for a child each, which lives for the answer: 2.5 % of the timeline, less than who takes part needs.
#[test]
fn children_that_live_for_an_answer_are_waited_for_like_programs() {
    let mut text = String::from("track kind start end name file line value\n");
    let lib = "/usr/lib/python3.12/multiprocessing/connection.py";
    for step in 0..20 {
        let (at, child) = (step * 50, step + 1);
        text += &format!(
            "py:main python {at}ms {}ms step app.py 3 -
             py:main python {at}ms {}ms ForkEach.exchange app.py 12 -
             py:main python {at}ms {}ms Connection.recv {lib} 246 -
             py:main native {at}ms {}ms posix.read python - -
             py:main@{child} python {at}ms {}ms once app.py 30 -
             py:main@{child} counter {}ms - thread.cpu_ns - - 45000000\n",
            at + 50,
            at + 45,
            at + 45,
            at + 45,
            at + 45,
            at + 45
        );
    }
    text += "py:main counter 1s - thread.cpu_ns - - 100000000\n";
    let analysis = analysis(&text);
    assert_eq!(analysis.facts["answer.workers"], 1);
    assert_eq!(analysis.facts["child.time_ns"], 900_000_000);
    assert_eq!(
        found(&analysis)[0],
        ("waiting", "ForkEach.exchange (app.py:12)")
    );
    assert!(found(&analysis).iter().all(|(id, _)| *id != "blocking-io"));
}

/// So many steps of 5 ms; of so many one also builds an index for 20 ms.
fn with_long_steps(steps: u32, every: u32) -> String {
    let mut text = String::from("track kind start end name file line\n");
    let mut at = 0;
    for step in 0..steps {
        let long = step % every == every - 1;
        let end = at + if long { 25 } else { 5 };
        text += &format!("py:main python {at}ms {end}ms step app.py 3\n");
        text += &format!("py:main python {at}ms {}ms model app.py 30\n", at + 4);
        if long {
            text += &format!(
                "py:main python {}ms {}ms save app.py 40
                 py:main python {}ms {}ms build app.py 50\n",
                at + 4,
                end,
                at + 5,
                end
            );
        }
        at = end;
    }
    text
}

#[test]
fn long_steps_are_told_by_what_only_they_do_few_of_them_where_they_are_regular() {
    for (steps, every) in [(60, 10), (500, 50)] {
        let analysis = analysis(&with_long_steps(steps, every));
        let all = found(&analysis);
        let jitter = all.iter().find(|(id, _)| *id == "step-jitter");
        assert_eq!(
            jitter,
            Some(&("step-jitter", "build (app.py:50)")),
            "{all:?}"
        );
    }
    let seldom = analysis(&with_long_steps(500, 250));
    assert!(found(&seldom).iter().all(|(id, _)| *id != "step-jitter"));
}

/// A hundred steps of 4 ms and more: each also goes through what those before it left, for `more` µs an entry. Memory grows by so
/// many bytes a step.
fn with_history(more: u32, bytes: u64) -> String {
    let whole = 100 * 4000 + 4950 * more;
    let mut text = format!(
        "track kind start end name file line value\npy:main python 0us {whole}us main app.py 1 -\n"
    );
    let mut at = 0;
    for step in 0..100 {
        let searched = step * more;
        let end = at + 4000 + searched;
        text += &format!(
            "py:main python {at}us {end}us reply app.py 3 -
             py:main python {at}us {}us model app.py 30 -
             py:main python {}us {end}us recall app.py 40 -
             py:main counter {}us - process.rss_bytes - - {}\n",
            at + 3900,
            at + 3900,
            end - 1,
            50_000_000 + u64::from(step) * bytes
        );
        at = end;
    }
    text
}

#[test]
fn steps_that_go_through_what_was_kept_are_told_by_where_and_what_they_took_at_the_start() {
    let growing = analysis(&with_history(60, 1_000_000));
    let found = |analysis: &Analysis, id: &str| {
        let found = analysis.findings.iter().find(|found| found.id == id);
        found.cloned()
    };
    let told = found(&growing, "memory-growth").unwrap();
    assert_eq!(told.place, "recall (app.py:40)");
    // 4 ms at the start, and 3 ms more for the median
    let speedup = told.gain.unwrap().speedup;
    assert!((speedup - 1.75).abs() < 0.05, "{speedup}");
    assert_eq!(growing.facts["step.rise.share"], 1.0);

    // what grows in time only may be its input; and what grows in memory only costs no time
    let inputs = analysis(&with_history(60, 0));
    assert!(found(&inputs, "memory-growth").is_none());
    let told = found(&inputs, "growing-steps").unwrap();
    assert!(told.severity == "info" && told.confidence < 0.5);
    let kept = analysis(&with_history(0, 1_000_000));
    let told = found(&kept, "memory-growth").unwrap();
    assert!(told.gain.is_none());
    assert!(found(&kept, "growing-steps").is_none());
}

#[test]
fn what_workers_do_side_by_side_again_and_again_is_the_step_and_not_what_each_does_once() {
    let mut text = String::from(
        "track kind start end name file line
         py:main python 0ms 1010ms main app.py 1\n",
    );
    for worker in ["one", "two", "three"] {
        text += &format!(
            "py:{worker} python 0ms 1005ms <module> app.py 1
             py:{worker} python 1ms 1004ms worker app.py 10\n"
        );
        for at in 0..50 {
            let from = at * 20 + 2;
            text += &format!(
                "py:{worker} python {from}ms {}ms score app.py 20\n",
                from + 19
            );
            text += &format!(
                "py:{worker} python {from}ms {}ms walk app.py 30\n",
                from + 18
            );
            text += &format!(
                "py:{worker} python {from}ms {}ms walk app.py 30\n",
                from + 17
            );
        }
    }
    let analysis = analysis(&text);
    assert_eq!(analysis.facts["step.count"], 150);
    assert_eq!(analysis.facts["step.dur_ns_p50"], 19_000_000);
}

/// The main process asks a child for a batch and waits 6 of 10 ms for it, a hundred times; the child is at work for so long.
fn by_turns(child_ms: u32) -> String {
    let mut text = String::from("track kind start end name file line value args\n");
    let lib = "/usr/lib/python3.12/multiprocessing/connection.py";
    for at in (0..1000).step_by(10) {
        text += &format!(
            "py:main python {at}ms {}ms step app.py 3
             py:main python {at}ms {}ms Loader.receive app.py 12
             py:main python {at}ms {}ms Connection.recv {lib} 246
             py:main native {at}ms {}ms posix.read python
             py:main native {}ms {}ms numpy.matmul numpy/core.so
             py:main@1 python {at}ms {}ms draw app.py 30
             py:main@1 native {at}ms {}ms numpy.multiply numpy/core.so
             py:main@1 python {}ms {}ms Connection.recv {lib} 246
             py:main@1 native {}ms {}ms posix.read python\n",
            at + 10,
            at + 6,
            at + 6,
            at + 6,
            at + 6,
            at + 10,
            at + 6,
            at + 6,
            at + 6,
            at + 10,
            at + 6,
            at + 10
        );
    }
    text += &format!(
        "py:main counter 1s - thread.cpu_ns - - 400000000
         py:main@1 counter 1s - thread.cpu_ns - - {child_ms}000000\n"
    );
    text
}

#[test]
fn work_by_turns_is_waiting_at_who_asks_and_none_where_both_work_at_once() {
    let turns = analysis(&by_turns(600));
    assert_eq!(
        found(&turns)[0],
        ("waiting", "Loader.receive (app.py:12)"),
        "{:?}",
        found(&turns)
    );
    assert!(found(&turns).iter().all(|(id, _)| *id != "blocking-io"));
    let gain = turns.findings[0].gain.as_ref().unwrap();
    assert!((gain.speedup - 1.0 / 0.6).abs() < 0.02, "{gain:?}"); // what the child takes is left
    let busy = analysis(&by_turns(950));
    assert!(found(&busy).iter().all(|(id, _)| *id != "waiting"));
    assert_eq!(busy.facts["answer.time_ns"], 600_000_000);
}

#[test]
fn many_calls_below_one_of_a_library_are_a_hot_spot_and_no_small_batches() {
    let small = |inner: &str| {
        let mut text = String::from("track kind start end name file line\n");
        for step in 0..50 {
            let at = step * 20;
            text += &format!("py:main python {at}ms {}ms step app.py 3\n", at + 20);
            if !inner.is_empty() {
                text += &format!(
                    "py:main python {at}ms {}ms GzipFile.seek {inner} 9\n",
                    at + 14
                );
            }
            for call in 0..6 {
                let from = at + 2 * call;
                text += &format!(
                    "py:main native {from}ms {}ms zlib.decompress zlib.so\n",
                    from + 2
                );
            }
            text += &format!(
                "py:main native {}ms {}ms numpy.matmul numpy/core.so\n",
                at + 15,
                at + 20
            );
        }
        analysis(&text)
    };
    let own = small("");
    let told = |(id, _): &(&str, &str)| *id == "small-batches";
    assert!(found(&own).iter().any(told), "{:?}", found(&own));
    let library = small("/usr/lib/python3.12/gzip.py");
    let ids: Vec<_> = found(&library).iter().map(|(id, _)| *id).collect();
    assert_eq!(ids[0], "native-hot-spot", "{ids:?}");
    assert!(!ids.contains(&"small-batches"), "{ids:?}");
    assert_eq!(library.facts["native.asked.calls"], 50);
    let share = library.facts["native.asked.share"].as_f64().unwrap();
    assert!((share - 0.7).abs() < 0.001, "{share}");
}

#[test]
fn a_server_that_nobody_asks_has_no_work_and_no_fault() {
    let mut text = String::from("track kind start end name file line\n");
    for at in (0..1000).step_by(10) {
        text += &format!(
            "py:main python {at}ms {}ms Queue.get /lib/python3.12/queue.py 154
             py:main native {at}ms {}ms _thread.lock.acquire python
             py:main python {}ms {}ms serve app.py 9\n",
            at + 7,
            at + 7,
            at + 7,
            at + 10
        );
    }
    let analysis = analysis(&text);
    let idle: Vec<_> = analysis.findings.iter().collect();
    let first = idle
        .first()
        .map(|f| (&*f.id, &*f.severity, f.gain.is_none()));
    assert_eq!(first, Some(("idle-no-work", "info", true)));
}

#[test]
fn a_library_of_formats_that_takes_most_is_named() {
    let mut text =
        String::from("track kind start end name file line\npy:main python 0ms 1s main app.py 1\n");
    for step in 0..50 {
        let at = step * 20;
        text += &format!(
            "py:main python {at}ms {}ms serve app.py 3
             py:main native {at}ms {}ms _json.Scanner _json.cpython-312-x86_64-linux-gnu.so
             py:main native {}ms {}ms numpy.matmul numpy/core.so\n",
            at + 19,
            at + 12,
            at + 13,
            at + 18
        );
    }
    let analysis = analysis(&text);
    let share = analysis.facts["format.share"].as_f64().unwrap();
    assert!((share - 0.6).abs() < 0.001, "{share}");
    let told = found(&analysis);
    assert_eq!(told[0].0, "native-hot-spot");
    assert!(told[0].1.starts_with("_json.Scanner"), "{told:?}");
}
