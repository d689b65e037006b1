//! `istio.alpn` on a worker: what is offered in the TLS handshakes towards hosts.

use std::rc::Rc;

use proxy_filters::alpn::{AlpnConfig, UpstreamVersion};
use proxy_upstream::Cluster;

/// Lists to offer, for this thread's requests to share.
#[derive(Debug, Default)]
pub(crate) struct AlpnOffers {
    http11: Option<Rc<[String]>>,
}

impl AlpnOffers {
    pub(crate) fn new(config: Option<&AlpnConfig>) -> Self {
        let list = |version| {
            let names = config.map_or(&[][..], |config| config.offered(version));
            (!names.is_empty()).then(|| Rc::from(names))
        };
        Self {
            http11: list(UpstreamVersion::Http11),
        }
    }

    /// What a request offers to a host of `cluster`, if not what the cluster says. What is spoken there is HTTP/1.1.
    pub(crate) fn offered(&self, cluster: &Cluster) -> Option<Rc<[String]>> {
        let names = self.http11.as_ref()?;
        (!cluster.config().refuses_alpn_override).then(|| Rc::clone(names))
    }
}
