//! XPlane messages: fields of any number and type, nested by a fuzzer, with lengths that are right or not.

use crate::import;
use crate::script::Script;

/// Deepest message within a message.
const DEPTH: usize = 12;
/// Most bytes of a message.
const SIZE: usize = 1 << 16;

/// Reads `data` as a message; if it begins with zero, which no message does, what it says is made into one.
pub fn run(data: &[u8]) {
    let Some((0, script)) = data.split_first() else {
        return import::run(data);
    };
    let mut bytes = Vec::new();
    let mut script = Script(script);
    while !script.is_over() && bytes.len() < SIZE {
        field(&mut script, 0, &mut bytes);
    }
    import::run(&bytes);
}

/// Appends a field.
fn field(script: &mut Script<'_>, depth: usize, to: &mut Vec<u8>) {
    let what = script.byte();
    let number = u64::from(what >> 3 & 15);
    match what & 7 {
        0 | 1 => {
            varint(number << 3, to);
            varint(script.number(), to);
        }
        2 => {
            varint(number << 3 | 1, to);
            to.extend(script.number().to_le_bytes());
        }
        3 => {
            let bytes = script.bytes(64);
            varint(number << 3 | 2, to);
            varint(bytes.len() as u64, to);
            to.extend(bytes);
        }
        4 => to.push(script.byte()), // anything
        _ if depth == DEPTH => {}
        kind => {
            let mut inner = Vec::new();
            for _ in 0..script.byte() % 16 {
                field(script, depth + 1, &mut inner);
            }
            varint(number << 3 | 2, to);
            let length = match kind {
                7 => script.number(),
                _ => inner.len() as u64,
            };
            varint(length, to);
            to.extend(inner);
        }
    }
}

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value > 127 {
        to.push(value as u8 | 128);
        value >>= 7;
    }
    to.push(value as u8);
}
