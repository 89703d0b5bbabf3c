//! What a thread waits for, by the system call it is in: /proc/PID/task/TID/syscall.

use libc::c_long;

use super::drain::Gil;

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It runs, or could.
    Running,
    Waiting(Waiting),
}

/// Kinds of waits; names of `wait` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Gil,
    Lock,
    Io,
    Sleep,
    /// For something else, or nobody knows what for.
    Blocked,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Gil => "gil",
            State::Lock => "lock",
            State::Io => "io",
            State::Sleep => "sleep",
            State::Blocked => "blocked",
        }
    }
}

/// One wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub state: State,
    /// The system call's name; empty if that is not known.
    pub call: &'static str,
    pub fd: Option<u32>,
    /// Of what is locked.
    pub address: Option<u64>,
}

impl Waiting {
    /// A wait of which nothing is known.
    pub const UNKNOWN: Waiting = Waiting {
        state: State::Blocked,
        call: "",
        fd: None,
        address: None,
    };
}

/// What the arguments of a call say.
#[derive(Clone, Copy, Debug)]
enum Class {
    /// The first one is the address of a lock, perhaps the GIL's.
    Futex,
    Sleep,
    /// The first one is the descriptor that it waits for.
    Fd,
    /// It waits for several; with none of them, as the argument with this number says, it sleeps.
    Several(usize),
    Io,
    Lock,
}

/// The calls in which threads wait for long; any other one is [`State::Blocked`]. Names of syscalls(2).
#[rustfmt::skip]
const CALLS: &[(c_long, &str, Class)] = &[
    (libc::SYS_futex, "futex", Class::Futex),
    (libc::SYS_nanosleep, "nanosleep", Class::Sleep),
    (libc::SYS_clock_nanosleep, "clock_nanosleep", Class::Sleep),
    (libc::SYS_read, "read", Class::Fd),
    (libc::SYS_pread64, "pread", Class::Fd),
    (libc::SYS_readv, "readv", Class::Fd),
    (libc::SYS_preadv, "preadv", Class::Fd),
    (libc::SYS_write, "write", Class::Fd),
    (libc::SYS_pwrite64, "pwrite", Class::Fd),
    (libc::SYS_writev, "writev", Class::Fd),
    (libc::SYS_recvfrom, "recv", Class::Fd),
    (libc::SYS_recvmsg, "recvmsg", Class::Fd),
    (libc::SYS_sendto, "send", Class::Fd),
    (libc::SYS_sendmsg, "sendmsg", Class::Fd),
    (libc::SYS_accept, "accept", Class::Fd),
    (libc::SYS_accept4, "accept", Class::Fd),
    (libc::SYS_connect, "connect", Class::Fd),
    (libc::SYS_fsync, "fsync", Class::Fd),
    (libc::SYS_fdatasync, "fdatasync", Class::Fd),
    (libc::SYS_ioctl, "ioctl", Class::Fd),
    (libc::SYS_sendfile, "sendfile", Class::Fd),
    (libc::SYS_epoll_pwait, "epoll_wait", Class::Io),
    (libc::SYS_epoll_pwait2, "epoll_wait", Class::Io),
    (libc::SYS_ppoll, "poll", Class::Several(1)),
    (libc::SYS_pselect6, "select", Class::Several(0)),
    (libc::SYS_openat, "open", Class::Io),
    (libc::SYS_io_getevents, "io_getevents", Class::Io),
    (libc::SYS_io_uring_enter, "io_uring_enter", Class::Io),
    (libc::SYS_msgrcv, "msgrcv", Class::Io),
    (libc::SYS_flock, "flock", Class::Lock),
    (libc::SYS_semop, "semop", Class::Lock),
    (libc::SYS_semtimedop, "semtimedop", Class::Lock),
    (libc::SYS_wait4, "wait4", Class::Io),
    (libc::SYS_waitid, "waitid", Class::Io),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "epoll_wait", Class::Io),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "poll", Class::Several(1)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_select, "select", Class::Several(0)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", Class::Io),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_pause, "pause", Class::Sleep),
];

/// Reads a line of that file: `running`, or the call's number (-1: none, it waits for a page of memory), six
/// arguments, stack and instruction pointer.
pub fn parse(line: &str, gil: Option<Gil>) -> Seen {
    let mut words = line.split_ascii_whitespace();
    let Some(number) = words.next().and_then(|word| word.parse::<c_long>().ok()) else {
        return Seen::Running;
    };
    let mut arguments = [0u64; 6];
    for (argument, word) in arguments.iter_mut().zip(words) {
        let digits = word.trim_start_matches("0x");
        *argument = u64::from_str_radix(digits, 16).unwrap_or(0);
    }
    Seen::Waiting(waiting(number, &arguments, gil))
}

fn waiting(number: c_long, arguments: &[u64; 6], gil: Option<Gil>) -> Waiting {
    let nothing = Waiting::UNKNOWN;
    if number == -1 {
        return Waiting {
            state: State::Io,
            call: "page fault",
            ..nothing
        };
    }
    let Some(&(_, call, class)) = CALLS.iter().find(|(known, ..)| *known == number) else {
        return nothing;
    };
    let of = |state| Waiting {
        state,
        call,
        ..nothing
    };
    match class {
        Class::Futex => {
            let address = arguments[0];
            let is_gil = gil.is_some_and(|gil| (gil.start..gil.end).contains(&address));
            Waiting {
                address: (!is_gil).then_some(address),
                ..of(if is_gil { State::Gil } else { State::Lock })
            }
        }
        Class::Fd => Waiting {
            fd: u32::try_from(arguments[0]).ok(),
            ..of(State::Io)
        },
        Class::Several(count) if arguments[count] == 0 => of(State::Sleep),
        Class::Several(_) | Class::Io => of(State::Io),
        Class::Sleep => of(State::Sleep),
        Class::Lock => of(State::Lock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIL: Option<Gil> = Some(Gil {
        start: 0x1000,
        end: 0x2000,
        holder: 0,
    });

    fn state(number: c_long, arguments: &str) -> (State, &'static str) {
        match parse(&format!("{number} {arguments} 0x7ff0 0x7ff1\n"), GIL) {
            Seen::Waiting(waiting) => (waiting.state, waiting.call),
            Seen::Running => panic!("it waits"),
        }
    }

    #[test]
    fn a_call_and_its_arguments_say_what_a_thread_waits_for() {
        assert_eq!(parse("running\n", GIL), Seen::Running);
        let futex = |at: &str| state(libc::SYS_futex, &format!("{at} 0x189 0x0 0x0 0x0 0x0"));
        assert_eq!(futex("0x1fff"), (State::Gil, "futex"));
        assert_eq!(futex("0x2000"), (State::Lock, "futex"));
        let none = "0x0 0x0 0x0 0x0 0x0 0x0";
        assert_eq!(state(libc::SYS_pselect6, none), (State::Sleep, "select"));
        let one = "0x1 0x7ff0 0x0 0x0 0x0 0x0";
        assert_eq!(state(libc::SYS_pselect6, one), (State::Io, "select"));
        assert_eq!(state(libc::SYS_ppoll, one), (State::Io, "poll"));
        assert_eq!(
            state(libc::SYS_clock_nanosleep, none),
            (State::Sleep, "clock_nanosleep")
        );
        assert_eq!(state(libc::SYS_munmap, none), (State::Blocked, ""));
        assert_eq!(
            parse("-1 0x7ff0 0x7ff1", GIL),
            Seen::Waiting(Waiting {
                state: State::Io,
                call: "page fault",
                fd: None,
                address: None
            })
        );
    }

    #[test]
    fn a_read_says_of_what() {
        let line = format!("{} 0x5 0x0 0x0 0x0 0x0 0x0 0x1 0x2", libc::SYS_read);
        let Seen::Waiting(waiting) = parse(&line, None) else {
            panic!("it waits")
        };
        assert_eq!((waiting.state, waiting.fd), (State::Io, Some(5)));
    }
}
