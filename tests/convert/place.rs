//! A folder with a small trace of everything, and the commands that work in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::rows;
use inferscope::cli::Sink;
use inferscope::trace::text::{parse, print};
use inferscope::trace::{Event, Kind, Provenance, Step, Writer};

/// A bit of everything, as isc-record writes it: two processes, a device, what overlaps, what was lost. Hostile names.
pub const RAW: &str = r#"
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

pub struct Place(pub tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn run(&self, program: &str, words: &[&str]) -> Output {
        let mut command = Command::new(program);
        command
            .args(words)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// Runs isc-convert, which has to succeed. What it said.
    pub fn convert(&self, words: &[&str]) -> String {
        let out = self.run(CONVERT, words);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{words:?}: {said}");
        said
    }

    /// What isc-convert says of what it cannot do, on one line; it leaves no file.
    pub fn refusal(&self, words: &[&str]) -> String {
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

    pub fn merge(&self, words: &[&str]) {
        let out = self.run(env!("CARGO_BIN_EXE_isc-merge"), words);
        assert!(out.status.success(), "{out:?}");
    }

    /// Rows of a trace as lines, those of kinds that are left out apart.
    pub fn lines(&self, name: &str, without: &[Kind]) -> String {
        let (mut events, names) = rows(&self.path(name));
        events.retain(|event| !without.contains(&event.kind));
        print(&events, &names)
    }
}

pub const CONVERT: &str = env!("CARGO_BIN_EXE_isc-convert");

pub fn raw(path: &Path, text: &str) {
    let (events, names) = parse(text).unwrap();
    let provenance = Provenance::raw(Step::new("test", vec![], vec![]));
    let mut writer = Writer::create(&Sink::from(path), &provenance).unwrap();
    for event in &events {
        writer.push(event, &names).unwrap();
    }
    writer.finish().unwrap();
}

/// A folder with `raw.parquet` and its timeline `t.parquet`.
pub fn place() -> Place {
    let place = Place::new();
    raw(&place.path("raw.parquet"), RAW);
    place.merge(&["raw.parquet", "-o", "t.parquet"]);
    place
}

/// Columns that name rows by number, taken out: rows may be more or fewer than before.
pub fn without_numbers(events: &mut [Event]) {
    for event in events {
        event.parent = None;
        event.cause = None;
    }
}
