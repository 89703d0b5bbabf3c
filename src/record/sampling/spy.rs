//! One look at the Python stacks of another process, by py-spy: it reads the process's memory and never stops it.

#[cfg(feature = "sampling")]
pub use with::Spy;
#[cfg(not(feature = "sampling"))]
pub use without::Spy;

/// The stack of one thread.
#[derive(Clone, Debug)]
pub struct Stack {
    pub tid: u64,
    pub name: Option<String>,
    /// It has a processor, or wants one.
    pub running: bool,
    /// Name, file and first line of each function, the outermost first.
    pub frames: Vec<(String, String, u32)>,
}

#[cfg(feature = "sampling")]
mod with {
    use std::collections::HashMap;
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;

    use py_spy::config::{Config, LineNo, LockingStrategy};
    use py_spy::{PythonSpy, StackTrace};

    use super::Stack;

    /// A Python process that is looked at.
    pub struct Spy {
        pid: u32,
        spy: PythonSpy,
        /// The system's number of a thread by Python's, where the interpreter does not keep it (before 3.11).
        tids: HashMap<u64, u64>,
    }

    /// Bytes at the start of a thread's own structure in which the C library keeps its number (glibc, musl: below 800).
    const THREAD_BYTES: usize = 1024;

    /// Threads that have ended are forgotten when there are more than twice as many as threads, and so many.
    const SPARE_TIDS: usize = 1024;

    impl Spy {
        /// Finds the interpreter in the process.
        ///
        /// # Errors
        /// No Python, one that is just starting, or no right to look; in words.
        pub fn open(pid: u32) -> Result<Spy, String> {
            let config = Config {
                blocking: LockingStrategy::NonBlocking,
                lineno: LineNo::First,
                full_filenames: true, // else it looks for __init__.py beside each
                ..Config::default()
            };
            let known = py_spy::Pid::try_from(pid).map_err(|error| error.to_string())?;
            let mut spy = PythonSpy::new(known, &config).map_err(|error| format!("{error:#}"))?;
            spy.get_stack_traces()
                .map_err(|error| format!("{error:#}"))?;
            Ok(Spy {
                pid,
                spy,
                tids: HashMap::new(),
            })
        }

        /// `3.12.1`.
        pub fn version(&self) -> String {
            let version = &self.spy.version;
            format!("{}.{}.{}", version.major, version.minor, version.patch)
        }

        /// The stacks of all threads now.
        ///
        /// # Errors
        /// The process changed while it was read, or is gone.
        pub fn stacks(&mut self) -> Result<Vec<Stack>, String> {
            let traces = self.spy.get_stack_traces();
            let traces = traces.map_err(|error| format!("{error:#}"))?;
            Ok(traces
                .into_iter()
                .filter_map(|trace| self.stack(trace))
                .collect())
        }

        fn stack(&mut self, trace: StackTrace) -> Option<Stack> {
            let (tid, running) = match trace.os_thread_id.filter(|tid| self.has(*tid)) {
                Some(tid) => (tid, trace.active),
                None => {
                    let tid = self.find(trace.thread_id)?;
                    (tid, trace.active && self.runs(tid))
                }
            };
            let frames = trace.frames.into_iter().rev();
            let line = |line: i32| u32::try_from(line).unwrap_or(0);
            Some(Stack {
                tid,
                name: trace.thread_name,
                running,
                frames: frames
                    .map(|frame| (frame.name, frame.filename, line(frame.line)))
                    .collect(),
            })
        }

        fn has(&self, tid: u64) -> bool {
            fs::exists(format!("/proc/{}/task/{tid}", self.pid)).unwrap_or(false)
        }

        fn runs(&self, tid: u64) -> bool {
            let stat = fs::read_to_string(format!("/proc/{}/task/{tid}/stat", self.pid));
            stat.is_ok_and(|stat| stat.contains(") R "))
        }

        /// The number of the thread whose `pthread_t` this is: the one of the process's that its structure holds.
        fn find(&mut self, pthread: u64) -> Option<u64> {
            if let Some(&tid) = self.tids.get(&pthread)
                && self.has(tid)
            {
                return Some(tid);
            }
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?;
            let tids: Vec<u32> = tasks
                .flatten()
                .filter_map(|task| task.file_name().to_str()?.parse().ok())
                .collect();
            let mut bytes = [0; THREAD_BYTES];
            let memory = File::open(format!("/proc/{}/mem", self.pid)).ok()?;
            memory.read_exact_at(&mut bytes, pthread).ok()?;
            let words = bytes.chunks_exact(4);
            let mut words =
                words.map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            let tid = u64::from(words.find(|word| tids.contains(word))?);
            if self.tids.len() > 2 * tids.len() + SPARE_TIDS {
                self.tids
                    .retain(|_, known| tids.iter().any(|tid| u64::from(*tid) == *known));
            }
            self.tids.insert(pthread, tid);
            Some(tid)
        }
    }
}

#[cfg(not(feature = "sampling"))]
mod without {
    use super::Stack;

    /// Nothing: this build cannot look.
    pub struct Spy(std::convert::Infallible);

    impl Spy {
        /// # Errors
        /// Always.
        pub fn open(_: u32) -> Result<Spy, String> {
            Err(
                "this isc-record was built without samples of stacks (--no-default-features)"
                    .into(),
            )
        }

        pub fn version(&self) -> String {
            match self.0 {}
        }

        pub fn stacks(&mut self) -> Result<Vec<Stack>, String> {
            match self.0 {}
        }
    }
}
