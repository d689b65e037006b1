//! What follows a backslash.

use crate::Invalid;
use crate::property;
use crate::state::Translation;

/// What `\s` stands for in RE2; the crate counts the vertical tab, too.
const SPACE: &str = r"\t\n\f\r ";

/// An escape outside of brackets; how many pieces have been written, of which the last can be repeated.
pub(crate) fn outside(translation: &mut Translation<'_>) -> Result<usize, Invalid> {
    if set(translation, false)? {
        return Ok(1);
    }
    match translation.rest().first() {
        Some(anchor @ (b'A' | b'z' | b'b' | b'B')) => {
            translation.take(1);
            translation.out.push('\\');
            translation.out.push(char::from(*anchor));
            // The crate reads `\b{start}` as another boundary; a brace is text here, unless it counts.
            if translation.rest().first() == Some(&b'{') {
                wrap_last(&mut translation.out);
            }
            Ok(1)
        }
        Some(b'C') => {
            translation.take(1);
            translation.out.push_str("(?s:.)");
            Ok(1)
        }
        Some(b'Q') => {
            translation.take(1);
            Ok(quoted(translation))
        }
        _ => {
            let byte = character(translation)?;
            translation.literal(byte);
            Ok(1)
        }
    }
}

/// Puts the anchor that was written last into a group of its own.
fn wrap_last(out: &mut String) {
    let anchor = out.split_off(out.len() - 2);
    out.push_str(&format!("(?:{anchor})"));
}

/// Text up to `\E`, or to the end, that stands for itself; its length.
fn quoted(translation: &mut Translation<'_>) -> usize {
    let mut length = 0;
    while let Some(byte) = translation.next() {
        if byte == b'\\' && translation.next_if(b'E') {
            break;
        }
        translation.literal(byte);
        length += 1;
    }
    length
}

/// `\d`, `\pL` and their like, in brackets or not; whether there was one.
pub(crate) fn set(translation: &mut Translation<'_>, in_brackets: bool) -> Result<bool, Invalid> {
    let Some(letter @ (b'd' | b'D' | b's' | b'S' | b'w' | b'W' | b'p' | b'P')) = translation.rest().first()
    else {
        return Ok(false);
    };
    match letter {
        b'p' | b'P' => property::translate(translation)?,
        b's' | b'S' => {
            translation.take(1);
            let negation = if *letter == b'S' { "^" } else { "" };
            let written = match (in_brackets, negation) {
                (true, "") => SPACE.to_owned(),
                _ => format!("[{negation}{SPACE}]"),
            };
            translation.out.push_str(&written);
        }
        letter => {
            translation.take(1);
            translation.out.push('\\');
            translation.out.push(char::from(*letter));
        }
    }
    Ok(true)
}

/// An escape that stands for one byte.
pub(crate) fn character(translation: &mut Translation<'_>) -> Result<u8, Invalid> {
    let rest = translation.rest();
    let refuse = || Invalid::new("no escape", &[b"\\", &rest[..rest.len().min(8)]].concat());
    let next = translation.next().ok_or_else(refuse)?;
    Ok(match next {
        b'a' => 0x07,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0B,
        b'x' => hexadecimal(translation).ok_or_else(refuse)?,
        // One digit other than zero would refer back to a group.
        b'1'..=b'7' if !matches!(translation.rest().first(), Some(b'0'..=b'7')) => return Err(refuse()),
        b'0'..=b'7' => octal(next, translation).ok_or_else(refuse)?,
        mark if mark.is_ascii() && !mark.is_ascii_alphanumeric() => mark,
        _ => return Err(refuse()),
    })
}

/// The digits of `\x41` or `\x{41}`.
fn hexadecimal(translation: &mut Translation<'_>) -> Option<u8> {
    let digits = match translation.next_if(b'{') {
        true => {
            let length = translation.rest().iter().position(|byte| *byte == b'}')?;
            let digits = translation.take(length);
            translation.take(1);
            digits
        }
        false => Some(translation.take(2)).filter(|digits| digits.len() == 2)?,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let significant = digits
        .iter()
        .position(|digit| *digit != b'0')
        .unwrap_or(digits.len() - 1);
    let text = std::str::from_utf8(&digits[significant..]).ok()?;
    u8::from_str_radix(text, 16).ok()
}

/// Three octal digits at most, of which the first is read.
fn octal(first: u8, translation: &mut Translation<'_>) -> Option<u8> {
    let mut value = u32::from(first - b'0');
    for _ in 0..2 {
        let Some(digit @ b'0'..=b'7') = translation.rest().first() else {
            break;
        };
        value = value * 8 + u32::from(digit - b'0');
        translation.take(1);
    }
    u8::try_from(value).ok()
}
