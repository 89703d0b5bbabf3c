//! What many records of a device have in common, written once and told by a number from then on.

use crate::hot;
use crate::json::quote;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::layout::{Fields, kernel};

/// Shapes that are told apart; further ones of a kernel share one without its grid. A CUDA graph has one for each of
/// its nodes, and a server has dozens of graphs.
pub const MOST: usize = 1 << 18;

/// Words that make a kernel's shape: the address of its name first.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key([u64; 11]);

/// Odd numbers by chance: what each word of a key is multiplied with, so that none waits for another's product.
const ODD: [u64; 11] = [
    0x9E37_79B9_7F4A_7C15,
    0xBF58_476D_1CE4_E5B9,
    0x94D0_49BB_1331_11EB,
    0xD6E8_FEB8_6659_FD93,
    0xA076_1D64_78BD_642F,
    0xE703_7ED1_A0B4_28DB,
    0x8EBC_6AF0_9C88_C6E3,
    0x5899_65CC_7537_4CC3,
    0x1D8E_4E27_C47D_124F,
    0xEB44_ACCA_B455_D165,
    0x2545_F491_4F6C_DD1D,
];

impl Hash for Key {
    #[inline(always)]
    fn hash<H: Hasher>(&self, to: &mut H) {
        let products = self
            .0
            .iter()
            .zip(ODD)
            .map(|(word, odd)| word.wrapping_mul(odd));
        to.write_u64(products.fold(0, u64::wrapping_add));
    }
}

struct Known {
    id: u32,
    /// What was at the name's address: a module that is unloaded gives way to another.
    name: CString,
}

/// Multiplies and folds each word: the keys are addresses and small numbers, and nobody chooses them to collide.
#[derive(Default)]
pub struct Fold(u64);

impl Hasher for Fold {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut whole = [0; 8];
            whole[..word.len()].copy_from_slice(word);
            self.write_u64(u64::from_le_bytes(whole));
        }
    }

    #[inline(always)]
    fn write_u64(&mut self, word: u64) {
        // The constant is the golden ratio's fraction, as in Knuth's multiplicative hashing (TAOCP 3, 6.4).
        let wide = u128::from(self.0 ^ word) * 0x9E37_79B9_7F4A_7C15_u128;
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<Fold>>;

#[derive(Default)]
pub struct Shapes {
    kernels: Map<Key, Known>,
    /// Kernels' names by what they are, and all other shapes by their text.
    names: HashMap<CString, u32>,
    others: Map<[u64; 4], u32>,
}

impl Shapes {
    /// The shape of a kernel's record.
    ///
    /// # Safety
    /// The name that it points to is null or a C string, as CUPTI promises until its buffer is given back.
    #[inline]
    pub unsafe fn kernel(&mut self, record: Fields) -> u32 {
        let at = record.u64(kernel::NAME) as *const c_char;
        let pair = |a: u32, b: u32| u64::from(a) << 32 | u64::from(b);
        let [gx, gy, gz] = record.three(kernel::GRID);
        let [bx, by, bz] = record.three(kernel::BLOCK);
        let [cx, cy, cz] = record.three(kernel::CLUSTER);
        let registers = record.u16(kernel::REGISTERS).into();
        let mut key = Key([
            at as u64,
            pair(record.u32(kernel::DEVICE), record.u32(kernel::CONTEXT)),
            pair(gx, gy),
            pair(gz, bx),
            pair(by, bz),
            pair(registers, record.u32(kernel::STATIC_SHARED)),
            pair(
                record.u32(kernel::DYNAMIC_SHARED),
                record.u32(kernel::LOCAL),
            ),
            record.u64(kernel::GRAPH_NODE),
            record.u32(kernel::GRAPH).into(),
            pair(cx, cy),
            cz.into(),
        ]);
        let name = match at.is_null() {
            true => c"(no name)",
            // SAFETY: as the caller promises.
            false => unsafe { CStr::from_ptr(at) },
        };
        if let Some(known) = self.kernels.get(&key)
            && *known.name == *name
        {
            return known.id;
        }
        let whole = self.kernels.len() < MOST;
        if !whole {
            key = Key([0; 11]);
            (key.0[0], key.0[1]) = (at as u64, record.u32(kernel::DEVICE).into());
            if let Some(known) = self.kernels.get(&key)
                && *known.name == *name
            {
                return known.id;
            }
        }
        let named = self.name(name);
        let mut args = format!("\"context\":{}", record.u32(kernel::CONTEXT));
        let mut put = |text: String| args += &text;
        if whole {
            put(format!(
                ",\"grid\":[{gx},{gy},{gz}],\"block\":[{bx},{by},{bz}]"
            ));
            put(format!(",\"registers\":{registers}"));
            let shared = u64::from(record.u32(kernel::STATIC_SHARED))
                + u64::from(record.u32(kernel::DYNAMIC_SHARED));
            put(format!(",\"shared_bytes\":{shared}"));
            let local = record.u32(kernel::LOCAL);
            if local > 0 {
                put(format!(",\"local_bytes\":{local}"));
            }
            if u64::from(cx) * u64::from(cy) * u64::from(cz) > 1 {
                put(format!(",\"cluster\":[{cx},{cy},{cz}]"));
            }
            in_graph(
                &mut args,
                record.u32(kernel::GRAPH),
                record.u64(kernel::GRAPH_NODE),
            );
        }
        let device = record.u32(kernel::DEVICE);
        let id = self.define(&format!(
            "{{\"kind\":\"kernel\",\"name\":{named},\"device\":{device},\"args\":{{{args}}}}}"
        ));
        let known = Known {
            id,
            name: name.to_owned(),
        };
        self.kernels.insert(key, known);
        id
    }

    /// Any other shape: `key` says all of it, `make` its `kind`, its `name`, and the other members of its object.
    #[inline]
    pub fn other(
        &mut self,
        key: [u64; 4],
        make: impl FnOnce() -> (&'static str, String, String),
    ) -> u32 {
        if let Some(&id) = self.others.get(&key) {
            return id;
        }
        let (kind, name, rest) = make();
        let name = CString::new(name).unwrap_or_default();
        let named = self.name(&name);
        let id = self.define(&format!(
            "{{\"kind\":{},\"name\":{named}{rest}}}",
            quote(kind)
        ));
        if self.others.len() < MOST {
            self.others.insert(key, id);
        }
        id
    }

    /// The id of a name.
    pub fn name(&mut self, name: &CStr) -> u32 {
        if let Some(&id) = self.names.get(name) {
            return id;
        }
        let id = hot::define(&name.to_string_lossy(), "", 0);
        if self.names.len() < MOST {
            self.names.insert(name.to_owned(), id);
        }
        id
    }

    /// A shape that is the process's own: its id.
    pub fn define(&mut self, json: &str) -> u32 {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let id = LAST.fetch_add(1, Relaxed) + 1;
        hot::shape(id, json);
        id
    }
}

/// Members of args of what is a node of a CUDA graph.
pub fn in_graph(args: &mut String, graph: u32, node: u64) {
    if graph != 0 || node != 0 {
        *args += &format!(",\"graph\":{graph},\"node\":{node}");
    }
}
