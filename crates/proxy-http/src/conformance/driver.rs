//! Feeds a vector to the codec as a connection would, and writes down what comes out.

use super::vectors::{Message, Vector};
use crate::{
    BodyDecoder, BodyFraming, HeadLimits, HeadParser, HeaderId, Headers, ParseError, RequestHead,
    ResponseHead, Version, connection_lists, request_framing, response_framing,
};

/// How a connection stood after the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Still open, or ended at a message's end.
    Open,
    /// Refused.
    Refused(Refusal),
    /// Handed over to another protocol.
    HandedOver,
    /// The input ended inside a message, and so did the connection.
    Unfinished,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The bytes break the protocol.
    Parse(ParseError),
    /// Bytes came behind the last message of a connection that closes: they are never interpreted.
    AfterClose,
}

/// What a vector led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) messages: Vec<Message>,
    pub(super) end: End,
}

impl Outcome {
    /// True when both led to the same. Which fault is found first may depend on how much of a line has come.
    pub(super) fn is_like(&self, other: &Outcome) -> bool {
        let same_end = match (&self.end, &other.end) {
            (End::Refused(Refusal::Parse(one)), End::Refused(Refusal::Parse(two))) => {
                one.status() == two.status()
            }
            (one, two) => one == two,
        };
        same_end && self.messages == other.messages
    }
}

enum Phase {
    Head,
    Body(BodyDecoder),
    Closed,
    HandedOver,
}

struct Connection<'a> {
    vector: &'a Vector,
    parser: HeadParser,
    request: RequestHead,
    response: ResponseHead,
    phase: Phase,
    after_message: AfterMessage,
    messages: Vec<Message>,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy)]
enum AfterMessage {
    Next,
    Close,
    HandOver,
}

/// Feeds the vector in pieces of this size.
pub(super) fn drive(vector: &Vector, piece: usize) -> Outcome {
    let mut connection = Connection {
        vector,
        parser: HeadParser::new(HeadLimits::default()),
        request: RequestHead::new(),
        response: ResponseHead::new(),
        phase: Phase::Head,
        after_message: AfterMessage::Next,
        messages: Vec::new(),
        buffer: Vec::new(),
    };
    for bytes in vector.input.chunks(piece) {
        connection.buffer.extend_from_slice(bytes);
        if let Err(refusal) = connection.advance() {
            return Outcome {
                messages: connection.messages,
                end: End::Refused(refusal),
            };
        }
    }
    let end = connection.end();
    Outcome {
        messages: connection.messages,
        end,
    }
}

impl Connection<'_> {
    fn advance(&mut self) -> Result<(), Refusal> {
        loop {
            let consumed = match self.phase {
                Phase::HandedOver => return Ok(()),
                Phase::Closed if self.buffer.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) => {
                    return Err(Refusal::AfterClose);
                }
                Phase::Closed => return Ok(()),
                Phase::Head => self.head().map_err(Refusal::Parse)?,
                Phase::Body(_) => self.body().map_err(Refusal::Parse)?,
            };
            self.buffer.drain(..consumed);
            let at_message_end = matches!(&self.phase, Phase::Body(decoder) if decoder.is_done());
            if at_message_end {
                self.message_end();
            } else if consumed == 0 {
                return Ok(());
            }
        }
    }

    fn head(&mut self) -> Result<usize, ParseError> {
        let parsed = if self.vector.is_request {
            self.parser.request(&self.buffer, &mut self.request)?
        } else {
            self.parser.response(&self.buffer, &mut self.response)?
        };
        if parsed.complete {
            let framing = if self.vector.is_request {
                self.request_head()?
            } else {
                self.response_head()?
            };
            let framing = if self.vector.skip_body {
                BodyFraming::None
            } else {
                framing
            };
            self.phase = Phase::Body(BodyDecoder::new(framing, HeadLimits::default()));
        }
        Ok(parsed.consumed)
    }

    fn request_head(&mut self) -> Result<BodyFraming, ParseError> {
        let head = &self.request;
        let framing = request_framing(head)?;
        self.after_message = if head.is_connect() || head.is_upgrade() {
            AfterMessage::HandOver
        } else {
            after(head.version, &head.headers)
        };
        let target = match (head.is_connect(), head.headers.get_id(HeaderId::Scheme)) {
            (true, _) => text(head.authority()),
            (_, None) => text(head.path()),
            (_, Some(scheme)) => format!(
                "{}://{}{}",
                text(scheme),
                text(head.authority()),
                text(head.path())
            ),
        };
        self.messages
            .push(message((text(head.method()), target), &head.headers));
        Ok(framing)
    }

    fn response_head(&mut self) -> Result<BodyFraming, ParseError> {
        let head = &self.response;
        let framing = response_framing(head, self.vector.skip_body)?;
        self.after_message = if head.status() == 101 {
            AfterMessage::HandOver
        } else {
            after(head.version, &head.headers)
        };
        self.messages
            .push(message((head.status().to_string(), String::new()), &head.headers));
        Ok(framing)
    }

    fn body(&mut self) -> Result<usize, ParseError> {
        let (Phase::Body(decoder), Some(message)) = (&mut self.phase, self.messages.last_mut()) else {
            return Ok(0);
        };
        let step = decoder.decode(&self.buffer)?;
        message.body.extend_from_slice(&self.buffer[step.data]);
        if step.end {
            if let Some(trailers) = decoder.take_trailers() {
                message.trailers = pairs(&trailers);
            }
            *decoder = BodyDecoder::Done;
        }
        Ok(step.consumed)
    }

    fn message_end(&mut self) {
        if let Some(message) = self.messages.last_mut() {
            message.complete = true;
        }
        self.phase = match self.after_message {
            AfterMessage::Next => Phase::Head,
            AfterMessage::Close => Phase::Closed,
            AfterMessage::HandOver => Phase::HandedOver,
        };
    }

    fn end(&mut self) -> End {
        let complete = match &mut self.phase {
            Phase::HandedOver => return End::HandedOver,
            Phase::Closed => true,
            Phase::Head => self.parser.is_idle() && self.buffer.is_empty(),
            Phase::Body(decoder) => decoder.close().is_ok(),
        };
        if self.vector.finish && !complete {
            End::Unfinished
        } else {
            End::Open
        }
    }
}

fn after(version: Version, headers: &Headers) -> AfterMessage {
    let persists = match version {
        Version::Http10 => connection_lists(headers, b"keep-alive"),
        _ => !connection_lists(headers, b"close"),
    };
    if persists {
        AfterMessage::Next
    } else {
        AfterMessage::Close
    }
}

fn message(start: (String, String), headers: &Headers) -> Message {
    Message {
        start,
        fields: pairs(headers),
        head_complete: true,
        ..Message::default()
    }
}

fn pairs(headers: &Headers) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// UTF-8, or else every byte as the character of the same number: so the logs print them.
fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), str::to_owned)
}
