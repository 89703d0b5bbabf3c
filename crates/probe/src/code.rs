//! What is known of a code object, and of the calls made in it.

/// A native call that has not returned.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// Address in the machine stack of the evaluation that made the call.
    pub stack: usize,
    /// The code object, as an address.
    pub code: usize,
    /// Byte offset of the call in it.
    pub offset: i64,
    /// Ticks since the base.
    pub start: u64,
    /// [`crate::hot::Thread::starts`] at the call.
    pub starts: u32,
}
