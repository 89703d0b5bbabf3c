//! What devices did: shapes and facts to rows.

use std::collections::{BTreeMap, HashMap};

use inferscope_spool::record::{NO_BYTES, NO_STREAM, Record};
use serde_json::{Map, Value};

use super::super::dense::Dense;
use super::occupancy::{Block, Limits};
use super::{Defined, Process};
use crate::trace::{Event, Kind, Names, Sym};

/// Facts that are kept under names of their own: devices, contexts and streams.
const MOST_FACTS: usize = 1 << 16;

/// What a shape's rows have in common.
#[derive(Clone, Debug)]
struct Shape {
    kind: Kind,
    name: Sym,
    device: Option<u32>,
    args: Option<Sym>,
    /// Memory that is given back.
    freed: bool,
    /// As it came, to be told again.
    json: Box<str>,
}

/// What a process's probe told of its devices.
#[derive(Clone, Debug, Default)]
pub struct Devices {
    shapes: Dense<Shape>,
    /// Kernels' names without their mangling, by the id of the mangled ones.
    plain: HashMap<u32, Sym>,
    facts: BTreeMap<String, Map<String, Value>>,
    /// Devices' numbers by UUID, in hexadecimal digits.
    pub numbers: HashMap<String, u32>,
    /// The latest end of a row.
    pub last_ns: i64,
}

impl Devices {
    /// A shape comes; false if it makes no sense.
    pub(super) fn shape(
        &mut self,
        names: &mut Names,
        defined: &Dense<Defined>,
        id: u32,
        json: &str,
    ) -> bool {
        let Ok(Value::Object(mut shape)) = serde_json::from_str(json) else {
            return false;
        };
        let Some(kind) = shape
            .get("kind")
            .and_then(Value::as_str)
            .and_then(|k| k.parse().ok())
        else {
            return false;
        };
        let name = shape
            .get("name")
            .and_then(Value::as_u64)
            .and_then(|id| u32::try_from(id).ok());
        let name = match name {
            Some(id) => self.name(names, defined, id),
            None => names.sym("(name lost)"),
        };
        let device = shape.get("device").and_then(Value::as_u64);
        let device = device.and_then(|id| u32::try_from(id).ok());
        let mut args = match shape.remove("args") {
            Some(Value::Object(args)) => args,
            _ => Map::new(),
        };
        if kind == Kind::Kernel
            && let Some(limits) = self.limits(device)
            && let Some(share) = Block::of(&args).and_then(|block| limits.occupancy(&block))
        {
            args.insert("theoretical_occupancy".into(), share.into());
        }
        let text = Value::Object(args);
        let shape = Shape {
            kind,
            name,
            device,
            args: (text != Value::Object(Map::new())).then(|| names.sym(&text.to_string())),
            freed: shape.contains_key("freed"),
            json: json.into(),
        };
        self.shapes.insert(id, shape);
        true
    }

    fn name(&mut self, names: &mut Names, defined: &Dense<Defined>, id: u32) -> Sym {
        if let Some(&known) = self.plain.get(&id) {
            return known;
        }
        let Some(defined) = defined.get(id) else {
            return names.sym("(name lost)");
        };
        let plain = demangled(names.text(defined.name));
        let sym = plain.map_or(defined.name, |plain| names.sym(&plain));
        self.plain.insert(id, sym);
        sym
    }

    fn limits(&self, device: Option<u32>) -> Option<Limits> {
        Limits::of(self.facts.get(&format!("device {}", device?))?)
    }

    /// Facts come; false if they make no sense.
    pub fn tell(&mut self, name: &str, json: &str) -> bool {
        match serde_json::from_str(json) {
            Ok(Value::Object(facts))
                if self.facts.len() < MOST_FACTS || self.facts.contains_key(name) =>
            {
                let number = facts.get("device").and_then(Value::as_u64);
                if let (Some(uuid), Some(number)) = (
                    facts.get("uuid").and_then(Value::as_str),
                    number.and_then(|number| u32::try_from(number).ok()),
                ) && self.numbers.len() < MOST_FACTS
                {
                    self.numbers.insert(uuid.to_owned(), number);
                }
                self.facts.insert(name.to_owned(), facts);
                true
            }
            Ok(Value::Object(_)) => true,
            _ => false,
        }
    }

    /// What records the devices, and how.
    pub fn recorder(&self) -> Option<&Map<String, Value>> {
        self.facts.get("gpu")
    }

    /// Facts and shapes as they came.
    pub fn told(
        &self,
    ) -> (
        impl Iterator<Item = (&str, String)>,
        impl Iterator<Item = (u32, &str)>,
    ) {
        let facts = self.facts.iter();
        let facts =
            facts.map(|(name, facts)| (name.as_str(), Value::from(facts.clone()).to_string()));
        let shapes = self.shapes.iter().map(|(id, shape)| (id, &*shape.json));
        (facts, shapes)
    }

    /// Texts go to other names.
    pub fn tidy(&mut self, old: &Names, new: &mut Names) {
        for shape in self.shapes.values_mut() {
            shape.name = new.sym(old.text(shape.name));
            shape.args = shape.args.map(|args| new.sym(old.text(args)));
        }
        for sym in self.plain.values_mut() {
            *sym = new.sym(old.text(*sym));
        }
    }

    /// All but what records them.
    pub fn forget(&mut self) {
        self.shapes = Dense::default();
        self.plain = HashMap::new();
        self.facts.retain(|name, _| name == "gpu");
    }
}

impl Process {
    /// The row of a [`Record::Work`] or a [`Record::Call`] that began at `at`.
    pub(super) fn device_row(&self, names: &mut Names, record: &Record, at: i64) -> Option<Event> {
        let (id, correlation, dur) = match *record {
            Record::Work {
                id,
                correlation,
                dur,
                ..
            }
            | Record::Call {
                id,
                correlation,
                dur,
                ..
            } => (id, correlation, dur),
            _ => return None,
        };
        let shape = self.devices.shapes.get(id);
        let (kind, name) = match shape {
            Some(shape) => (shape.kind, shape.name),
            None => (Kind::Lost, names.sym("device records of an unknown shape")),
        };
        let mut event = Event::new(kind, name, at, self.id, self.pid, 0);
        event.correlation = (correlation != 0).then_some(correlation.into());
        let Some(shape) = shape else {
            event.value = Some(1.0);
            return Some(event);
        };
        event.args = shape.args;
        if kind != Kind::Alloc {
            event.dur_ns = Some(
                i64::try_from(dur)
                    .unwrap_or(super::MOST_NS)
                    .min(super::MOST_NS),
            );
        }
        match *record {
            Record::Work { stream, bytes, .. } => {
                event.device = shape.device;
                event.stream = (stream != NO_STREAM).then_some(stream);
                let bytes = (bytes != NO_BYTES).then(|| i64::try_from(bytes).unwrap_or(i64::MAX));
                event.bytes = bytes.map(|bytes| if shape.freed { -bytes } else { bytes });
            }
            Record::Call { tid, result, .. } => {
                event.tid = tid.into();
                if result != 0 {
                    event.args = Some(names.sym(&format!("{{\"return\":{result}}}")));
                }
            }
            _ => {}
        }
        Some(event)
    }

    /// Rows of the devices and streams there were.
    pub(super) fn device_rows(&self, names: &mut Names, out: &mut Vec<Event>) {
        let at = self.facts.base_monotonic_ns;
        let number = |facts: &Map<String, Value>, key: &str| {
            let value = facts.get(key).and_then(Value::as_u64)?;
            u32::try_from(value).ok()
        };
        for (name, facts) in &self.devices.facts {
            let mut args = Map::new();
            let mut put = |keys: &[&str]| {
                for key in keys {
                    if let Some(value) = facts.get(*key) {
                        args.insert((*key).to_owned(), value.clone());
                    }
                }
            };
            let mut row = Event::new(Kind::Stream, names.sym(name), at, self.id, self.pid, 0);
            if name.starts_with("device ") {
                row.device = number(facts, "device");
                row.name = names.sym(facts.get("name").and_then(Value::as_str).unwrap_or("GPU"));
                row.bytes = facts.get("bytes").and_then(Value::as_i64);
                put(&[
                    "sms",
                    "warp",
                    "compute",
                    "registers_per_sm",
                    "shared_bytes_per_sm",
                ]);
            } else if name.starts_with("stream ") {
                row.stream = number(facts, "stream");
                let context = number(facts, "context").map(|id| format!("context {id}"));
                let context = context.and_then(|name| self.devices.facts.get(&name));
                row.device = context.and_then(|facts| number(facts, "device"));
                row.name = names.sym(&format!("stream {}", row.stream.unwrap_or(0)));
                put(&["context", "priority"]);
            } else {
                continue;
            }
            if row.device.is_none() {
                continue;
            }
            row.args = (!args.is_empty()).then(|| names.sym(&Value::Object(args).to_string()));
            out.push(row);
        }
    }
}

/// A C++ function's name as its source has it; `None` of what is not mangled.
fn demangled(name: &str) -> Option<String> {
    if !name.starts_with("_Z") {
        return None;
    }
    let options = cpp_demangle::DemangleOptions::default();
    cpp_demangle::Symbol::new(name)
        .ok()?
        .demangle_with_options(&options)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_called_what_their_source_calls_them() {
        for (name, plain) in [
            (
                "_Z6vecAddPKfS0_Pfi",
                Some("vecAdd(float const*, float const*, float*, int)"),
            ),
            (
                "_ZN2at6native4fillIfEEvT_",
                Some("void at::native::fill<float>(float)"),
            ),
            ("triton_poi_fused_0", None),
            ("_Znonsense", None),
        ] {
            assert_eq!(demangled(name).as_deref(), plain);
        }
    }
}
