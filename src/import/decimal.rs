//! Decimal numbers to integers, exactly.
//!
//! Kineto prints microseconds with three decimals, and a double has not enough digits for them: at 1.7e15 µs, an epoch's
//! age, its steps are 250 ns. So the digits are read, not the number.

/// A decimal number times `scale` as an integer; halves go to the even side. `None` if it is no finite number, or too
/// large.
pub fn scaled(word: &[u8], scale: i64) -> Option<i64> {
    // A few digits, a point, a few digits: nearly all of them.
    let (negative, digits) = match word {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (mut mantissa, mut point, mut count) = (0i64, None, 0usize);
    for (at, &byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' if count < 18 => {
                mantissa = mantissa * 10 + i64::from(byte - b'0');
                count += usize::from(mantissa > 0);
            }
            b'.' if point.is_none() => point = Some(at),
            _ => return slow(word, scale),
        }
    }
    let decimals = point.map_or(0, |at| digits.len() - at - 1);
    if digits.len() == usize::from(point.is_some()) {
        return None;
    }
    let factor = match (scale, decimals) {
        (1000, 0..=3) => [1000, 100, 10, 1][decimals], // µs to ns
        (1, 0) => 1,
        _ => {
            let power = 10i64.checked_pow(decimals as u32)?;
            if scale % power != 0 {
                return slow(word, scale);
            }
            scale / power
        }
    };
    let value = mantissa.checked_mul(factor)?;
    Some(if negative { -value } else { value })
}

/// As [`scaled`], for every form that JSON has.
fn slow(word: &[u8], scale: i64) -> Option<i64> {
    let text = std::str::from_utf8(word).ok()?;
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().next().is_none() || digits().any(|byte| !byte.is_ascii_digit()) {
        return None;
    }
    // value = digits × 10^power, and `scale` more. Digits beyond what an i128 holds only say which way to round.
    let mut power = i64::from(exponent) - fraction.len() as i64;
    let (mut value, mut rest) = (0i128, false);
    for byte in digits() {
        match value < i128::MAX / 100 / i128::from(scale) {
            true => value = value * 10 + i128::from(byte - b'0'),
            false => {
                rest |= byte != b'0';
                power += 1;
            }
        }
    }
    value *= i128::from(scale);
    if value == 0 {
        return Some(0);
    }
    while power > 0 {
        value = value.checked_mul(10)?;
        power -= 1;
    }
    if power < 0 {
        let Some(divisor) = u32::try_from(-power)
            .ok()
            .and_then(|p| 10i128.checked_pow(p))
        else {
            return Some(0);
        };
        let (quotient, left) = (value / divisor, value % divisor);
        let up = left * 2 > divisor || (left * 2 == divisor && (rest || quotient % 2 == 1));
        value = quotient + i128::from(up);
    }
    i64::try_from(if negative { -value } else { value }).ok()
}

/// An unsigned integer: decimal, or hexadecimal after `0x`.
pub fn unsigned(word: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(word).ok()?;
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_become_nanoseconds_without_loss() {
        for (word, ns) in [
            ("1428625731896.179", Some(1_428_625_731_896_179)),
            ("1623142623460016", Some(1_623_142_623_460_016_000)),
            ("0.5", Some(500)),
            ("-0.001", Some(-1)),
            ("1.5e3", Some(1_500_000)),
            ("1E-3", Some(1)),
            ("0.0005", Some(0)), // halves go to the even side, as Python's Decimal does
            ("0.0015", Some(2)),
            ("0.00150000000000000000000000000000000000000000001", Some(2)),
            ("0.0025", Some(2)),
            ("0.0025000000001", Some(3)),
            ("000000000000000000000000000012", Some(12_000)),
            ("1e400", None),
            ("99999999999999999999", None),
            ("1e-400", Some(0)),
            ("nan", None),
            ("-Infinity", None),
            ("", None),
            (".", None),
            ("-", None),
            ("1.2.3", None),
            ("12a", None),
        ] {
            assert_eq!(scaled(word.as_bytes(), 1000), ns, "{word}");
        }
    }

    #[test]
    fn ids_are_decimal_or_hexadecimal() {
        assert_eq!(unsigned(b"675771"), Some(675_771));
        assert_eq!(unsigned(b"0x1F"), Some(31));
        assert_eq!(unsigned(b"-1"), None);
    }
}
