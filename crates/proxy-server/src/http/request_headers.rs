//! What happens to a request head between the client and the first filter: checks, normalisation, and Envoy's
//! header manipulation ("HTTP header manipulation" in Envoy's documentation).

use std::net::IpAddr;

use proxy_core::{ConnectionInfo, ResponseFlag, TrafficDirection};
use proxy_http::{HeaderId, RequestHead, Version, connection_lists};

use super::config::{HttpConfig, StripPort, Underscores};
use super::forwarded::{Client, set_scheme};
use super::local_reply::LocalReply;
use super::path::{PathVerdict, normalize_request};
use super::request_id;

/// What was learnt of a request while its head was prepared.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) client: Client,
    pub(crate) is_traced: bool,
    /// The caller's proxy has named the operation (`x-envoy-decorator-operation`).
    pub(crate) named_by_caller: bool,
}

/// Outside facts that the preparation needs.
pub(crate) struct Surroundings<'a> {
    pub(crate) connection: &'a ConnectionInfo,
    /// Our element of `x-forwarded-client-cert`, where the client has a certificate.
    pub(crate) client_cert: Option<&'a str>,
    /// The address that stands in for a loopback peer in `x-forwarded-for`.
    pub(crate) own_address: Option<IpAddr>,
    pub(crate) random: &'a dyn Fn() -> u64,
}

impl HttpConfig {
    /// Checks a request head as Envoy does before its filters, and brings path and authority into normal form.
    ///
    /// The refusal is boxed: it is large and rare.
    pub(crate) fn check_request(
        &self,
        head: &mut RequestHead,
        connection: &ConnectionInfo,
    ) -> Result<(), Box<LocalReply>> {
        if head.version == Version::Http10 {
            self.check_http_10(head)?;
        }
        self.check_underscores(head)?;
        let scheme = head.scheme();
        if head.version != Version::Http2 && !matches!(scheme, b"" | b"http" | b"https") {
            return Err(Box::new(LocalReply::bad_request(400, "http1.invalid_scheme")));
        }
        if head.headers.get_id(HeaderId::Authority).is_none() {
            return Err(Box::new(LocalReply::new(400, "missing_host_header").close()));
        }
        if !is_authority(head.authority()) {
            return Err(Box::new(LocalReply::bad_request(400, "http.invalid_authority")));
        }
        if !head.is_connect() {
            if head.path().first() != Some(&b'/') {
                return Err(Box::new(LocalReply::new(404, "absolute_path_rejected")));
            }
            match normalize_request(head, self.path) {
                PathVerdict::Continue => {}
                PathVerdict::Reject => {
                    return Err(Box::new(
                        LocalReply::new(400, "path_normalization_failed").close(),
                    ));
                }
                PathVerdict::Redirect => {
                    let mut reply = LocalReply::new(307, "path_normalization_failed");
                    reply.location = Some(head.path().to_vec());
                    return Err(Box::new(reply));
                }
            }
        }
        self.strip_authority(head, connection);
        Ok(())
    }

    fn check_http_10(&self, head: &mut RequestHead) -> Result<(), Box<LocalReply>> {
        if !self.accept_http_10 {
            let reply = LocalReply::new(426, "low_version").body("Upgrade Required");
            return Err(Box::new(
                reply.flag(ResponseFlag::DownstreamProtocolError).close(),
            ));
        }
        if head.headers.get_id(HeaderId::Authority).is_none() && !self.default_host_for_http_10.is_empty() {
            head.set_authority(&self.default_host_for_http_10);
        }
        Ok(())
    }

    fn check_underscores(&self, head: &mut RequestHead) -> Result<(), Box<LocalReply>> {
        if self.underscores == Underscores::Allow {
            return Ok(());
        }
        let before = head.headers.len();
        head.headers.retain(|name, _| !name.contains(&b'_'));
        if head.headers.len() < before && self.underscores == Underscores::Reject {
            return Err(Box::new(LocalReply::bad_request(
                400,
                "http1.unexpected_underscore",
            )));
        }
        Ok(())
    }

    fn strip_authority(&self, head: &mut RequestHead, connection: &ConnectionInfo) {
        let authority = head.authority();
        let mut end = authority.len();
        let port_at = port_colon(authority);
        let strips = match (self.strip_port, port_at) {
            (StripPort::No, _) | (_, None) => false,
            (StripPort::Any, Some(_)) => true,
            (StripPort::Matching, Some(colon)) => connection
                .local_address
                .port()
                .is_some_and(|port| authority[colon + 1..] == *itoa::Buffer::new().format(port).as_bytes()),
        };
        if strips {
            end = port_at.unwrap_or(end);
        }
        if self.strip_trailing_host_dot {
            let host_end = if strips { end } else { port_at.unwrap_or(end) };
            if authority[..host_end].last() == Some(&b'.') {
                let without = [&authority[..host_end - 1], &authority[host_end..end]].concat();
                return head.set_authority(&without);
            }
        }
        if end < authority.len() {
            let without = authority[..end].to_vec();
            head.set_authority(&without);
        }
    }

    /// Removes and adds header fields, finds out who the client is and whether the request is traced.
    pub(crate) fn prepare_request(
        &self,
        head: &mut RequestHead,
        surroundings: &Surroundings<'_>,
    ) -> Result<Prepared, Box<LocalReply>> {
        if remove_hop_by_hop(head).is_err() {
            return Err(Box::new(LocalReply::bad_request(
                400,
                "http1.connection_header_rejected",
            )));
        }
        self.forward_client_cert(head, surroundings.client_cert);
        let client = self
            .forwarded
            .apply(head, surroundings.connection, surroundings.own_address);
        set_scheme(head, surroundings.connection);
        remove_internal(head, &client);
        if !self.via.is_empty() {
            head.headers.append_to_list(&HeaderId::Via, b", ", &self.via);
        }
        self.set_request_id(head, &client, surroundings.random);
        let (mut is_traced, mut named_by_caller) = (false, false);
        if let Some(tracing) = &self.tracing {
            is_traced = tracing.decide(head, self.request_id, (surroundings.random)());
            if self.direction != TrafficDirection::Outbound {
                // An inbound proxy is the operation's end; the caller's name for it goes no further.
                named_by_caller = head.headers.remove(&HeaderId::XEnvoyDecoratorOperation);
            }
        }
        Ok(Prepared {
            client,
            is_traced,
            named_by_caller,
        })
    }

    /// On a connection without client certificate the field can only be forged.
    fn forward_client_cert(&self, head: &mut RequestHead, element: Option<&str>) {
        let id = HeaderId::XForwardedClientCert;
        let received = match head.headers.count(&id) {
            0 => None,
            _ => Some(head.headers.get_all(&id).collect::<Vec<_>>().join(&b","[..])),
        };
        if received.is_none() && element.is_none() {
            return;
        }
        // What is not text can be no such field.
        let text = received
            .as_deref()
            .and_then(|value| std::str::from_utf8(value).ok());
        match tls::forwarded_client_cert(self.forward_client_cert, text, element) {
            Some(value) => {
                head.headers.set(&id, value.as_bytes());
            }
            None => {
                head.headers.remove(&id);
            }
        }
    }

    fn set_request_id(&self, head: &mut RequestHead, client: &Client, random: &dyn Fn() -> u64) {
        if !self.request_id.generate {
            return;
        }
        let present = head.headers.get_id(HeaderId::XRequestId).is_some();
        let force = client.is_edge && !self.request_id.preserve_external;
        if force || !present {
            head.headers
                .set(&HeaderId::XRequestId, &request_id::uuid(random(), random()));
        }
    }
}

/// Characters of a host with port (RFC 3986 section 3.2), as nghttp2's check that Envoy uses.
fn is_authority(authority: &[u8]) -> bool {
    authority.iter().all(|byte| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b'-'
                    | b'.'
                    | b':'
                    | b';'
                    | b'='
                    | b'@'
                    | b'['
                    | b']'
                    | b'_'
                    | b'~'
            )
    })
}

/// Where the port's colon stands, if the authority has a port.
fn port_colon(authority: &[u8]) -> Option<usize> {
    let colon = memchr::memrchr(b':', authority)?;
    let digits = &authority[colon + 1..];
    let is_port = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    // A colon inside brackets belongs to an IPv6 address.
    let outside = memchr::memrchr(b']', authority).is_none_or(|bracket| bracket < colon);
    (is_port && outside).then_some(colon)
}

/// `connection` names a field that must not be removed on the way.
struct Nominated;

/// Removes fields that are meant for this hop only (RFC 9110 section 7.6.1), those that `connection` names included.
fn remove_hop_by_hop(head: &mut RequestHead) -> Result<(), Nominated> {
    let headers = &mut head.headers;
    if headers.get_id(HeaderId::Connection).is_some() {
        remove_nominated(head)?;
    }
    let headers = &mut head.headers;
    if headers.get_id(HeaderId::Te).is_some() {
        if proxy_http::lists_token(headers, &HeaderId::Te, b"trailers") {
            headers.set(&HeaderId::Te, b"trailers");
        } else {
            headers.remove(&HeaderId::Te);
        }
    }
    headers.remove(&HeaderId::TransferEncoding);
    headers.remove(&HeaderId::KeepAlive);
    headers.remove(&HeaderId::ProxyConnection);
    Ok(())
}

/// Removes `connection` and the fields that it names; keeps it for an upgrade.
fn remove_nominated(head: &mut RequestHead) -> Result<(), Nominated> {
    const OPTIONS: [&[u8]; 5] = [b"", b"close", b"keep-alive", b"upgrade", b"te"];
    // Nobody has an honest reason to have these removed on the way.
    const KEPT: [&[u8]; 4] = [
        b"host",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
    ];
    let mut nominated: Vec<Vec<u8>> = Vec::new();
    for value in head.headers.get_all(&HeaderId::Connection) {
        for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            let is_one_of = |names: &[&[u8]]| names.iter().any(|name| name.eq_ignore_ascii_case(token));
            if is_one_of(&KEPT) || token.starts_with(b":") {
                return Err(Nominated);
            }
            if !is_one_of(&OPTIONS) {
                nominated.push(token.to_ascii_lowercase());
            }
        }
    }
    let is_upgrade = head.is_upgrade() && !upgrades_to_http_2(head);
    for name in nominated {
        head.headers.remove(&name[..]);
    }
    if is_upgrade {
        head.headers.set(&HeaderId::Connection, b"upgrade");
    } else {
        head.headers.remove(&HeaderId::Connection);
        head.headers.remove(&HeaderId::Upgrade);
        head.headers.remove(&HeaderId::Http2Settings);
    }
    Ok(())
}

/// An `h2c` upgrade is not taken up; the request stays an ordinary one.
fn upgrades_to_http_2(head: &RequestHead) -> bool {
    head.headers
        .get(&HeaderId::Upgrade)
        .is_some_and(|value| value.eq_ignore_ascii_case(b"h2c"))
        && connection_lists(&head.headers, b"upgrade")
}

/// Removes fields that only an internal client may set, and says of internal requests that they are.
fn remove_internal(head: &mut RequestHead, client: &Client) {
    let headers = &mut head.headers;
    if client.is_internal {
        headers.set(&HeaderId::XEnvoyInternal, b"true");
        return;
    }
    if client.is_edge {
        for id in [
            HeaderId::XEnvoyDecoratorOperation,
            HeaderId::XEnvoyDownstreamServiceCluster,
            HeaderId::XEnvoyDownstreamServiceNode,
        ] {
            headers.remove(&id);
        }
    }
    for id in [
        HeaderId::XEnvoyInternal,
        HeaderId::XEnvoyRetriableStatusCodes,
        HeaderId::XEnvoyRetriableHeaderNames,
        HeaderId::XEnvoyRetryOn,
        HeaderId::XEnvoyRetryGrpcOn,
        HeaderId::XEnvoyMaxRetries,
        HeaderId::XEnvoyUpstreamAltStatName,
        HeaderId::XEnvoyUpstreamRqTimeoutMs,
        HeaderId::XEnvoyUpstreamRqPerTryTimeoutMs,
        HeaderId::XEnvoyUpstreamRqTimeoutAltResponse,
        HeaderId::XEnvoyExpectedRqTimeoutMs,
        HeaderId::XEnvoyForceTrace,
        HeaderId::XEnvoyIpTags,
        HeaderId::XEnvoyOriginalUrl,
        HeaderId::XEnvoyHedgeOnPerTryTimeout,
    ] {
        headers.remove(&id);
    }
}
