//! The HTTP/1 codec: nothing makes it panic, what it reads does not depend on how the bytes were cut, and what it writes
//! of a head means the same when it is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_http::{
    BodyDecoder, BodyFraming, HeadLimits, HeadParser, Headers, ParseError, RequestHead, ResponseHead,
    request_framing, response_framing, write_request_head, write_response_head,
};

const LIMITS: HeadLimits = HeadLimits {
    bytes: 1024,
    fields: 16,
};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A head with its start line, its body, its trailers.
#[derive(Debug, Default, PartialEq)]
struct Message {
    head: Fields,
    framing: Option<BodyFraming>,
    body: Vec<u8>,
    trailers: Fields,
}

#[derive(Debug, Default, PartialEq)]
struct Seen {
    messages: Vec<Message>,
    /// Whether it ended in a refusal; of several reasons the one that is found first may depend on how much has come.
    refused: bool,
}

fn fields(headers: &Headers) -> Fields {
    let pseudo = headers
        .iter_pseudo()
        .map(|(id, value)| (id.name().into(), value.into()));
    let rest = headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.into()));
    pseudo.chain(rest).collect()
}

/// One side of the protocol.
trait Side: Default {
    fn parse(&mut self, parser: &mut HeadParser, bytes: &[u8]) -> Result<(usize, bool), ParseError>;
    fn framing(&self) -> Result<BodyFraming, ParseError>;
    fn headers(&self) -> &Headers;
    fn write(&self, out: &mut Vec<u8>);
}

#[derive(Default)]
struct Requests(RequestHead);

impl Side for Requests {
    fn parse(&mut self, parser: &mut HeadParser, bytes: &[u8]) -> Result<(usize, bool), ParseError> {
        parser
            .request(bytes, &mut self.0)
            .map(|parsed| (parsed.consumed, parsed.complete))
    }

    fn framing(&self) -> Result<BodyFraming, ParseError> {
        request_framing(&self.0)
    }

    fn headers(&self) -> &Headers {
        &self.0.headers
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_request_head(out, &self.0);
    }
}

#[derive(Default)]
struct Responses(ResponseHead);

impl Side for Responses {
    fn parse(&mut self, parser: &mut HeadParser, bytes: &[u8]) -> Result<(usize, bool), ParseError> {
        parser
            .response(bytes, &mut self.0)
            .map(|parsed| (parsed.consumed, parsed.complete))
    }

    fn framing(&self) -> Result<BodyFraming, ParseError> {
        response_framing(&self.0, false)
    }

    fn headers(&self) -> &Headers {
        &self.0.headers
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_response_head(out, &self.0);
    }
}

/// Reads messages from pieces, as a connection does. Heads are handed to `complete`.
fn read<S: Side>(pieces: &[&[u8]], mut complete: impl FnMut(&S)) -> Seen {
    let mut seen = Seen::default();
    let mut parser = HeadParser::new(LIMITS);
    let mut side = S::default();
    let mut body: Option<BodyDecoder> = None;
    let mut buffer = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let step = match &mut body {
                Some(decoder) => decode(decoder, &buffer, &mut seen),
                None => head(
                    &mut side,
                    &mut parser,
                    &buffer,
                    &mut seen,
                    &mut body,
                    &mut complete,
                ),
            };
            match step {
                Ok((consumed, over)) => {
                    buffer.drain(..consumed);
                    if over {
                        body = None;
                    }
                    if consumed == 0 && !over {
                        break;
                    }
                }
                Err(_) => {
                    seen.refused = true;
                    return seen;
                }
            }
        }
    }
    seen
}

fn head<S: Side>(
    side: &mut S,
    parser: &mut HeadParser,
    bytes: &[u8],
    seen: &mut Seen,
    body: &mut Option<BodyDecoder>,
    complete: &mut impl FnMut(&S),
) -> Result<(usize, bool), ParseError> {
    let (consumed, done) = side.parse(parser, bytes)?;
    if done {
        let framing = side.framing()?;
        complete(side);
        seen.messages.push(Message {
            head: fields(side.headers()),
            framing: Some(framing),
            ..Message::default()
        });
        *body = Some(BodyDecoder::new(framing, LIMITS));
    }
    Ok((consumed, false))
}

fn decode(decoder: &mut BodyDecoder, bytes: &[u8], seen: &mut Seen) -> Result<(usize, bool), ParseError> {
    let step = decoder.decode(bytes)?;
    let message = seen.messages.last_mut().expect("a body follows a head");
    message.body.extend_from_slice(&bytes[step.data.clone()]);
    if step.end
        && let Some(trailers) = decoder.take_trailers()
    {
        message.trailers = fields(&trailers);
    }
    Ok((step.consumed, step.end))
}

/// What a head says as it is written: without a scheme, and with an empty host where HTTP/1.0 has none.
fn said(headers: &Headers) -> Fields {
    let mut said = fields(headers);
    said.retain(|(name, value)| name != b":scheme" && (name != b":authority" || !value.is_empty()));
    said
}

/// What is written of a head is read as the same head, of the same length of body.
fn write_and_read<S: Side>(side: &S) {
    let mut text = Vec::new();
    side.write(&mut text);
    let mut again = S::default();
    // The limits were for what came; a head is written at its full length.
    let mut parser = HeadParser::new(HeadLimits::default());
    let parsed = again.parse(&mut parser, &text);
    let shown = String::from_utf8_lossy(&text);
    let (consumed, complete) =
        parsed.unwrap_or_else(|error| panic!("what we wrote is refused ({error}): {shown:?}"));
    assert!(
        complete && consumed == text.len(),
        "more than one head was written: {shown:?}"
    );
    assert_eq!(said(side.headers()), said(again.headers()), "{shown:?}");
    assert_eq!(side.framing().ok(), again.framing().ok(), "{shown:?}");
}

fn check<S: Side>(bytes: &[u8], cuts: &[u8]) {
    let whole = read::<S>(&[bytes], write_and_read);
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for cut in cuts {
        let (piece, after) = rest.split_at(usize::from(*cut).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    assert_eq!(whole, read::<S>(&pieces, |_| ()), "the cuts made a difference");
}

// The first byte says which side, the next four where to cut.
fuzz_target!(|data: &[u8]| {
    let Some((control, bytes)) = data.split_at_checked(5) else {
        return;
    };
    match control[0] & 1 {
        0 => check::<Requests>(bytes, &control[1..]),
        _ => check::<Responses>(bytes, &control[1..]),
    }
});
