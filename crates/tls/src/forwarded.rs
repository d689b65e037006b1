//! `x-forwarded-client-cert`: who is on the other end, for the application behind a proxy. Envoy's header, with its
//! quoting (`config.filters.network.http_connection_manager.v3`, `ForwardClientCertDetails`).

use crate::certificate::{Certificate, hex};
use crate::connection::PeerCertificates;

/// What becomes of the header that a client sent, and whether ours is added: `forward_client_cert_details`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// `SANITIZE`: it goes.
    #[default]
    Sanitize,
    /// `FORWARD_ONLY`: it stays, where the client has a certificate.
    ForwardOnly,
    /// `APPEND_FORWARD`: ours is added, where the client has a certificate.
    AppendForward,
    /// `SANITIZE_SET`: ours takes its place, where the client has a certificate.
    SanitizeSet,
    /// `ALWAYS_FORWARD_ONLY`: it stays, whoever sent it.
    AlwaysForwardOnly,
}

/// Which parts ours has besides `By` and `Hash`: `set_current_client_cert_details`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// `Subject`.
    pub subject: bool,
    /// `Cert`.
    pub cert: bool,
    /// `Chain`.
    pub chain: bool,
    /// `URI`.
    pub uri: bool,
    /// `DNS`.
    pub dns: bool,
}

/// The element that tells of `peer`, as presented to a server with the certificate `local`.
///
/// URIs and DNS names stand as they are in the certificate, without quotes, as Envoy writes them; the authority that
/// signed them vouches for their form.
pub fn client_cert_element(
    local: Option<&Certificate>,
    peer: &PeerCertificates,
    details: ClientCertDetails,
) -> String {
    let leaf = peer.leaf();
    let mut parts: Vec<String> = Vec::new();
    parts.extend(
        local
            .into_iter()
            .flat_map(|local| &local.uris)
            .map(|uri| format!("By={uri}")),
    );
    parts.push(format!("Hash={}", hex(&leaf.sha256)));
    if details.cert {
        parts.push(format!("Cert=\"{}\"", leaf.url_encoded_pem()));
    }
    if details.chain {
        parts.push(format!("Chain=\"{}\"", peer.url_encoded_chain()));
    }
    if details.subject {
        // The escapes of a distinguished name are what keeps its quotes apart from these.
        parts.push(format!("Subject=\"{}\"", leaf.subject));
    }
    if details.uri {
        parts.extend(leaf.uris.iter().map(|uri| format!("URI={uri}")));
        if leaf.uris.is_empty() {
            parts.push("URI=".to_owned());
        }
    }
    if details.dns {
        parts.extend(leaf.dns_names.iter().map(|name| format!("DNS={name}")));
    }
    parts.join(";")
}

/// The header that goes upstream, if one does. `received` is what the client sent, `element` ours, which exists where
/// the client presented a certificate, whether or not that was verified.
pub fn forwarded_client_cert(
    mode: ForwardClientCert,
    received: Option<&str>,
    element: Option<&str>,
) -> Option<String> {
    let received = received.map(str::to_owned);
    let Some(element) = element else {
        return received.filter(|_| mode == ForwardClientCert::AlwaysForwardOnly);
    };
    match mode {
        ForwardClientCert::Sanitize => None,
        ForwardClientCert::ForwardOnly | ForwardClientCert::AlwaysForwardOnly => received,
        ForwardClientCert::SanitizeSet => Some(element.to_owned()),
        ForwardClientCert::AppendForward => match received {
            Some(received) if !received.is_empty() => Some(format!("{received},{element}")),
            _ => Some(element.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{ForwardClientCert, forwarded_client_cert};

    #[test]
    fn each_mode_does_with_the_header_what_envoy_does() {
        use ForwardClientCert::{AlwaysForwardOnly, AppendForward, ForwardOnly, Sanitize, SanitizeSet};
        let client = Some("By=a;Hash=b");
        let ours = Some("By=c;Hash=d");
        for (mode, received, element, sent) in [
            (Sanitize, client, ours, None),
            (Sanitize, client, None, None),
            (ForwardOnly, client, ours, client),
            (ForwardOnly, client, None, None),
            (AppendForward, client, ours, Some("By=a;Hash=b,By=c;Hash=d")),
            (AppendForward, None, ours, ours),
            (AppendForward, Some(""), ours, ours),
            (AppendForward, client, None, None),
            (SanitizeSet, client, ours, ours),
            (SanitizeSet, client, None, None),
            (AlwaysForwardOnly, client, ours, client),
            (AlwaysForwardOnly, client, None, client),
            (AlwaysForwardOnly, None, None, None),
        ] {
            let found = forwarded_client_cert(mode, received, element);
            assert_eq!(found.as_deref(), sent, "{mode:?} {received:?} {element:?}");
        }
    }
}
