//! As much JSON as settings and process facts need.

use std::fmt::Write;

/// A JSON value. Numbers are f64: settings hold bytes and ms, all below 2^53.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The value of `text`; `None` if it is not one JSON value and nothing else.
    pub fn parse(text: &str) -> Option<Json> {
        let mut parser = Parser { rest: text.trim() };
        let value = parser.value(0)?;
        parser.rest.trim().is_empty().then_some(value)
    }

    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, v)| v),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<f64> {
        match self {
            Json::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub fn bool(&self) -> Option<bool> {
        match self {
            Json::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The texts of a list; empty for anything else.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Json::List(list) => list
                .iter()
                .filter_map(|v| v.text().map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// `text` as a JSON string, quotes included.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32); // writing to a String cannot fail
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Deeper than any settings; keeps a hostile file off our stack.
const MAX_DEPTH: u32 = 32;

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn eat(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(token)?;
        Some(())
    }

    fn value(&mut self, depth: u32) -> Option<Json> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.rest = self.rest.trim_start();
        match self.rest.chars().next()? {
            'n' => self.eat("null").map(|()| Json::Null),
            't' => self.eat("true").map(|()| Json::Bool(true)),
            'f' => self.eat("false").map(|()| Json::Bool(false)),
            '"' => self.string().map(Json::Text),
            '[' => {
                self.eat("[")?;
                let mut list = Vec::new();
                if self.eat("]").is_some() {
                    return Some(Json::List(list));
                }
                loop {
                    list.push(self.value(depth + 1)?);
                    if self.eat("]").is_some() {
                        return Some(Json::List(list));
                    }
                    self.eat(",")?;
                }
            }
            '{' => {
                self.eat("{")?;
                let mut fields = Vec::new();
                if self.eat("}").is_some() {
                    return Some(Json::Object(fields));
                }
                loop {
                    self.rest = self.rest.trim_start();
                    let key = self.string()?;
                    self.eat(":")?;
                    fields.push((key, self.value(depth + 1)?));
                    if self.eat("}").is_some() {
                        return Some(Json::Object(fields));
                    }
                    self.eat(",")?;
                }
            }
            _ => {
                let end = self
                    .rest
                    .find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
                    .unwrap_or(self.rest.len());
                let (number, rest) = self.rest.split_at(end);
                self.rest = rest;
                number.parse().ok().map(Json::Number)
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        self.rest = self.rest.strip_prefix('"')?;
        let mut out = String::new();
        loop {
            let c = self.take()?;
            match c {
                '"' => return Some(out),
                '\\' => match self.take()? {
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    'r' => out.push('\r'),
                    'b' => out.push('\u{8}'),
                    'f' => out.push('\u{c}'),
                    'u' => {
                        let first = self.hex()?;
                        let code = if (0xd800..0xdc00).contains(&first) {
                            self.rest = self.rest.strip_prefix("\\u")?;
                            let second =
                                self.hex()?.checked_sub(0xdc00).filter(|&low| low < 0x400)?;
                            0x10000 + ((first - 0xd800) << 10) + second
                        } else {
                            first
                        };
                        out.push(char::from_u32(code)?);
                    }
                    c @ ('"' | '\\' | '/') => out.push(c),
                    _ => return None,
                },
                c => out.push(c),
            }
        }
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        Some(c)
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.rest.get(..4)?;
        self.rest = self.rest.get(4..)?;
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_anything_else_is_none() {
        let value =
            Json::parse(r#" {"a": [1, -2.5e1, true, null, "x\n\u00df\ud83d\ude00"], "b": {}} "#)
                .unwrap();
        let list = value.get("a").unwrap();
        assert_eq!(list.texts(), ["x\nß😀"]);
        let Json::List(items) = list else { panic!() };
        assert_eq!(items[1].number(), Some(-25.0));
        assert_eq!(items[2].bool(), Some(true));
        assert_eq!(value.get("b"), Some(&Json::Object(vec![])));
        for bad in [
            "",
            "{",
            "[1,",
            "\"x",
            "{\"a\" 1}",
            "nul",
            "1 2",
            "\"\\ud800\"",
            &"[".repeat(1000),
        ] {
            assert_eq!(Json::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_quoted_text_reads_back() {
        for text in ["", "a\"b\\c\n\u{1}ß"] {
            assert_eq!(Json::parse(&quote(text)), Some(Json::Text(text.to_owned())));
        }
    }
}
