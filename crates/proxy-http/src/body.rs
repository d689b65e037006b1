//! Taking a message body apart, whatever its framing.

use crate::chunked::{BodyStep, ChunkedDecoder};
use crate::error::ParseError;
use crate::framing::BodyFraming;
use crate::headers::Headers;
use crate::parse::HeadLimits;

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
