//! The certificates that TLS contexts hold, read where they are: statistics look at all of them for each scrape.

use std::sync::Arc;

use proxy_config::listener::Transport;
use proxy_config::state::ConfigState;
use proxy_upstream::secrets::{INLINE, Origins};
use telemetry::stats::Scope;

use crate::admin::source::{ContextCertificates, ShownCertificate};

/// What Envoy calls a certificate that came in a context's settings. The digits begin the SHA-256 of no name.
const UNNAMED_CERTIFICATE: &str = "unnamed_cert_e3b0c442";
/// What Envoy calls authorities that came so.
const UNNAMED_AUTHORITY: &str = "unnamed_ca_cert_e3b0c442";

/// What one TLS context holds.
pub(crate) struct HeldCertificates<'a> {
    /// The statistics of the listener or cluster that the context is for.
    pub(crate) scope: &'a Scope,
    origins: &'a Origins,
    authority: Option<&'a tls::Certificate>,
    chain: Vec<&'a tls::Certificate>,
}

/// Shows the TLS contexts that are in force, or waiting to be, and hold something.
pub(crate) fn each_context<H>(state: &ConfigState<H>, mut show: impl FnMut(&HeldCertificates<'_>)) {
    let mut show = |held: HeldCertificates<'_>| {
        if held.authority.is_some() || !held.chain.is_empty() {
            show(&held);
        }
    };
    for entry in state.clusters().values() {
        for version in entry.active.iter().chain(&entry.warming) {
            let all = version.config.transport.all();
            for tls in all.filter_map(|transport| transport.tls()) {
                if let Some(context) = tls.context() {
                    show(HeldCertificates {
                        scope: tls.stats().scope(),
                        origins: tls.origins(),
                        authority: context.authority(),
                        chain: context.certificate().into_iter().collect(),
                    });
                }
            }
        }
    }
    for entry in state.listeners().values() {
        for version in entry.active.iter().chain(&entry.warming) {
            for chain in version.config.all_chains() {
                if let Transport::Tls(tls) = &chain.transport
                    && let Some(context) = tls.current.get()
                {
                    show(HeldCertificates {
                        scope: tls.stats.scope(),
                        origins: &tls.origins,
                        authority: context.authority(),
                        chain: context.certificates().collect(),
                    });
                }
            }
        }
    }
}

impl HeldCertificates<'_> {
    /// The certificates, each with the name of the secret that it came as, or Envoy's name for those without one.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, &tls::Certificate)> {
        let authority = self.authority.map(|held| (self.authority_name(), held));
        let chain = self.chain.iter().enumerate();
        let chain = chain.map(|(index, held)| (self.certificate_name(index), *held));
        authority.into_iter().chain(chain)
    }

    fn authority_name(&self) -> &str {
        self.origins
            .validation_secret
            .as_deref()
            .unwrap_or(UNNAMED_AUTHORITY)
    }

    fn certificate_name(&self, index: usize) -> &str {
        let secret = self.origins.certificate_secrets.get(index);
        secret.map_or(UNNAMED_CERTIFICATE, |name| &**name)
    }

    /// A copy for the admin interface. What came as a secret is `<inline>`, whatever files the secret named.
    pub(crate) fn shown(&self) -> ContextCertificates {
        let trusted_ca = Some(self.origins.trusted_ca.as_str()).filter(|path| !path.is_empty());
        let copy = |path: Option<&str>, name: &str, held: &tls::Certificate| ShownCertificate {
            path: path.unwrap_or(INLINE).to_owned(),
            name: Arc::from(name),
            certificate: held.clone(),
        };
        let authority = self
            .authority
            .map(|held| copy(trusted_ca, self.authority_name(), held));
        let chain = self.chain.iter().enumerate().map(|(index, held)| {
            let path = self.origins.certificates.get(index);
            copy(path.map(String::as_str), self.certificate_name(index), held)
        });
        ContextCertificates {
            authority,
            chain: chain.collect(),
        }
    }
}
