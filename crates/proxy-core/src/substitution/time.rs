//! `%START_TIME%` and its strftime-like format.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{ConfigError, ConfigResult};

/// How a point in time is printed, in UTC. The default is `2026-11-21T10:57:48.123Z`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeFormat {
    items: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Literal(char),
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    /// `%s`: seconds since 1970.
    Epoch,
    /// `%3f`: so many digits of the fraction of the second; at most nine.
    Fraction(usize),
}

/// A date and time of day in UTC.
#[derive(Clone, Copy, Debug)]
struct Civil {
    year: i64,
    month: u64,
    day: u64,
    second_of_day: u64,
}

impl TimeFormat {
    /// Parses a format; empty means the default.
    ///
    /// # Errors
    /// A specifier that is not one of `%Y %m %d %H %M %S %s %T %F %f %1f…%9f %%`.
    pub fn parse(text: &str) -> ConfigResult<Self> {
        let text = if text.is_empty() {
            "%Y-%m-%dT%H:%M:%S.%3fZ"
        } else {
            text
        };
        let mut items = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                items.push(Item::Literal(c));
                continue;
            }
            let refuse = || ConfigError::new(format!("%START_TIME({text})%: unknown time specifier"));
            match chars.next().ok_or_else(refuse)? {
                'Y' => items.push(Item::Year),
                'm' => items.push(Item::Month),
                'd' => items.push(Item::Day),
                'H' => items.push(Item::Hour),
                'M' => items.push(Item::Minute),
                'S' => items.push(Item::Second),
                's' => items.push(Item::Epoch),
                'T' => items.extend([
                    Item::Hour,
                    Item::Literal(':'),
                    Item::Minute,
                    Item::Literal(':'),
                    Item::Second,
                ]),
                'F' => items.extend([
                    Item::Year,
                    Item::Literal('-'),
                    Item::Month,
                    Item::Literal('-'),
                    Item::Day,
                ]),
                'f' => items.push(Item::Fraction(9)),
                '%' => items.push(Item::Literal('%')),
                digit @ '1'..='9' if chars.next() == Some('f') => {
                    items.push(Item::Fraction(digit as usize - '0' as usize));
                }
                _ => return Err(refuse()),
            }
        }
        Ok(Self { items })
    }

    /// Writes a time; always has a value.
    pub(super) fn write(&self, time: SystemTime, out: &mut Vec<u8>) -> bool {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let civil = Civil::from_epoch(since.as_secs());
        for item in &self.items {
            // Writing to a Vec cannot fail.
            let _ = match *item {
                Item::Literal(c) => write!(out, "{c}"),
                Item::Year => write!(out, "{:04}", civil.year),
                Item::Month => write!(out, "{:02}", civil.month),
                Item::Day => write!(out, "{:02}", civil.day),
                Item::Hour => write!(out, "{:02}", civil.second_of_day / 3600),
                Item::Minute => write!(out, "{:02}", civil.second_of_day / 60 % 60),
                Item::Second => write!(out, "{:02}", civil.second_of_day % 60),
                Item::Epoch => write!(out, "{}", since.as_secs()),
                Item::Fraction(digits) => {
                    let fraction = since.subsec_nanos() / 10_u32.pow(9 - digits as u32);
                    write!(out, "{fraction:0digits$}")
                }
            };
        }
        true
    }
}

impl Civil {
    /// The Gregorian date of a day count since 1970, by eras of 400 years (146 097 days) that begin on 1 March.
    fn from_epoch(seconds: u64) -> Self {
        let days = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        Self {
            year: i64::try_from(year).unwrap_or(i64::MAX),
            month,
            day: day_of_year - (153 * shifted_month + 2) / 5 + 1,
            second_of_day: seconds % 86_400,
        }
    }
}
