//! `istio.alpn` on a worker: what is offered in the TLS handshakes towards hosts.

use std::rc::Rc;

use proxy_filters::alpn::{AlpnConfig, UpstreamVersion};
use proxy_http::Version;
use proxy_upstream::config::HttpProtocol;
use proxy_upstream::{Cluster, HttpVersions};

use super::upstream::versions;

/// Lists to offer, for this thread's requests to share.
#[derive(Debug, Default)]
pub(crate) struct AlpnOffers {
    http10: Option<Rc<[String]>>,
    http11: Option<Rc<[String]>>,
    http2: Option<Rc<[String]>>,
}

impl AlpnOffers {
    pub(crate) fn new(config: Option<&AlpnConfig>) -> Self {
        let list = |version| {
            let names = config.map_or(&[][..], |config| config.offered(version));
            (!names.is_empty()).then(|| Rc::from(names))
        };
        Self {
            http10: list(UpstreamVersion::Http10),
            http11: list(UpstreamVersion::Http11),
            http2: list(UpstreamVersion::Http2),
        }
    }

    /// What a request of a client that speaks `downstream` offers to a host of `cluster`, if not what the cluster says.
    /// Of several versions that may be spoken to the host the best counts, as for Istio's filter.
    pub(crate) fn offered(&self, cluster: &Cluster, downstream: Version) -> Option<Rc<[String]>> {
        let config = cluster.config();
        let names = match versions(cluster, downstream) {
            HttpVersions::Http2 | HttpVersions::Either => &self.http2,
            HttpVersions::Http1
                if downstream == Version::Http10 && config.http.protocol == HttpProtocol::UseDownstream =>
            {
                &self.http10
            }
            HttpVersions::Http1 => &self.http11,
        };
        let names = names.as_ref().filter(|_| !config.refuses_alpn_override)?;
        Some(Rc::clone(names))
    }
}
