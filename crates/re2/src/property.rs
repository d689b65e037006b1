//! Properties of characters (`\pL`, `\p{Greek}`): the bytes whose numbers are those of characters with it.

use crate::Invalid;
use crate::state::Translation;

/// General categories, which have no other names.
const CATEGORIES: [&str; 36] = [
    "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl",
    "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs",
];
/// Scripts whose whole name has four letters; other names of that length are abbreviations, which RE2 does not know.
const SHORT_SCRIPTS: [&str; 6] = ["Ahom", "Cham", "Kawi", "Lisu", "Thai", "Toto"];

/// Every byte, in brackets.
const EVERY: &str = r"\x00-\xFF";

/// What follows the backslash.
pub(crate) fn translate(translation: &mut Translation<'_>) -> Result<(), Invalid> {
    let all = translation.rest();
    let refuse = || Invalid::new("no property of characters", &all[..all.len().min(32)]);
    let mut negated = translation.next() == Some(b'P');
    let name = match translation.next_if(b'{') {
        true => {
            negated ^= translation.next_if(b'^');
            let length = translation.rest().iter().position(|byte| *byte == b'}');
            let name = translation.take(length.ok_or_else(refuse)?);
            translation.take(1);
            name
        }
        false => translation.take(1),
    };
    let name = std::str::from_utf8(name).map_err(|_| refuse())?;
    if !translation.properties.contains_key(name) {
        let bytes = bytes_of(&of_characters(name).ok_or_else(refuse)?);
        translation.properties.insert(name, bytes);
    }
    let bytes = translation.properties.get(name).map_or("", String::as_str);
    // Negated in the crate, so that without regard to case a letter is not other than itself.
    let (opening, bytes) = match (bytes, negated) {
        ("", false) => ("[^", EVERY),
        ("", true) => ("[", EVERY),
        (bytes, false) => ("[", bytes),
        (bytes, true) => ("[^", bytes),
    };
    let written = format!("{opening}{bytes}]");
    translation.out.push_str(&written);
    Ok(())
}

/// The bytes whose numbers are those of characters that match, as they are written in brackets.
fn bytes_of(of_characters: &regex::Regex) -> String {
    let has = |byte: &u8| of_characters.is_match(char::from(*byte).encode_utf8(&mut [0; 4]));
    (0..=u8::MAX)
        .filter(has)
        .map(|byte| format!("\\x{byte:02X}"))
        .collect()
}

/// The characters that have a property, if RE2 knows it by this name.
fn of_characters(name: &str) -> Option<regex::Regex> {
    let script = || {
        let mut words = name.split('_');
        let capital = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_uppercase())
                && word.len() > 1
                && word.bytes().all(|byte| byte.is_ascii_alphabetic())
        };
        words.all(capital) && (name.len() != 4 || SHORT_SCRIPTS.contains(&name))
    };
    let class = match name {
        "Any" => "(?s:.)".to_owned(),
        name if CATEGORIES.contains(&name) => format!("\\p{{gc={name}}}"),
        name if script() => format!("\\p{{Script={name}}}"),
        _ => return None,
    };
    regex::Regex::new(&format!("\\A{class}\\z")).ok()
}
