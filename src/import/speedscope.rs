//! speedscope's JSON: what py-spy, rbspy, speedscope itself and many others write.
//!
//! `{"$schema", "shared": {"frames": [{"name", "file", "line"}]}, "profiles": [{"type", "name", "unit", "startValue",
//! "endValue", …}]}` in any order. A `sampled` profile has `samples`, lists of frames from the outermost on, and `weights`, for
//! how long each of them is; an `evented` one has `events` that open and close frames. Each profile is a thread.
//!
//! Names of frames may stand behind all profiles, and a profile's weights behind its samples, so the file is unpacked into a
//! temporary one and read twice: for frames and heads of profiles, and for what is in them. Of samples and weights those
//! of one profile are in memory, 12 bytes each, and every stack once.
//!
//! # Source
//! jlfwong/speedscope, src/lib/file-format-spec.ts and file-format.ts; py-spy 0.4, src/speedscope.rs.

mod heads; // the first reading: frames and heads of profiles
mod profile; // what is in one profile

use super::Lenient;
use super::blocks::Blocks;
use super::json::{Cursor, Window};
use super::stacks::{Functions, Lives, Span, rate, sampled_args};
use super::tracks::Owner;
use crate::error::{Error, Result};
use crate::trace::{Event, Names};
use heads::Heads;
use profile::{Profile, event, number, stack};
use serde_json::{Map, json};
use std::fs::File;
use std::path::Path;
use tempfile::NamedTempFile;

/// Rows handed over at once.
const BATCH: usize = 1 << 14;

/// No times beyond this, in ns: 146 years.
const LATEST_NS: i64 = 1 << 62;

/// Where in the file the second reading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    /// Among the keys of the outer object.
    Outer(bool),
    /// Among the profiles.
    Profiles(bool),
    /// Among the keys of one of them.
    Profile(bool),
    /// Among its samples, weights, events.
    Samples(bool),
    Weights(bool),
    Events(bool),
    /// Its samples are laid out, this one next.
    Laid(usize),
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct Speedscope {
    window: Window,
    hash: String,
    at: At,
    /// It cannot be read on.
    cut: bool,
    heads: Heads,
    /// Profiles that were begun.
    begun: usize,
    profile: Profile,
    functions: Functions,
    lives: Lives,
    /// Samples, and the time that they stand for.
    sampled: (u64, i64),
    lenient: Lenient,
    /// Keeps the file until all is read.
    _file: NamedTempFile,
}

/// Whether the first keys of the object that begins here are those of speedscope.
pub(super) fn is(head: &[u8]) -> bool {
    let mut cursor = Cursor::whole(head);
    if cursor.skip_byte(b'{') != Ok(true) {
        return false;
    }
    let mut first = true;
    while let Ok(Some(key)) = cursor.key(first) {
        first = false;
        let rest = cursor.slice(cursor.at(), head.len()).trim_ascii_start();
        match key.raw {
            b"shared" => return rest.starts_with(b"{"),
            b"profiles" => return rest.starts_with(b"["),
            b"$schema" if rest.starts_with(b"\"https://www.speedscope.app/") => return true,
            b"traceEvents" => return false,
            _ => {}
        }
        if cursor.value().is_err() {
            return false;
        }
    }
    false
}

/// A window on all of a file.
fn window(file: &NamedTempFile, path: &Path) -> Result<Window> {
    let again: File = file.reopen().map_err(Error::io("open", file.path()))?;
    let blocks = Blocks::start(vec![], again).map_err(Error::io("read", path))?;
    Ok(Window::new(blocks, path))
}

/// Reads what must be known of all of the file. `file`: it, unpacked.
///
/// # Errors
/// A file that is cut off or broken, with its byte; one without profiles.
pub(super) fn reader(
    file: NamedTempFile,
    hash: String,
    path: &Path,
    lenient: &Lenient,
) -> Result<Speedscope> {
    let mut lenient = lenient.clone();
    let mut functions = Functions::default();
    let heads = Heads::read(&mut window(&file, path)?, &mut functions, &mut lenient)?;
    Ok(Speedscope {
        window: window(&file, path)?,
        hash,
        at: At::Start,
        cut: false,
        heads,
        begun: 0,
        profile: Profile::default(),
        functions,
        lives: Lives::default(),
        sampled: (0, 0),
        lenient,
        _file: file,
    })
}

impl Speedscope {
    /// Reads one thing.
    fn step(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<()> {
        self.at = match self.at {
            At::Start => {
                self.window.read(|c| c.skip_byte(b'{'))?;
                At::Outer(true)
            }
            At::Outer(first) => self.window.read(|c| {
                let Some(key) = c.key(first)? else {
                    return Ok(At::Done);
                };
                if key.raw == b"profiles" {
                    c.expect(b'[', "a list of profiles should begin here")?;
                    return Ok(At::Profiles(true));
                }
                c.value()?;
                Ok(At::Outer(false))
            })?,
            At::Profiles(first) => match self.window.read(|c| c.element(first, false))? {
                Some(true) => {
                    self.window
                        .read(|c| c.expect(b'{', "a profile should begin here"))?;
                    match self.begin() {
                        true => At::Profile(true),
                        // Of one that is cut off before its unit nothing can be read.
                        false => At::Done,
                    }
                }
                _ => At::Outer(false),
            },
            At::Profile(first) => self.window.read(|c| {
                let Some(key) = c.key(first)? else {
                    return Ok(At::Laid(0));
                };
                let list = c.peek()? == b'[';
                let at = match key.raw {
                    b"samples" if list => At::Samples(true),
                    b"weights" if list => At::Weights(true),
                    b"events" if list => At::Events(true),
                    _ => {
                        c.value()?;
                        return Ok(At::Profile(false));
                    }
                };
                c.skip_byte(b'[')?;
                Ok(at)
            })?,
            At::Samples(first) => match self.element(first)? {
                true => self.sample().map(|()| At::Samples(false))?,
                false => At::Profile(false),
            },
            At::Weights(first) => match self.element(first)? {
                true => self.weight().map(|()| At::Weights(false))?,
                false => At::Profile(false),
            },
            At::Events(first) => match self.element(first)? {
                true => self.event(names, rows).map(|()| At::Events(false))?,
                false => At::Profile(false),
            },
            At::Laid(at) => self.lay(at, names, rows)?,
            At::Done => At::Done,
        };
        Ok(())
    }

    fn element(&mut self, first: bool) -> Result<bool> {
        let next = self.window.read(|c| c.element(first, false))?;
        Ok(next == Some(true))
    }

    /// A profile begins, and with it a thread; `false`: the first reading did not come to it.
    fn begin(&mut self) -> bool {
        let Some(head) = self.heads.profiles.get(self.begun) else {
            self.lenient.skip();
            return false;
        };
        self.begun += 1;
        let process = self.lives.number(head.pid);
        let life = &mut self.lives.all[process as usize];
        if !head.name.is_empty() {
            life.threads.insert(head.tid, head.name.clone());
        }
        self.profile = Profile::at(head.start_ns);
        true
    }

    fn head(&self) -> &heads::Head {
        &self.heads.profiles[self.begun - 1]
    }

    fn owner(&mut self) -> Owner {
        let (pid, tid) = (self.head().pid, self.head().tid);
        let process = self.lives.number(pid);
        Owner { process, pid, tid }
    }

    /// What is wrong with the thing at this byte, unless it may be left out.
    fn wrong(&mut self, place: u64, what: &str) -> Result<()> {
        match self.lenient.skip() {
            true => Ok(()),
            false => Err(self.window.wrong_at(place, what)),
        }
    }

    /// A sample. One that cannot be read keeps its place, and its weight is nobody's.
    fn sample(&mut self) -> Result<()> {
        let place = self.window.position();
        let known = &self.heads.sampled;
        let frames = self.window.read(|c| Ok(stack(c.value()?, known)))?;
        match self.profile.sample(frames) {
            true => Ok(()),
            false => self.wrong(place, "a sample that is no list of frames that there are"),
        }
    }

    fn weight(&mut self) -> Result<()> {
        let place = self.window.position();
        let unit = self.head().unit;
        let weight = self.window.read(|c| number(c, unit))?;
        let weight = weight.filter(|&ns| ns >= 0);
        self.profile.weights.push(weight.unwrap_or(0));
        match weight {
            Some(_) => Ok(()),
            None => self.wrong(place, "a weight that is no number from 0 on"),
        }
    }

    /// Lays the samples from this one on end to end, as many as are handed over at once.
    fn lay(&mut self, from: usize, names: &mut Names, rows: &mut Vec<Event>) -> Result<At> {
        let owner = self.owner();
        let (samples, weights) = self.profile.lengths();
        if from == 0 && samples != weights {
            let what = format!("a profile with {samples} samples and {weights} weights");
            self.wrong(self.window.position(), &what)?;
        }
        let (start_ns, no_time) = (self.head().start_ns, self.head().unit.is_no_time());
        let mut spans = Vec::new();
        let laid = self.profile.lay(from, BATCH, &mut spans);
        for span in spans {
            let args = match no_time {
                true => r#"{"sampled":true}"#.into(),
                false => sampled_args(span.error_ns),
            };
            rows.push(span.row(&self.functions, owner, &args, names));
        }
        self.sampled.0 += laid.samples;
        self.sampled.1 = self.sampled.1.saturating_add(laid.time_ns);
        if laid.samples > 0 {
            self.lives.all[owner.process as usize].saw(start_ns, self.profile.last_ns);
        }
        if laid.too_large {
            self.wrong(
                self.window.position(),
                "weights that are too large together",
            )?;
        }
        if let Some(at) = laid.next {
            return Ok(At::Laid(at));
        }
        let end_ns = self.head().end_ns;
        let mut open = Vec::new();
        let ended = self.profile.end(end_ns, &mut open);
        self.rows(owner, ended, "", names, rows);
        self.rows(owner, open, r#"{"open":true}"#, names, rows);
        self.profile = Profile::default();
        Ok(match self.cut {
            true => At::Done,
            false => At::Profiles(false),
        })
    }

    /// An event: a frame opens or closes.
    fn event(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<()> {
        let place = self.window.position();
        let unit = self.head().unit;
        let event = self.window.read(|c| event(c, unit))?;
        let function = event
            .frame
            .and_then(|at| self.heads.evented.get(at).copied());
        match self.profile.event(event.opens, function, event.at_ns) {
            Ok(ended) => {
                let owner = self.owner();
                self.rows(owner, ended, "", names, rows);
                Ok(())
            }
            Err(what) => self.wrong(place, what),
        }
    }

    /// Rows of spans that events told.
    fn rows(
        &mut self,
        owner: Owner,
        spans: Vec<Span>,
        args: &str,
        names: &mut Names,
        rows: &mut Vec<Event>,
    ) {
        for span in spans {
            self.lives.all[owner.process as usize].saw(span.start_ns, span.end_ns);
            rows.push(span.row(&self.functions, owner, args, names));
        }
    }

    fn finish(&mut self, names: &mut Names, rows: &mut Vec<Event>) {
        let mut facts = Map::new();
        let (samples, time_ns) = self.sampled;
        let timeless = self
            .heads
            .profiles
            .iter()
            .find(|head| head.unit.is_no_time());
        match timeless {
            None => facts.extend(rate(samples, time_ns)),
            Some(head) => {
                let unit = head.unit.as_str();
                let note = format!(
                    "the file has values in {unit} and no times: a value of 1 is drawn as 1 µs"
                );
                facts.insert("notes".into(), json!([note]));
                if samples > 0 {
                    facts.insert("sampled".into(), json!(true));
                }
            }
        }
        self.lives.finish(&facts, names, rows);
        self.lenient.finish(0, names, rows);
    }
}

impl super::Rows for Speedscope {
    fn next_batch(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool> {
        let enough = rows.len() + BATCH;
        while rows.len() < enough && self.at != At::Done {
            match self.step(names, rows) {
                Ok(()) => {}
                // What was read of a profile that is cut off is kept.
                Err(_) if self.lenient.skip() => {
                    self.at = if self.begun > 0 {
                        At::Laid(0)
                    } else {
                        At::Done
                    };
                    self.cut = true;
                }
                Err(error) => return Err(error),
            }
        }
        if self.at != At::Done {
            return Ok(true);
        }
        self.finish(names, rows);
        Ok(false)
    }

    fn hash(&mut self) -> Option<String> {
        Some(self.hash.clone())
    }
}
