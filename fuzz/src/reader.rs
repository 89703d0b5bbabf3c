//! A hostile process beside a reader: files made, stored to, cut, removed, linked, in any order.

use crate::script::Script;
use inferscope_spool::record::{Record, SLOT};
use inferscope_spool::{Reader, layout};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

/// Most steps of one run.
const STEPS: usize = 64;
/// Most records one run decodes: a segment may be large, and its records are all alike.
const RECORDS: usize = 1 << 14;

/// One of ten files: two directories, four segments and a control file in each.
fn place(run: &Path, which: u8) -> PathBuf {
    let dir = run.join(if which & 1 == 0 { "ring" } else { "spill" });
    let dir = dir.join("1-2");
    match which >> 1 & 7 {
        n @ 0..=3 => dir.join(format!("{n}.seg")),
        _ => dir.join("process"),
    }
}

fn head(capacity: u64) -> Vec<u8> {
    let mut bytes = vec![0; layout::HEADER];
    for (at, word) in [layout::MAGIC, layout::VERSION, capacity, 1, 2]
        .iter()
        .enumerate()
    {
        bytes[8 * at..8 * at + 8].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Does what `data` says.
pub fn run(data: &[u8]) {
    let home = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let run = home.path();
    for dir in ["ring", "ring/1-2", "spill", "spill/1-2"] {
        fs::create_dir(run.join(dir)).unwrap();
    }
    let open = || Reader::open(&run.join("ring"), &run.join("spill")).unwrap();
    let mut reader = open();
    let mut script = Script(data);
    let mut records = 0;
    for _ in 0..STEPS {
        if script.0.is_empty() {
            break;
        }
        step(&mut script, run, &mut reader, &open, &mut records);
    }
    let _ = reader.is_neighbour(1, 2);
    reader.ended(1, 2);
    poll(&mut reader, &mut records);
    reader.release();
}

fn step(
    script: &mut Script,
    run: &Path,
    reader: &mut Reader,
    open: &dyn Fn() -> Reader,
    records: &mut usize,
) {
    let what = script.byte();
    let path = place(run, script.byte());
    match what % 10 {
        0 | 1 => {
            let bytes = script.number().min(1 << 16);
            let mut content = head(bytes);
            content.resize(layout::HEADER + bytes as usize, 0);
            let _ = fs::write(path, content);
        }
        2 | 3 => {
            const FIELDS: [u64; 14] = [0, 8, 16, 24, 32, 64, 72, 80, 88, 128, 136, 192, 200, 208];
            let field = FIELDS[usize::from(script.byte()) % FIELDS.len()];
            let value = script.number();
            if let Ok(file) = File::options().write(true).open(path) {
                let _ = file.write_all_at(&value.to_le_bytes(), field);
            }
        }
        4 => {
            // whole: an owner and this many bytes of these records
            let [take, chain, tid, index] = std::array::from_fn(|_| script.number());
            let state = u64::from(script.byte() & 3);
            let content = script.bytes(255).to_vec();
            if let Ok(file) = File::options().write(true).open(path) {
                let _ = file.write_all_at(&content, layout::HEADER as u64);
                let written = (content.len() / SLOT * SLOT) as u64;
                let words = [(128, written), (72, chain), (80, tid), (88, index)];
                for (at, word) in words.into_iter().chain([(64, take << 2 | state)]) {
                    let _ = file.write_all_at(&word.to_le_bytes(), at);
                }
            }
        }
        5 => poll(reader, records),
        6 => reader.release(),
        7 => {
            if let Ok(file) = File::options().write(true).open(path) {
                let _ = file.set_len(script.number().min(1 << 17));
            }
        }
        8 => match script.byte() % 4 {
            0 => {
                let _ = fs::remove_file(path);
            }
            1 => {
                let _ = symlink("/dev/zero", path);
            }
            2 => {
                let _ = fs::create_dir(path);
            }
            _ => reader.ended(1, 2),
        },
        _ => *reader = open(),
    }
}

fn poll(reader: &mut Reader, records: &mut usize) {
    let found = reader.poll(&mut |chain, mut bytes| {
        assert_eq!(bytes.len() % SLOT, 0);
        assert_eq!((chain.pid, chain.start_ticks), (1, 2));
        while *records < RECORDS
            && let Some((_, size)) = Record::decode(bytes)
        {
            assert!(size > 0 && size % SLOT == 0);
            *records += 1;
            bytes = &bytes[size..];
        }
    });
    assert!(found.is_ok());
}
