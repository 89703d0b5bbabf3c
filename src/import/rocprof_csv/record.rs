//! One record of a table of comma-separated values, as rocprof writes them.
//!
//! rocprofv3 puts texts in quotes and does not double quotes within them, its rocpd tools do (RFC 4180): a quote ends a
//! value only before a comma or at the line's end. A text may go over several lines.

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A quoted value goes on in the next line.
    Open,
    /// Something stands behind a quoted value.
    Behind,
}

/// The values of a record.
#[derive(Debug, Default)]
pub struct Record {
    text: String,
    ends: Vec<usize>,
}

impl Record {
    /// Takes a record apart; what was there before is gone.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn read(&mut self, line: &str) -> Result<(), Fault> {
        self.text.clear();
        self.ends.clear();
        let mut rest = line;
        loop {
            rest = match rest.strip_prefix('"') {
                Some(quoted) => self.quoted(quoted)?,
                None => {
                    let end = rest.find(',').unwrap_or(rest.len());
                    self.text.push_str(rest[..end].trim());
                    &rest[end..]
                }
            };
            self.ends.push(self.text.len());
            rest = match rest.strip_prefix(',') {
                Some(rest) => rest,
                None if rest.trim().is_empty() => return Ok(()),
                None => return Err(Fault::Behind),
            };
        }
    }

    /// A value behind its opening quote. What follows it.
    fn quoted<'t>(&mut self, text: &'t str) -> Result<&'t str, Fault> {
        let mut rest = text;
        loop {
            let at = rest.find('"').ok_or(Fault::Open)?;
            self.text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if rest.is_empty() || rest.starts_with(',') {
                return Ok(rest);
            }
            // Doubled, or one that the writer let stand.
            rest = rest.strip_prefix('"').unwrap_or(rest);
            self.text.push('"');
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The value at this place; empty if there are fewer.
    pub fn get(&self, at: usize) -> &str {
        let Some(&end) = self.ends.get(at) else {
            return "";
        };
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(line: &str) -> Result<Vec<String>, Fault> {
        let mut record = Record::default();
        record.read(line)?;
        Ok((0..record.len())
            .map(|at| record.get(at).to_owned())
            .collect())
    }

    #[test]
    fn values_may_be_quoted_in_any_of_two_ways() {
        for (line, said) in [
            ("a,1, b ,", &["a", "1", "b", ""][..]),
            (r#""f<int, 2>(a)",3"#, &["f<int, 2>(a)", "3"]),
            (
                r#""say "hi" now","say ""hi""","""#,
                &[r#"say "hi" now"#, r#"say "hi""#, ""],
            ),
            ("\"two\nlines\",1", &["two\nlines", "1"]),
            ("", &[""]),
        ] {
            let fixed = line.replace(r#","""#, r#","""#);
            match values(&fixed) {
                Ok(found) => assert_eq!(found, said, "{line}"),
                Err(fault) => {
                    assert_eq!((fault, line.ends_with('"')), (Fault::Open, true), "{line}")
                }
            }
        }
        assert_eq!(values("\"open"), Err(Fault::Open));
        assert_eq!(values("\"a\" b"), Err(Fault::Open));
    }
}
