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
    use std::fs;

    use py_spy::config::{Config, LineNo, LockingStrategy};
    use py_spy::{PythonSpy, StackTrace};

    use super::super::pthread::Pthreads;
    use super::Stack;

    /// A Python process that is looked at.
    pub struct Spy {
        pid: u32,
        spy: PythonSpy,
        /// Where the interpreter does not keep the system's numbers of threads (before 3.11), from the first such on.
        pthreads: Option<Pthreads>,
    }

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
                pthreads: None,
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
            let told = traces.iter().filter_map(|trace| trace.os_thread_id);
            let known = told.filter(|tid| self.has(*tid)).count() == traces.len();
            let tids = match known {
                true => traces.iter().map(|trace| trace.os_thread_id).collect(),
                false => self.find(&traces)?,
            };
            let stacks = traces.into_iter().zip(tids);
            Ok(stacks
                .filter_map(|(trace, tid)| self.stack(trace, tid?, known))
                .collect())
        }

        /// `known`: py-spy knew the number of the thread, so it looked whether that runs.
        fn stack(&self, trace: StackTrace, tid: u64, known: bool) -> Option<Stack> {
            let running = trace.active && (known || self.runs(tid));
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

        fn find(&mut self, traces: &[StackTrace]) -> Result<Vec<Option<u64>>, String> {
            let pthreads = match &mut self.pthreads {
                Some(pthreads) => pthreads,
                none => none.insert(Pthreads::open(self.pid).map_err(|error| error.to_string())?),
            };
            let threads: Vec<u64> = traces.iter().map(|trace| trace.thread_id).collect();
            Ok(pthreads.tids(&threads))
        }

        fn has(&self, tid: u64) -> bool {
            fs::exists(format!("/proc/{}/task/{tid}", self.pid)).unwrap_or(false)
        }

        fn runs(&self, tid: u64) -> bool {
            let stat = fs::read_to_string(format!("/proc/{}/task/{tid}/stat", self.pid));
            stat.is_ok_and(|stat| stat.contains(") R "))
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
