//! State of the whole process that is touched with the GIL held only: no lock of its own, and none on the hot path.

use std::cell::UnsafeCell;

/// A value for whoever has the GIL.
pub struct Held<T>(UnsafeCell<T>);

// SAFETY: only `get` reaches the value, and its callers have the GIL, one thread at a time.
unsafe impl<T> Sync for Held<T> {}

impl<T> Held<T> {
    pub const fn new(value: T) -> Held<T> {
        Held(UnsafeCell::new(value))
    }

    /// # Safety
    /// The GIL is held, or no other thread can have it any more; and no other reference from here is in use.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn get(&self) -> &mut T {
        // SAFETY: as the caller promises.
        unsafe { &mut *self.0.get() }
    }
}
