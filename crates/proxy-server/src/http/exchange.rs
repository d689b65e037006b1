//! One request and its response: from a complete request head to the end of the response and its access log.

use std::rc::Rc;
use std::time::SystemTime;

use proxy_core::{ConnectionInfo, ResponseFlag, StreamInfo};
use proxy_http::{BodyFraming, HeadLimits, HeaderId, Headers, RequestHead, Version, connection_lists};
use proxy_router::{Action, Match, Redirect, RouteResult, RouteTable};
use tokio::time::Instant;

use super::active_stream::ActiveStream;
use super::config::RouteSource;
use super::downlink::Downlink;
use super::grpc::GrpcCall;
use super::life::InFlight;
use super::local::Heads;
use super::local_reply::LocalReply;
use super::peer_metadata::{self, ClientTold};
use super::request_headers::Surroundings;
use super::tunnel::Tunnel;
use super::upload::Upload;
use crate::local::LocalRoutes;

/// What the connection does after an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Waits for the next request.
    Open,
    /// Closes: the client expects it.
    Close,
    /// Closes, after the client has had time to read the response.
    Linger,
    /// Closes at once; the response, if there was one, is not complete.
    Abort,
}

/// How an exchange ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The whole response went out.
    Complete,
    /// It did not; the client has to notice.
    Broken,
}

/// The state of one exchange.
#[derive(Debug)]
pub(crate) struct Exchange<'t> {
    pub(crate) info: StreamInfo<'t>,
    pub(crate) upload: Upload,
    pub(crate) began: Instant,
    /// When the response head had come, or was made.
    pub(crate) responded: Instant,
    /// When the response had gone out.
    pub(crate) ended: Option<Instant>,
    /// The client wants the connection closed after this.
    pub(crate) client_closes: bool,
    /// We do.
    pub(crate) we_close: bool,
    /// What the request asks its connection to become.
    pub(crate) tunnel: Option<Tunnel>,
    /// What filters know of it as a gRPC call.
    pub(crate) grpc: Option<Box<GrpcCall>>,
    /// What the client's proxy has told of itself.
    pub(crate) client_told: ClientTold,
    /// What counts it as in flight.
    in_flight: InFlight,
    pub(crate) to_head: bool,
    /// The operation that the caller is told.
    pub(crate) operation: Option<&'t [u8]>,
    /// The caller's proxy gave the operation a name already.
    pub(crate) named_by_caller: bool,
    pub(crate) response_started: bool,
    /// An upstream was waited for.
    pub(crate) has_waited: bool,
    /// The response body goes out in chunks.
    pub(crate) chunked: bool,
    /// Boxed: few responses have any, and this is moved about.
    pub(crate) trailers: Option<Box<Headers>>,
}

impl Exchange<'_> {
    /// One that begins now.
    fn new(connection: &Rc<ConnectionInfo>, mut upload: Upload, in_flight: InFlight) -> Self {
        let began = Instant::now();
        upload.begin(began);
        Exchange {
            info: StreamInfo::new(Rc::clone(connection), SystemTime::now(), began.into_std()),
            upload,
            began,
            responded: began,
            ended: None,
            client_closes: false,
            we_close: false,
            tunnel: None,
            grpc: None,
            client_told: ClientTold::default(),
            in_flight,
            to_head: false,
            operation: None,
            named_by_caller: false,
            response_started: false,
            has_waited: false,
            chunked: false,
            trailers: None,
        }
    }
}

/// Routes that stay alive while a request uses them.
enum Routes<'m> {
    Inline(&'m RouteTable),
    Rds(LocalRoutes),
    /// The route configuration has not come, or is gone.
    None,
}

impl<D: Downlink> ActiveStream<D> {
    /// Carries a request, whose head is complete, to its end.
    pub(crate) async fn exchange(&mut self, heads: &mut Heads, upload: Upload) -> Next {
        self.requests += 1;
        let manager = Rc::clone(&self.manager);
        let routes = match &manager.config.routes {
            RouteSource::Inline(table) => Routes::Inline(table),
            RouteSource::Rds(slot) => self.worker.routes(*slot).map_or(Routes::None, Routes::Rds),
        };
        let table = match &routes {
            Routes::Inline(table) => Some(*table),
            Routes::Rds(table) => Some(&***table),
            Routes::None => None,
        };
        let mut exchange = Exchange::new(&self.info, upload, self.life.begin_request());
        self.begin(&heads.request, &mut exchange);
        let outcome = match self.prepare(&mut heads.request, &mut exchange) {
            Ok(()) => self.route(heads, &mut exchange, table).await,
            Err(reply) => {
                if reply.flag == Some(ResponseFlag::DownstreamProtocolError) {
                    // What the codec refuses is no request, and is not recorded as one.
                    heads.request.clear();
                }
                self.reply(heads, &mut exchange, *reply, None).await
            }
        };
        self.finish(heads, &mut exchange, outcome)
    }

    /// Answers a request whose head was not understood, and gives the connection up.
    pub(crate) async fn refuse(&mut self, heads: &mut Heads, reply: LocalReply) -> Next {
        let version = heads.request.version;
        heads.request.clear();
        let nothing = Upload::new(BodyFraming::None, HeadLimits::default());
        let mut exchange = Exchange::new(&self.info, nothing, self.life.begin_request());
        self.begin(&heads.request, &mut exchange);
        exchange.info.protocol = Some(version);
        let outcome = self.reply(heads, &mut exchange, reply, None).await;
        self.finish(heads, &mut exchange, outcome)
    }

    /// Records a request that gets no answer but the end of its stream: its head is beyond the limits, or has not come
    /// before the end.
    pub(crate) fn give_up(&mut self, heads: &mut Heads, flag: ResponseFlag, details: &'static str) -> Next {
        heads.request.headers.clear();
        let mut exchange = Exchange::new(&self.info, Upload::none(), self.life.begin_request());
        self.begin(&heads.request, &mut exchange);
        exchange.info.flag(flag);
        exchange.info.response_code_details = Some(details.into());
        self.finish(heads, &mut exchange, Outcome::Broken)
    }

    /// Counts a request, and notes what its head tells of the exchange.
    fn begin(&mut self, request: &RequestHead, exchange: &mut Exchange<'_>) {
        let (shard, stats) = (self.worker.shard(), &self.manager.config.stats);
        shard.inc(stats.downstream_rq_total);
        shard.inc(match D::MULTIPLEXED {
            true => stats.downstream_rq_http2_total,
            false => stats.downstream_rq_http1_total,
        });
        exchange.info.bytes.downstream_header_received = self.field_bytes as u64;
        exchange.info.protocol = Some(request.version);
        exchange.to_head = request.is_head();
        exchange.client_closes = match request.version {
            Version::Http10 => !connection_lists(&request.headers, b"keep-alive"),
            _ => {
                request.headers.get_id(HeaderId::Connection).is_some()
                    && connection_lists(&request.headers, b"close")
            }
        };
    }

    /// Checks the request and manipulates its head as Envoy does before the first filter.
    fn prepare(
        &mut self,
        request: &mut RequestHead,
        exchange: &mut Exchange<'_>,
    ) -> Result<(), Box<LocalReply>> {
        let config = &self.manager.config;
        if let Err(reply) = config.check_request(request, &self.info) {
            let stats = &config.stats;
            match &*reply.details {
                "absolute_path_rejected" => self.worker.shard().inc(stats.downstream_rq_non_relative_path),
                "path_normalization_failed" if reply.location.is_some() => {
                    self.worker
                        .shard()
                        .inc(stats.downstream_rq_redirected_with_normalized_path);
                }
                "path_normalization_failed" => {
                    self.worker
                        .shard()
                        .inc(stats.downstream_rq_failed_path_normalization);
                }
                _ => {}
            }
            return Err(reply);
        }
        let worker = &self.worker;
        let surroundings = Surroundings {
            connection: &self.info,
            client_cert: self.client_cert.as_deref(),
            own_address: self.manager.local.own_address,
            random: &|| worker.random(),
        };
        let prepared = config.prepare_request(request, &surroundings)?;
        exchange.info.downstream_remote_address = prepared.client.address;
        exchange.info.is_traced = prepared.is_traced;
        exchange.named_by_caller = prepared.named_by_caller;
        exchange.tunnel = if request.is_connect() {
            Some(Tunnel::Connect)
        } else {
            request.is_upgrade().then_some(Tunnel::Upgrade)
        };
        if exchange.tunnel.is_some() && D::MULTIPLEXED {
            // What the stream carries from here on belongs to the tunnel, if there comes to be one.
            exchange.upload = Upload::none();
            exchange.upload.begin(exchange.began);
        }
        if !config.proxy_100_continue
            && request
                .headers
                .get(&HeaderId::Expect)
                .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
        {
            request.headers.remove(&HeaderId::Expect);
            // A client of HTTP/1.0 would take it for its answer (RFC 9110, section 10.1.1).
            if !exchange.upload.is_complete() && request.version != Version::Http10 {
                self.down.write_continue(&self.manager.local.buffers);
            }
        }
        Ok(())
    }

    /// Finds the route and does what it says.
    async fn route<'t>(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'t>,
        table: Option<&'t RouteTable>,
    ) -> Outcome {
        let random = self.worker.random();
        let found = table.map_or(RouteResult::NotFound, |table| table.find(&heads.request, random));
        if let Some(config) = self.manager.config.peer_metadata {
            exchange.client_told = peer_metadata::learn_of_client(config, &mut heads.request.headers);
        }
        if self.manager.config.looks_at_grpc {
            let filters = &self.manager.config.filters;
            exchange.grpc = GrpcCall::begin(filters, &mut heads.request, &mut exchange.upload);
        }
        let stats = &self.manager.config.stats;
        match found {
            RouteResult::NotFound => {
                self.worker.shard().inc(stats.no_route);
                let mut reply = LocalReply::new(404, "route_not_found").flag(ResponseFlag::NoRouteFound);
                reply.close = heads.request.is_connect();
                self.reply(heads, exchange, reply, None).await
            }
            RouteResult::HttpsRequired(host) => {
                exchange.info.virtual_host_name = Some(&host.name);
                self.worker.shard().inc(stats.rq_redirect);
                let mut reply = LocalReply::new(301, "direct_response");
                reply.location = Some(Redirect::to_https().location(&heads.request, None));
                self.reply(heads, exchange, reply, None).await
            }
            RouteResult::Found(matched) => self.follow(heads, exchange, &matched).await,
        }
    }

    /// Does what a route says.
    async fn follow<'t>(
        &mut self,
        heads: &mut Heads,
        exchange: &mut Exchange<'t>,
        matched: &Match<'t>,
    ) -> Outcome {
        let route = matched.route();
        if !route.name.is_empty() {
            exchange.info.route_name = Some(&route.name);
        }
        exchange.info.virtual_host_name = Some(&matched.virtual_host().name);
        self.apply_decorator(&mut heads.request, exchange, matched);
        let stats = &self.manager.config.stats;
        match matched.action() {
            Action::Forward(forward) => {
                self.worker.shard().inc(stats.rq_total);
                if let Some(reply) = self.check_upgrade(&heads.request, exchange, forward) {
                    exchange.operation = None;
                    return self.reply(heads, exchange, reply, Some(matched)).await;
                }
                self.forward(heads, exchange, matched, forward).await
            }
            Action::Redirect(redirect) => {
                self.worker.shard().inc(stats.rq_redirect);
                let mut reply = LocalReply::new(redirect.status(), "direct_response");
                reply.location = matched.redirect_location(&heads.request);
                self.reply(heads, exchange, reply, Some(matched)).await
            }
            Action::DirectResponse(direct) => {
                self.worker.shard().inc(stats.rq_direct_response);
                let mut reply = LocalReply::new(direct.status, "direct_response");
                reply.body = direct.body.clone().into();
                self.reply(heads, exchange, reply, Some(matched)).await
            }
        }
    }

    /// Passes the operation's name on: to the upstream when we are the caller's proxy, back to the caller otherwise.
    fn apply_decorator<'t>(
        &self,
        request: &mut RequestHead,
        exchange: &mut Exchange<'t>,
        matched: &Match<'t>,
    ) {
        let config = &self.manager.config;
        let Some(decorator) = matched
            .route()
            .decorator
            .as_ref()
            .filter(|_| config.tracing.is_some())
        else {
            return;
        };
        if !decorator.propagate || decorator.operation.is_empty() {
            return;
        }
        if config.direction == proxy_core::TrafficDirection::Outbound {
            request.headers.set(
                &HeaderId::XEnvoyDecoratorOperation,
                decorator.operation.as_bytes(),
            );
        } else if !exchange.named_by_caller {
            exchange.operation = Some(decorator.operation.as_bytes());
        }
    }

    /// Refuses upgrades, of which CONNECT is one, that neither connection manager nor route allows.
    fn check_upgrade(
        &self,
        request: &RequestHead,
        exchange: &mut Exchange<'_>,
        forward: &proxy_router::Forward,
    ) -> Option<LocalReply> {
        let wanted = match exchange.tunnel? {
            Tunnel::Connect => b"connect",
            Tunnel::Upgrade => request.headers.get(&HeaderId::Upgrade).unwrap_or_default(),
        };
        let by_route = forward.upgrade_rule(wanted).map(|rule| rule.enabled);
        let (shard, stats) = (self.worker.shard(), &self.manager.config.stats);
        if self.manager.config.allows_upgrade(wanted, by_route) {
            shard.inc(stats.downstream_cx_upgrades_total);
            exchange.in_flight.becomes_upgrade();
            return None;
        }
        shard.inc(stats.downstream_rq_ws_on_non_ws_route);
        Some(LocalReply::new(403, "upgrade_failed").close())
    }

    /// Counts and records the end of an exchange; says what the connection does next.
    fn finish(&mut self, heads: &mut Heads, exchange: &mut Exchange<'_>, outcome: Outcome) -> Next {
        let now = exchange.ended.unwrap_or_else(Instant::now);
        self.idle_since = now;
        if !self.manager.loggers.is_empty() {
            self.describe_end(exchange, outcome, now);
        }
        let info = &exchange.info;
        let config = &self.manager.config;
        let (shard, stats) = (self.worker.shard(), &config.stats);
        let elapsed = now.saturating_duration_since(exchange.began);
        shard.record(
            stats.downstream_rq_time,
            u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        );
        self.down.note_end(info.response_code.is_some(), elapsed);
        let response = exchange.response_started.then_some(&heads.response);
        for logger in &self.manager.loggers {
            logger.log(info, &heads.request, response, exchange.trailers.as_deref());
        }
        if outcome == Outcome::Broken {
            return Next::Abort;
        }
        match (exchange.client_closes, exchange.we_close) {
            (_, true) => Next::Linger,
            (true, false) => Next::Close,
            (false, false) => Next::Open,
        }
    }

    /// Notes what is known of the times and bytes of an exchange only when it has ended.
    fn describe_end(&self, exchange: &mut Exchange<'_>, outcome: Outcome, now: Instant) {
        let since = |at: Instant| at.saturating_duration_since(exchange.began);
        let info = &mut exchange.info;
        info.finish(now.into_std());
        info.grpc_messages = exchange.grpc.as_ref().and_then(|call| call.messages());
        let timing = &mut info.timing;
        timing.last_downstream_rx_byte = exchange.upload.received_at.map(since);
        timing.last_upstream_tx_byte = exchange.upload.sent_at.map(since);
        if exchange.response_started {
            timing.first_downstream_tx_byte = Some(since(exchange.responded));
        }
        if outcome == Outcome::Complete {
            timing.last_downstream_tx_byte = Some(since(now));
        }
        let (used_before, sent_before) = self.request_began_at;
        let (used, sent) = self.down.moved();
        info.bytes.received = exchange.upload.received;
        info.bytes.downstream_wire_received = used - used_before;
        info.bytes.downstream_wire_sent = sent - sent_before;
    }
}
