//! A request body on its way upstream, with what is kept of it for retries.

use proxy_http::{
    BodyDecoder, BodyFraming, BodyStep, HeadLimits, ParseError, write_chunk_header, write_last_chunk,
};
use tokio::time::Instant;

/// The state of a request body across tries.
#[derive(Debug)]
pub(crate) struct Upload {
    decoder: BodyDecoder,
    /// It goes upstream in chunks, because it came so.
    chunked: bool,
    complete: bool,
    /// What has been sent, while a retry is possible.
    replay: Option<Vec<u8>>,
    replay_limit: usize,
    /// Body bytes received.
    pub(crate) received: u64,
    /// When the last byte had come; a request without a body is complete with its head.
    pub(crate) received_at: Option<Instant>,
    /// When the last byte had gone upstream.
    pub(crate) sent_at: Option<Instant>,
}

impl Upload {
    /// A body with this framing, whose head has come at `now`.
    pub(crate) fn new(framing: BodyFraming, limits: HeadLimits, now: Instant) -> Self {
        Upload {
            decoder: BodyDecoder::new(framing, limits),
            chunked: framing == BodyFraming::Chunked,
            complete: framing == BodyFraming::None,
            replay: None,
            replay_limit: 0,
            received: 0,
            received_at: (framing == BodyFraming::None).then_some(now),
            sent_at: None,
        }
    }

    /// Keeps what is sent, up to `limit` bytes, so that a retry can send it again.
    pub(crate) fn record(&mut self, limit: usize) {
        self.replay = Some(Vec::new());
        self.replay_limit = limit;
    }

    /// True when the whole body has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Notes the time when the whole body has come. The clock is read once, and only for requests with a body.
    pub(crate) fn note_completion(&mut self) {
        if self.complete {
            self.received_at.get_or_insert_with(Instant::now);
        }
    }

    /// True when the body goes upstream in chunks.
    pub(crate) fn is_chunked(&self) -> bool {
        self.chunked
    }

    /// True when another try could send everything again.
    pub(crate) fn can_replay(&self) -> bool {
        self.replay.is_some()
    }

    /// What has been sent so far, when all of it was kept.
    pub(crate) fn recorded(&self) -> Option<&[u8]> {
        self.replay.as_deref()
    }

    /// Appends what earlier tries have sent already.
    pub(crate) fn replay(&self, out: &mut Vec<u8>) {
        if let Some(sent) = self.replay.as_deref().filter(|sent| !sent.is_empty()) {
            self.frame(sent, out);
        }
        if self.complete && self.chunked {
            write_last_chunk(out, None);
        }
    }

    /// Moves one piece of the body from `input` to `out`; gives the bytes consumed, and whether anything happened.
    pub(crate) fn advance(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, bool), ParseError> {
        let BodyStep { consumed, data, end } = self.decoder.decode(input)?;
        let data = &input[data];
        if !data.is_empty() {
            self.received += data.len() as u64;
            self.frame(data, out);
            self.keep(data);
        }
        if end && !self.complete {
            self.complete = true;
            if self.chunked {
                write_last_chunk(out, None);
            }
        }
        Ok((consumed, consumed > 0 || end))
    }

    /// Reads on in a body that nobody wants any more; gives the bytes consumed.
    pub(crate) fn discard(&mut self, input: &[u8]) -> Result<usize, ParseError> {
        let BodyStep { consumed, data, end } = self.decoder.decode(input)?;
        self.received += data.len() as u64;
        self.complete |= end;
        Ok(consumed)
    }

    fn frame(&self, data: &[u8], out: &mut Vec<u8>) {
        if self.chunked {
            write_chunk_header(out, data.len());
            out.extend_from_slice(data);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(data);
        }
    }

    fn keep(&mut self, data: &[u8]) {
        if let Some(replay) = &mut self.replay {
            if replay.len() + data.len() <= self.replay_limit {
                replay.extend_from_slice(data);
            } else {
                // Too large to be sent twice: from here on there is one try.
                self.replay = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(framing: BodyFraming, limit: usize, input: &[u8]) -> (Upload, Vec<u8>) {
        let mut upload = Upload::new(framing, HeadLimits::default(), Instant::now());
        upload.record(limit);
        let (mut at, mut out) = (0, Vec::new());
        while let Ok((consumed, true)) = upload.advance(&input[at..], &mut out) {
            at += consumed;
            if upload.is_complete() {
                break;
            }
        }
        (upload, out)
    }

    #[test]
    fn a_retry_sends_the_same_bytes_again() {
        for (framing, input) in [
            (BodyFraming::Length(5), &b"hello"[..]),
            (
                BodyFraming::Chunked,
                b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nt: 1\r\n\r\n",
            ),
        ] {
            let (upload, sent) = upload(framing, 100, input);
            let mut again = Vec::new();
            upload.replay(&mut again);
            let body = |bytes: &[u8]| {
                let mut decoder = BodyDecoder::new(framing, HeadLimits::default());
                let (mut at, mut body) = (0, Vec::new());
                loop {
                    let step = decoder.decode(&bytes[at..]).expect("well framed");
                    body.extend_from_slice(&bytes[at..][step.data]);
                    at += step.consumed;
                    if step.end {
                        return body;
                    }
                }
            };
            assert_eq!(
                (body(&sent), body(&again)),
                (b"hello".to_vec(), b"hello".to_vec())
            );
        }
    }

    #[test]
    fn a_body_beyond_the_limit_cannot_be_sent_again() {
        assert!(upload(BodyFraming::Length(5), 5, b"hello").0.can_replay());
        assert!(!upload(BodyFraming::Length(5), 4, b"hello").0.can_replay());
    }
}
