//! How it stands with a workload's certificate, as its record and people are told.

use std::time::{Duration, SystemTime};

use agent::certificates::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::limits::EXPIRES_SOON;

/// A workload's certificate, without its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CertificateRecord {
    /// Its serial number in hexadecimal digits; empty before the first.
    pub(crate) serial: String,
    /// Whom it names, `spiffe://…`; empty before the first.
    pub(crate) identity: String,
    /// When it came.
    #[serde(with = "moments")]
    pub(crate) obtained: Option<OffsetDateTime>,
    /// When it, or one above it, ends.
    #[serde(with = "moments")]
    pub(crate) expires: Option<OffsetDateTime>,
    /// When the next one is asked for.
    #[serde(with = "moments")]
    pub(crate) renewal: Option<OffsetDateTime>,
    /// Why the last attempt failed; nothing after a good one.
    pub(crate) failure: Option<String>,
    /// Attempts that failed since the last good one.
    pub(crate) failures: u32,
}

impl CertificateRecord {
    pub(crate) fn of(state: &State) -> Self {
        let held = state.held.as_deref();
        let moment = |time: SystemTime| OffsetDateTime::from(time).replace_nanosecond(0).ok();
        Self {
            serial: held
                .map(|held| held.svid.leaf().serial().to_owned())
                .unwrap_or_default(),
            identity: held.map(|held| held.svid.id().to_string()).unwrap_or_default(),
            obtained: held.and_then(|held| moment(held.obtained)),
            expires: held.and_then(|held| moment(held.svid.expires())),
            renewal: state.next.and_then(moment),
            failure: state.failure.as_deref().map(str::to_owned),
            failures: state.failures,
        }
    }

    /// In a few words at `now`: how long it is still valid, and whether its renewal fails.
    pub(crate) fn in_words(&self, now: OffsetDateTime) -> String {
        let Some(expires) = self.expires else {
            return if self.failures == 0 {
                "none yet"
            } else {
                "none, refused"
            }
            .to_owned();
        };
        let left = expires - now;
        if left.is_negative() {
            return format!("expired {} ago", span(left.unsigned_abs()));
        }
        let soon = if self.expires_soon(now) {
            ", EXPIRES SOON"
        } else {
            ""
        };
        let left = span(left.unsigned_abs());
        match self.failures {
            0 => format!("{left} left{soon}"),
            1 => format!("{left} left{soon}, 1 renewal failed"),
            failures => format!("{left} left{soon}, {failures} renewals failed"),
        }
    }

    /// Whether at `now` so little of its life is left that its renewal is long overdue, or nothing.
    pub(crate) fn expires_soon(&self, now: OffsetDateTime) -> bool {
        let (Some(obtained), Some(expires)) = (self.obtained, self.expires) else {
            return false;
        };
        expires - now < (expires - obtained) * EXPIRES_SOON
    }
}

/// Moments as RFC 3339 writes them.
mod moments {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    #[allow(clippy::ref_option, reason = "serde asks for this signature")]
    pub(super) fn serialize<S: Serializer>(
        moment: &Option<OffsetDateTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = moment.and_then(|moment| moment.format(&Rfc3339).ok());
        text.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<OffsetDateTime>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let read = |text: String| OffsetDateTime::parse(&text, &Rfc3339);
        text.map(read).transpose().map_err(serde::de::Error::custom)
    }
}

/// `23h59m`, `4m10s`, `9s`.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(left_seconds: i64, failures: u32) -> (CertificateRecord, OffsetDateTime) {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let record = CertificateRecord {
            serial: "0a".to_owned(),
            identity: "spiffe://cluster.local/ns/default/sa/reviews".to_owned(),
            obtained: Some(now - time::Duration::hours(1)),
            expires: Some(now + time::Duration::seconds(left_seconds)),
            renewal: None,
            failure: None,
            failures,
        };
        (record, now)
    }

    #[test]
    fn people_are_told_how_long_a_certificate_holds_and_that_its_renewal_fails() {
        let words = |left, failures| {
            let (record, now) = record(left, failures);
            record.in_words(now)
        };
        assert_eq!(words(24 * 3600 - 5, 0), "23h59m left");
        assert_eq!(words(1800, 1), "30m00s left, 1 renewal failed");
        assert_eq!(words(1199, 0), "19m59s left, EXPIRES SOON");
        assert_eq!(words(9, 7), "9s left, EXPIRES SOON, 7 renewals failed");
        assert_eq!(words(-61, 7), "expired 1m01s ago");
    }

    #[test]
    fn a_workload_without_a_certificate_says_so() {
        let (mut record, now) = record(0, 0);
        record.expires = None;
        assert_eq!(record.in_words(now), "none yet");
        record.failures = 1;
        assert_eq!(record.in_words(now), "none, refused");
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let (record, _) = record(100, 2);
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains("\"expires\":\"2027-01-15T08:01:40Z\""), "{text}");
        assert_eq!(serde_json::from_str::<CertificateRecord>(&text).unwrap(), record);
    }
}
