//! TLS towards an upstream with certificates that are not the mesh's: `trafficPolicy.tls` with mode SIMPLE or MUTUAL.
//!
//! Files are the workload's, so its agent hands them out (SDS names `file-cert:` and `file-root:`, as Istio's agent has
//! them); a proxy without an agent reads them itself. `credentialName` is a Secret, or a ConfigMap with authorities, which
//! the control plane hands out.

use api_envoy::envoy::config::core::v3::{DataSource, TransportSocket, data_source::Specifier};
use api_envoy::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, TlsCertificate, UpstreamTlsContext,
    common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
};
use api_istio::mesh::TlsConfig;
use api_istio::networking::{ClientTlsMode, ClientTlsSettings};
use control_snapshot::{CredentialName, Holder, ProxyKind, ServiceView};

use crate::client::Client;
use crate::extension::transport_socket;
use crate::mutual_tls;
use crate::server_tls::control_plane_secret;

/// Istio's name for the authorities that the operating system trusts.
const SYSTEM_ROOTS: &str = "system";
/// Where a proxy without an agent finds them.
const SYSTEM_ROOTS_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The field that names a Secret.
pub(crate) const CREDENTIAL_FIELD: &str = "credentialName";
/// The suffix of resources that are authorities.
const AUTHORITIES: &str = "-cacert";

/// TLS that a rule asks for and that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The field of `tls` at fault.
    pub(crate) field: &'static str,
    /// Why, in one sentence.
    pub(crate) message: String,
}

/// Who asks for TLS, and to whom.
pub(crate) struct Origination<'a> {
    /// Who asks.
    pub(crate) client: &'a Client,
    /// The upstream.
    pub(crate) service: &'a ServiceView,
    /// What the rule says.
    pub(crate) tls: &'a ClientTlsSettings,
    /// Whether the upstream speaks HTTP/2.
    pub(crate) http2: bool,
}

impl Origination<'_> {
    /// The transport socket.
    pub(crate) fn socket(&self) -> Result<TransportSocket, Refusal> {
        let mut params = mutual_tls::protocol_versions();
        if let Some(TlsConfig {
            ecdh_curves,
            cipher_suites,
            ..
        }) = &self.client.mesh.tls_defaults
        {
            params.ecdh_curves.clone_from(ecdh_curves);
            params.cipher_suites.clone_from(cipher_suites);
        }
        let mut common = CommonTlsContext {
            tls_params: Some(params),
            ..CommonTlsContext::default()
        };
        if self.http2 {
            common.alpn_protocols = vec!["h2".to_owned()];
        }
        if self.tls.mode == ClientTlsMode::Mutual {
            self.show_certificate(&mut common)?;
        }
        self.verify_server(&mut common)?;
        let context = UpstreamTlsContext {
            common_tls_context: Some(common),
            sni: self.tls.sni.clone(),
            ..UpstreamTlsContext::default()
        };
        Ok(transport_socket(mutual_tls::TLS_SOCKET, &context))
    }

    /// The SDS resource in place of files. Sidecars may have a Secret only by a rule that selects them: else every workload
    /// of the mesh would wait for a Secret that is for one. Authorities in a ConfigMap are for everybody.
    fn credential(&self) -> Result<Option<String>, Refusal> {
        let name = self.tls.credential_name.as_str();
        if name.is_empty() {
            return Ok(None);
        }
        let refusal = |message| Refusal {
            field: CREDENTIAL_FIELD,
            message,
        };
        let resource = CredentialName::resource(name).map_err(refusal)?;
        let rule = self.service.rule.as_ref();
        let selected = rule.is_some_and(|rule| !rule.workload_selector.is_empty());
        let read = CredentialName::parse(&resource);
        if let Some(map) = read.filter(|read| read.holder == Holder::ConfigMap) {
            if rule.is_some_and(|rule| rule.config.meta.namespace != map.namespace) {
                return Err(refusal(format!(
                    "{name}: the ConfigMap must be of the rule's own namespace"
                )));
            }
            Ok(Some(resource))
        } else if self.client.kind == ProxyKind::Gateway || selected {
            Ok(Some(resource))
        } else if !self.tls.ca_certificates.is_empty() || !self.tls.client_certificate.is_empty() {
            Ok(None)
        } else {
            Err(Refusal {
                field: CREDENTIAL_FIELD,
                message:
                    "credentialName is for gateways; sidecars need a rule with a workloadSelector, or files"
                        .to_owned(),
            })
        }
    }

    fn show_certificate(&self, common: &mut CommonTlsContext) -> Result<(), Refusal> {
        let tls = self.tls;
        if let Some(resource) = self.credential()? {
            let resource = CredentialName::key_pair_resource(&resource).map_err(|message| Refusal {
                field: CREDENTIAL_FIELD,
                message,
            })?;
            common.tls_certificate_sds_secret_configs = vec![control_plane_secret(&resource)];
            return Ok(());
        }
        if tls.client_certificate.is_empty() || tls.private_key.is_empty() {
            return Err(Refusal {
                field: "clientCertificate",
                message: "mode MUTUAL needs clientCertificate and privateKey, or credentialName".to_owned(),
            });
        }
        if self.client.identity {
            let name = format!("file-cert:{}~{}", tls.client_certificate, tls.private_key);
            common.tls_certificate_sds_secret_configs = vec![mutual_tls::secret(&name)];
        } else {
            common.tls_certificates = vec![TlsCertificate {
                certificate_chain: Some(file(&tls.client_certificate)),
                private_key: Some(file(&tls.private_key)),
                ..TlsCertificate::default()
            }];
        }
        Ok(())
    }

    fn verify_server(&self, common: &mut CommonTlsContext) -> Result<(), Refusal> {
        if self.tls.insecure_skip_verify == Some(true) {
            let nothing = CertificateValidationContext::default();
            common.validation_context_type = Some(ValidationContextType::ValidationContext(nothing));
            return Ok(());
        }
        let mut expected = self.expectations();
        let secret = match self.credential()? {
            Some(resource) => control_plane_secret(&format!("{resource}{AUTHORITIES}")),
            None => {
                let path = self.tls.ca_certificates.as_str();
                let path = if path.is_empty() { SYSTEM_ROOTS } else { path };
                if !self.tls.ca_crl.is_empty() {
                    expected.crl = Some(file(&self.tls.ca_crl));
                }
                if !self.client.identity {
                    let path = if path == SYSTEM_ROOTS {
                        SYSTEM_ROOTS_FILE
                    } else {
                        path
                    };
                    expected.trusted_ca = Some(file(path));
                    common.validation_context_type = Some(ValidationContextType::ValidationContext(expected));
                    return Ok(());
                }
                mutual_tls::secret(&format!("file-root:{path}"))
            }
        };
        let combined = CombinedCertificateValidationContext {
            default_validation_context: Some(expected),
            validation_context_sds_secret_config: Some(secret),
            ..CombinedCertificateValidationContext::default()
        };
        common.validation_context_type = Some(ValidationContextType::CombinedValidationContext(combined));
        Ok(())
    }

    /// The names a server may have: those of the rule, else those of the ServiceEntry.
    #[allow(deprecated)] // What Istio's proxies read; see `mutual_tls`.
    fn expectations(&self) -> CertificateValidationContext {
        let own = self.tls.subject_alt_names.iter().map(String::as_str);
        let names: Vec<_> = if self.tls.subject_alt_names.is_empty() && !self.service.service.is_kubernetes()
        {
            self.service_names().into_iter().map(mutual_tls::exact).collect()
        } else {
            own.map(mutual_tls::exact).collect()
        };
        CertificateValidationContext {
            match_subject_alt_names: names,
            ..CertificateValidationContext::default()
        }
    }

    fn service_names(&self) -> Vec<&str> {
        let identities = &self.service.identities;
        let declared = &self.service.service.subject_alt_names;
        let all = if identities.is_empty() {
            declared
        } else {
            identities
        };
        all.iter().map(|name| &**name).collect()
    }

    /// Where no server name is given, the request's host is asked for; says whether the certificate must be for it, too.
    pub(crate) fn named_by_requests(&self) -> Option<bool> {
        let tls = self.tls;
        let verified = tls.subject_alt_names.is_empty() && tls.insecure_skip_verify != Some(true);
        tls.sni.is_empty().then_some(verified)
    }
}

fn file(path: &str) -> DataSource {
    DataSource {
        specifier: Some(Specifier::Filename(path.to_owned())),
        ..DataSource::default()
    }
}
