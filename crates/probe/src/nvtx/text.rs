//! Texts of NVTX: what clients point to, and what stands for it in records.

use super::own;
use crate::hot;
use std::borrow::Cow;
use std::ffi::{CStr, c_char};

/// Distinct texts of NVTX that get an id: scopes and marks have the other half.
const MOST: usize = hot::MOST_TEXTS / 2;
/// In the handle of a registered string: it is the address of a copy. User space has no such addresses.
const ADDRESS: u64 = 1 << 63;
/// What stands for no text.
const NONE: &str = "(no text)";

/// What a record names.
pub enum Name {
    Id(u32),
    /// A text beyond those that have an id.
    Text(Cow<'static, str>),
}

impl Name {
    pub fn none() -> Name {
        Name::of(NONE)
    }

    /// By way of all texts of the process: a lock, and a hash.
    pub fn of(text: &str) -> Name {
        let text = if text.is_empty() { NONE } else { text };
        match hot::text_id_below(MOST, text) {
            Some(id) => Name::Id(id),
            None => Name::Text(Cow::Owned(text.to_owned())),
        }
    }

    /// # Safety
    /// Null, or a text that ends with a zero.
    #[inline(always)]
    pub unsafe fn ascii(at: *const c_char) -> Name {
        if at.is_null() {
            return Name::none();
        }
        // SAFETY: as the caller promises.
        own::name(unsafe { CStr::from_ptr(at) }.to_bytes())
    }

    /// # Safety
    /// As [`wide`].
    pub unsafe fn wide(at: *const u32) -> Name {
        // SAFETY: as the caller promises.
        own::name(unsafe { wide(at) }.as_bytes())
    }

    #[inline(always)]
    pub fn registered(handle: u64) -> Name {
        match handle {
            0 => Name::none(),
            handle if handle & ADDRESS == 0 => Name::Id(handle as u32),
            handle => {
                let at = (handle & !ADDRESS) as *const String;
                // SAFETY: the handle is one that `register` gave, and its text stays.
                Name::Text(Cow::Borrowed(unsafe { &*at }))
            }
        }
    }
}

/// The handle of a registered string.
pub fn register(text: &str) -> u64 {
    match Name::of(text) {
        Name::Id(id) => id.into(),
        Name::Text(text) => std::ptr::from_ref(hot::keep_text(&text)) as u64 | ADDRESS,
    }
}

/// # Safety
/// Null, or a text that ends with a zero and outlives what is returned.
pub unsafe fn ascii<'a>(at: *const c_char) -> Cow<'a, str> {
    if at.is_null() {
        return "".into();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(at) }.to_string_lossy()
}

/// A text of `wchar_t`: UTF-32 on Linux.
///
/// # Safety
/// Null, or whole characters up to a zero.
pub unsafe fn wide(mut at: *const u32) -> String {
    let mut text = String::new();
    // SAFETY: as the caller promises: it ends at the zero.
    while !at.is_null() && unsafe { *at } != 0 {
        // SAFETY: as above.
        text.push(char::from_u32(unsafe { *at }).unwrap_or(char::REPLACEMENT_CHARACTER));
        // SAFETY: not the zero, so there is one more.
        at = unsafe { at.add(1) };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_texts_are_utf_32_and_what_is_no_character_is_replaced() {
        let text: Vec<u32> = "größe 🦀"
            .chars()
            .map(u32::from)
            .chain([0xd800, 0])
            .collect();
        // SAFETY: it ends with a zero.
        assert_eq!(unsafe { wide(text.as_ptr()) }, "größe 🦀\u{fffd}");
        // SAFETY: null is allowed.
        assert_eq!(unsafe { wide(std::ptr::null()) }, "");
    }

    #[test]
    fn texts_beyond_those_with_an_id_keep_a_handle_of_their_own() {
        let handles: Vec<u64> = (0..MOST + 10)
            .map(|n| register(&format!("text {n}")))
            .collect();
        assert_eq!(register("text 3"), handles[3]);
        let last = format!("text {}", MOST + 9);
        assert_eq!(register(&last), handles[MOST + 9]);
        match Name::registered(handles[MOST + 9]) {
            Name::Text(text) => assert_eq!(text, last),
            Name::Id(id) => panic!("{id}"),
        }
        assert!(
            matches!(Name::registered(handles[3]), Name::Id(id) if u64::from(id) == handles[3])
        );
    }
}
