//! How long a message body is (RFC 9112 section 6), without any of the ambiguities that smuggling lives on.

use crate::error::ParseError;
use crate::head::{RequestHead, ResponseHead, Version};
use crate::header_id::HeaderId;
use crate::headers::Headers;

/// How a body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyFraming {
    /// There is no body.
    None,
    /// This many bytes, more than zero.
    Length(u64),
    /// Chunks, and trailers.
    Chunked,
    /// Whatever comes until the connection ends; responses only.
    UntilClose,
}

/// The framing of a request.
///
/// # Errors
/// The framing fields are ambiguous or malformed.
pub fn request_framing(head: &RequestHead) -> Result<BodyFraming, ParseError> {
    let coded = head.headers.get_id(HeaderId::TransferEncoding).is_some();
    if coded && (head.version == Version::Http10 || head.is_connect()) {
        return Err(ParseError::TransferEncodingNotAllowed);
    }
    let declared = declared_framing(&head.headers, coded)?;
    // What follows the head of CONNECT belongs to the tunnel, or is never read (RFC 9110 section 9.3.6).
    Ok(declared
        .filter(|_| !head.is_connect())
        .unwrap_or(BodyFraming::None))
}

/// The framing of a response to a request; `to_head` says that its method was HEAD. A 101 has no body: what
/// follows it is another protocol.
///
/// # Errors
/// The framing fields are ambiguous or malformed, or present where they may not be.
pub fn response_framing(head: &ResponseHead, to_head: bool) -> Result<BodyFraming, ParseError> {
    let status = head.status();
    let coded = head.headers.get_id(HeaderId::TransferEncoding).is_some();
    if coded && (status < 200 || status == 204 || head.version == Version::Http10) {
        return Err(ParseError::TransferEncodingNotAllowed);
    }
    let declared = declared_framing(&head.headers, coded)?;
    if to_head || status < 200 || status == 204 || status == 304 {
        return Ok(BodyFraming::None);
    }
    Ok(declared.unwrap_or(BodyFraming::UntilClose))
}

/// Refuses framing fields that are wrong whatever else the head says; called as soon as one arrives.
pub(crate) fn check_framing_fields(headers: &Headers) -> Result<(), ParseError> {
    declared_framing(headers, headers.get_id(HeaderId::TransferEncoding).is_some()).map(|_| ())
}

/// What the framing fields say; `None` when there are none.
fn declared_framing(headers: &Headers, coded: bool) -> Result<Option<BodyFraming>, ParseError> {
    let mut lengths = headers.get_all(&HeaderId::ContentLength);
    let length = lengths.next();
    if !coded {
        let Some(length) = length else { return Ok(None) };
        if lengths.next().is_some() {
            return Err(ParseError::DuplicateContentLength);
        }
        return Ok(Some(match parse_length(length)? {
            0 => BodyFraming::None,
            length => BodyFraming::Length(length),
        }));
    }
    if length.is_some() {
        return Err(ParseError::ConflictingLengths);
    }
    let mut codings = headers.get_all(&HeaderId::TransferEncoding);
    let only = codings.next().unwrap_or_default();
    if codings.next().is_some() || !only.eq_ignore_ascii_case(b"chunked") {
        return Err(ParseError::TransferEncoding);
    }
    Ok(Some(BodyFraming::Chunked))
}

/// A plain decimal number: digits only, no sign, no list, no overflow.
fn parse_length(value: &[u8]) -> Result<u64, ParseError> {
    if value.is_empty() {
        return Err(ParseError::ContentLength);
    }
    value.iter().try_fold(0u64, |length, &byte| {
        if !byte.is_ascii_digit() {
            return Err(ParseError::ContentLength);
        }
        length
            .checked_mul(10)
            .and_then(|length| length.checked_add(u64::from(byte - b'0')))
            .ok_or(ParseError::ContentLength)
    })
}
