//! What /proc says of processes and threads.

use std::fs;
use std::path::Path;

use super::states::Now;

/// /proc's clock tick is 1/100 s on Linux, whatever the kernel's own is (`man 5 proc`, USER_HZ).
pub const TICK_NS: i64 = 10_000_000;

/// Name of the thread that the probe runs beside the program's own; see crates/probe/src/hot.rs.
pub const OUR_THREAD: &str = "inferscope";

/// The fields of a /proc stat line that matter here.
#[derive(Debug)]
pub struct Stat {
    pub comm: String,
    pub state: char,
    pub ppid: u32,
    pub cpu_ns: i64,
    /// The part of `cpu_ns` that was spent in the kernel.
    pub system_ns: i64,
    /// Page faults that needed no disk, of all its threads.
    pub minor_faults: u64,
    pub start_ticks: u64,
    /// Address at which its environment ends: a fork keeps it, and an exec finds it another place (address space layout
    /// randomisation). 0 until the exec is through, and where the system hides it.
    pub environment_end: u64,
}

impl Stat {
    /// Time since its start, or since the recording's if that is later.
    pub fn age_ns(&self, now: Now, since: Option<Now>) -> i64 {
        let age_ns = (now.boottime_ns - self.start_ticks as i64 * TICK_NS).max(0);
        since.map_or(age_ns, |since| {
            age_ns.min(now.monotonic_ns - since.monotonic_ns)
        })
    }

    pub fn read(path: &str) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(path).ok()?)
    }

    /// The name stands in parentheses and may hold any character, parentheses too: split at the last one.
    pub fn parse(line: &str) -> Option<Stat> {
        let (left, right) = line.rsplit_once(')')?;
        let fields: Vec<&str> = right.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            comm: left.split_once('(')?.1.to_owned(),
            state: fields.first()?.chars().next()?,
            ppid: number(4)? as u32,
            cpu_ns: (number(14)? as i64)
                .saturating_add(number(15)? as i64)
                .saturating_mul(TICK_NS),
            system_ns: (number(15)? as i64).saturating_mul(TICK_NS),
            minor_faults: number(10)?,
            start_ticks: number(22)?,
            environment_end: number(51).unwrap_or(0),
        })
    }
}

/// Start time of a process as [`super::drain::ProcessKey`] has it; `None` when it is gone.
pub fn start_ticks(pid: u32) -> Option<u64> {
    Stat::read(&format!("/proc/{pid}/stat")).map(|stat| stat.start_ticks)
}

/// The processes that a process has started and that still run.
pub fn children(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for tid in numbers(Path::new(&format!("/proc/{pid}/task"))) {
        let list =
            fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
        all.extend(
            list.split_ascii_whitespace()
                .filter_map(|word| word.parse::<u32>().ok()),
        );
    }
    all
}

/// Names in a folder that are numbers, in order.
pub fn numbers(folder: &Path) -> Vec<u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<u64> = entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    all.sort_unstable();
    all
}

/// Why a process without a probe has none. Looks at flags and at whether our variable is there; keeps neither.
pub fn reason(pid: u32, stat: &Stat) -> String {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let exe = exe
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    if !exe.contains("python") && !exe.contains("pypy") {
        return "it is not a Python program, or one with Python inside that reads no PYTHONPATH (frozen)".to_owned();
    }
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let parent = Stat::read(&format!("/proc/{}/stat", stat.ppid));
    let forked = |parent: Stat| {
        parent.environment_end != 0 && parent.environment_end == stat.environment_end
    };
    if parent.is_some_and(forked)
        && fs::read(format!("/proc/{}/cmdline", stat.ppid)).is_ok_and(|of_parent| of_parent == line)
    {
        return "it is a copy of its parent (fork) that ran nothing the probe records".to_owned();
    }
    let flags = line
        .split(|byte| *byte == 0)
        .skip(1)
        .take_while(|arg| arg.starts_with(b"-") && arg.len() > 1);
    for flag in flags {
        // The program's own arguments begin after -c or -m: what follows is not ours to look at.
        if flag == b"-c" || flag == b"-m" || flag.starts_with(b"--") {
            break;
        }
        if flag.contains(&b'I') {
            return "Python runs isolated (-I)".to_owned();
        }
        if flag.contains(&b'E') {
            return "Python ignores its environment (-E)".to_owned();
        }
        if flag.contains(&b'S') {
            return "Python runs without its site module (-S)".to_owned();
        }
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    if !environment
        .split(|byte| *byte == 0)
        .any(|entry| entry.starts_with(b"INFERSCOPE_SPOOL="))
    {
        return "it was started with an environment of its own, without ours".to_owned();
    }
    format!("{exe} did not load the probe")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) b) (c) R 1 7 7 0 -1 4 1 0 0 0 3 4 0 0 20 0 1 0 99 1 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            (stat.comm.as_str(), stat.state, stat.ppid),
            ("a) b) (c", 'R', 1)
        );
        assert_eq!((stat.cpu_ns, stat.start_ticks), (7 * TICK_NS, 99));
        assert!(Stat::parse("7 (a").is_none());
    }
}
