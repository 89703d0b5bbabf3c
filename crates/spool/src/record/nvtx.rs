//! Records of NVTX: ranges and marks that a program or its libraries annotate.

use super::{Words, four, head, pair, two};

const PUSH: u64 = 80;
const POP: u64 = 81;
const START: u64 = 82;
const END: u64 = 83;
const MARK: u64 = 84;
const ATTRIBUTES: u64 = 85;

/// The deepest level that is told apart: 12 bits.
pub const MOST_LEVEL: u32 = (1 << 12) - 1;
/// Ids of domains are below this: 20 bits.
pub const MOST_DOMAIN: u32 = 1 << 20;

/// One record. `id` is that of the name, 0: it is the [`super::Text::Metadata`] right before, or none. `domain` is the
/// id of the domain's name, 0: the default one. A [`Nvtx::Attributes`] before a push, start or mark belongs to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Nvtx {
    /// A range of the thread begins, `level` others of its domain around it (at most [`MOST_LEVEL`]).
    Push {
        time: u64,
        id: u32,
        domain: u32,
        level: u32,
    },
    /// The innermost range of the thread and domain ends; `level` as when it began.
    Pop {
        time: u64,
        domain: u32,
        level: u32,
    },
    /// A range begins that may end on another thread; `range` is unique in the process.
    Start {
        time: u64,
        id: u32,
        domain: u32,
        range: u64,
    },
    End {
        time: u64,
        range: u64,
    },
    Mark {
        time: u64,
        id: u32,
        domain: u32,
    },
    Attributes(Attributes),
}

/// What was told with a range or mark.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attributes {
    /// 0: none.
    pub category: u32,
    /// ARGB.
    pub color: Option<u32>,
    pub value: Option<f64>,
}

impl Nvtx {
    /// Ticks since the process's base; attributes have none.
    #[inline(always)]
    pub fn time(&self) -> Option<u64> {
        match *self {
            Nvtx::Push { time, .. }
            | Nvtx::Pop { time, .. }
            | Nvtx::Start { time, .. }
            | Nvtx::End { time, .. }
            | Nvtx::Mark { time, .. } => Some(time),
            Nvtx::Attributes(_) => None,
        }
    }

    #[inline(always)]
    pub fn words(&self) -> Words {
        let place = |domain: u32, level: u32| domain << 12 | level.min(MOST_LEVEL);
        match *self {
            Nvtx::Push {
                time,
                id,
                domain,
                level,
            } => two(head(PUSH, time), pair(id, place(domain, level))),
            Nvtx::Pop {
                time,
                domain,
                level,
            } => two(head(POP, time), pair(0, place(domain, level))),
            Nvtx::Start {
                time,
                id,
                domain,
                range,
            } => four(head(START, time), pair(id, domain), range, 0),
            Nvtx::End { time, range } => two(head(END, time), range),
            Nvtx::Mark { time, id, domain } => two(head(MARK, time), pair(id, domain)),
            Nvtx::Attributes(Attributes {
                category,
                color,
                value,
            }) => {
                let told = u64::from(color.is_some()) | u64::from(value.is_some()) << 1;
                let value = value.map_or(0, f64::to_bits);
                let color = color.unwrap_or(0);
                four(head(ATTRIBUTES, told), pair(category, color), value, 0)
            }
        }
    }

    /// The record with this tag and how many bytes it takes; `word` reads those after the second one.
    #[inline(always)]
    pub(super) fn decode(
        (tag, time): (u64, u64),
        second: u64,
        word: impl Fn(usize) -> Option<u64>,
    ) -> Option<(Nvtx, usize)> {
        let (id, high) = (second as u32, (second >> 32) as u32);
        let (domain, level) = (high >> 12, high & MOST_LEVEL);
        Some(match tag {
            PUSH => (
                Nvtx::Push {
                    time,
                    id,
                    domain,
                    level,
                },
                16,
            ),
            POP => (
                Nvtx::Pop {
                    time,
                    domain,
                    level,
                },
                16,
            ),
            START => {
                word(3)?;
                let (domain, range) = (high, word(2)?);
                (
                    Nvtx::Start {
                        time,
                        id,
                        domain,
                        range,
                    },
                    32,
                )
            }
            END => (
                Nvtx::End {
                    time,
                    range: second,
                },
                16,
            ),
            MARK => (
                Nvtx::Mark {
                    time,
                    id,
                    domain: high,
                },
                16,
            ),
            ATTRIBUTES => {
                word(3)?;
                let value = f64::from_bits(word(2)?);
                let attributes = Attributes {
                    category: id,
                    color: (time & 1 != 0).then_some(high),
                    value: (time & 2 != 0).then_some(value),
                };
                (Nvtx::Attributes(attributes), 32)
            }
            _ => return None,
        })
    }
}
