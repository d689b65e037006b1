//! What a parser finds does not depend on how the bytes were split on their way.

use proptest::prelude::*;
use proxy_http::{
    BodyDecoder, HeadLimits, HeadParser, Headers, ParseError, RequestHead, ResponseHead, request_framing,
    response_framing,
};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What was read: `(start line and fields, body, trailers)` per message, or the status of the refusal.
#[derive(Debug, PartialEq, Default)]
struct Seen {
    messages: Vec<(Fields, Vec<u8>, Fields)>,
    refused: Option<u16>,
}

fn pairs(headers: &Headers) -> Fields {
    let pseudo = headers
        .iter_pseudo()
        .map(|(id, value)| (id.name().into(), value.into()));
    pseudo
        .chain(headers.iter().map(|(name, value)| (name.into(), value.into())))
        .collect()
}

/// Reads messages from pieces, as a connection does.
fn read(pieces: &[&[u8]], requests: bool) -> Seen {
    let mut seen = Seen::default();
    let limits = HeadLimits {
        bytes: 512,
        fields: 8,
    };
    let mut parser = HeadParser::new(limits);
    let (mut request, mut response) = (RequestHead::new(), ResponseHead::new());
    let mut body: Option<BodyDecoder> = None;
    let mut buffer = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let step = if let Some(decoder) = &mut body {
                read_body(decoder, &buffer, &mut seen)
            } else if requests {
                parser.request(&buffer, &mut request).and_then(|parsed| {
                    if parsed.complete {
                        body = Some(BodyDecoder::new(request_framing(&request)?, limits));
                        seen.messages
                            .push((pairs(&request.headers), Vec::new(), Vec::new()));
                    }
                    Ok((parsed.consumed, false))
                })
            } else {
                parser.response(&buffer, &mut response).and_then(|parsed| {
                    if parsed.complete {
                        body = Some(BodyDecoder::new(response_framing(&response, false)?, limits));
                        seen.messages
                            .push((pairs(&response.headers), Vec::new(), Vec::new()));
                    }
                    Ok((parsed.consumed, false))
                })
            };
            match step {
                Err(error) => {
                    seen.refused = Some(error.status());
                    return seen;
                }
                Ok((consumed, end)) => {
                    buffer.drain(..consumed);
                    if end {
                        body = None;
                    } else if consumed == 0 {
                        break;
                    }
                }
            }
        }
    }
    seen
}

fn read_body(decoder: &mut BodyDecoder, buffer: &[u8], seen: &mut Seen) -> Result<(usize, bool), ParseError> {
    let step = decoder.decode(buffer)?;
    if let Some(message) = seen.messages.last_mut() {
        message.1.extend_from_slice(&buffer[step.data]);
        if let (true, Some(trailers)) = (step.end, decoder.take_trailers()) {
            message.2 = pairs(&trailers);
        }
    }
    Ok((step.consumed, step.end))
}

/// Pieces of messages, right and wrong ones, strung together.
fn stream(fragments: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        8 => prop::sample::select(fragments).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(fragment, 1..14).prop_map(|parts| parts.concat())
}

const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "POST /x?y HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\n\r\nhello",
    "PUT http://c/d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nx: y\r\n\r\n",
    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "A\r\n0123456789\r\n",
    "0\r\n\r\n",
    "GET / HTTP/1.1\r\n",
    "x-Name:  a value \t\r\n",
    "content-length: 3\r\n",
    "\r\n",
    "\n",
    "abc",
];

const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nserver: x\r\n\r\n",
    "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 304 \r\n",
    "x-Name:  a value \t\r\n",
    "transfer-encoding: chunked\r\n",
    "\r\n",
    "\n",
    "abc",
];

/// Cuts `input` at the given places.
fn split(input: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
    cuts.iter_mut().for_each(|cut| *cut %= input.len().max(1));
    cuts.extend([0, input.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect()
}

/// A refusal may be noticed earlier or under another name when a line is not complete, the messages never differ.
fn assert_alike(whole: &Seen, pieces: &Seen) {
    assert_eq!(whole.messages, pieces.messages);
    assert_eq!(
        whole.refused.is_some(),
        pieces.refused.is_some(),
        "{whole:?} {pieces:?}"
    );
}

proptest! {
    #[test]
    fn requests_are_the_same_however_they_were_split(
        input in stream(REQUESTS),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let whole = read(&[&input], true);
        assert_alike(&whole, &read(&split(&input, cuts), true));
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_alike(&whole, &read(&bytes, true));
    }

    #[test]
    fn responses_are_the_same_however_they_were_split(
        input in stream(RESPONSES),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let whole = read(&[&input], false);
        assert_alike(&whole, &read(&split(&input, cuts), false));
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_alike(&whole, &read(&bytes, false));
    }

    /// Whatever we take, httparse takes too, and reads the same fields.
    #[test]
    fn httparse_agrees_on_every_head_we_take(input in stream(REQUESTS)) {
        let mut head = RequestHead::new();
        let mut parser = HeadParser::new(HeadLimits::default());
        if let Ok(parsed) = parser.request(&input, &mut head)
            && parsed.complete
        {
            let mut fields = [httparse::EMPTY_HEADER; 100];
            let mut theirs = httparse::Request::new(&mut fields);
            let status = theirs.parse(&input).expect("httparse is never stricter");
            prop_assert_eq!(status, httparse::Status::Complete(parsed.consumed));
            let names: Vec<String> = theirs
                .headers
                .iter()
                .map(|field| field.name.to_ascii_lowercase())
                .filter(|name| name != "host")
                .collect();
            let ours: Vec<String> =
                head.headers.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
            prop_assert_eq!(names, ours);
        }
    }
}
