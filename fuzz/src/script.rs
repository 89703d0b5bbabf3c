//! What a fuzzer's bytes say, one by one.

/// Bytes that say what to do; zeros once they are used up.
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    #[allow(dead_code)] // not every target asks
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    /// A number that is small, large, or anything, as the first byte has it.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => u64::from(small),
            200..=219 => u64::from(self.byte()) << 4,
            220..=239 => u64::MAX - u64::from(self.byte()),
            240..=247 => u64::from(self.byte()) << 16 | u64::from(self.byte()) << 4,
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let len = usize::from(self.byte()).min(most).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }
}
