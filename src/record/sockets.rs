//! Which sockets are connections that were taken, from /proc/PID/net: a server that reads from one waits for its client,
//! and a client that reads from its own waits for an answer.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;

use inferscope_spool::sys;

/// A table is read no further than this; 150 bytes are one socket.
const MOST_BYTES: u64 = 1 << 20;
/// Between two readings passes so many times the CPU time that the last one took, up to so long: tables of machines with many
/// connections are long.
const PAUSES: i64 = 50;
const MOST_PAUSE_NS: i64 = 200_000_000;
/// Sockets that are remembered; then all are forgotten.
const MOST: usize = 4096;

/// What is known of sockets, by their inodes.
#[derive(Debug, Default)]
pub struct Sockets {
    known: HashMap<u64, bool>,
    /// When they may be read again.
    next_ns: i64,
}

impl Sockets {
    /// Whether this socket of a process was made by accept(2); `None` where that cannot be told yet.
    pub fn is_taken(&mut self, pid: u32, inode: u64) -> Option<bool> {
        if let Some(&taken) = self.known.get(&inode) {
            return Some(taken);
        }
        if sys::monotonic_ns() < self.next_ns {
            return None;
        }
        let before_ns = sys::thread_cpu_ns();
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let read = |name: &str| {
            let mut bytes = Vec::new();
            let file = File::open(format!("/proc/{pid}/net/{name}"));
            // what is not there tells of no socket; names of local ones are any bytes
            let _ = file.and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        };
        for taken in [
            taken_tcp(&[&read("tcp"), &read("tcp6")]),
            taken_unix(&read("unix")),
        ] {
            self.known
                .extend(taken.into_iter().map(|inode| (inode, true)));
        }
        let pause_ns = PAUSES * (sys::thread_cpu_ns() - before_ns);
        self.next_ns = sys::monotonic_ns() + pause_ns.min(MOST_PAUSE_NS);
        Some(*self.known.entry(inode).or_insert(false))
    }
}

/// Inodes of TCP connections whose own port is one that somebody listens on: only accept(2) makes those.
fn taken_tcp(tables: &[&str]) -> Vec<u64> {
    /// `TCP_LISTEN` of include/net/tcp_states.h.
    const LISTENS: &str = "0A";
    let rows = || {
        (tables.iter().flat_map(|table| table.lines().skip(1))).filter_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let port = words.get(1)?.rsplit_once(':')?.1;
            let inode: u64 = words.get(9)?.parse().ok()?;
            Some((port, *words.get(3)?, inode))
        })
    };
    let listens: BTreeSet<&str> = (rows().filter(|(_, state, _)| *state == LISTENS))
        .map(|(port, ..)| port)
        .collect();
    (rows().filter(|(port, state, _)| *state != LISTENS && listens.contains(port)))
        .map(|(.., inode)| inode)
        .collect()
}

/// Inodes of local connections that bear the name of a socket which listens: those that connect have none.
fn taken_unix(table: &str) -> Vec<u64> {
    /// `__SO_ACCEPTCON` of include/uapi/linux/net.h.
    const LISTENS: u64 = 1 << 16;
    let rows = || {
        table.lines().skip(1).filter_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let flags = u64::from_str_radix(words.get(3)?, 16).ok()?;
            let inode: u64 = words.get(6)?.parse().ok()?;
            Some((*words.get(7)?, flags & LISTENS != 0, inode))
        })
    };
    let names: BTreeSet<&str> = (rows().filter(|(_, listens, _)| *listens))
        .map(|(name, ..)| name)
        .collect();
    (rows().filter(|(name, listens, _)| !listens && names.contains(name)))
        .map(|(.., inode)| inode)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn inode(of: &impl AsRawFd) -> u64 {
        let target = std::fs::read_link(format!("/proc/self/fd/{}", of.as_raw_fd())).unwrap();
        let target = target.to_string_lossy().into_owned();
        target["socket:[".len()..target.len() - 1].parse().unwrap()
    }

    #[test]
    fn the_side_that_accepted_is_told_from_the_one_that_connected() {
        let me = std::process::id();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        let taken = |of: u64| Sockets::default().is_taken(me, of);
        assert_eq!(taken(inode(&server)), Some(true));
        assert_eq!(taken(inode(&client)), Some(false));
        assert_eq!(taken(inode(&listener)), Some(false));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let server = listener.accept().unwrap().0;
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(taken(inode(&server)), Some(true));
        for other in [inode(&client), inode(&listener), inode(&one)] {
            assert_eq!(taken(other), Some(false));
        }

        // Tables are not read for each new socket, but soon.
        let mut sockets = Sockets {
            next_ns: i64::MAX,
            ..Sockets::default()
        };
        assert_eq!(sockets.is_taken(me, inode(&server)), None);
        sockets.next_ns = 0;
        assert_eq!(sockets.is_taken(me, inode(&server)), Some(true));
    }

    #[test]
    fn lines_that_are_no_sockets_are_passed_over() {
        assert!(taken_tcp(&["head\n\n 0: x", ""]).is_empty());
        assert!(taken_unix("head\n0: 2 0 zz 1 3 7 /a\n").is_empty());
    }
}
