//! What isc-convert writes is read back: by isc-merge, by Perfetto's own messages, by the schema of speedscope, as sums of
//! isc-report; and the part that was asked for is a timeline.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{repository, rows};
use inferscope::cli::{Sink, Source};
use inferscope::trace::text::{parse, print};
use inferscope::trace::{Event, Kind, Names, Provenance, Reader, Step, Writer};
use serde_json::Value;

/// A bit of everything, as isc-record writes it: two processes, a device, what overlaps, what was lost. Hostile names.
const RAW: &str = r#"
track       kind       start     end       name           file  line  correlation  flow  bytes  value  args
py:main     process    0us       900us     app            -     -     -            -     -      -      {"covered":true,"host":"h"}
py:main@1   process    5us       800us     worker         -     -     -            -     -      -      {"covered":true,"host":"h"}
py:main     thread     0us       -         MainThread     -     -     -            -     -      -      -
py:77@1     thread     5us       -         pool-0         -     -     -            -     -      -      -
cuda:0      stream     0us       -         "GPU X"        -     -     -            -     4096   -      {"sms":8}
py:main     clock      0us       -         tsc            -     -     -            -     -      -      {"monotonic_ns":0,"realtime_ns":1700000000000000000,"error_ns":0}
py:main@1   clock      5us       -         tsc            -     -     -            -     -      -      {"monotonic_ns":5000,"realtime_ns":1700000000000005000,"error_ns":0}
py:main     python     1us       500001ns  main           a.py  1     -            -     -      -      -
py:main     scope      2us       400us     "re;quest \"1\""  -  -     -            -     -      -      {"n":1.50}
py:main     python     3us       300us     step           a.py  7     -            9     -      -      {"suspended":true}
py:main     native     10us      20123ns   numpy.dot      numpy/x.so  -  -         -     -      -      -
py:main     launch     30us      40us      cudaLaunch     -     -     1            -     -      -      -
py:main     launch     41us      45us      cudaLaunch     -     -     2            -     -      -      -
py:main     api        46us      47us      cudaMalloc     -     -     3            -     -      -      -
py:main     gc         50us      60us      gen0           -     -     -            -     -      12     -
py:main     wait       60us      90us      io             -     -     -            -     -      20000  {"call":"read","file":"socket"}
py:main     scope      70us      800us     task           -     -     -            4     -      -      {"async":true}
py:main     scope      80us      700us     other          -     -     -            5     -      -      {"async":true}
cuda:0/7    kernel     50us      150us     gemm<float>    -     -     1            -     -      -      {"grid":[8,1,1],"registers":32}
cuda:0/7    memcpy     150us     160us     "Memcpy DtoH"  -     -     2            -     4096   -      {"copy":"device to host"}
cuda:0/7    kernel     155us     170us     overlaps       -     -     -            -     -      -      -
py:main     mark       200us     -         "</script>\n"  -     -     -            -     -      -      -
py:main     counter    201us     -         queue.depth    -     -     -            -     -      2.5    -
py:main     counter    202us     -         plain          -     -     -            -     -      7      -
py:main     sample     203us     -         libx.so        -     -     -            -     -      5000   -
py:main     alloc      204us     -         cudaMalloc     -     -     -            -     256    512    {"address":"0x1"}
py:main     throttled  210us     400us     hot            a.py  3     -            -     -      100    {"calls_low":90,"calls_high":110}
py:main     lost       220us     -         "ring full"    -     -     -            -     -      3      -
py:77@1     python     6us       600us     serve          b.py  1     -            -     -      -      -
py:77@1     launch     30us      40us      cudaLaunch     -     -     1            -     -      -      -
cuda:0/9@1  kernel     60us      90us      relu           -     -     1            -     -      -      -
py:77@1     python     100us     200us     inner          b.py  9     -            -     -      -      -
py:77@1     python     100us     100us     nothing        b.py  12    -            -     -      -      -
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn run(&self, program: &str, words: &[&str]) -> Output {
        let mut command = Command::new(program);
        command
            .args(words)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// Runs isc-convert, which has to succeed. What it said.
    fn convert(&self, words: &[&str]) -> String {
        let out = self.run(CONVERT, words);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{words:?}: {said}");
        said
    }

    /// What isc-convert says of what it cannot do, on one line; it leaves no file.
    fn refusal(&self, words: &[&str]) -> String {
        let before = fs::read_dir(&self.0).unwrap().count();
        let out = self.run(CONVERT, words);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{words:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(
            fs::read_dir(&self.0).unwrap().count(),
            before,
            "{words:?} left a file"
        );
        said
    }

    fn merge(&self, words: &[&str]) {
        let out = self.run(env!("CARGO_BIN_EXE_isc-merge"), words);
        assert!(out.status.success(), "{out:?}");
    }

    /// Rows of a trace as lines, those of kinds that are left out apart.
    fn lines(&self, name: &str, without: &[Kind]) -> String {
        let (mut events, names) = rows(&self.path(name));
        events.retain(|event| !without.contains(&event.kind));
        print(&events, &names)
    }
}

const CONVERT: &str = env!("CARGO_BIN_EXE_isc-convert");

fn raw(path: &Path, text: &str) {
    let (events, names) = parse(text).unwrap();
    let provenance = Provenance::raw(Step::new("test", vec![], vec![]));
    let mut writer = Writer::create(&Sink::from(path), &provenance).unwrap();
    for event in &events {
        writer.push(event, &names).unwrap();
    }
    writer.finish().unwrap();
}

/// A folder with `raw.parquet` and its timeline `t.parquet`.
fn place() -> Place {
    let place = Place::new();
    raw(&place.path("raw.parquet"), RAW);
    place.merge(&["raw.parquet", "-o", "t.parquet"]);
    place
}

/// Columns that name rows by number, taken out: rows may be more or fewer than before.
fn without_numbers(events: &mut [Event]) {
    for event in events {
        event.parent = None;
        event.cause = None;
    }
}

#[test]
fn tables_are_lossless_both_ways_and_say_who_wrote_them() {
    let place = place();
    place.convert(&["t.parquet", "-o", "t.arrow"]);
    place.convert(&["t.arrow", "-o", "again.parquet"]);
    let wanted = place.lines("t.parquet", &[]);
    assert_eq!(place.lines("t.arrow", &[]), wanted);
    assert_eq!(place.lines("again.parquet", &[]), wanted);
    let source = Source::from(place.path("again.parquet").as_path());
    let reader = Reader::open(&source).unwrap();
    let provenance = reader.provenance();
    let commands: Vec<&str> = provenance
        .steps
        .iter()
        .map(|step| step.command.as_str())
        .collect();
    assert_eq!(
        commands,
        ["test", "isc-merge", "isc-convert", "isc-convert"]
    );
    let hash = |name: &str| {
        blake3::hash(&fs::read(place.path(name)).unwrap())
            .to_hex()
            .to_string()
    };
    assert_eq!(provenance.steps[2].inputs, [hash("t.parquet")]);
    assert_eq!(provenance.steps[3].inputs, [hash("t.arrow")]);
    assert!(provenance.origin.is_some() && !provenance.clocks.is_empty());
    // A raw trace stays one.
    place.convert(&["raw.parquet", "-o", "raw.arrow"]);
    assert_eq!(
        place.lines("raw.arrow", &[]),
        place.lines("raw.parquet", &[])
    );
    place.merge(&["raw.arrow", "-o", "t2.parquet"]);
    assert_eq!(place.lines("t2.parquet", &[]), wanted);
}

#[test]
fn equal_input_gives_equal_bytes_from_a_file_or_a_pipe() {
    let place = place();
    let timeline = fs::read(place.path("t.parquet")).unwrap();
    for format in [
        "chrome",
        "perfetto",
        "speedscope",
        "folded",
        "csv",
        "parquet",
        "arrow",
    ] {
        let first = place
            .run(CONVERT, &["t.parquet", "--format", format])
            .stdout;
        assert!(!first.is_empty(), "{format}");
        let again = place.run(CONVERT, &["t.parquet", "--format", format, "-o", "file"]);
        assert!(again.status.success());
        assert!(fs::read(place.path("file")).unwrap() == first, "{format}");
        let mut piped = Command::new(CONVERT)
            .args(["--format", format])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        piped.stdin.take().unwrap().write_all(&timeline).unwrap();
        let out = piped.wait_with_output().unwrap();
        assert!(out.stdout == first, "{format} from a pipe");
    }
    let packed = |name: &str| {
        place.convert(&["t.parquet", "-o", name]);
        fs::read(place.path(name)).unwrap()
    };
    let bytes = packed("a.json.gz");
    assert!(bytes == packed("b.json.gz"));
    let mut plain = String::new();
    let mut reader = flate2::read::GzDecoder::new(&bytes[..]);
    std::io::Read::read_to_string(&mut reader, &mut plain).unwrap();
    assert!(packed("a.json") == plain.into_bytes());
}

#[test]
fn chrome_json_comes_back_as_the_same_rows() {
    let place = place();
    let said = place.convert(&["t.parquet", "-o", "t.json"]);
    assert_eq!(
        said,
        "isc-convert: t.json: rows left out, as the format has no place for them: 2 clock\n"
    );
    let json: Value = serde_json::from_str(&place.read("t.json")).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    let find = |name: &str| events.iter().find(|event| event["name"] == name).unwrap();
    let kernel = find("gemm<float>");
    assert_eq!(kernel["cat"], "kernel");
    assert_eq!((&kernel["pid"], &kernel["tid"]), (&0.into(), &7.into()));
    assert_eq!(kernel["args"]["registers per thread"], 32);
    assert_eq!(kernel["args"]["correlation"], 1);
    assert!(
        place
            .read("t.json")
            .contains(r#""name":"numpy.dot","pid":1000,"tid":1000,"ts":10,"dur":10.123"#)
    );
    assert!(
        place.read("t.json").contains(r#""n":1.50"#),
        "digits stay as they are"
    );
    let arrows = |phase: &str| {
        let of = events
            .iter()
            .filter(|event| event["cat"] == "ac2g" && event["ph"] == phase);
        of.map(|event| event["id"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    let (mut from, mut to) = (arrows("s"), arrows("f"));
    from.sort_unstable();
    to.sort_unstable();
    assert_eq!(from.len(), 3);
    assert_eq!(from, to);
    place.merge(&["t.json", "-o", "back.parquet"]);
    // Processes are on another clock, clocks are the file's, and each stream that was met has a name.
    let apart = [Kind::Process, Kind::Clock, Kind::Stream];
    let lines = |name: &str| {
        let (mut events, texts) = rows(&place.path(name));
        events.retain(|event| !apart.contains(&event.kind));
        without_numbers(&mut events);
        print(&events, &texts)
    };
    assert_eq!(lines("back.parquet"), lines("t.parquet"));
    let (back, texts) = rows(&place.path("back.parquet"));
    let of = |name: &str| {
        let row = back.iter().position(|event| texts.text(event.name) == name);
        row.map(|row| (row as i64, back[row])).unwrap()
    };
    let (step, dot) = (of("step"), of("numpy.dot"));
    assert_eq!(dot.1.parent, Some(step.0));
    let cause = of("gemm<float>").1.cause.unwrap();
    assert_eq!(
        (back[cause as usize].kind, back[cause as usize].correlation),
        (Kind::Launch, Some(1))
    );
    let processes = back.iter().filter(|event| event.kind == Kind::Process);
    let args: Vec<&str> = processes
        .map(|event| texts.text(event.args.unwrap()))
        .collect();
    assert!(
        args.iter().all(|args| args.contains("\"host\":\"h\"")),
        "{args:?}"
    );
}

#[test]
fn perfetto_s_own_messages_read_the_same_slices() {
    let place = place();
    place.convert(&["t.parquet", "-o", "t.pftrace"]);
    let Some(lines) = perfetto(&place, "t.pftrace") else {
        return;
    };
    let (events, names) = rows(&place.path("t.parquet"));
    let slices = |kind: Kind| -> Vec<(String, i64, i64)> {
        let of = events.iter().filter(|event| event.kind == kind);
        of.map(|event| {
            (
                names.text(event.name).to_owned(),
                event.start_ns,
                event.dur_ns.unwrap(),
            )
        })
        .collect()
    };
    for kind in [
        Kind::Python,
        Kind::Native,
        Kind::Scope,
        Kind::Kernel,
        Kind::Memcpy,
        Kind::Launch,
        Kind::Wait,
        Kind::Throttled,
    ] {
        let of = lines
            .iter()
            .filter(|line| line["ph"] == "X" && line["cat"] == kind.as_str());
        let mut read: Vec<(String, i64, i64)> = of
            .map(|line| {
                let number = |key: &str| line[key].as_i64().unwrap();
                (
                    line["name"].as_str().unwrap().to_owned(),
                    number("ts"),
                    number("dur"),
                )
            })
            .collect();
        let mut wanted = slices(kind);
        read.sort();
        wanted.sort();
        assert_eq!(read, wanted, "{kind}");
    }
    let find = |name: &str| lines.iter().find(|line| line["name"] == name).unwrap();
    assert_eq!(find("numpy.dot")["track"], "app/MainThread:1000");
    assert_eq!(find("numpy.dot")["depth"], 3);
    assert_eq!(find("gemm<float>")["track"], "GPU 0: GPU X/stream 7");
    assert_eq!(
        find("gemm<float>")["args"]["grid"],
        serde_json::json!([8, 1, 1])
    );
    assert_eq!(
        find("overlaps")["track"],
        "GPU 0: GPU X/stream 7/overlapping"
    );
    assert_eq!(find("io")["track"], "app/MainThread:1000/waits");
    assert_eq!(find("lost: ring full")["args"]["value"], 3.0);
    assert_eq!(find("gemm<float>")["flows"], find("cudaLaunch")["flows"]);
    let counter = |end: &str| {
        lines
            .iter()
            .find(|line| line["ph"] == "C" && line["track"].as_str().unwrap().ends_with(end))
            .unwrap()
    };
    assert_eq!(counter("/queue.depth")["value"], 2.5);
    assert_eq!(counter("/plain")["value"], 7);
}

/// Slices, instants and counters of a Perfetto trace, read with Perfetto's own messages; `None` if they cannot be had.
fn perfetto(place: &Place, file: &str) -> Option<Vec<Value>> {
    let made = place.run(
        repository("scripts/venv.sh").to_str().unwrap(),
        &["python3", "perfetto", "protobuf", "perfetto"],
    );
    if !made.status.success() {
        eprintln!(
            "skipped: perfetto: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        return None;
    }
    let python = String::from_utf8(made.stdout).unwrap();
    let script = repository("tests/python/read_perfetto.py");
    let out = place.run(python.trim(), &[script.to_str().unwrap(), file]);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    Some(
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

/// What speedscope's file-format-spec.ts asks for, and that each profile's events are balanced. Time at the end of each stack.
fn speedscope(text: &str) -> BTreeMap<String, i64> {
    let file: Value = serde_json::from_str(text).unwrap();
    assert_eq!(
        file["$schema"],
        "https://www.speedscope.app/file-format-schema.json"
    );
    let frames = file["shared"]["frames"].as_array().unwrap();
    for frame in frames {
        assert!(frame["name"].is_string(), "{frame}");
        assert!(
            frame.get("file").is_none_or(Value::is_string)
                && frame.get("line").is_none_or(Value::is_u64)
        );
    }
    let mut sums = BTreeMap::new();
    for profile in file["profiles"].as_array().unwrap() {
        assert_eq!(
            (&profile["type"], &profile["unit"]),
            (&"evented".into(), &"nanoseconds".into())
        );
        let name = profile["name"].as_str().unwrap();
        let (mut at, mut stack) = (profile["startValue"].as_i64().unwrap(), Vec::new());
        for event in profile["events"].as_array().unwrap() {
            let (frame, now) = (
                event["frame"].as_u64().unwrap(),
                event["at"].as_i64().unwrap(),
            );
            assert!(now >= at, "{name}: {event}");
            let title = frames[frame as usize]["name"].as_str().unwrap();
            let place = stack
                .iter()
                .map(|&frame: &u64| frames[frame as usize]["name"].as_str().unwrap());
            let place = place.collect::<Vec<_>>().join(";");
            *sums.entry(format!("{name};{place}")).or_default() += now - at;
            at = now;
            match event["type"].as_str().unwrap() {
                "O" => stack.push(frame),
                "C" => assert_eq!(stack.pop(), Some(frame), "{name}: {title}"),
                other => panic!("{other}"),
            }
        }
        assert!(stack.is_empty());
        assert!(profile["endValue"].as_i64().unwrap() >= at);
    }
    sums
}

#[test]
fn speedscope_s_profiles_are_balanced() {
    let place = place();
    let said = place.convert(&["t.parquet", "-o", "t.speedscope.json"]);
    assert_eq!(
        said,
        "isc-convert: t.speedscope.json: rows left out, as the format has no place for them: 1 alloc, 2 clock, 2 counter, \
         1 lost, 1 mark, 1 sample, 1 throttled, 1 wait, 3 overlapping\n"
    );
    let text = place.read("t.speedscope.json");
    let sums = speedscope(&text);
    assert_eq!(
        sums["app (pid 1000), MainThread (1000);main;re;quest \"1\";step;numpy.dot"],
        10_123
    );
    assert_eq!(sums["GPU 0, stream 7;gemm<float>"], 100_000);
    assert!(text.contains("3 records were lost"));
}

/// Sums of folded stacks by the innermost frame, devices apart.
fn leaves(folded: &str) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for line in folded.lines().filter(|line| !line.starts_with("GPU ")) {
        let (stack, ns) = line.rsplit_once(' ').unwrap();
        let leaf = stack.rsplit(';').next().unwrap();
        let name = leaf.split(" (").next().unwrap().to_owned();
        *sums.entry(name).or_default() += ns.parse::<i64>().unwrap();
    }
    sums
}

/// The same of the call tree of isc-report.
fn tree(timeline: &Path) -> BTreeMap<String, i64> {
    let place = Place::new();
    let t = timeline.to_str().unwrap();
    let analyze = place.run(env!("CARGO_BIN_EXE_isc-analyze"), &[t, "-o", "a.json"]);
    assert!(analyze.status.success(), "{analyze:?}");
    let analysis = inferscope::report::read(&Source::from(place.path("a.json").as_path())).unwrap();
    let calls = inferscope::report::calls(&Source::from(timeline), &analysis).unwrap();
    let mut sums = BTreeMap::new();
    for node in calls.tree.nodes().iter().filter(|node| node.self_ns > 0) {
        let name = calls.tree.text(node.name).replace(';', ":");
        let name = name.split(" (").next().unwrap().to_owned();
        *sums.entry(name).or_default() += node.self_ns;
    }
    sums
}

#[test]
fn folded_stacks_add_up_to_the_self_times_of_the_report() {
    let place = place();
    place.convert(&["t.parquet", "-o", "t.folded"]);
    let folded = place.read("t.folded");
    assert_eq!(leaves(&folded), tree(&place.path("t.parquet")));
    let stack = "app (pid 1000);MainThread (1000);main (a.py:1);re:quest \"1\";step (a.py:7);numpy.dot (numpy/x.so) 10123";
    assert!(folded.lines().any(|line| line == stack), "{folded}");
    assert!(
        folded.contains("\nGPU 0;stream 7;gemm<float> 100000\n"),
        "{folded}"
    );
    assert!(folded.is_ascii() && folded.lines().is_sorted());
    // And of isc-analyze, where each function is Python.
    let text = "
        track    kind    start  end    name  file  line
        py:main  python  0us    100us  f     a.py  1
        py:main  python  10us   60us   g     a.py  5
        py:main  python  20us   30us   f     a.py  1";
    raw(&place.path("p.parquet"), text);
    place.merge(&["p.parquet", "-o", "p2.parquet"]);
    place.convert(&["p2.parquet", "-o", "p.folded"]);
    let out = place.run(env!("CARGO_BIN_EXE_isc-analyze"), &["p2.parquet", "--json"]);
    let analysis: Value = serde_json::from_slice(&out.stdout).unwrap();
    let functions = analysis["functions"].as_array().unwrap();
    let own = functions.iter().map(|f| {
        (
            f["name"].as_str().unwrap().to_owned(),
            f["self_ns"].as_i64().unwrap(),
        )
    });
    assert_eq!(leaves(&place.read("p.folded")), own.collect());
}

#[test]
fn a_csv_has_every_column_quoted_where_it_must_be() {
    let place = Place::new();
    let text = r#"
        track     kind    start  end  name             file  correlation  value  args
        py:main   mark    -1     -    "a, \"b\"\nc"    ""    -            0.1    {"k":"v"}
        cuda:0/7  kernel  5      9    k                -     18446744073709551615  -  -"#;
    raw(&place.path("raw.parquet"), text);
    place.convert(&["raw.parquet", "-o", "raw.csv"]);
    assert_eq!(
        place.read("raw.csv"),
        "start_ns,dur_ns,kind,name,file,line,process,pid,tid,device,stream,correlation,flow,parent,cause,bytes,value,args\n\
         -1,,mark,\"a, \"\"b\"\"\nc\",\"\",,0,1000,1000,,,,,,,,0.1,\"{\"\"k\"\":\"\"v\"\"}\"\n\
         5,4,kernel,k,,,0,1000,0,0,7,18446744073709551615,,,,,,\n"
    );
}

/// A timeline whose numbers lead to rows that are there and around, before or behind them, as isc-merge leaves them.
fn check_timeline(events: &[Event], names: &Names) {
    for (row, event) in events.iter().enumerate() {
        let name = names.text(event.name);
        if let Some(parent) = event.parent {
            assert!(parent < row as i64, "{name}");
            let around = &events[parent as usize];
            assert_eq!(
                (around.process, around.tid),
                (event.process, event.tid),
                "{name}"
            );
            assert!(
                around.start_ns <= event.start_ns && around.end_ns() >= event.end_ns(),
                "{name}"
            );
        }
        if let Some(cause) = event.cause {
            let cause = &events[cause as usize];
            assert_eq!(
                (cause.kind, cause.correlation),
                (Kind::Launch, event.correlation),
                "{name}"
            );
        }
    }
}

#[test]
fn what_is_selected_is_a_timeline_that_can_be_analysed() {
    let place = place();
    for (words, kept) in [
        (
            &["--kind", "python,kernel"][..],
            "gemm<float> inner main nothing overlaps relu serve step",
        ),
        (
            &["--kind", "kernel", "--device", "0"],
            "gemm<float> overlaps relu",
        ),
        (&["--process", "1"], "cudaLaunch inner nothing relu serve"),
        (&["--thread", "77"], "cudaLaunch inner nothing serve"),
        (
            &["--tid", "77", "--name", "inn", "--name", "Launch"],
            "cudaLaunch inner",
        ),
        (
            &[
                "--from",
                "155us",
                "--to",
                "0.0002s",
                "--kind",
                "kernel,memcpy,mark,python",
            ],
            "Memcpy DtoH inner main overlaps serve step",
        ),
        (
            &["--where", "kind == \"kernel\" && dur_ns > 20000"],
            "gemm<float> relu",
        ),
        (
            &["--where", "kind == 'native' || name == 'main'"],
            "main numpy.dot",
        ),
        (&["--kind", "python", "--head", "2"], "main step"),
    ] {
        let words = [&["t.parquet", "-o", "s.parquet"], words].concat();
        place.convert(&words);
        let (events, names) = rows(&place.path("s.parquet"));
        check_timeline(&events, &names);
        let described = [
            Kind::Process,
            Kind::Thread,
            Kind::Stream,
            Kind::Clock,
            Kind::Lost,
            Kind::Throttled,
        ];
        let found = events
            .iter()
            .filter(|event| !described.contains(&event.kind));
        let mut found: Vec<&str> = found.map(|event| names.text(event.name)).collect();
        found.sort_unstable();
        assert_eq!(found.join(" "), kept, "{words:?}");
        let out = place.run(env!("CARGO_BIN_EXE_isc-analyze"), &["s.parquet", "--json"]);
        assert!(out.status.success(), "{out:?}");
        let analysis: Value = serde_json::from_slice(&out.stdout).unwrap();
        let caveats = analysis["caveats"].to_string();
        assert!(caveats.contains("only a part of a timeline"), "{caveats}");
    }
    // The nearest kept span is around what was inside of a dropped one, and a cause that is gone is none.
    place.convert(&[
        "t.parquet",
        "--kind",
        "python,native,kernel",
        "--where",
        "name != 'step'",
        "-o",
        "s.arrow",
    ]);
    let (events, names) = rows(&place.path("s.arrow"));
    let at = |name: &str| {
        events
            .iter()
            .position(|event| names.text(event.name) == name)
            .unwrap()
    };
    assert_eq!(events[at("numpy.dot")].parent, Some(at("main") as i64));
    assert_eq!(events[at("gemm<float>")].cause, None);
    let source = Source::from(place.path("s.arrow").as_path());
    let reader = Reader::open(&source).unwrap();
    let step = reader.provenance().steps.last().unwrap();
    assert_eq!(
        step.flags,
        ["--kind=python,native,kernel", "--where=name != 'step'"]
    );
}

#[test]
fn what_cannot_be_done_is_said_in_a_line() {
    let place = place();
    fs::write(place.path("x.png"), b"\x89PNG\r\n\x1a\n1234567890").unwrap();
    fs::write(place.path("k.json"), b"{\"traceEvents\":[]}").unwrap();
    fs::write(place.path("empty"), b"").unwrap();
    let whole = fs::read(place.path("t.parquet")).unwrap();
    fs::write(place.path("cut.parquet"), &whole[..whole.len() - 9]).unwrap();
    place.convert(&["t.parquet", "-o", "t.arrow"]);
    let whole = fs::read(place.path("t.arrow")).unwrap();
    fs::write(place.path("cut.arrow"), &whole[..whole.len() - 9]).unwrap();
    for (words, message) in [
        (
            &["raw.parquet", "-o", "o.folded"][..],
            "isc-convert: raw.parquet: a raw trace, whose spans are not nested yet",
        ),
        (
            &["raw.parquet", "-o", "o.pftrace"],
            "isc-convert: raw.parquet: a raw trace",
        ),
        (
            &["raw.parquet", "-o", "o.speedscope.json"],
            "isc-convert: raw.parquet: a raw trace",
        ),
        (
            &["raw.parquet", "--from", "1s", "-o", "o.csv"],
            "isc-convert: raw.parquet: a raw trace",
        ),
        (
            &["x.png", "-o", "o.json"],
            "isc-convert: x.png: a PNG image, not a trace",
        ),
        (
            &["k.json", "-o", "o.csv"],
            "isc-convert: k.json: JSON, not a trace\n  try: isc-merge FILE",
        ),
        (
            &["k.json", "-o", "o.json"],
            "isc-convert: k.json: JSON, not a trace\n  try: isc-merge FILE",
        ),
        (
            &["empty", "-o", "o.json"],
            "isc-convert: empty: empty, not a trace",
        ),
        (
            &["none", "-o", "o.json"],
            "isc-convert: none: cannot open: no such file",
        ),
        (
            &["cut.parquet", "-o", "o.json"],
            "isc-convert: cut.parquet: cut off",
        ),
        (
            &["cut.arrow", "-o", "o.csv"],
            "isc-convert: cut.arrow: cut off",
        ),
        (
            &["cut.arrow", "-o", "o.speedscope.json"],
            "isc-convert: cut.arrow: cut off",
        ),
        (
            &["cut.arrow", "-o", "o.parquet"],
            "isc-convert: cut.arrow: cut off",
        ),
        (
            &["t.parquet", "-o", "o.txt"],
            "isc-convert: o.txt: the name does not say which format",
        ),
        (
            &["t.parquet", "-o", "o.parquet.gz"],
            "isc-convert: o.parquet.gz: a table is not packed",
        ),
        (
            &["t.parquet", "-o", "no/o.json"],
            "isc-convert: no/o.json: cannot create: no such file",
        ),
        (
            &["t.parquet", "--where", "dur > 3", "-o", "o.csv"],
            "isc-convert: --where: dur is no column; did you mean dur_ns?",
        ),
        (
            &["t.parquet", "--where", "name >", "-o", "o.csv"],
            "isc-convert: --where: ",
        ),
        (
            &["t.parquet", "--where", "name > 3", "-o", "o.csv"],
            "isc-convert: --where: ",
        ),
        (
            &["t.parquet", "--where", "dur_ns", "-o", "o.csv"],
            "isc-convert: --where: ",
        ),
        (
            &["t.parquet", "--kind", "kernels", "-o", "o.csv"],
            "\"kernels\" is no kind; did you mean kernel?",
        ),
        (
            &["t.parquet", "--from", "soon", "-o", "o.csv"],
            "\"soon\" is no time",
        ),
    ] {
        let said = place.refusal(words);
        assert!(said.contains(message), "{words:?}: {said}");
    }
}

#[test]
fn a_reader_that_stops_ends_it_quietly() {
    let place = Place::new();
    let mut text = String::from("track kind start end name\n");
    for row in 0..200_000 {
        text.push_str(&format!("py:main mark {row} - m{row}\n"));
    }
    raw(&place.path("raw.parquet"), &text);
    let command = format!("{CONVERT} raw.parquet --format csv | head -1; echo ${{PIPESTATUS[0]}}");
    let out = place.run("bash", &["-c", &command]);
    assert!(out.stderr.is_empty(), "{out:?}");
    assert!(
        String::from_utf8_lossy(&out.stdout).ends_with("args\n0\n"),
        "{out:?}"
    );
}

#[test]
fn texts_of_anyone_break_no_format() {
    let place = Place::new();
    let names = [
        "\u{0}\u{1b}[31m",
        "a\nb;c d",
        "</script>",
        "\u{2028}\u{202e}",
        "",
        "'\"\\",
        "=1+1,\r\n",
        "🦀",
    ];
    let mut text = String::from("track kind start end name file line args\n");
    for (at, name) in names.iter().enumerate() {
        let name = Value::from(*name);
        let (start, end) = (at * 100, at * 100 + 50);
        text.push_str(&format!(
            "py:main python {start} {end} {name} {name} 1 {}\n",
            serde_json::json!({ "k": name })
        ));
        text.push_str(&format!("py:main native {start} {end} {name} {name} - -\n"));
        text.push_str(&format!("cuda:0/7 kernel {start} {end} {name} - - -\n"));
        text.push_str(&format!("py:main counter {start} - {name} - - -\n"));
    }
    text.push_str("py:main thread 0 - \"t;\\n\" - - -\npy:main process 0 9000 \"p;\\n\" - - -\n");
    raw(&place.path("raw.parquet"), &text);
    place.merge(&["raw.parquet", "-o", "t.parquet"]);
    for output in [
        "t.json",
        "t.speedscope.json",
        "t.folded",
        "t.pftrace",
        "t.csv",
    ] {
        place.convert(&["t.parquet", "-o", output]);
    }
    let json: Value = serde_json::from_str(&place.read("t.json")).unwrap();
    assert!(json["traceEvents"].as_array().unwrap().len() > 4 * names.len());
    assert!(!place.read("t.json").contains('\u{1b}'));
    speedscope(&place.read("t.speedscope.json"));
    for line in place.read("t.folded").lines() {
        let (stack, ns) = line.rsplit_once(' ').unwrap();
        assert_eq!(ns, "50", "{line}");
        assert!(
            stack.split(';').count() <= 4 && !line.chars().any(char::is_control),
            "{line}"
        );
    }
    place.merge(&["t.json", "-o", "back.parquet"]);
    let spans = |name: &str| {
        let (events, texts) = rows(&place.path(name));
        let of = events.iter().filter(|event| event.dur_ns == Some(50));
        let mut of: Vec<_> = of
            .map(|event| {
                (
                    event.kind,
                    texts.text(event.name).to_owned(),
                    event.start_ns,
                )
            })
            .collect();
        of.sort();
        of
    };
    assert_eq!(spans("back.parquet"), spans("t.parquet"));
    if let Some(lines) = perfetto(&place, "t.pftrace") {
        assert_eq!(
            lines.iter().filter(|line| line["ph"] == "X").count(),
            3 * names.len()
        );
    }
}

#[test]
fn real_traces_keep_their_kernels_in_every_format() {
    let folder = repository("../shared/traces");
    let mut seen = 0;
    for name in [
        "tl_h100_qwen05b",
        "tl_mi300x_sglang_decode",
        "hta_a100_alexnet_cuda_sync",
        "hta_vit_sampled_rank0",
        "hta_gpu_user_annotation",
        "tl_mi210_gpu_only",
    ] {
        let trace = folder.join(format!("{name}.json.gz"));
        if !trace.exists() {
            eprintln!("skipped: {name}: not in ../shared/traces");
            continue;
        }
        seen += 1;
        let place = Place::new();
        place.merge(&[trace.to_str().unwrap(), "-o", "t.parquet"]);
        place.convert(&["t.parquet", "-o", "t.json.gz"]);
        place.merge(&["t.json.gz", "-o", "back.parquet"]);
        let facts = |timeline: &str| {
            let out = place.run(env!("CARGO_BIN_EXE_isc-analyze"), &[timeline, "--json"]);
            let analysis: Value = serde_json::from_slice(&out.stdout).unwrap();
            let facts = analysis["facts"].as_object().unwrap().clone();
            let of_device = |key: &String| {
                ["gpu.", "kernel.", "launch."]
                    .iter()
                    .any(|part| key.starts_with(part))
            };
            facts
                .into_iter()
                .filter(|(key, _)| of_device(key))
                .collect::<Vec<_>>()
        };
        assert_eq!(facts("back.parquet"), facts("t.parquet"), "{name}");
        let spans = |timeline: &str| {
            let (events, texts) = rows(&place.path(timeline));
            let spans = events
                .iter()
                .filter(|event| event.dur_ns.is_some() && event.kind != Kind::Process);
            let key = |event: &Event| {
                let place = (event.device, event.stream, event.correlation, event.tid);
                (
                    event.start_ns,
                    event.dur_ns,
                    event.kind,
                    texts.text(event.name).to_owned(),
                    place,
                    event.bytes,
                )
            };
            let mut spans: Vec<_> = spans.map(key).collect();
            spans.sort();
            spans
        };
        assert!(spans("back.parquet") == spans("t.parquet"), "{name}");
        place.convert(&["t.parquet", "-o", "t.folded"]);
        let report: BTreeMap<String, i64> = tree(&place.path("t.parquet"));
        let (whole, wanted): (i64, i64) = (
            leaves(&place.read("t.folded")).values().sum(),
            report.values().sum(),
        );
        let (events, _) = rows(&place.path("t.parquet"));
        let on_device = events
            .iter()
            .filter(|event| event.kind.nests() && event.device.is_some());
        // The report has what the host waited for on a stream in a thread of its own.
        if on_device.count() == 0 {
            assert_eq!(whole, wanted, "{name}");
        }
        place.convert(&["t.parquet", "-o", "t.speedscope.json"]);
        speedscope(&place.read("t.speedscope.json"));
        place.convert(&["t.parquet", "-o", "t.pftrace"]);
        if let Some(lines) = perfetto(&place, "t.pftrace") {
            let slices = lines.iter().filter(|line| line["ph"] == "X").count();
            let spans = events
                .iter()
                .filter(|event| event.dur_ns.is_some() && event.kind != Kind::Process);
            assert_eq!(slices, spans.count(), "{name}");
        }
        place.convert(&[
            "t.parquet",
            "--kind",
            "kernel,launch",
            "--head",
            "500",
            "-o",
            "s.parquet",
        ]);
        let (events, names) = rows(&place.path("s.parquet"));
        check_timeline(&events, &names);
    }
    eprintln!("{seen} real traces");
}
