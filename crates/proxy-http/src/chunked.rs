//! The chunked transfer coding (RFC 9112 section 7.1), strict: no white space, no bare LF, bounded extensions.

use std::ops::Range;

use crate::error::ParseError;
use crate::headers::Headers;
use crate::limits;
use crate::parse::{HeadLimits, HeadParser};
use crate::syntax::is_token;

/// What a call of a body decoder's `decode` has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BodyStep {
    /// Bytes of the input that are done with once `data` has been used.
    pub consumed: usize,
    /// Body bytes in the input; may be empty.
    pub data: Range<usize>,
    /// True when the body is complete.
    pub end: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Before or inside the hexadecimal size; how many digits were read.
    Size {
        digits: usize,
    },
    Extension(Extension),
    /// The LF behind a size or extension.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// Where in a chunk extension the decoder stands (RFC 9112 section 7.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Extension {
    /// Behind the semicolon: a name must begin.
    NameStart,
    Name,
    /// Behind the equals sign.
    ValueStart,
    Value,
    Quoted,
    /// Behind a backslash in a quoted value.
    Escaped,
    /// Behind the closing quote.
    QuotedEnd,
}

/// Takes chunks apart as they arrive. Extensions are checked and dropped, trailers are kept.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Bytes of the present chunk still to come.
    left: u64,
    extension_bytes: usize,
    parser: HeadParser,
    trailers: Headers,
}

impl ChunkedDecoder {
    /// A decoder whose trailers keep within `limits`.
    pub fn new(limits: HeadLimits) -> Self {
        ChunkedDecoder {
            state: State::Size { digits: 0 },
            left: 0,
            extension_bytes: 0,
            parser: HeadParser::new(limits),
            trailers: Headers::new(),
        }
    }

    /// True when the last chunk and the trailers have come.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the trailers once the body is complete, when there are any.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        (self.is_done() && !self.trailers.is_empty()).then(|| std::mem::take(&mut self.trailers))
    }

    /// Decodes up to and including one piece of data.
    ///
    /// # Errors
    /// The coding is malformed.
    pub fn decode(&mut self, input: &[u8]) -> Result<BodyStep, ParseError> {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::Data => {
                    let take = usize::try_from(self.left)
                        .unwrap_or(usize::MAX)
                        .min(input.len() - at);
                    self.left -= take as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(BodyStep {
                        consumed: at + take,
                        data: at..at + take,
                        end: false,
                    });
                }
                State::Trailers => {
                    let parsed = self.parser.trailers(&input[at..], &mut self.trailers)?;
                    at += parsed.consumed;
                    if parsed.complete {
                        self.state = State::Done;
                    }
                    return Ok(BodyStep {
                        consumed: at,
                        data: at..at,
                        end: parsed.complete,
                    });
                }
                State::Done => break,
                _ => {
                    self.framing_byte(input[at])?;
                    at += 1;
                }
            }
        }
        Ok(BodyStep {
            consumed: at,
            data: at..at,
            end: self.is_done(),
        })
    }

    /// Advances over one byte that is neither data nor trailer.
    fn framing_byte(&mut self, byte: u8) -> Result<(), ParseError> {
        self.state = match (self.state, byte) {
            (State::Size { digits }, _) => return self.size_byte(digits, byte),
            (State::Extension(place), _) => return self.extension_byte(place, byte),
            (State::SizeLf, b'\n') if self.left == 0 => State::Trailers,
            (State::SizeLf, b'\n') => State::Data,
            (State::SizeLf, _) => return Err(ParseError::LineEnd),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0 },
            _ => return Err(ParseError::ChunkEnd),
        };
        Ok(())
    }

    fn size_byte(&mut self, digits: usize, byte: u8) -> Result<(), ParseError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b';' if digits > 0 => {
                self.extension_bytes = 0;
                self.state = State::Extension(Extension::NameStart);
                return Ok(());
            }
            b'\r' if digits > 0 => {
                self.state = State::SizeLf;
                return Ok(());
            }
            _ => return Err(ParseError::ChunkSize),
        };
        if digits == limits::CHUNK_SIZE_DIGITS {
            return Err(ParseError::ChunkSize);
        }
        self.left = (self.left << 4) | u64::from(digit);
        self.state = State::Size { digits: digits + 1 };
        Ok(())
    }

    fn extension_byte(&mut self, place: Extension, byte: u8) -> Result<(), ParseError> {
        self.extension_bytes += 1;
        if self.extension_bytes > limits::CHUNK_EXTENSION_BYTES {
            return Err(ParseError::ChunkExtension);
        }
        let next = match (place, byte) {
            (Extension::NameStart | Extension::Name, byte) if is_token(byte) => Extension::Name,
            (Extension::Name, b'=') => Extension::ValueStart,
            (Extension::ValueStart, b'"') => Extension::Quoted,
            (Extension::ValueStart | Extension::Value, byte) if is_token(byte) => Extension::Value,
            (Extension::Quoted, b'"') => Extension::QuotedEnd,
            (Extension::Quoted, b'\\') => Extension::Escaped,
            (Extension::Quoted | Extension::Escaped, b'\t' | 0x20..=0x7e | 0x80..) => Extension::Quoted,
            (Extension::Name | Extension::Value | Extension::QuotedEnd, b';') => Extension::NameStart,
            (Extension::Name | Extension::Value | Extension::QuotedEnd, b'\r') => {
                self.state = State::SizeLf;
                return Ok(());
            }
            _ => return Err(ParseError::ChunkExtension),
        };
        self.state = State::Extension(next);
        Ok(())
    }
}
