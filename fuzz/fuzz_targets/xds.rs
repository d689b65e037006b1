//! Configuration from a discovery service: whatever it is, it is taken whole or refused, and nothing panics.
//!
//! The input is a list of resources: a byte for the type, two for the length, the protobuf message. Each is taken twice,
//! since an update goes other ways than what is new.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_envoy::{Any, type_url};
use libfuzzer_sys::fuzz_target;
use proxy_config::LocalNode;
use proxy_config::state::{ConfigState, Source};
use proxy_observe::LogFiles;
use proxy_server::http::HttpConfig;
use telemetry::stats::Registry;

const KINDS: [&str; 4] = [
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::LISTENER,
    type_url::ROUTE,
];

thread_local! {
    /// One log writer for all inputs: it is a thread. The files that inputs name are not touched.
    static FILES: RefCell<Option<Arc<LogFiles>>> = const { RefCell::new(None) };
}

fn files() -> Arc<LogFiles> {
    FILES.with_borrow_mut(|files| {
        let made = || {
            Arc::new(
                LogFiles::start_opening(Duration::from_secs(3600), |_| {
                    File::options().append(true).open("/dev/null")
                })
                .expect("a log writer"),
            )
        };
        Arc::clone(files.get_or_insert_with(made))
    })
}

fn resources(mut data: &[u8]) -> Vec<(&'static str, Any)> {
    let mut all = Vec::new();
    while let Some((header, rest)) = data.split_at_checked(3) {
        let length = usize::from(u16::from_be_bytes([header[1], header[2]]));
        let (body, rest) = rest.split_at(length.min(rest.len()));
        let kind = KINDS[usize::from(header[0]) % KINDS.len()];
        let any = Any {
            type_url: kind.to_owned(),
            value: body.to_vec().into(),
        };
        all.push((kind, any));
        data = rest;
    }
    all
}

fuzz_target!(|data: &[u8]| {
    let mut state: ConfigState<Arc<HttpConfig>> =
        ConfigState::new(Registry::new(), LocalNode::default(), files());
    state.start();
    let resources = resources(data);
    for (kind, resource) in resources.iter().chain(&resources) {
        let source = Source {
            resource: Arc::new(resource.clone()),
            version: "1".into(),
            last_updated: SystemTime::UNIX_EPOCH,
        };
        let _ = match *kind {
            type_url::CLUSTER => state.update_cluster(source),
            type_url::ENDPOINT => state.update_endpoints(source),
            type_url::ROUTE => state.update_routes(source),
            _ => state.update_listener(
                source,
                &mut |proto, context| HttpConfig::compile(proto, context).map(Arc::new),
                &mut |_| Ok(()),
            ),
        };
        drop(state.take_actions());
    }
});
