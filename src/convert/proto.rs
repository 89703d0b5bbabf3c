//! Protocol buffers, written field by field.
//!
//! # Source
//! protobuf.dev/programming-guides/encoding.

/// A message that grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(pub Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire: u8) {
        self.varint(u64::from(field) << 3 | u64::from(wire));
    }

    /// uint32, uint64, an enum, a bool.
    pub fn uint(&mut self, field: u32, value: u64) -> &mut Message {
        self.tag(field, 0);
        self.varint(value);
        self
    }

    /// int32, int64: negative ones take ten bytes.
    pub fn int(&mut self, field: u32, value: i64) -> &mut Message {
        self.uint(field, value as u64)
    }

    /// fixed64.
    pub fn fixed(&mut self, field: u32, value: u64) -> &mut Message {
        self.tag(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// double.
    pub fn double(&mut self, field: u32, value: f64) -> &mut Message {
        self.fixed(field, value.to_bits())
    }

    /// string, bytes.
    pub fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Message {
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A text.
    pub fn text(&mut self, field: u32, value: &str) -> &mut Message {
        self.bytes(field, value.as_bytes())
    }

    /// A message in this one.
    pub fn message(&mut self, field: u32, value: &Message) -> &mut Message {
        self.bytes(field, &value.0)
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_as_the_guide_has_them() {
        let mut message = Message::default();
        message.uint(1, 150);
        assert_eq!(message.0, [0x08, 0x96, 0x01]);
        let mut outer = Message::default();
        outer.text(2, "testing").message(3, &message).int(4, -1);
        let mut wanted = b"\x12\x07testing\x1a\x03\x08\x96\x01\x20".to_vec();
        wanted.extend([0xff; 9]);
        wanted.push(1);
        assert_eq!(outer.0, wanted);
        let mut numbers = Message::default();
        numbers.fixed(47, 1).double(44, 1.0);
        assert_eq!(numbers.0[..3], [0xf9, 0x02, 1]);
        assert_eq!(numbers.0[10..12], [0xe1, 0x02]);
    }
}
