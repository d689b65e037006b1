//! Unary gRPC calls (gRPC over HTTP/2) with hyper alone: frames, statuses, and the deadline that a caller tells. The
//! messages are those of `samples/bookinfo/details.proto`.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use prost::Message;

use crate::reply::{Body, Reply};

/// The content type of calls and answers.
pub(crate) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Where an answer says how the call has ended, in its head or its trailers.
pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Where a caller says how long it waits.
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The path of the one method.
pub(crate) const GET_DETAILS: &str = "/bookinfo.v1.Details/GetDetails";

/// Bytes before a message: a flag for compression, which nobody here uses, and the length.
const FRAME_HEADER_BYTES: usize = 5;

/// How a call ends; the numbers are gRPC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok = 0,
    InvalidArgument = 3,
    Unimplemented = 12,
}

/// Asks for the facts about a book.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetDetailsRequest {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
}

/// The facts about a book.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BookDetails {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(string, tag = "2")]
    pub(crate) author: String,
    #[prost(uint32, tag = "3")]
    pub(crate) year: u32,
    #[prost(string, tag = "4")]
    pub(crate) kind: String,
    #[prost(uint32, tag = "5")]
    pub(crate) pages: u32,
    #[prost(string, tag = "6")]
    pub(crate) publisher: String,
    #[prost(string, tag = "7")]
    pub(crate) language: String,
    #[prost(string, tag = "8")]
    pub(crate) isbn_10: String,
    #[prost(string, tag = "9")]
    pub(crate) isbn_13: String,
}

/// A message in its frame.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.extend_from_slice(&message.encode_to_vec());
    frame.freeze()
}

/// The message in a body that is one frame.
pub(crate) fn message<M: Message + Default>(body: &[u8]) -> Option<M> {
    let (header, payload) = body.split_at_checked(FRAME_HEADER_BYTES)?;
    let [0, length @ ..] = header else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (usize::try_from(length) == Ok(payload.len())).then(|| M::decode(payload).ok())?
}

/// A deadline as the protocol writes it.
pub(crate) fn timeout(limit: Duration) -> HeaderValue {
    HeaderValue::from_str(&format!("{}m", limit.as_millis()))
        .unwrap_or_else(|_| HeaderValue::from_static("1S"))
}

/// Whether a request is a call.
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(GRPC.as_bytes()))
}

/// The answer to a call that ended well.
pub(crate) fn answer(message: &impl Message) -> Reply {
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from(Status::Ok as u16))]);
    let mut reply = Reply::new(Body::with_trailers(frame(message), trailers));
    reply.headers_mut().insert(CONTENT_TYPE, GRPC);
    reply
}

/// The answer to a call that did not.
pub(crate) fn failure(status: Status) -> Reply {
    let mut reply = Reply::new(Body::from(Bytes::new()));
    reply.headers_mut().insert(CONTENT_TYPE, GRPC);
    reply
        .headers_mut()
        .insert(STATUS, HeaderValue::from(status as u16));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_its_frame_and_half_a_frame_is_none() {
        let request = GetDetailsRequest { id: 7 };
        let framed = frame(&request);
        assert_eq!(&framed[..], b"\0\0\0\0\x02\x08\x07");
        assert_eq!(message::<GetDetailsRequest>(&framed), Some(request));
        for broken in [&framed[..4], &framed[..6], b"\x01\0\0\0\0", b""] {
            assert_eq!(message::<GetDetailsRequest>(broken), None);
        }
    }
}
