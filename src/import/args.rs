//! Args of rows: JSON objects made member by member.

use super::json::{Text, normal};
use super::memo::Memo;
use crate::trace::{Names, Sym};

/// A JSON object that grows.
#[derive(Debug, Default)]
pub struct Args(String);

impl Args {
    /// A member whose key and value are as a file has them: JSON, or nearly.
    fn raw(&mut self, key: &[u8], value: &[u8]) {
        self.begin();
        normal(&[b"\"", key, b"\""].concat(), &mut self.0);
        self.0.push(':');
        normal(value, &mut self.0);
    }

    /// A member whose value is JSON.
    pub fn member(&mut self, key: &str, json: &str) {
        self.begin();
        self.0.push_str(&format!("\"{key}\":{json}"));
    }

    fn begin(&mut self) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
    }

    /// The object's symbol, if it has members.
    pub fn sym(mut self, names: &mut Names) -> Option<Sym> {
        if self.0.is_empty() {
            return None;
        }
        self.0.push('}');
        Some(names.sym(&self.0))
    }
}

/// Members of an object as a file has them. They become text only if no object before had the same.
#[derive(Debug, Default)]
pub struct Members {
    bytes: Vec<u8>,
    known: Memo<Option<Sym>>,
}

impl Members {
    /// A member whose key and value are as the file has them.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: &[u8]) {
        for part in [key.as_ref(), value] {
            self.bytes.extend((part.len() as u32).to_le_bytes());
            self.bytes.extend(part);
        }
    }

    /// A member that is a text of the file.
    pub fn text(&mut self, key: &str, text: Text<'_>) {
        let mut plain = String::new();
        text.decode(&mut plain);
        self.member(key, &serde_json::Value::from(plain).to_string());
    }

    /// A member whose value is JSON.
    pub fn member(&mut self, key: &str, json: &str) {
        self.put(key, json.as_bytes());
    }

    /// The object's symbol, if it has members; it is empty then.
    pub fn sym(&mut self, names: &mut Names) -> Option<Sym> {
        if self.bytes.is_empty() {
            return None;
        }
        let sym = self.known.get(&self.bytes, names, object);
        self.bytes.clear();
        sym
    }
}

fn object(mut members: &[u8], names: &mut Names) -> Option<Sym> {
    let mut part = || {
        let (length, rest) = members.split_first_chunk()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        members = rest;
        Some(part)
    };
    let mut args = Args::default();
    while let (Some(key), Some(value)) = (part(), part()) {
        args.raw(key, value);
    }
    args.sym(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_an_object_in_their_order() {
        let mut names = Names::default();
        let mut members = Members::default();
        for _ in 0..2 {
            assert_eq!(members.sym(&mut names), None);
            members.put("grid", b"[ 1, 2 ]");
            members.put(r"a\n".as_bytes(), b"nan");
            members.member("copy", r#""host to device""#);
            let object = members.sym(&mut names).unwrap();
            let want = r#"{"grid":[1,2],"a\n":null,"copy":"host to device"}"#;
            assert_eq!(names.text(object), want);
        }
        assert_eq!(names.len(), 1);
    }
}
