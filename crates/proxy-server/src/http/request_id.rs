//! `x-request-id`: random UUIDs whose fourteenth digit carries the trace decision
//! (`envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig`).

/// Length of a UUID in text form.
const UUID_LENGTH: usize = 36;

/// Where the trace decision stands: the version digit.
const TRACE_DIGIT: usize = 14;

/// Why a request is traced, or that it is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TraceReason {
    /// Not traced.
    NotTraced,
    /// Chosen at random.
    Sampled,
    /// The service asked for it (`x-envoy-force-trace`).
    ServiceForced,
    /// The client asked for it (`x-client-trace-id`).
    ClientForced,
}

impl TraceReason {
    const fn digit(self) -> u8 {
        match self {
            TraceReason::NotTraced => b'4',
            TraceReason::Sampled => b'9',
            TraceReason::ServiceForced => b'a',
            TraceReason::ClientForced => b'b',
        }
    }
}

/// Where each byte of a UUID stands in its text.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// A random (version 4) UUID out of 128 random bits.
pub(crate) fn uuid(high: u64, low: u64) -> [u8; UUID_LENGTH] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let high = ((high & !0xf000) | 0x4000).to_be_bytes();
    let low = ((low & !(0x3 << 62)) | (0x2 << 62)).to_be_bytes();
    let mut text = [b'-'; UUID_LENGTH];
    for (byte, place) in high.into_iter().chain(low).zip(PLACES) {
        text[place] = DIGITS[usize::from(byte >> 4)];
        text[place + 1] = DIGITS[usize::from(byte & 0xf)];
    }
    text
}

/// What a request id says about tracing; `None` when it is not a UUID.
pub(crate) fn trace_reason(id: &[u8]) -> Option<TraceReason> {
    if id.len() != UUID_LENGTH {
        return None;
    }
    Some(match id[TRACE_DIGIT] {
        b'9' => TraceReason::Sampled,
        b'a' => TraceReason::ServiceForced,
        b'b' => TraceReason::ClientForced,
        _ => TraceReason::NotTraced,
    })
}

/// The id with another trace decision; `None` when it is not a UUID.
pub(crate) fn with_trace_reason(id: &[u8], reason: TraceReason) -> Option<[u8; UUID_LENGTH]> {
    let mut id: [u8; UUID_LENGTH] = id.try_into().ok()?;
    id[TRACE_DIGIT] = reason.digit();
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_version_and_variant_and_all_other_bits_random() {
        assert_eq!(&uuid(0, 0), b"00000000-0000-4000-8000-000000000000");
        assert_eq!(&uuid(u64::MAX, u64::MAX), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(
            &uuid(0x0123_4567_89ab_cdef, 0x0123_4567_89ab_cdef),
            b"01234567-89ab-4def-8123-456789abcdef"
        );
    }

    #[test]
    fn the_trace_decision_is_written_into_the_version_digit_and_read_back() {
        for reason in [
            TraceReason::NotTraced,
            TraceReason::Sampled,
            TraceReason::ServiceForced,
            TraceReason::ClientForced,
        ] {
            let id = with_trace_reason(&uuid(1, 2), reason).expect("a UUID");
            assert_eq!(trace_reason(&id), Some(reason));
        }
        assert_eq!(
            with_trace_reason(b"mine", TraceReason::Sampled),
            None,
            "foreign ids are left alone"
        );
    }
}
