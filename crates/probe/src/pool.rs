//! Stand-in with the spool's signatures until the spool has them: one file of records per chain.
#![allow(dead_code)]
use std::fs::File;
use std::io::{self, Write};
use std::sync::Mutex;
pub struct Pool {
    dir: std::path::PathBuf,
    names: Mutex<File>,
}
pub struct Producer(Option<File>);
pub struct Settings {
    pub dir: std::path::PathBuf,
    pub spill: std::path::PathBuf,
    pub ring_bytes: u64,
    pub spill_limit_bytes: u64,
}
fn put(file: &mut File, words: &[u64]) -> bool {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    file.write_all(&bytes).is_ok()
}
impl Pool {
    pub fn create(s: &Settings, pid: u32, ticks: u64) -> io::Result<Pool> {
        let dir = s.dir.join(format!("{pid}-{ticks}"));
        std::fs::create_dir(&dir)?;
        Ok(Pool {
            names: Mutex::new(File::create(dir.join("0"))?),
            dir,
        })
    }
    pub fn tick(&self) {}
    pub fn producer(&self, tid: u64) -> Producer {
        Producer(File::create(self.dir.join(tid.to_string())).ok())
    }
    pub fn push_names(&self, words: &[u64]) -> bool {
        put(&mut self.names.lock().unwrap(), words)
    }
}
impl Producer {
    pub fn push(&mut self, words: &[u64]) -> bool {
        self.0.as_mut().is_some_and(|f| put(f, words))
    }
    pub fn push_pair(&mut self, a: &[u64], b: &[u64]) -> bool {
        self.push(a) && self.push(b)
    }
    pub fn close(self) {}
}
