//! The head parser: one pass over complete lines, resumable between them.
//!
//! Each complete line is checked, copied into the head's block and indexed at once, so nothing is scanned twice
//! and the caller's buffer needs to hold one line, not a head. Strictness is RFC 9112 without its permissions
//! to be lenient: CRLF only, no folding, no white space around names, no control characters.

use crate::error::ParseError;
use crate::framing::check_framing_fields;
use crate::head::{RequestHead, ResponseHead};
use crate::header_id::HeaderId;
use crate::headers::Headers;
use crate::limits;
use crate::syntax::{TOKEN_LOWER, is_field_value};
use crate::{request, response};

/// What the parser fills: a head, or a trailer section, which has neither a start line nor a check as a whole.
trait Section {
    fn fields(&mut self) -> &mut Headers;

    /// Forgets the message before, and takes the start line.
    fn begin(&mut self, _line: &[u8]) -> Result<(), ParseError> {
        Ok(())
    }

    /// Finds what is already wrong with the beginning of a start line.
    fn check_unfinished_start(_line: &[u8]) -> Result<(), ParseError> {
        Ok(())
    }

    /// Checks the complete section as a whole.
    fn finish(&mut self) -> Result<(), ParseError> {
        Ok(())
    }
}

impl Section for RequestHead {
    #[inline]
    fn fields(&mut self) -> &mut Headers {
        &mut self.headers
    }

    fn begin(&mut self, line: &[u8]) -> Result<(), ParseError> {
        self.clear();
        request::parse_line(line, self)
    }

    fn check_unfinished_start(line: &[u8]) -> Result<(), ParseError> {
        request::check_unfinished_line(line)
    }

    fn finish(&mut self) -> Result<(), ParseError> {
        request::finish(self)
    }
}

impl Section for ResponseHead {
    #[inline]
    fn fields(&mut self) -> &mut Headers {
        &mut self.headers
    }

    fn begin(&mut self, line: &[u8]) -> Result<(), ParseError> {
        self.clear();
        response::parse_line(line, self)
    }

    fn check_unfinished_start(line: &[u8]) -> Result<(), ParseError> {
        response::check_unfinished_line(line)
    }
}

impl Section for Headers {
    #[inline]
    fn fields(&mut self) -> &mut Headers {
        self
    }
}

/// Limits of one head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Most bytes, start line and final empty line included.
    pub bytes: usize,
    /// Most header fields.
    pub fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        HeadLimits {
            bytes: limits::REQUEST_HEAD_BYTES,
            fields: limits::HEADER_COUNT,
        }
    }
}

/// What a call has achieved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// Bytes of the input that are done with; the caller drops them.
    pub consumed: usize,
    /// True when the head is complete.
    pub complete: bool,
    /// Bytes of the field lines of a complete head, with a line end counted as one, as Envoy does; 0 before.
    pub field_bytes: usize,
}

/// Where in the head the parser stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    StartLine,
    Fields,
}

/// Parses heads of one connection, one after the other; ready for the next when one is complete.
#[derive(Clone, Debug)]
pub struct HeadParser {
    limits: HeadLimits,
    place: Place,
    /// Bytes of this head that were consumed by earlier lines.
    taken: usize,
    /// How many of them were the start line and what stood before it.
    start_bytes: usize,
    /// Bytes of the unfinished line that are known to hold no LF.
    scanned: usize,
    empty_lines: usize,
}

impl HeadParser {
    /// A parser with these limits.
    pub fn new(limits: HeadLimits) -> Self {
        let bytes = limits.bytes.min(limits::HEAD_BYTES_CEILING);
        let limits = HeadLimits { bytes, ..limits };
        HeadParser {
            limits,
            place: Place::StartLine,
            taken: 0,
            start_bytes: 0,
            scanned: 0,
            empty_lines: 0,
        }
    }

    /// True when nothing of a head has come yet.
    pub fn is_idle(&self) -> bool {
        self.place == Place::StartLine && self.scanned == 0
    }

    /// Reads on in a request head. `input` begins where the last call's `consumed` ended.
    ///
    /// # Errors
    /// The bytes break the protocol or a limit.
    pub fn request(&mut self, input: &[u8], head: &mut RequestHead) -> Result<Parsed, ParseError> {
        self.section(input, head)
    }

    /// Reads on in a response head, as [`Self::request`] does.
    ///
    /// # Errors
    /// The bytes break the protocol or a limit.
    pub fn response(&mut self, input: &[u8], head: &mut ResponseHead) -> Result<Parsed, ParseError> {
        self.section(input, head)
    }

    /// Reads on in a trailer section: fields and the empty line, no start line.
    ///
    /// # Errors
    /// The bytes break the protocol or a limit.
    pub(crate) fn trailers(&mut self, input: &[u8], trailers: &mut Headers) -> Result<Parsed, ParseError> {
        self.place = Place::Fields;
        self.section(input, trailers)
    }

    #[inline]
    fn section<S: Section>(&mut self, input: &[u8], section: &mut S) -> Result<Parsed, ParseError> {
        let mut at = 0;
        while let Some(end) = self.line_end(input, at)? {
            let line = &input[at..end - 2];
            match self.place {
                Place::StartLine if line.is_empty() => self.count_empty_line()?,
                Place::StartLine => {
                    section.begin(line)?;
                    self.place = Place::Fields;
                    self.start_bytes = self.taken + end - at;
                }
                Place::Fields if line.is_empty() => {
                    // Each field is one line, whose end counts as one byte.
                    let field_bytes = self.taken - self.start_bytes - section.fields().len();
                    section.finish()?;
                    self.restart();
                    return Ok(Parsed {
                        consumed: end,
                        complete: true,
                        field_bytes,
                    });
                }
                Place::Fields => self.field(&input[at..end], section.fields())?,
            }
            self.taken += end - at;
            at = end;
        }
        self.check_unfinished(&input[at..], S::check_unfinished_start)?;
        Ok(Parsed {
            consumed: at,
            complete: false,
            field_bytes: 0,
        })
    }

    fn restart(&mut self) {
        *self = HeadParser::new(self.limits);
    }

    /// The end of the line that begins at `at`, behind its CRLF; `None` when it is not all there.
    #[inline]
    fn line_end(&mut self, input: &[u8], at: usize) -> Result<Option<usize>, ParseError> {
        let from = at + std::mem::take(&mut self.scanned);
        let Some(offset) = memchr::memchr(b'\n', &input[from..]) else {
            self.scanned = input.len() - at;
            if self.taken + self.scanned > self.limits.bytes {
                return Err(ParseError::HeadTooLarge);
            }
            return Ok(None);
        };
        let end = from + offset + 1;
        if self.taken + end - at > self.limits.bytes {
            return Err(ParseError::HeadTooLarge);
        }
        if end - at < 2 || input[end - 2] != b'\r' {
            return Err(ParseError::LineEnd);
        }
        Ok(Some(end))
    }

    fn count_empty_line(&mut self) -> Result<(), ParseError> {
        self.empty_lines += 1;
        if self.empty_lines > limits::LEADING_EMPTY_LINES {
            Err(ParseError::LineEnd)
        } else {
            Ok(())
        }
    }

    /// Checks, copies and indexes one field line; `line` includes its CRLF.
    #[inline]
    fn field(&self, line: &[u8], headers: &mut Headers) -> Result<(), ParseError> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(ParseError::LineFolding);
        }
        if headers.len() >= self.limits.fields {
            return Err(ParseError::TooManyHeaders);
        }
        let base = headers.take_block(line);
        let copy = &mut headers.block_mut()[base..];
        let colon = lower_name(copy)?;
        let content = &copy[..copy.len() - 2];
        let (start, end) = trim_white_space(content, colon + 1);
        if !is_field_value(&content[start..end]) {
            return Err(ParseError::HeaderValue);
        }
        match headers.push_parsed(base, colon, base + start..base + end) {
            Some(HeaderId::ContentLength | HeaderId::TransferEncoding) => check_framing_fields(headers),
            _ => Ok(()),
        }
    }

    /// Finds what is already wrong with a line that is not complete, so that rubbish is refused at once.
    fn check_unfinished(
        &self,
        line: &[u8],
        check_start_line: impl FnOnce(&[u8]) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        if line.is_empty() || line.len() > limits::EAGER_CHECK_BYTES {
            return Ok(());
        }
        let line = match line {
            // A CR at the very end may yet be followed by its LF.
            [rest @ .., b'\r'] => rest,
            line => line,
        };
        if line.contains(&b'\r') {
            return Err(ParseError::LineEnd);
        }
        if self.place == Place::StartLine {
            return check_start_line(line);
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(ParseError::LineFolding);
        }
        match line.iter().position(|&byte| TOKEN_LOWER[byte as usize] == 0) {
            Some(colon) if line[colon] != b':' || colon == 0 => Err(ParseError::HeaderName),
            Some(colon) if !is_field_value(&line[colon + 1..]) => Err(ParseError::HeaderValue),
            _ => Ok(()),
        }
    }
}

/// Folds a field name to lower case where it stands, and gives the place of the colon behind it.
#[inline]
fn lower_name(line: &mut [u8]) -> Result<usize, ParseError> {
    for (at, byte) in line.iter_mut().enumerate() {
        let lower = TOKEN_LOWER[usize::from(*byte)];
        if lower == 0 {
            let is_name = *byte == b':' && at > 0 && at <= usize::from(u16::MAX);
            return if is_name {
                Ok(at)
            } else {
                Err(ParseError::HeaderName)
            };
        }
        *byte = lower;
    }
    Err(ParseError::HeaderName)
}

/// The bounds of a value without the white space around it.
#[inline]
fn trim_white_space(line: &[u8], mut start: usize) -> (usize, usize) {
    let mut end = line.len();
    while start < end && matches!(line[start], b' ' | b'\t') {
        start += 1;
    }
    while end > start && matches!(line[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    (start, end)
}
