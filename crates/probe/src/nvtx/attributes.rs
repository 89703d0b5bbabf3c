//! `nvtxEventAttributes_v2`: what is told with a range or mark.

use super::text::Name;
use inferscope_spool::record::Attributes;
use std::ffi::{c_char, c_void};

/// What a client told: a name, and attributes if there are any.
pub struct Told {
    pub name: Name,
    pub attributes: Option<Attributes>,
}

impl Told {
    /// # Safety
    /// As [`Name::ascii`].
    #[inline(always)]
    pub unsafe fn ascii(text: *const c_char) -> Told {
        Told {
            // SAFETY: as the caller promises.
            name: unsafe { Name::ascii(text) },
            attributes: None,
        }
    }

    /// # Safety
    /// As [`Name::wide`].
    pub unsafe fn wide(text: *const u32) -> Told {
        Told {
            // SAFETY: as the caller promises.
            name: unsafe { Name::wide(text) },
            attributes: None,
        }
    }
}

/// The structure, version 2.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Event {
    version: u16,
    size: u16,
    category: u32,
    color_type: i32,
    color: u32,
    payload_type: i32,
    reserved: i32,
    payload: u64,
    message_type: i32,
    reserved_too: i32,
    message: u64,
}

/// Reads no more than the structure says it has.
///
/// # Safety
/// Null, or as many bytes as its second word says, with a message of the type that it says.
#[inline(always)]
pub unsafe fn read(at: *const c_void) -> Told {
    // SAFETY: as the caller promises; the client may have put it anywhere.
    let Some(event) = (unsafe { event(at) }) else {
        return Told {
            name: Name::none(),
            attributes: None,
        };
    };
    let color = (event.color_type == 1).then_some(event.color);
    let value = match event.payload_type {
        0 => None,
        kind => number(kind, event.payload),
    };
    let told = event.category != 0 || color.is_some() || value.is_some();
    Told {
        name: match event.message_type {
            3 => Name::registered(event.message),
            // SAFETY: the message is what its type says.
            1 => unsafe { Name::ascii(event.message as *const c_char) },
            // SAFETY: as above.
            2 => unsafe { Name::wide(event.message as *const u32) },
            _ => Name::none(),
        },
        attributes: told.then_some(Attributes {
            category: event.category,
            color,
            value,
        }),
    }
}

/// # Safety
/// As [`read`].
#[inline(always)]
unsafe fn event(at: *const c_void) -> Option<Event> {
    if at.is_null() {
        return None;
    }
    // SAFETY: version and size are always there.
    let size = unsafe { at.cast::<u16>().add(1).read_unaligned() };
    let whole = size_of::<Event>();
    if usize::from(size) >= whole {
        // SAFETY: it has that many bytes.
        return Some(unsafe { at.cast::<Event>().read_unaligned() });
    }
    let mut event = Event::default();
    // SAFETY: as many bytes as it says, fewer than ours.
    unsafe {
        let to = (&raw mut event).cast::<u8>();
        to.copy_from_nonoverlapping(at.cast(), size.into());
    }
    Some(event)
}

/// A payload, by nvtxPayloadType_t.
fn number(kind: i32, bits: u64) -> Option<f64> {
    Some(match kind {
        1 => bits as f64,
        2 => bits as i64 as f64,
        3 => f64::from_bits(bits),
        4 => f64::from(bits as u32),
        5 => f64::from(bits as i32),
        6 => f64::from(f32::from_bits(bits as u32)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_there_is() {
        let whole = Event {
            version: 2,
            size: 48,
            category: 7,
            color_type: 1,
            color: 0xff00_ff00,
            payload_type: 5,
            payload: -3i32 as u32 as u64,
            ..Event::default()
        };
        let told = |size: u16| {
            let bytes: Vec<u8> = {
                let event = Event { size, ..whole };
                let at = (&raw const event).cast::<u8>();
                // SAFETY: the whole structure, all of it written.
                unsafe { std::slice::from_raw_parts(at, usize::from(size)) }.to_vec()
            };
            // SAFETY: so many bytes as it says.
            unsafe { read(bytes.as_ptr().cast()) }.attributes
        };
        let all = Attributes {
            category: 7,
            color: Some(0xff00_ff00),
            value: Some(-3.0),
        };
        assert_eq!(told(48), Some(all));
        let color = Attributes { value: None, ..all };
        assert_eq!(told(16), Some(color));
        assert_eq!(
            told(8),
            Some(Attributes {
                color: None,
                ..color
            })
        );
        assert_eq!(told(4), None);
    }

    #[test]
    fn payloads_of_every_type_are_numbers() {
        let float = u64::from(0.5f32.to_bits());
        let (minus, minus_4) = (-1i64 as u64, -1i32 as u32 as u64);
        let told = [
            (1, 9),
            (2, minus),
            (3, 0.25f64.to_bits()),
            (4, 9),
            (5, minus_4),
            (6, float),
        ];
        let got = told.map(|(kind, bits)| number(kind, bits).unwrap());
        assert_eq!(got, [9.0, -1.0, 0.25, 9.0, -1.0, 0.5]);
        assert_eq!(number(9, 1), None);
    }
}
