//! The names in an expression. They are checked before there are values, so that a slip is an error and no condition that
//! never holds.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};

use super::{Table, Words};
use crate::error::nearest;

type Checked = Result<(), String>;

/// Goes through an expression and collects the dotted names that it needs.
pub(super) struct Names<'a> {
    words: &'a Words,
    /// Variables of macros: x in `list.exists(x, x > 1)`.
    bound: Vec<String>,
    found: Vec<String>,
}

impl Names<'_> {
    /// The names, each once.
    ///
    /// # Errors
    /// One that is not among `words`, and the nearest that is.
    pub fn of(expr: &Expr, words: &Words) -> Result<Vec<String>, String> {
        let mut names = Names {
            words,
            bound: Vec::new(),
            found: Vec::new(),
        };
        names.read(expr)?;
        names.found.sort_unstable();
        names.found.dedup();
        Ok(names.found)
    }

    fn read(&mut self, expr: &Expr) -> Checked {
        match expr {
            Expr::Ident(name) => self.name(name, false),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.read_all(list.elements.iter()),
            Expr::Map(map) => self.read_entries(map.entries.iter().map(|entry| &entry.expr)),
            Expr::Struct(of) => self.read_entries(of.entries.iter().map(|entry| &entry.expr)),
            Expr::Comprehension(c) => {
                self.read(&c.iter_range.expr)?;
                self.read(&c.accu_init.expr)?;
                let before = self.bound.len();
                self.bound.push(c.iter_var.clone());
                self.bound.push(c.accu_var.clone());
                self.bound.extend(c.iter_var2.clone());
                self.read_all([&c.loop_cond, &c.loop_step, &c.result].into_iter())?;
                self.bound.truncate(before);
                Ok(())
            }
            Expr::Literal(_) | Expr::Unspecified => Ok(()),
        }
    }

    fn read_all<'e>(&mut self, mut all: impl Iterator<Item = &'e IdedExpr>) -> Checked {
        all.try_for_each(|part| self.read(&part.expr))
    }

    fn read_entries<'e>(&mut self, mut all: impl Iterator<Item = &'e EntryExpr>) -> Checked {
        all.try_for_each(|entry| match entry {
            EntryExpr::StructField(field) => self.read(&field.value.expr),
            EntryExpr::MapEntry(entry) => {
                self.read(&entry.key.expr)?;
                self.read(&entry.value.expr)
            }
        })
    }

    /// `a.b.c`, or a member of what an expression gives.
    fn select(&mut self, select: &SelectExpr) -> Checked {
        let mut fields = vec![select.field.as_str()];
        let mut root = &select.operand.expr;
        while let Expr::Select(inner) = root {
            fields.push(&inner.field);
            root = &inner.operand.expr;
        }
        fields.reverse();
        match root {
            Expr::Ident(name) if self.bound.contains(name) => Ok(()),
            Expr::Ident(name) => match self.table(name) {
                Some(table) => {
                    key(table, fields[0])?;
                    fields.get(1).map_or(Ok(()), |field| member(table, field))
                }
                None => self.name(&format!("{name}.{}", fields.join(".")), select.test),
            },
            other => {
                if let Some(table) = self.entry_of(other) {
                    member(table, fields[0])?;
                }
                self.read(other)
            }
        }
    }

    fn call(&mut self, call: &CallExpr) -> Checked {
        let text = |expr: &IdedExpr| match &expr.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
            _ => None,
        };
        if let [first, second] = &call.args[..] {
            let (place, word) = match call.func_name.as_str() {
                operators::INDEX => (first, text(second)),
                operators::IN => (second, text(first)),
                _ => (first, None),
            };
            if let (Expr::Ident(name), Some(word)) = (&place.expr, word)
                && let Some(table) = self.table(name)
            {
                key(table, &word)?;
            }
        }
        self.read_all(call.target.iter().map(|target| &**target))?;
        self.read_all(call.args.iter())
    }

    /// The table that an expression is an entry of: `findings["startup"]`, `findings[id]`.
    fn entry_of(&self, expr: &Expr) -> Option<&Table> {
        match expr {
            Expr::Call(call) if call.func_name == operators::INDEX => match &call.args[0].expr {
                Expr::Ident(name) if !self.bound.contains(name) => self.table(name),
                _ => None,
            },
            _ => None,
        }
    }

    fn table(&self, name: &str) -> Option<&Table> {
        self.words.tables.iter().find(|table| table.name == name)
    }

    fn name(&mut self, name: &str, test: bool) -> Checked {
        let known = self.words.names.iter().any(|known| known == name);
        if known && !test {
            self.found.push(name.to_owned());
        }
        if known || self.bound.iter().any(|bound| bound == name) || self.table(name).is_some() {
            return Ok(());
        }
        let tables = self.words.tables.iter().map(|table| table.name);
        let all = self.words.names.iter().map(|name| &**name).chain(tables);
        Err(meant(&format!("{name} is no fact"), nearest(name, all)))
    }
}

fn key(table: &Table, key: &str) -> Checked {
    let unknown = |keys: &&Vec<String>| keys.iter().all(|known| known != key);
    let Some(keys) = table.keys.as_ref().filter(unknown) else {
        return Ok(());
    };
    let near = nearest(key, keys.iter().map(|key| &**key));
    Err(meant(&format!("{key} is never in {}", table.name), near))
}

fn member(table: &Table, member: &str) -> Checked {
    if table.members.contains(&member) {
        return Ok(());
    }
    let near = nearest(member, table.members.iter().copied());
    let what = format!("an entry of {} has no {member}", table.name);
    Err(meant(&what, near))
}

fn meant(what: &str, near: Option<&str>) -> String {
    near.map_or(what.to_owned(), |near| {
        format!("{what}; did you mean {near}?")
    })
}
