//! From RE2's syntax to the crate's. Everything is checked here, so that nothing is left for the crate to understand
//! otherwise.

use crate::limits::{MAX_DEPTH, MAX_REPEAT};
use crate::state::Translation;
use crate::{Invalid, class, escape};

/// What stands before the place where we are, in one group.
struct Level {
    /// Whether there is something that can be repeated.
    repeatable: bool,
    /// The last piece was an operator that repeats; another one must not follow.
    repeated: bool,
    /// Where in what is written the last piece begins that can be repeated.
    start: usize,
    /// Whether an operator repeats that piece already.
    bound: bool,
    /// How often the inmost part of the last piece is repeated, counted repetitions multiplied.
    weight: u64,
    /// The same of the heaviest piece of the group.
    heaviest: u64,
    /// Where in what is written flags begin that follow the last piece: what repeats it goes before them.
    flags: Option<usize>,
}

impl Level {
    const START: Self = Self {
        repeatable: false,
        repeated: false,
        start: 0,
        bound: false,
        weight: 1,
        heaviest: 1,
        flags: None,
    };

    /// Something that can be repeated has come, written from here on.
    fn piece(&mut self, start: usize, weight: u64) {
        self.repeatable = true;
        self.repeated = false;
        self.start = start;
        self.bound = false;
        self.flags = None;
        self.weight = weight;
        self.heaviest = self.heaviest.max(weight);
    }

    /// What comes begins anew, after a bar.
    fn anew(&mut self) {
        self.repeatable = false;
        self.nothing();
        self.weight = 1;
        self.flags = None;
    }

    /// Something has come that is nothing by itself, but stands between two repetitions.
    fn nothing(&mut self) {
        self.repeated = false;
    }

    /// Flags have come, written from here on.
    fn flags(&mut self, from: usize) {
        self.nothing();
        self.flags = self.flags.or(Some(from));
    }
}

/// The expression for a `RegexBuilder` without `unicode`.
pub(crate) fn translated(expression: &str) -> Result<String, Invalid> {
    let mut translation = Translation::new(expression);
    let mut levels = vec![];
    let mut level = Level::START;
    while let Some(byte) = translation.next() {
        let from = translation.out.len();
        match byte {
            b'(' => {
                if translation.group()? {
                    if levels.len() >= MAX_DEPTH as usize {
                        return Err(Invalid::new("groups are too deep", b"("));
                    }
                    levels.push((from, std::mem::replace(&mut level, Level::START)));
                } else {
                    level.flags(from);
                }
            }
            b')' => {
                let inner = level.heaviest;
                let outer = levels.pop();
                let (start, outer) = outer.ok_or_else(|| Invalid::new("nothing is open here", b")"))?;
                translation.out.push(')');
                level = outer;
                level.piece(start, inner);
            }
            b'|' => {
                translation.out.push('|');
                level.anew();
            }
            b'*' | b'+' | b'?' => translation.repeat(&mut level, &[byte], None)?,
            b'{' => match translation.count() {
                Some((text, counts)) => translation.repeat(&mut level, text, Some(counts))?,
                None => {
                    translation.literal(b'{');
                    level.piece(from, 1);
                }
            },
            b'[' => {
                class::translate(&mut translation)?;
                level.piece(from, 1);
            }
            b'\\' => match escape::outside(&mut translation)? {
                0 => level.nothing(),
                length => level.piece(if length == 1 { from } else { translation.last }, 1),
            },
            b'^' | b'$' | b'.' => {
                translation.out.push(char::from(byte));
                level.piece(from, 1);
            }
            byte => {
                translation.literal(byte);
                level.piece(from, 1);
            }
        }
    }
    match levels.is_empty() {
        true => Ok(translation.out),
        false => Err(Invalid::new("a group is not closed", b"(")),
    }
}

/// `{3}`, `{3,}`, `{3,5}`: least and most.
type Counts = (u32, Option<u32>);

impl<'e> Translation<'e> {
    /// What follows an opening parenthesis; whether a group has begun, rather than flags for what follows.
    fn group(&mut self) -> Result<bool, Invalid> {
        if !self.next_if(b'?') {
            self.out.push('(');
            return Ok(true);
        }
        for opening in [&b"P<"[..], b"<"] {
            if let Some(named) = self.rest().strip_prefix(opening) {
                let end = named.iter().position(|byte| *byte == b'>');
                let name = end.map(|end| &named[..end]).unwrap_or_default();
                let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                if name.is_empty() || !name.iter().all(word) {
                    return Err(Invalid::new("no name of a group", self.rest()));
                }
                // Groups are known by number only; the crate is stricter about names.
                self.take(opening.len() + name.len() + 1);
                self.out.push('(');
                return Ok(true);
            }
        }
        self.flags()
    }

    fn flags(&mut self) -> Result<bool, Invalid> {
        let all = self.rest();
        let refuse = || Invalid::new("no flags of a group", all);
        // By letter: whether it is switched on or off; the last word counts.
        let mut switched: Vec<(u8, bool)> = Vec::new();
        let (mut on, mut wanting) = (true, false);
        loop {
            match self.next().ok_or_else(refuse)? {
                flag @ (b'i' | b'm' | b's' | b'U') => {
                    switched.retain(|(known, _)| *known != flag);
                    switched.push((flag, on));
                    wanting = false;
                }
                b'-' if on => (on, wanting) = (false, true),
                end @ (b':' | b')') if !wanting => {
                    let with = |on: bool| switched.iter().filter(move |(_, is)| *is == on);
                    let letters = |on: bool| with(on).map(|(flag, _)| char::from(*flag)).collect::<String>();
                    let (set, cleared) = (letters(true), letters(false));
                    let minus = if cleared.is_empty() { "" } else { "-" };
                    let begins = end == b':';
                    if begins || !switched.is_empty() {
                        self.out
                            .push_str(&format!("(?{set}{minus}{cleared}{}", char::from(end)));
                    }
                    return Ok(begins);
                }
                _ => return Err(refuse()),
            }
        }
    }

    /// The rest of a counted repetition; `None` leaves it as text.
    fn count(&mut self) -> Option<(&'e [u8], Counts)> {
        let end = self.rest().iter().position(|byte| *byte == b'}')?;
        let text = &self.rest()[..end];
        let (least, most) = match text.iter().position(|byte| *byte == b',') {
            None => (number(text)?, Some(number(text)?)),
            Some(comma) if comma + 1 == text.len() => (number(&text[..comma])?, None),
            Some(comma) => (number(&text[..comma])?, Some(number(&text[comma + 1..])?)),
        };
        self.take(end + 1);
        Some((text, (least, most)))
    }

    fn repeat(&mut self, level: &mut Level, text: &[u8], counts: Option<Counts>) -> Result<(), Invalid> {
        if !level.repeatable {
            return Err(Invalid::new("nothing to repeat before", text));
        }
        if level.repeated {
            return Err(Invalid::new("a repetition is repeated by", text));
        }
        let flags = level.flags.take().map(|from| self.out.split_off(from));
        // Flags or nothing stood between two repetitions, which the crate would read as one.
        if std::mem::replace(&mut level.bound, true) {
            self.out.insert_str(level.start, "(?:");
            self.out.push(')');
        }
        match counts {
            None => self.out.push_str(&String::from_utf8_lossy(text)),
            Some((least, most)) => {
                let inverted = most.is_some_and(|most| most < least);
                let factor = u64::from(most.unwrap_or(least).max(1));
                let weight = level.weight.saturating_mul(factor);
                let too_many = weight > u64::from(MAX_REPEAT) || least > MAX_REPEAT;
                if inverted || too_many {
                    return Err(Invalid::new("no number of repetitions", text));
                }
                level.weight = weight;
                level.heaviest = level.heaviest.max(weight);
                self.out.push('{');
                self.out.push_str(&String::from_utf8_lossy(text));
                self.out.push('}');
            }
        }
        if self.next_if(b'?') {
            self.out.push('?');
        }
        if let Some(flags) = flags {
            level.flags = Some(self.out.len());
            self.out.push_str(&flags);
        }
        level.repeated = true;
        Ok(())
    }
}

/// A number as RE2 reads it in braces: without zeros before it, and not beyond a hundred million.
fn number(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let led = text.len() > 1 && text.first() == Some(&b'0');
    let text = std::str::from_utf8(text).ok().filter(|_| digits && !led)?;
    text.parse().ok().filter(|number| *number < 100_000_000)
}
