//! `istio.alpn` on a worker: what is offered in the TLS handshakes towards hosts.

use std::rc::Rc;

use proxy_filters::alpn::{AlpnConfig, UpstreamVersion};
use proxy_upstream::{Cluster, HttpVersions};

/// Lists to offer, for this thread's requests to share.
#[derive(Debug, Default)]
pub(crate) struct AlpnOffers {
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
            http11: list(UpstreamVersion::Http11),
            http2: list(UpstreamVersion::Http2),
        }
    }

    /// What a request offers to a host of `cluster`, if not what the cluster says. Where the handshake decides the
    /// version, the list for HTTP/2 is the one, as in Istio's filter.
    pub(crate) fn offered(&self, cluster: &Cluster, versions: HttpVersions) -> Option<Rc<[String]>> {
        let names = match versions {
            HttpVersions::Http1 => self.http11.as_ref()?,
            HttpVersions::Http2 | HttpVersions::Either => self.http2.as_ref()?,
        };
        (!cluster.config().refuses_alpn_override).then(|| Rc::clone(names))
    }
}
