//! The `date` field, formatted once a second per worker.

use std::cell::RefCell;
use std::time::SystemTime;

/// Length of an IMF-fixdate (RFC 9110 section 5.6.7).
const DATE_LENGTH: usize = 29;

/// The last formatted date.
#[derive(Debug)]
pub(crate) struct DateCache {
    second: RefCell<(u64, [u8; DATE_LENGTH])>,
}

impl Default for DateCache {
    fn default() -> Self {
        DateCache {
            second: RefCell::new((u64::MAX, [0; DATE_LENGTH])),
        }
    }
}

impl DateCache {
    /// Calls `using` with the date at `now`.
    pub(crate) fn with<R>(&self, now: SystemTime, using: impl FnOnce(&[u8]) -> R) -> R {
        let second = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut cached = self.second.borrow_mut();
        if cached.0 != second {
            let text = httpdate::fmt_http_date(now);
            if text.len() == DATE_LENGTH {
                cached.1.copy_from_slice(text.as_bytes());
                cached.0 = second;
            }
        }
        using(&cached.1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_date_changes_with_the_second() {
        let cache = DateCache::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let text = |now| cache.with(now, |date| String::from_utf8_lossy(date).into_owned());
        assert_eq!(text(at(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(at(784_111_778)), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
