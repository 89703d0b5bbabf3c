//! One record of a table of comma-separated values, as rocprof writes them.
//!
//! rocprofv3 puts texts in quotes and does not double quotes within them, its rocpd tools do (RFC 4180): a quote ends a
//! value only before a comma or at the line's end. A text may go over several lines.

/// A quoted value goes on in the next line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open;

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
    /// A quoted value without its end.
    pub fn read(&mut self, line: &str) -> Result<(), Open> {
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
            // Behind a value is a comma, or nothing.
            rest = match rest.strip_prefix(',') {
                Some(rest) => rest,
                None => return Ok(()),
            };
        }
    }

    /// A value behind its opening quote. What follows it.
    fn quoted<'t>(&mut self, text: &'t str) -> Result<&'t str, Open> {
        let mut rest = text;
        loop {
            let at = rest.find('"').ok_or(Open)?;
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

    fn values(line: &str) -> Result<Vec<String>, Open> {
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
            (r#""say "hi" now",1"#, &[r#"say "hi" now"#, "1"]),
            (r#""say ""hi"" now",1"#, &[r#"say "hi" now"#, "1"]),
            ("\"two\nlines\",1", &["two\nlines", "1"]),
            ("\"\",\"a\"", &["", "a"]),
            ("", &[""]),
        ] {
            assert_eq!(values(line).unwrap(), said, "{line}");
        }
        assert_eq!(values("\"open"), Err(Open));
        assert_eq!(values("\"a\" b"), Err(Open));
        assert_eq!(values("1,\"a"), Err(Open));
    }
}
