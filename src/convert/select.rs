//! Which rows are kept.

use clap::Args;

use super::condition::Condition;
use super::renumber::describes;
use crate::cli::time;
use crate::error::{Error, Result, nearest};
use crate::trace::{Event, Kind, Names};

/// What is asked for; a row has to pass all of it.
#[derive(Args, Clone, Debug, Default)]
pub struct Select {
    /// Leave out what ends before this time, such as 1.5s, counted from the timeline's zero
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Leave out what starts at this time or later
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
    /// Only rows of these kinds, such as python,kernel
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    kind: Vec<Kind>,
    /// Only rows of these processes, by the number in column process
    #[arg(long, value_name = "N", value_delimiter = ',')]
    process: Vec<u32>,
    /// Only rows of these threads, as the system numbers them
    #[arg(
        long,
        visible_alias = "thread",
        value_name = "TID",
        value_delimiter = ','
    )]
    tid: Vec<u64>,
    /// Only rows of these devices
    #[arg(long, value_name = "N", value_delimiter = ',')]
    device: Vec<u32>,
    /// Only rows whose name contains this; may be given more than once
    #[arg(long, value_name = "TEXT")]
    name: Vec<String>,
    /// Only rows for which this holds, such as 'kind == "kernel" && dur_ns > 1000'
    #[arg(long = "where", value_name = "EXPRESSION")]
    condition: Option<String>,
    /// Only the first N of them
    #[arg(long, value_name = "N")]
    head: Option<u64>,
}

impl Select {
    /// Nothing is left out.
    pub fn is_everything(&self) -> bool {
        self.flags().is_empty()
    }

    /// It asks for times.
    pub(super) fn has_window(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// The flags, as provenance has them.
    pub(super) fn flags(&self) -> Vec<String> {
        fn words<T: ToString>(list: &[T]) -> Option<String> {
            let words: Vec<String> = list.iter().map(T::to_string).collect();
            (!words.is_empty()).then(|| words.join(","))
        }
        let mut flags = Vec::new();
        for (flag, value) in [
            ("from", self.from.map(|ns| format!("{ns}ns"))),
            ("to", self.to.map(|ns| format!("{ns}ns"))),
            ("kind", words(&self.kind)),
            ("process", words(&self.process)),
            ("tid", words(&self.tid)),
            ("device", words(&self.device)),
        ] {
            flags.extend(value.map(|value| format!("--{flag}={value}")));
        }
        flags.extend(self.name.iter().map(|name| format!("--name={name}")));
        flags.extend(self.condition.iter().map(|text| format!("--where={text}")));
        flags.extend(self.head.map(|count| format!("--head={count}")));
        flags
    }
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Dropped,
    /// All that was asked for has gone by.
    Past,
}

/// A [`Select`] at work.
#[derive(Debug)]
pub(super) struct Selection<'a> {
    select: &'a Select,
    condition: Option<Condition>,
    /// Rows kept, without those that describe others.
    count: u64,
}

impl Selection<'_> {
    /// # Errors
    /// A window without time; an expression that is none, or names no column.
    pub fn new(select: &Select) -> Result<Selection<'_>> {
        if let (Some(from), Some(to)) = (select.from, select.to)
            && from >= to
        {
            let what = "the window ends before it begins";
            return Err(Error::invalid("--to", what));
        }
        let condition = select.condition.as_deref();
        Ok(Selection {
            select,
            condition: condition.map(Condition::new).transpose()?,
            count: 0,
        })
    }

    /// What becomes of this row.
    ///
    /// # Errors
    /// An expression that cannot be evaluated.
    pub fn fate(&mut self, event: &Event, names: &Names) -> Result<Fate> {
        let kept = |kept| match kept {
            true => Ok(Fate::Kept),
            false => Ok(Fate::Dropped),
        };
        if !self.in_place(event) {
            return Ok(Fate::Dropped);
        }
        let full = self.select.head.is_some_and(|most| self.count >= most);
        if describes(event.kind) {
            // It is still of those rows that are kept, unless it says of a function what others do not ask about.
            let of_rows = event.kind != Kind::Throttled || self.is_asked_throttled(event, names);
            return kept(of_rows);
        }
        if full {
            return Ok(Fate::Past);
        }
        let select = self.select;
        let kinds = select.kind.is_empty() || select.kind.contains(&event.kind);
        if !kinds || !self.in_window(event) || !self.is_named(event, names) {
            return Ok(Fate::Dropped);
        }
        if let Some(condition) = &mut self.condition
            && !condition.holds(event, names)?
        {
            return Ok(Fate::Dropped);
        }
        self.count += 1;
        Ok(Fate::Kept)
    }

    fn in_place(&self, event: &Event) -> bool {
        let select = self.select;
        let process = select.process.is_empty() || select.process.contains(&event.process);
        // A row of no thread, or no device, describes those of all of them.
        let wide = describes(event.kind);
        let tid = select.tid.is_empty()
            || select.tid.contains(&event.tid)
            || (wide && (event.tid == 0 || matches!(event.kind, Kind::Process | Kind::Clock)));
        let device = select.device.is_empty()
            || match event.device {
                Some(device) => select.device.contains(&device),
                None => wide && event.kind != Kind::Throttled,
            };
        process && tid && device
    }

    fn in_window(&self, event: &Event) -> bool {
        let Select { from, to, .. } = *self.select;
        let begun = to.is_none_or(|to| event.start_ns < to);
        // What ends as the window begins is not in it, but for what takes no time.
        let over = match event.dur_ns {
            Some(dur) if dur > 0 => from.is_some_and(|from| event.end_ns() <= from),
            _ => from.is_some_and(|from| event.start_ns < from),
        };
        begun && !over
    }

    fn is_named(&self, event: &Event, names: &Names) -> bool {
        let asked = &self.select.name;
        let name = names.text(event.name);
        asked.is_empty() || asked.iter().any(|part| name.contains(part.as_str()))
    }

    /// A function was not seen for a while, in the window, and it is one of those that are asked for.
    fn is_asked_throttled(&self, event: &Event, names: &Names) -> bool {
        let kinds = &self.select.kind;
        let of_python = |kind: &Kind| matches!(kind, Kind::Python | Kind::Throttled);
        let asked = kinds.is_empty() || kinds.iter().any(of_python);
        asked && self.in_window(event) && self.is_named(event, names)
    }
}

fn kind(word: &str) -> std::result::Result<Kind, String> {
    word.parse().map_err(|()| {
        let words = Kind::ALL.iter().map(|(_, word)| *word);
        match nearest(word, words) {
            Some(near) => format!("{word:?} is no kind; did you mean {near}?"),
            None => format!("{word:?} is no kind; formats/trace-v1.md has them"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::text::parse;

    #[test]
    fn a_mistyped_kind_gets_the_near_one() {
        assert!(
            kind("kernels")
                .unwrap_err()
                .contains("did you mean kernel?")
        );
    }

    fn kept(select: &Select) -> Vec<String> {
        let text = "
            track       kind       start  end   name   tid
            py:main     process    0us    90us  app    0
            cuda:0/7    stream     0us    -     s7     -
            cuda:1/7    stream     0us    -     s1     -
            py:main     thread     0us    -     main   -
            py:9        thread     0us    -     nine   -
            py:main     python     0us    20us  a      -
            py:9        python     1us    20us  b      -
            py:main     throttled  2us    3us   a      -
            py:main     lost       3us    -     full   -
            cuda:0/7    kernel     4us    9us   k0     -
            cuda:1/7    kernel     4us    10us  k1     -
            py:main     mark       20us   -     m      -
            py:main@1   python     21us   22us  a      -";
        let (events, names) = parse(text).unwrap();
        let mut selection = Selection::new(select).unwrap();
        (events.iter())
            .filter(|event| selection.fate(event, &names).unwrap() == Fate::Kept)
            .map(|event| names.text(event.name).to_owned())
            .collect()
    }

    #[test]
    fn what_describes_the_rows_that_are_kept_stays() {
        let select = Select::default();
        assert!(select.is_everything());
        assert_eq!(kept(&select).len(), 13);
        let kernels = Select {
            kind: vec![Kind::Kernel],
            device: vec![1],
            ..Select::default()
        };
        assert_eq!(kept(&kernels), ["app", "s1", "main", "nine", "full", "k1"]);
        let thread = Select {
            tid: vec![9],
            ..Select::default()
        };
        assert_eq!(kept(&thread), ["app", "s7", "s1", "nine", "b"]);
        let process = Select {
            process: vec![1],
            ..Select::default()
        };
        assert_eq!(kept(&process), ["a"]);
    }

    #[test]
    fn the_window_has_what_overlaps_it() {
        let window = |from, to| {
            let select = Select {
                from: Some(from),
                to: Some(to),
                ..Select::default()
            };
            let names = kept(&select);
            names[5..].join(" ")
        };
        assert_eq!(window(9_000, 20_000), "a b full k1");
        assert_eq!(window(20_000, 21_000), "full m");
        assert_eq!(window(2_500, 2_600), "a b a full");
    }

    #[test]
    fn the_first_few_are_counted_without_what_describes_them() {
        let select = Select {
            head: Some(2),
            ..Select::default()
        };
        assert_eq!(
            kept(&select),
            ["app", "s7", "s1", "main", "nine", "a", "b", "a", "full"]
        );
        assert_eq!(select.flags(), ["--head=2"]);
    }
}
