//! What is in brackets: characters, ranges and sets of characters. There are no operators.

use crate::state::Translation;
use crate::{Invalid, escape};

/// The sets that have names (`[[:alpha:]]`).
const NAMES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// What follows the opening bracket.
pub(crate) fn translate(translation: &mut Translation<'_>) -> Result<(), Invalid> {
    let all = translation.rest();
    let open = || Invalid::new("a bracket is not closed", all);
    translation.out.push('[');
    if translation.next_if(b'^') {
        translation.out.push('^');
    }
    let mut first = true;
    loop {
        match translation.rest() {
            [] => return Err(open()),
            [b']', ..] if !first => {
                translation.next();
                translation.out.push(']');
                return Ok(());
            }
            [b'[', b':', ..] if named(translation)? => {}
            [b'\\', ..] => {
                translation.next();
                if !escape::set(translation, true)? {
                    let low = escape::character(translation)?;
                    range(translation, low)?;
                }
            }
            [low, ..] => {
                translation.next();
                range(translation, *low)?;
            }
        }
        first = false;
    }
}

/// A character, or the range that it begins.
fn range(translation: &mut Translation<'_>, low: u8) -> Result<(), Invalid> {
    translation.literal(low);
    let ranges = matches!(translation.rest(), [b'-', next, ..] if *next != b']');
    if !ranges {
        return Ok(());
    }
    translation.next();
    let shown = translation.rest();
    let high = match translation.next() {
        Some(b'\\') => escape::character(translation)?,
        Some(byte) => byte,
        None => return Err(Invalid::new("a range does not end", shown)),
    };
    if high < low {
        return Err(Invalid::new("a range ends before it begins", &[low, b'-', high]));
    }
    translation.out.push('-');
    translation.literal(high);
    Ok(())
}

/// `[:alpha:]`; whether there was one. What is not closed is a bracket and a colon.
fn named(translation: &mut Translation<'_>) -> Result<bool, Invalid> {
    let inner = &translation.rest()[2..];
    let Some(end) = inner.windows(2).position(|two| two == b":]") else {
        return Ok(false);
    };
    let name = &inner[..end];
    let bare = name.strip_prefix(b"^").unwrap_or(name);
    if !NAMES.iter().any(|known| known.as_bytes() == bare) {
        return Err(Invalid::new("no set of characters", name));
    }
    let written = translation.take(end + 4);
    translation.out.push_str(&String::from_utf8_lossy(written));
    Ok(true)
}
