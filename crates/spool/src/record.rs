//! The records a probe writes, as words: the code side of `formats/spool-v1.md`.
//!
//! A record is 16, 32 or 48 bytes of plain integers, or a text: a 16-byte head and its bytes, padded
//! to 16. Any bits decode to something or to `None`; nothing in a segment is believed.

mod nvtx;

pub use nvtx::{Attributes, MOST_DOMAIN, MOST_LEVEL, Nvtx};

/// Bytes of one slot: every record is a whole number of them, and starts on one.
pub const SLOT: usize = 16;

/// The longest text, in bytes; longer ones are cut at a character border.
pub const MAX_TEXT: usize = 32 * 1024;

/// Set in the flags of [`Record::Begin`]: the frame goes on after a suspension.
pub const RESUMED: u32 = 1;
/// Set in the flags of [`Record::Begin`]: ends of frames that an exception left may be missing on this thread. Frames that
/// were [`depth`] deep or deeper are gone.
pub const LOOSE: u32 = 2;

/// Set in the flow of a scope or mark: it is a task's whose frames are not recorded now. What is left is 0.
pub const UNSEEN: u64 = 1 << 63;

/// The flags of a [`Record::Begin`] that say how many Python frames are open on the thread, this one included.
#[inline(always)]
pub const fn deep(depth: u32) -> u32 {
    depth << 8
}

/// What [`deep`] has put there; 0: not told.
#[inline(always)]
pub const fn depth(flags: u32) -> u32 {
    flags >> 8
}

/// Set in the flags of [`Record::End`]: the frame is suspended (yield, await), not finished.
pub const SUSPENDED: u32 = 1;
/// Set in the flags of [`Record::End`] and [`Record::ScopeEnd`]: an exception left it.
pub const RAISED: u32 = 2;

/// In place of a stream of [`Record::Work`].
pub const NO_STREAM: u32 = u32::MAX;
/// In place of bytes of [`Record::Work`].
pub const NO_BYTES: u64 = u64::MAX;

/// The chain of what devices did: in place of a thread's id, and no thread's.
pub const DEVICES: u64 = 1 << 40;

/// What kind of span a [`Record::Span`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SpanKind {
    /// A call or operator executed by native code; `extra` is not used.
    Native = 1,
    /// A collection by the garbage collector; `extra` is the number of objects collected.
    Gc = 2,
    /// The thread waited; `extra` is not used.
    Wait = 3,
}

/// One record. Times are ticks of the process's clock since its base (see [`Text::Process`]): 56 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record<'a> {
    /// A Python frame starts or goes on. `flow` is 0 but for the outermost frame of a task.
    Begin {
        time: u64,
        id: u32,
        flags: u32,
        flow: u64,
    },
    /// The innermost frame with this id ends or is suspended.
    End { time: u64, id: u32, flags: u32 },
    /// A finished span in one record.
    Span {
        time: u64,
        id: u32,
        kind: SpanKind,
        dur: u64,
        extra: u64,
    },
    /// An instant of the user's own. A [`Text::Metadata`] right before it is its JSON metadata.
    Mark { time: u64, id: u32, flow: u64 },
    /// A scope of the user's opens; `handle` is unique in the process. Metadata as for `Mark`.
    ScopeBegin {
        time: u64,
        id: u32,
        handle: u64,
        flow: u64,
    },
    /// The scope with this handle closes, perhaps on another thread.
    ScopeEnd {
        time: u64,
        id: u32,
        flags: u32,
        handle: u64,
    },
    /// A counter's value at an instant.
    Counter { time: u64, id: u32, value: f64 },
    /// One reading of several clocks: `ticks` since the base, the others in ns since their own epochs.
    Clock {
        ticks: u64,
        monotonic_ns: u64,
        realtime_ns: u64,
        boottime_ns: u64,
        error_ns: u64,
    },
    /// A thread was at work in a library's code (the id's name); stands for `cpu_ns` of its CPU time. On the
    /// names chain of the process.
    Sample {
        time: u64,
        id: u32,
        tid: u64,
        cpu_ns: u64,
    },
    /// A function that the budget recorded in bursts is recorded no more from `time` on. On the names chain.
    Throttle {
        time: u64,
        id: u32,
        /// Calls in the burst, which began at `since` and ended at `time` or before.
        calls: u32,
        /// Since when it was recorded; `time` itself if that is since its first call.
        since: u64,
        /// CPU time of the process's threads in the burst without what recording cost, in ticks; 0: no burst.
        burst: u64,
        /// The same from the process's start to `since`, and to `time`.
        pools: [u64; 2],
    },
    /// What slices of a process's time showed of a function that ran unseen between them. On the names chain.
    Slices {
        /// When the stretch of time that this is about ended, and how long it was.
        time: u64,
        dur_us: u32,
        id: u32,
        /// How many slices there were, and calls in them.
        slices: u32,
        seen: u32,
        /// Calls that were not seen, estimated; the standard deviation of that, and how far off it may be because the
        /// probe's own cost is not known exactly.
        calls: f64,
        chance: f32,
        bias: f32,
        /// CPU time in the slices and between them, without what recording cost.
        on_us: u32,
        off_us: u32,
    },
    /// What a device did, or another fact that CUPTI or rocprofiler tell of it: a finished span of the shape with this id
    /// (see [`Text::Shape`]). `stream` is [`NO_STREAM`] where it is of none, `bytes` [`NO_BYTES`] where there are none.
    Work {
        time: u64,
        id: u32,
        correlation: u32,
        dur: u64,
        stream: u32,
        bytes: u64,
    },
    /// A thread's call of a device's driver or runtime, or other time that these cost it. Written by another thread.
    Call {
        time: u64,
        id: u32,
        correlation: u32,
        dur: u64,
        tid: u32,
        /// What it returned; 0 is success.
        result: u32,
    },
    /// Records that never came to the probe, for the reason that the id says.
    Missing { time: u64, id: u32, records: u64 },
    /// Recording was paused (`on` false) or goes on in the whole process.
    Switch { time: u64, on: bool },
    /// The process ends by itself: it came to its end or called `exit`. On the names chain.
    Exit { time: u64 },
    /// Addresses in the interpreter: of the structure that its GIL lies in, from `start` to `end`, and in it of the
    /// word that points to the state of the thread which has the GIL; 0 = not known. On the names chain.
    Gil { start: u64, end: u64, holder: u64 },
    /// Where the interpreter keeps the state of a thread. On the names chain.
    State { tid: u64, address: u64 },
    /// NVTX; those with a time are on the chain of the thread that they are of.
    Nvtx(Nvtx),
    /// A text.
    Text(Text<'a>),
}

/// A record of variable length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Text<'a> {
    /// JSON metadata of the record that follows.
    Metadata(&'a str),
    /// What an id stands for. `line` 0 = none; `file` empty = none. Written once, before any use.
    Define {
        id: u32,
        line: u32,
        name: &'a str,
        file: &'a str,
    },
    /// Facts of the process, as a JSON object; first record of its names chain.
    Process(&'a str),
    /// What many device rows have in common, as a JSON object: `kind`, `name`, and where there are such `device` and
    /// `args`. Written once, before any use.
    Shape { id: u32, json: &'a str },
    /// Facts of a device, or of what records them, as a JSON object; each replaces what was said under its name before.
    Facts { name: &'a str, json: &'a str },
    /// The name of the thread that owns the chain.
    Thread { tid: u64, name: &'a str },
    /// Something a person should know (a door that did not open), once each.
    Note(&'a str),
    /// The name of an NVTX category, in a domain as [`Nvtx`] has it. On the names chain.
    NvtxCategory {
        domain: u32,
        category: u32,
        name: &'a str,
    },
    /// The name that the program gave a thread by NVTX. On the names chain.
    NvtxThread { tid: u64, name: &'a str },
}

const BEGIN: u64 = 1;
const END: u64 = 2;
const BEGIN_FLOW: u64 = 3;
const SPAN: u64 = 4;
const MARK: u64 = 5;
const SCOPE_BEGIN: u64 = 6;
const SCOPE_END: u64 = 7;
const COUNTER: u64 = 8;
const CLOCK: u64 = 9;
const SWITCH: u64 = 10;
const SAMPLE: u64 = 11;
const THROTTLE: u64 = 12;
const NATIVE: u64 = 13;
const SLICES: u64 = 16;
const EXIT: u64 = 20;
const GIL: u64 = 14;
const STATE: u64 = 15;
const WORK: u64 = 96;
const WORK_BYTES: u64 = 97;
const CALL: u64 = 98;
const MISSING: u64 = 99;
const METADATA: u64 = 64;
const DEFINE: u64 = 65;
const PROCESS: u64 = 66;
const THREAD: u64 = 67;
const NOTE: u64 = 68;
const SHAPE: u64 = 73;
const FACTS: u64 = 74;
const NVTX_CATEGORY: u64 = 70;
const NVTX_THREAD: u64 = 71;

/// A record of fixed size, ready to be copied into a segment.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    words: [u64; 6],
    len: u8,
}

impl Words {
    /// The words to write, a multiple of two of them.
    #[inline(always)]
    pub fn as_slice(&self) -> &[u64] {
        &self.words[..usize::from(self.len)]
    }
}

#[inline(always)]
fn head(tag: u64, time: u64) -> u64 {
    time << 8 | tag
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[inline(always)]
fn two(a: u64, b: u64) -> Words {
    Words {
        words: [a, b, 0, 0, 0, 0],
        len: 2,
    }
}

#[inline(always)]
fn four(a: u64, b: u64, c: u64, d: u64) -> Words {
    Words {
        words: [a, b, c, d, 0, 0],
        len: 4,
    }
}

impl Record<'_> {
    /// The record as words; `None` for a text, which [`Text::encode`] writes.
    #[inline(always)]
    pub fn words(&self) -> Option<Words> {
        Some(match *self {
            Record::Begin {
                time,
                id,
                flags,
                flow: 0,
            } => two(head(BEGIN, time), pair(id, flags)),
            Record::Begin {
                time,
                id,
                flags,
                flow,
            } => four(head(BEGIN_FLOW, time), pair(id, flags), flow, 0),
            Record::End { time, id, flags } => two(head(END, time), pair(id, flags)),
            Record::Span {
                time,
                id,
                kind: SpanKind::Native,
                dur,
                extra: 0,
            } if dur >> 32 == 0 => two(head(NATIVE, time), pair(id, dur as u32)),
            Record::Span {
                time,
                id,
                kind,
                dur,
                extra,
            } => four(head(SPAN, time), pair(id, kind as u32), dur, extra),
            Record::Mark { time, id, flow } => four(head(MARK, time), pair(id, 0), flow, 0),
            Record::ScopeBegin {
                time,
                id,
                handle,
                flow,
            } => four(head(SCOPE_BEGIN, time), pair(id, 0), handle, flow),
            Record::ScopeEnd {
                time,
                id,
                flags,
                handle,
            } => four(head(SCOPE_END, time), pair(id, flags), handle, 0),
            Record::Counter { time, id, value } => {
                four(head(COUNTER, time), pair(id, 0), value.to_bits(), 0)
            }
            Record::Clock {
                ticks,
                monotonic_ns,
                realtime_ns,
                boottime_ns,
                error_ns,
            } => Words {
                words: [
                    head(CLOCK, ticks),
                    monotonic_ns,
                    realtime_ns,
                    boottime_ns,
                    error_ns,
                    0,
                ],
                len: 6,
            },
            Record::Sample {
                time,
                id,
                tid,
                cpu_ns,
            } => four(head(SAMPLE, time), pair(id, 0), tid, cpu_ns),
            Record::Throttle {
                time,
                id,
                calls,
                since,
                burst,
                pools: [from, to],
            } => Words {
                words: [
                    head(THROTTLE, time),
                    pair(id, calls),
                    since,
                    burst,
                    from,
                    to,
                ],
                len: 6,
            },
            Record::Slices {
                time,
                dur_us,
                id,
                slices,
                seen,
                calls,
                chance,
                bias,
                on_us,
                off_us,
            } => Words {
                words: [
                    head(SLICES, time),
                    pair(id, slices),
                    pair(seen, dur_us),
                    calls.to_bits(),
                    pair(chance.to_bits(), bias.to_bits()),
                    pair(on_us, off_us),
                ],
                len: 6,
            },
            Record::Work {
                time,
                id,
                correlation,
                dur,
                stream,
                bytes: NO_BYTES,
            } => four(
                head(WORK, time),
                pair(id, correlation),
                dur,
                pair(stream, 0),
            ),
            Record::Work {
                time,
                id,
                correlation,
                dur,
                stream,
                bytes,
            } => Words {
                words: [
                    head(WORK_BYTES, time),
                    pair(id, correlation),
                    dur,
                    pair(stream, 0),
                    bytes,
                    0,
                ],
                len: 6,
            },
            Record::Call {
                time,
                id,
                correlation,
                dur,
                tid,
                result,
            } => four(
                head(CALL, time),
                pair(id, correlation),
                dur,
                pair(tid, result),
            ),
            Record::Missing { time, id, records } => {
                four(head(MISSING, time), pair(id, 0), records, 0)
            }
            Record::Switch { time, on } => two(head(SWITCH, time), u64::from(on)),
            Record::Exit { time } => two(head(EXIT, time), 0),
            Record::Gil { start, end, holder } => four(head(GIL, 0), start, end, holder),
            Record::State { tid, address } => four(head(STATE, 0), tid, address, 0),
            Record::Nvtx(event) => event.words(),
            Record::Text(_) => return None,
        })
    }

    /// The first record in `bytes` and how many bytes it takes; `None` if there is no whole, known one.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
        let word = |i: usize| -> Option<u64> {
            Some(u64::from_le_bytes(
                bytes.get(8 * i..8 * i + 8)?.try_into().ok()?,
            ))
        };
        let (first, second) = (word(0)?, word(1)?);
        let (tag, time) = (first & 0xff, first >> 8);
        let (low, high) = (second as u32, (second >> 32) as u32);
        Some(match tag {
            BEGIN => (
                Record::Begin {
                    time,
                    id: low,
                    flags: high,
                    flow: 0,
                },
                16,
            ),
            END => (
                Record::End {
                    time,
                    id: low,
                    flags: high,
                },
                16,
            ),
            BEGIN_FLOW => {
                word(3)?;
                (
                    Record::Begin {
                        time,
                        id: low,
                        flags: high,
                        flow: word(2)?,
                    },
                    32,
                )
            }
            SPAN => {
                let kind = match high {
                    1 => SpanKind::Native,
                    2 => SpanKind::Gc,
                    3 => SpanKind::Wait,
                    _ => return None,
                };
                (
                    Record::Span {
                        time,
                        id: low,
                        kind,
                        dur: word(2)?,
                        extra: word(3)?,
                    },
                    32,
                )
            }
            NATIVE => (
                Record::Span {
                    time,
                    id: low,
                    kind: SpanKind::Native,
                    dur: high.into(),
                    extra: 0,
                },
                16,
            ),
            MARK => {
                word(3)?;
                (
                    Record::Mark {
                        time,
                        id: low,
                        flow: word(2)?,
                    },
                    32,
                )
            }
            SCOPE_BEGIN => (
                Record::ScopeBegin {
                    time,
                    id: low,
                    handle: word(2)?,
                    flow: word(3)?,
                },
                32,
            ),
            SCOPE_END => {
                word(3)?;
                (
                    Record::ScopeEnd {
                        time,
                        id: low,
                        flags: high,
                        handle: word(2)?,
                    },
                    32,
                )
            }
            COUNTER => {
                word(3)?;
                (
                    Record::Counter {
                        time,
                        id: low,
                        value: f64::from_bits(word(2)?),
                    },
                    32,
                )
            }
            CLOCK => {
                word(5)?;
                let record = Record::Clock {
                    ticks: time,
                    monotonic_ns: second,
                    realtime_ns: word(2)?,
                    boottime_ns: word(3)?,
                    error_ns: word(4)?,
                };
                (record, 48)
            }
            SAMPLE => (
                Record::Sample {
                    time,
                    id: low,
                    tid: word(2)?,
                    cpu_ns: word(3)?,
                },
                32,
            ),
            THROTTLE => {
                word(5)?;
                let record = Record::Throttle {
                    time,
                    id: low,
                    calls: high,
                    since: word(2)?,
                    burst: word(3)?,
                    pools: [word(4)?, word(5)?],
                };
                (record, 48)
            }
            SLICES => {
                word(5)?;
                let halves = |i: usize| word(i).map(|word| (word as u32, (word >> 32) as u32));
                let ((seen, dur_us), (chance, bias), (on_us, off_us)) =
                    (halves(2)?, halves(4)?, halves(5)?);
                let record = Record::Slices {
                    time,
                    dur_us,
                    id: low,
                    slices: high,
                    seen,
                    calls: f64::from_bits(word(3)?),
                    chance: f32::from_bits(chance),
                    bias: f32::from_bits(bias),
                    on_us,
                    off_us,
                };
                (record, 48)
            }
            WORK | WORK_BYTES => {
                let stream = word(3)? as u32;
                let (bytes, size) = match tag {
                    WORK => (NO_BYTES, 32),
                    _ => {
                        word(5)?;
                        (word(4)?, 48)
                    }
                };
                let record = Record::Work {
                    time,
                    id: low,
                    correlation: high,
                    dur: word(2)?,
                    stream,
                    bytes,
                };
                (record, size)
            }
            CALL => {
                let last = word(3)?;
                let record = Record::Call {
                    time,
                    id: low,
                    correlation: high,
                    dur: word(2)?,
                    tid: last as u32,
                    result: (last >> 32) as u32,
                };
                (record, 32)
            }
            MISSING => {
                word(3)?;
                let record = Record::Missing {
                    time,
                    id: low,
                    records: word(2)?,
                };
                (record, 32)
            }
            SWITCH => (
                Record::Switch {
                    time,
                    on: second != 0,
                },
                16,
            ),
            EXIT => (Record::Exit { time }, 16),
            GIL => (
                Record::Gil {
                    start: second,
                    end: word(2)?,
                    holder: word(3)?,
                },
                32,
            ),
            STATE => {
                word(3)?;
                (
                    Record::State {
                        tid: second,
                        address: word(2)?,
                    },
                    32,
                )
            }
            80..=87 => {
                let (event, size) = Nvtx::decode((tag, time), second, word)?;
                (Record::Nvtx(event), size)
            }
            METADATA | DEFINE | PROCESS | THREAD | NOTE | SHAPE | FACTS | NVTX_CATEGORY
            | NVTX_THREAD => {
                let len = usize::try_from(time).ok().filter(|&len| len <= MAX_TEXT)?;
                let body = std::str::from_utf8(bytes.get(16..16 + len)?).ok()?;
                let size = SLOT + len.next_multiple_of(SLOT);
                bytes.get(..size)?;
                let text = match tag {
                    METADATA => Text::Metadata(body),
                    PROCESS => Text::Process(body),
                    NOTE => Text::Note(body),
                    SHAPE => Text::Shape {
                        id: low,
                        json: body,
                    },
                    FACTS => {
                        let (name, json) = body.split_once('\0')?;
                        Text::Facts { name, json }
                    }
                    THREAD => Text::Thread {
                        tid: second,
                        name: body,
                    },
                    NVTX_CATEGORY => Text::NvtxCategory {
                        domain: low,
                        category: high,
                        name: body,
                    },
                    NVTX_THREAD => Text::NvtxThread {
                        tid: second,
                        name: body,
                    },
                    _ => {
                        let (name, file) = body.split_once('\0')?;
                        Text::Define {
                            id: low,
                            line: high,
                            name,
                            file,
                        }
                    }
                };
                (Record::Text(text), size)
            }
            _ => return None,
        })
    }
}

impl Text<'_> {
    /// The text as whole slots, cut to [`MAX_TEXT`]. Allocates: for what happens once, not per call.
    pub fn encode(&self) -> Vec<u64> {
        let (tag, aux, body) = match *self {
            Text::Metadata(text) => (METADATA, 0, cut(text, MAX_TEXT).to_owned()),
            Text::Process(text) => (PROCESS, 0, cut(text, MAX_TEXT).to_owned()),
            Text::Note(text) => (NOTE, 0, cut(text, MAX_TEXT).to_owned()),
            Text::Shape { id, json } => (SHAPE, pair(id, 0), cut(json, MAX_TEXT).to_owned()),
            Text::Facts { name, json } => {
                let name = cut(name, MAX_TEXT / 2).replace('\0', " ");
                let json = cut(json, MAX_TEXT - 1 - name.len());
                (FACTS, 0, format!("{name}\0{json}"))
            }
            Text::Thread { tid, name } => (THREAD, tid, cut(name, MAX_TEXT).to_owned()),
            Text::NvtxThread { tid, name } => (NVTX_THREAD, tid, cut(name, MAX_TEXT).to_owned()),
            Text::NvtxCategory {
                domain,
                category,
                name,
            } => {
                let place = pair(domain, category);
                (NVTX_CATEGORY, place, cut(name, MAX_TEXT).to_owned())
            }
            Text::Define {
                id,
                line,
                name,
                file,
            } => {
                let half = MAX_TEXT / 2 - 1;
                let name = cut(name, half).replace('\0', " ");
                (
                    DEFINE,
                    pair(id, line),
                    format!("{name}\0{}", cut(file, half)),
                )
            }
        };
        let mut bytes = body.into_bytes();
        let len = bytes.len() as u64;
        bytes.resize(bytes.len().next_multiple_of(SLOT), 0);
        let mut words = vec![head(tag, len), aux];
        words.extend(
            bytes
                .chunks_exact(8)
                .map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default())),
        );
        words
    }
}

/// At most `max` bytes of `text`, ending at a character border.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
