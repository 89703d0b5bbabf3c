//! Files of other profilers, of any content: read, merged and analyzed, or refused in a line that says where.

use inferscope::analyze::{self, Rules};
use inferscope::cli::{Sink, Source};
use inferscope::import::Lenient;
use inferscope::{merge, trace::Reader};
use std::path::Path;

/// Bytes that merging may use; what small files need is far below it.
const MEMORY: u64 = 64 << 20;

thread_local! {
    static RULES: Rules = Rules::built_in().expect("the built-in rules");
}

/// Reads `data` as a file of any format.
pub fn run(data: &[u8]) {
    let folder = folder();
    let path = folder.path().join("input");
    std::fs::write(&path, data).expect("a temporary file can be written");
    take(&path);
}

/// A folder for a run's files: in memory, where there is such a place.
pub fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    folder.expect("a folder for temporary files")
}

/// Reads the file at `path`, once as it is and once without what is broken. What can be read becomes a timeline that can
/// be analyzed; what cannot is told in one line.
pub fn take(path: &Path) {
    let strict = merged(path, false);
    let lenient = merged(path, true);
    match (&strict, &lenient) {
        (Ok(strict), Ok(lenient)) => assert_eq!(strict, lenient, "rows of a file that is whole"),
        (Ok(_), Err(error)) => panic!("whole, but not when what is broken is left out: {error}"),
        _ => {}
    }
    for told in [strict.err(), lenient.err()].into_iter().flatten() {
        assert!(!told.contains('\n') && !told.is_empty(), "{told:?}");
    }
}

/// How many rows the timeline of this file has, or why there is none.
fn merged(path: &Path, lenient: bool) -> Result<u64, String> {
    let output = path.with_file_name("output.arrow");
    let inputs = [Source::from(path)];
    let raw = merge::read(&inputs, MEMORY, &Lenient::new(lenient)).map_err(|e| e.to_string())?;
    let written = raw.write(&Sink::File(output.clone()), None);
    written.map_err(|e| e.to_string())?;
    let opened = |what: &str| {
        let reader = Reader::open(&Source::from(output.as_path()));
        reader.unwrap_or_else(|e| panic!("{what} a timeline that was written: {e}"))
    };
    if let Err(error) = RULES.with(|rules| analyze::run(opened("analyze"), rules)) {
        panic!("a timeline that was written is not analyzed: {error}");
    }
    let mut reader = opened("read");
    let (mut names, mut rows, mut count) = (Default::default(), Vec::new(), 0);
    while reader
        .next_batch(&mut names, &mut rows)
        .expect("a timeline that was written is read")
    {
        count += rows.len() as u64;
        rows.clear();
    }
    Ok(count + rows.len() as u64)
}
