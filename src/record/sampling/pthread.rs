//! The system's number of a thread, of its `pthread_t`, in another process: before 3.11 the interpreter keeps only that.
//!
//! With glibc and musl a `pthread_t` is the address of the thread's own structure, and that holds the number. Where in
//! it is each library's own affair, so it is found out: at one place the structures of all threads hold the numbers of
//! the process's threads, each another one. A value that only looks like a number is no rare thing: the upper halves of
//! pointers (0x7fXX, 0x55XX) are about as large, and in a container threads are called 1, 2 and 7.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes at the start of a thread's structure in which its number lies (glibc 720 or less, musl 48 or less).
const BYTES: usize = 1024;

/// Finds the numbers of one process's threads.
#[derive(Debug)]
pub struct Pthreads {
    pid: u32,
    memory: File,
    /// Where in a thread's structure its number is, once that is known.
    offset: Option<usize>,
}

impl Pthreads {
    /// # Errors
    /// The process is gone, or there is no right to read its memory.
    pub fn open(pid: u32) -> io::Result<Pthreads> {
        Ok(Pthreads {
            pid,
            memory: File::open(format!("/proc/{pid}/mem"))?,
            offset: None,
        })
    }

    /// The number of each of these threads, which are all that the interpreter knows; none of one that is ending.
    pub fn tids(&mut self, pthreads: &[u64]) -> Vec<Option<u64>> {
        let tasks = self.tasks();
        if let Some(offset) = self.offset {
            let tids = self.read(pthreads, offset, &tasks);
            let known: HashSet<&u64> = tids.iter().flatten().collect();
            if known.len() == pthreads.len() {
                return tids;
            }
        }
        let structures: Vec<[u8; BYTES]> = (pthreads.iter())
            .filter_map(|pthread| {
                let mut bytes = [0; BYTES];
                self.memory.read_exact_at(&mut bytes, *pthread).ok()?;
                Some(bytes)
            })
            .collect();
        self.offset = offset(&structures, &tasks).or(self.offset);
        match self.offset {
            Some(offset) => self.read(pthreads, offset, &tasks),
            None => vec![None; pthreads.len()],
        }
    }

    fn tasks(&self) -> HashSet<u32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid));
        let names = tasks.into_iter().flatten().flatten();
        names
            .filter_map(|task| task.file_name().to_str()?.parse().ok())
            .collect()
    }

    fn read(&self, pthreads: &[u64], offset: usize, tasks: &HashSet<u32>) -> Vec<Option<u64>> {
        let tid = |pthread: &u64| {
            let mut word = [0; 4];
            let at = pthread.checked_add(offset as u64)?;
            self.memory.read_exact_at(&mut word, at).ok()?;
            let tid = u32::from_ne_bytes(word);
            tasks.contains(&tid).then_some(u64::from(tid))
        };
        pthreads.iter().map(tid).collect()
    }
}

/// The place at which most structures hold a number of `tasks` that no other holds. Of places that are equal in that,
/// the one with the greatest numbers: what else may be equal to the number of a thread are small counts.
fn offset(structures: &[[u8; BYTES]], tasks: &HashSet<u32>) -> Option<usize> {
    let rank = |offset: usize| {
        let word = |bytes: &[u8; BYTES]| {
            let word = bytes[offset..].first_chunk().copied()?;
            Some(u32::from_ne_bytes(word)).filter(|word| tasks.contains(word))
        };
        let tids: HashSet<u32> = structures.iter().filter_map(word).collect();
        (tids.len(), tids.iter().map(|tid| u64::from(*tid)).sum())
    };
    // both libraries have it at a multiple of eight: the lower half of what may be a pointer elsewhere
    let ranked = (0..BYTES).step_by(8).map(|offset| (rank(offset), offset));
    let best: ((usize, u64), usize) = ranked.max_by_key(|(rank, _)| *rank)?;
    (best.0.0 > 0).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Structures as glibc's: words at places.
    fn structures(words: &[&[(usize, u32)]]) -> Vec<[u8; BYTES]> {
        let structure = |words: &&[(usize, u32)]| {
            let mut bytes = [0; BYTES];
            for (offset, word) in *words {
                bytes[*offset..offset + 4].copy_from_slice(&word.to_ne_bytes());
            }
            bytes
        };
        words.iter().map(structure).collect()
    }

    fn found(words: &[&[(usize, u32)]], tasks: &[u32]) -> Option<usize> {
        offset(&structures(words), &tasks.iter().copied().collect())
    }

    #[test]
    fn halves_of_pointers_and_small_counts_are_no_numbers_of_threads() {
        // the upper half of the first thread's pointer to itself is the second one's number
        let pointers: [&[(usize, u32)]; 2] = [
            &[(16, 0x1234_5700), (20, 0x7f12), (720, 0x7f11)],
            &[(16, 0x1214_5700), (20, 0x7f12), (720, 0x7f12)],
        ];
        assert_eq!(found(&pointers, &[0x7f11, 0x7f12]), Some(720));
        // in a container: multiple_threads is 1, and so is the main thread's number
        let container: [&[(usize, u32)]; 2] = [
            &[(24, 1), (720, 1), (784, 3)],
            &[(24, 1), (720, 9), (784, 3)],
        ];
        assert_eq!(found(&container, &[1, 3, 9]), Some(720));
        assert_eq!(found(&container[1..], &[1, 3, 9]), Some(720));
        assert_eq!(found(&container, &[5]), None);
        assert_eq!(found(&[], &[5]), None);
    }

    #[test]
    fn our_own_threads_are_found() {
        use std::os::unix::thread::JoinHandleExt;
        use std::sync::mpsc::channel;

        let (tell, told) = channel();
        let (mut ends, mut handles) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (end, ended) = channel::<()>();
            let tell = tell.clone();
            handles.push(std::thread::spawn(move || {
                let own = fs::read_link("/proc/thread-self").unwrap();
                let tid = own.file_name().unwrap().to_str().unwrap();
                tell.send(tid.parse::<u64>().unwrap()).unwrap();
                let _ = ended.recv();
            }));
            ends.push(end);
        }
        let mut known: Vec<u64> = told.iter().take(3).collect();
        let threads: Vec<u64> = handles.iter().map(|h| h.as_pthread_t()).collect();
        let mut pthreads = Pthreads::open(std::process::id()).unwrap();
        let first = pthreads.tids(&threads);
        assert_eq!(pthreads.tids(&threads), first);
        let mut found: Vec<u64> = first.into_iter().flatten().collect();
        known.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, known);
        assert_eq!(pthreads.tids(&[8]), [None], "nothing lies there");
        drop(ends);
        handles.into_iter().for_each(|h| h.join().unwrap());
    }
}
