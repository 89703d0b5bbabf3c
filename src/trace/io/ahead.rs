//! Batches decoded, and written, on threads of their own: to take columns apart or to make them is about half of the work of a
//! command that passes rows on, and the other half need not wait for it.

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use arrow::array::RecordBatch;

use super::Form;
use super::writer::To;
use crate::error::{Error, Result};

/// Batches that wait between two threads: one is ready when the one before it is done with, and more would only take memory.
const WAITING: usize = 1;

/// A batch and its place in the file.
pub type Placed = (RecordBatch, String);

/// A trace that is read ahead, from when its first batch is asked for.
#[derive(Debug)]
pub enum Ahead {
    New(Form),
    Reading {
        batches: Receiver<Result<Placed>>,
        thread: JoinHandle<Form>,
    },
    Done(Form),
    Broken,
}

impl Ahead {
    /// The file, unless it is being read.
    pub fn form(&mut self) -> Option<&mut Form> {
        match self {
            Ahead::New(form) | Ahead::Done(form) => Some(form),
            Ahead::Reading { .. } | Ahead::Broken => None,
        }
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// A trace that is cut off or damaged; no more threads.
    pub fn next_batch(&mut self, path: &Path) -> Result<Option<Placed>> {
        match std::mem::replace(self, Ahead::Broken) {
            Ahead::New(form) => *self = Ahead::begin(form, path)?,
            other => *self = other,
        }
        let Ahead::Reading { batches, .. } = self else {
            return Ok(None);
        };
        if let Ok(next) = batches.recv() {
            return next.map(Some);
        }
        if let Ahead::Reading { thread, .. } = std::mem::replace(self, Ahead::Broken) {
            let form = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            *self = Ahead::Done(form);
        }
        Ok(None)
    }

    fn begin(mut form: Form, path: &Path) -> Result<Ahead> {
        let (to, batches) = sync_channel(WAITING);
        let name = path.to_owned();
        let thread = Builder::new().name("isc-read".into()).spawn(move || {
            while let Some(next) = form.next_batch(&name).transpose() {
                let broken = next.is_err();
                if to.send(next).is_err() || broken {
                    break; // nobody wants more, or there is no more
                }
            }
            form
        });
        let thread = thread.map_err(Error::io("start a thread to read", path))?;
        Ok(Ahead::Reading { batches, thread })
    }
}

/// A trace that is written at once, or while further batches are made.
#[derive(Debug)]
pub enum Behind {
    Here(To),
    Writing {
        batches: SyncSender<RecordBatch>,
        thread: JoinHandle<Result<To>>,
    },
    Broken,
}

impl Behind {
    /// Has a thread write from now on.
    ///
    /// # Errors
    /// No more threads.
    pub fn begin(self, path: &Path) -> Result<Behind> {
        let mut to = match self {
            Behind::Here(to) => to,
            other => return Ok(other),
        };
        let (batches, from) = sync_channel::<RecordBatch>(WAITING);
        let thread = Builder::new().name("isc-write".into()).spawn(move || {
            for batch in from {
                to.write(&batch)?;
            }
            Ok(to)
        });
        let thread = thread.map_err(Error::io("start a thread to write", path))?;
        Ok(Behind::Writing { batches, thread })
    }

    /// # Errors
    /// What the system refuses: of a thread, of this batch or the ones before it.
    pub fn write(&mut self, batch: RecordBatch) -> Result<()> {
        match self {
            Behind::Here(to) => to.write(&batch),
            Behind::Writing { batches, .. } => match batches.send(batch) {
                Ok(()) => Ok(()),
                Err(_) => self.end(),
            },
            Behind::Broken => Ok(()),
        }
    }

    /// Hands over to the system what there is; a thread has written it then, and is no more.
    ///
    /// # Errors
    /// As [`Behind::write`].
    pub fn flush(&mut self) -> Result<()> {
        self.end()?;
        match self {
            Behind::Here(to) => to.flush(),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// As [`Behind::write`].
    pub fn finish(mut self) -> Result<()> {
        self.end()?;
        match self {
            Behind::Here(to) => to.finish(),
            _ => Ok(()),
        }
    }

    /// Waits for the thread.
    fn end(&mut self) -> Result<()> {
        *self = match std::mem::replace(self, Behind::Broken) {
            Behind::Writing { batches, thread } => {
                drop(batches);
                let to = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
                Behind::Here(to?)
            }
            other => other,
        };
        Ok(())
    }
}
