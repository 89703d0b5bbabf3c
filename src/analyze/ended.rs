//! What a reader of the analysis has to know of how the programs ended.

use super::measure::{Measures, Process};

/// A sentence for each process that did not end by itself, and one if the recorder did not.
pub fn caveats(m: &Measures) -> Vec<String> {
    let mut caveats = Vec::new();
    if m.processes.values().any(|p| p.recovered) {
        caveats.push(
            "the recorder died, and this trace was recovered from what it left: waits, CPU time and memory are known up \
             to then"
                .into(),
        );
    }
    caveats.extend(m.processes.values().filter_map(cut_short));
    caveats
}

/// What became of a process that did not end by itself.
fn cut_short(p: &Process) -> Option<String> {
    let what = match p.ended.as_deref()? {
        "killed" => format!("was killed by {}", signal_name(p.signal?)),
        "crashed" => format!("crashed with {}", signal_name(p.signal?)),
        "running" => "was still running: what it did later is not here".into(),
        _ => return None,
    };
    let open = match p.signal {
        Some(_) => "; calls that were open last to their thread's last record",
        None => "",
    };
    Some(format!("{} (pid {}) {what}{open}", p.name, p.pid))
}

/// Names of signal(7), with the numbers of x86-64 and arm64.
fn signal_name(signal: i64) -> String {
    const NAMES: [&str; 16] = [
        "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV",
        "USR2", "PIPE", "ALRM", "TERM",
    ];
    let name = usize::try_from(signal).ok().and_then(|at| NAMES.get(at));
    match name.filter(|name| !name.is_empty()) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caveat_says_who_was_killed_and_a_program_that_ended_has_none() {
        let process = |ended: &str, signal| Process {
            name: "app.py".into(),
            pid: 7,
            ended: Some(ended.into()),
            signal,
            ..Process::default()
        };
        let of = |p: &Process| cut_short(p).unwrap_or_default();
        assert!(
            of(&process("killed", Some(9))).starts_with("app.py (pid 7) was killed by SIGKILL;")
        );
        assert!(of(&process("crashed", Some(11))).contains("crashed with SIGSEGV"));
        assert!(of(&process("crashed", Some(31))).contains("signal 31"));
        assert!(of(&process("running", None)).contains("still running"));
        assert_eq!(cut_short(&process("exit", None)), None);
        assert_eq!(cut_short(&Process::default()), None);
    }
}
