//! Calls of threads, and samples of them, of Nsight Systems.

use serde_json::Value;

use super::super::args::Args;
use super::super::sqlite::{Cells, Database, Mapped, To};
use super::{Nsys, positive};
use crate::trace::Kind;

pub const API: [&str; 7] = [
    "start",
    "end",
    "globalTid",
    "correlationId",
    "nameId",
    "returnValue",
    "nestingLevel",
];

/// A call of the CUDA runtime or driver.
pub fn api(s: &mut Nsys, db: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let mut name = s.name(db, c, &["nameId"], "api", to)?;
    // cudaLaunchKernel_v7000: since when CUDA has it in this form. cuMemAlloc_v2 is a name of its own.
    if let Some((plain, version)) = to.names.text(name).rsplit_once("_v")
        && version.len() >= 4
        && version.bytes().all(|byte| byte.is_ascii_digit())
    {
        let plain = plain.to_owned();
        name = to.names.sym(&plain);
    }
    let mut event = s.call(Kind::Api, name, c)?;
    event.correlation = positive(c.int("correlationId")?);
    if let Some(value) = c.int("returnValue")?.filter(|&value| value != 0) {
        let mut args = Args::default();
        args.member("return", &value.to_string());
        event.args = args.sym(to.names);
    }
    to.rows.push(event);
    Ok(())
}

/// What a thread waits for in a function of the C library that does nothing else.
fn waits_for(call: &str) -> Option<&'static str> {
    let call = call.trim_start_matches('_');
    Some(match call {
        "nanosleep" | "clock_nanosleep" | "usleep" | "sleep" | "pause" => "sleep",
        "poll" | "ppoll" | "select" | "pselect" | "epoll_wait" | "epoll_pwait" | "accept"
        | "accept4" | "waitpid" | "wait4" => "io",
        _ if call.starts_with("pthread_cond_") && call.contains("wait") => "lock",
        _ if call.starts_with("pthread_mutex_") || call.starts_with("pthread_rwlock_") => "lock",
        _ if call.starts_with("sem_") && call.contains("wait") => "lock",
        "pthread_join" | "pthread_timedjoin_np" | "pthread_barrier_wait" | "futex" => "lock",
        _ => return None,
    })
}

/// A call of the C library. Those that can only wait are `wait` rows; of others (read, ioctl, mmap) nobody knows how much of
/// their time was waiting, so they are calls.
pub fn system_call(s: &mut Nsys, db: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let name = s.name(db, c, &["nameId"], "system call", to)?;
    let inner = c.int("nestingLevel")?.is_some_and(|level| level > 0); // it waits in the outer one already
    let waits = waits_for(to.names.text(name)).filter(|_| !inner);
    let mut event = s.call(Kind::Api, name, c)?;
    if let Some(what) = waits {
        let mut args = Args::default();
        args.member("call", &Value::from(to.names.text(name)).to_string());
        event.kind = Kind::Wait;
        event.name = to.names.sym(what);
        event.value = event.dur_ns.map(|dur| dur as f64);
        event.args = args.sym(to.names);
    }
    to.rows.push(event);
    Ok(())
}

pub fn overhead(s: &mut Nsys, db: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let name = s.name(db, c, &["nameId"], "overhead", to)?;
    let event = s.call(Kind::Overhead, name, c)?;
    to.rows.push(event);
    Ok(())
}

pub const SAMPLE: [&str; 4] = ["start", "globalTid", "symbol", "module"];

/// The instruction pointer of a running thread: which library's code, and which function.
pub fn sample(s: &mut Nsys, db: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let start = c.time("start")?;
    let owner = s.owner(c, "globalTid")?;
    let symbol = s.name(db, c, &["symbol"], "", to)?;
    let name = s.name(db, c, &["module"], "(unknown)", to)?;
    let mut event = s.lives.row(Kind::Sample, name, (start, 0), owner)?;
    event.dur_ns = None;
    event.file = Some(name);
    let mut args = Args::default();
    let symbol = to.names.text(symbol);
    if !symbol.is_empty() {
        args.member("symbol", &Value::from(symbol).to_string());
    }
    event.args = args.sym(to.names);
    to.rows.push(event);
    Ok(())
}
