//! Each format, read back.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::common::rows;
use crate::place::{CONVERT, Place, place, raw, without_numbers};
use crate::readers::{leaves, perfetto, speedscope, tree};
use inferscope::cli::Source;
use inferscope::trace::text::print;
use inferscope::trace::{Kind, Reader};
use serde_json::Value;

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
