//! Counters of gRPC calls to a cluster, under Envoy's names (`Grpc::Context`): those of one method, or of all.

use std::cell::{OnceCell, RefCell};

use telemetry::stats::{Counter, Scope, Shard};

/// The largest status that has a counter of its own; gRPC knows 16.
const MAX_STATUS: u8 = 99;

/// The counters of one method, or of all, on one worker.
#[derive(Debug)]
pub struct GrpcCounters {
    scope: Scope,
    prefix: Box<str>,
    shard: Shard,
    /// Made when a message first comes: gRPC-Web has calls alone.
    request_messages: OnceCell<Counter>,
    response_messages: OnceCell<Counter>,
    success: Counter,
    failure: Counter,
    total: Counter,
    /// Counters of single statuses, made when a status first comes.
    statuses: RefCell<Vec<(u8, Counter)>>,
}

impl GrpcCounters {
    pub(crate) fn new(scope: &Scope, prefix: &str, shard: &Shard) -> Self {
        let counter = |name: &str| scope.counter(&format!("{prefix}.{name}"));
        Self {
            request_messages: OnceCell::new(),
            response_messages: OnceCell::new(),
            success: counter("success"),
            failure: counter("failure"),
            total: counter("total"),
            statuses: RefCell::default(),
            scope: scope.clone(),
            prefix: prefix.into(),
            shard: shard.clone(),
        }
    }

    /// Messages of requests.
    pub fn add_request_messages(&self, count: u64) {
        self.add(&self.request_messages, "request_message_count", count);
    }

    /// Messages of answers.
    pub fn add_response_messages(&self, count: u64) {
        self.add(&self.response_messages, "response_message_count", count);
    }

    fn add(&self, counter: &OnceCell<Counter>, name: &str, count: u64) {
        let made = || self.scope.counter(&format!("{}.{name}", self.prefix));
        self.shard.add(*counter.get_or_init(made), count);
    }

    /// A call that ended with this `grpc-status`.
    pub fn count_status(&self, status: &[u8]) {
        let status = std::str::from_utf8(status)
            .ok()
            .and_then(|text| text.parse().ok());
        self.shard.inc(self.total);
        self.shard.inc(match status {
            Some(0) => self.success,
            _ => self.failure,
        });
        let Some(status) = status.filter(|status| *status <= MAX_STATUS) else {
            return;
        };
        let mut statuses = self.statuses.borrow_mut();
        let known = statuses.iter().find(|(s, _)| *s == status).map(|(_, c)| *c);
        let counter = known.unwrap_or_else(|| {
            let counter = self.scope.counter(&format!("{}.{status}", self.prefix));
            statuses.push((status, counter));
            counter
        });
        self.shard.inc(counter);
    }
}
