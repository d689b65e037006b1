//! gRPC calls as filters see them: `envoy.filters.http.grpc_web` translates what browsers say, and
//! `envoy.filters.http.grpc_stats` counts calls and messages.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use proxy_core::stream_info::GrpcMessages;
use proxy_filters::grpc_frames::Frames;
use proxy_filters::grpc_stats::{GrpcStatsConfig, service_and_method};
use proxy_filters::grpc_web::{AnswerWriter, GrpcWebCall, TextReader};
use proxy_filters::{FilterChain, HttpFilter};
use proxy_http::{HeaderId, Headers, RequestHead, ResponseHead, grpc_status_of};
use proxy_upstream::{Cluster, GrpcCounters};

use super::local_reply::percent_encode;
use super::upload::Upload;

/// One call.
#[derive(Debug)]
pub(crate) struct GrpcCall {
    /// The client speaks gRPC-Web.
    pub(crate) web: Option<GrpcWebCall>,
    stats: Option<Arc<GrpcStatsConfig>>,
    /// The path that the client asked for.
    path: Box<[u8]>,
    counters: SmallCounters,
    messages: Rc<Messages>,
    /// The call's status has been counted.
    is_counted: bool,
}

/// The counters of a call, once its cluster is known.
type SmallCounters = [Option<Rc<GrpcCounters>>; 2];

/// Messages so far, from and to the client.
#[derive(Debug, Default)]
struct Messages {
    requests: Cell<u64>,
    responses: Cell<u64>,
}

/// Counts the messages of one direction.
#[derive(Debug)]
pub(crate) struct MessageCounter {
    frames: Frames,
    messages: Rc<Messages>,
    counters: Option<Rc<GrpcCounters>>,
    is_request: bool,
}

impl MessageCounter {
    /// Looks at a piece of the body.
    pub(crate) fn look(&mut self, piece: &[u8]) {
        let begun = self.frames.count(piece);
        if begun == 0 {
            return;
        }
        let so_far = match self.is_request {
            true => &self.messages.requests,
            false => &self.messages.responses,
        };
        so_far.set(so_far.get() + begun);
        match &self.counters {
            Some(counters) if self.is_request => counters.add_request_messages(begun),
            Some(counters) => counters.add_response_messages(begun),
            None => {}
        }
    }
}

impl GrpcCall {
    /// Sends the head through the filters that look at gRPC, in order. Nothing comes of it where it is none.
    pub(crate) fn begin(
        filters: &FilterChain,
        request: &mut RequestHead,
        upload: &mut Upload,
    ) -> Option<Box<Self>> {
        let content_type = request.headers.get_id(HeaderId::ContentType)?;
        if !content_type.starts_with(b"application/grpc") {
            return None;
        }
        let (mut web, mut stats) = (None, None);
        for filter in &filters.filters {
            match filter {
                HttpFilter::GrpcWeb if web.is_none() => web = GrpcWebCall::begin(request),
                HttpFilter::GrpcStats(config) if request.is_grpc() => stats = Some(Arc::clone(config)),
                _ => {}
            }
        }
        if web.is_none() && stats.is_none() {
            return None;
        }
        if let Some(web) = web {
            upload.translate(web.request_is_text.then(TextReader::default));
        }
        Some(Box::new(GrpcCall {
            web,
            stats,
            path: request.path_without_query().into(),
            counters: SmallCounters::default(),
            messages: Rc::default(),
            is_counted: false,
        }))
    }

    /// The cluster is known: from here on the call is counted there.
    pub(crate) fn goes_to(&mut self, cluster: &Cluster, upload: &mut Upload) {
        let by_stats = self.stats.as_ref().and_then(|config| config.scope(&self.path));
        let by_web = self.web.and_then(|_| service_and_method(&self.path));
        let by_web = by_web.map(|(service, method)| Cow::from(format!("grpc-web.{service}.{method}")));
        self.counters = [by_stats, by_web].map(|scope| Some(cluster.grpc_counters(&scope?)));
        if self.stats.is_some() {
            upload.count_messages(self.message_counter(true));
        }
    }

    fn message_counter(&self, is_request: bool) -> MessageCounter {
        MessageCounter {
            frames: Frames::default(),
            messages: Rc::clone(&self.messages),
            counters: self.counters[0].clone(),
            is_request,
        }
    }

    /// What looks at the messages of the answer.
    pub(crate) fn answer_counter(&self, head: &ResponseHead) -> Option<MessageCounter> {
        (self.stats.is_some() && head.is_grpc()).then(|| self.message_counter(false))
    }

    /// What writes the answer for gRPC-Web.
    pub(crate) fn answer_writer(&self) -> Option<AnswerWriter> {
        self.web.map(AnswerWriter::new)
    }

    /// Whether the answer has to be told as a status, because gRPC-Web cannot carry its body.
    pub(crate) fn must_translate(&self, head: &ResponseHead) -> bool {
        self.web.is_some() && (head.status() != 200 || !head.is_grpc())
    }

    /// The head of the answer, before the client gets it.
    pub(crate) fn answer_head(&mut self, head: &mut ResponseHead) {
        if head.is_grpc() {
            self.count(&head.headers);
        }
        if let Some(web) = self.web {
            head.headers.set(&HeaderId::ContentType, web.answer_type());
        }
    }

    /// The answer has ended, with these trailers.
    pub(crate) fn ended(&mut self, trailers: Option<&Headers>) {
        if let Some(trailers) = trailers {
            self.count(trailers);
        }
    }

    fn count(&mut self, fields: &Headers) {
        let Some(status) = fields.get_id(HeaderId::GrpcStatus).filter(|_| !self.is_counted) else {
            return;
        };
        self.is_counted = true;
        for counters in self.counters.iter().flatten() {
            counters.count_status(status);
        }
    }

    /// How many messages there were, for access logs that may know it.
    pub(crate) fn messages(&self) -> Option<GrpcMessages> {
        self.stats.as_ref().filter(|config| config.emit_filter_state)?;
        let messages = GrpcMessages {
            requests: self.messages.requests.get(),
            responses: self.messages.responses.get(),
        };
        (messages != GrpcMessages::default()).then_some(messages)
    }
}

/// Tells an answer that is not gRPC as a status: its body becomes the message.
pub(crate) fn tell_as_status(head: &mut ResponseHead, body: &[u8], says_empty: bool) {
    let status = grpc_status_of(head.status());
    let headers = &mut head.headers;
    for id in [HeaderId::ContentLength, HeaderId::TransferEncoding] {
        headers.remove(&id);
    }
    if !body.is_empty() {
        headers.set(&HeaderId::GrpcMessage, &percent_encode(body));
    }
    headers.set(
        &HeaderId::GrpcStatus,
        itoa::Buffer::new().format(status).as_bytes(),
    );
    if says_empty {
        headers.set(&HeaderId::ContentLength, b"0");
    }
}
