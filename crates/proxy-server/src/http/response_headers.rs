//! What happens to a response head between the last filter and the client.

use std::time::SystemTime;

use proxy_core::TrafficDirection;
use proxy_http::{HeaderId, RequestHead, ResponseHead};

use super::config::{HttpConfig, ServerHeader};
use super::date::DateCache;

/// Facts about the exchange that a response head depends on.
pub(crate) struct ResponseFacts<'a> {
    pub(crate) request: &'a RequestHead,
    pub(crate) now: SystemTime,
    pub(crate) date: &'a DateCache,
    /// The route's decorator operation, for the responses of inbound proxies.
    pub(crate) operation: Option<&'a [u8]>,
    /// The response takes the connection over to another protocol.
    pub(crate) is_upgrade: bool,
    pub(crate) close: bool,
    /// The body goes out in chunks.
    pub(crate) chunked: bool,
    pub(crate) is_local: bool,
}

impl HttpConfig {
    /// Removes what was meant for our hop and adds what Envoy adds.
    pub(crate) fn finish_response(&self, head: &mut ResponseHead, facts: &ResponseFacts<'_>) {
        let headers = &mut head.headers;
        if !facts.is_upgrade {
            headers.remove(&HeaderId::Connection);
            headers.remove(&HeaderId::Upgrade);
        }
        headers.remove(&HeaderId::TransferEncoding);
        headers.remove(&HeaderId::KeepAlive);
        headers.remove(&HeaderId::ProxyConnection);
        if headers.get_id(HeaderId::Date).is_none() {
            facts
                .date
                .with(facts.now, |date| headers.append(&HeaderId::Date, date));
        }
        match self.server_header {
            ServerHeader::Overwrite => headers.set(&HeaderId::Server, &self.server_name),
            ServerHeader::AppendIfAbsent => {
                headers.insert(&HeaderId::Server, &self.server_name);
            }
            ServerHeader::PassThrough if facts.is_local => headers.set(&HeaderId::Server, &self.server_name),
            ServerHeader::PassThrough => {}
        }
        if self.request_id.always_in_response
            && let Some(id) = facts.request.headers.get_id(HeaderId::XRequestId)
        {
            headers.set(&HeaderId::XRequestId, id);
        }
        if self.tracing.is_some() {
            if self.direction == TrafficDirection::Outbound {
                headers.remove(&HeaderId::XEnvoyDecoratorOperation);
            } else if let Some(operation) = facts.operation {
                headers.set(&HeaderId::XEnvoyDecoratorOperation, operation);
            }
        }
        if !self.via.is_empty() {
            headers.append_to_list(&HeaderId::Via, b", ", &self.via);
        }
        if facts.chunked {
            headers.append(&HeaderId::TransferEncoding, b"chunked");
        }
        if facts.close {
            headers.set(&HeaderId::Connection, b"close");
        }
    }
}
