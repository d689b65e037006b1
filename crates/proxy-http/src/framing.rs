//! How long a message body is (RFC 9112 section 6), without any of the ambiguities that smuggling lives on.

use std::ops::Range;

use crate::chunked::ChunkedDecoder;
use crate::error::ParseError;
use crate::head::{RequestHead, ResponseHead, Version};
use crate::header_id::HeaderId;
use crate::headers::Headers;
use crate::parse::HeadLimits;

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

/// What a call of [`BodyDecoder::decode`] has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BodyStep {
    /// Bytes of the input that are done with once `data` has been used.
    pub consumed: usize,
    /// Body bytes in the input; may be empty.
    pub data: Range<usize>,
    /// True when the body is complete.
    pub end: bool,
}

/// Takes a body apart as it arrives.
#[derive(Debug)]
pub enum BodyDecoder {
    /// No body, or nothing left of it.
    Done,
    /// This many bytes are still to come.
    Length(u64),
    /// Chunks; boxed because most messages have none.
    Chunked(Box<ChunkedDecoder>),
    /// Everything until the end of the connection.
    UntilClose,
}

impl BodyDecoder {
    /// A decoder for this framing; `limits` bound the trailers.
    pub fn new(framing: BodyFraming, limits: HeadLimits) -> Self {
        match framing {
            BodyFraming::None | BodyFraming::Length(0) => BodyDecoder::Done,
            BodyFraming::Length(length) => BodyDecoder::Length(length),
            BodyFraming::Chunked => BodyDecoder::Chunked(Box::new(ChunkedDecoder::new(limits))),
            BodyFraming::UntilClose => BodyDecoder::UntilClose,
        }
    }

    /// True when the body is complete.
    pub fn is_done(&self) -> bool {
        matches!(self, BodyDecoder::Done)
    }

    /// Decodes one piece. Call again with the rest while something is consumed and the end has not come.
    ///
    /// # Errors
    /// The chunked coding is malformed.
    pub fn decode(&mut self, input: &[u8]) -> Result<BodyStep, ParseError> {
        match self {
            BodyDecoder::Done => Ok(BodyStep {
                consumed: 0,
                data: 0..0,
                end: true,
            }),
            BodyDecoder::UntilClose => Ok(BodyStep {
                consumed: input.len(),
                data: 0..input.len(),
                end: false,
            }),
            BodyDecoder::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= take as u64;
                let end = *left == 0;
                if end {
                    *self = BodyDecoder::Done;
                }
                Ok(BodyStep {
                    consumed: take,
                    data: 0..take,
                    end,
                })
            }
            BodyDecoder::Chunked(decoder) => decoder.decode(input),
        }
    }

    /// The peer has closed its side.
    ///
    /// # Errors
    /// The body was not complete.
    pub fn close(&mut self) -> Result<(), ParseError> {
        match self {
            BodyDecoder::Done => Ok(()),
            BodyDecoder::UntilClose => {
                *self = BodyDecoder::Done;
                Ok(())
            }
            BodyDecoder::Chunked(decoder) if decoder.is_done() => Ok(()),
            _ => Err(ParseError::UnexpectedEnd),
        }
    }

    /// Takes the trailers of a chunked body that is complete, when it had any.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        match self {
            BodyDecoder::Chunked(decoder) => decoder.take_trailers(),
            _ => None,
        }
    }
}
