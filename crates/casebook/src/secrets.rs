//! What the agent beside the proxy under test does: serves its workload's identity over SDS, on a Unix socket.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use api_envoy::envoy::config::core::v3::{DataSource, data_source::Specifier};
use api_envoy::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret::Type,
};
use api_envoy::envoy::service::discovery::v3 as ads;
use api_envoy::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use api_envoy::{any, type_url};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::data_plane::SECRETS_SOCKET;
use crate::identities::Issuer;
use crate::world::World;

/// The secrets by name.
#[derive(Clone)]
struct Secrets(Arc<BTreeMap<String, Secret>>);

/// Serves the identity of the proxy's workload on a task of the current runtime; it ends with it.
///
/// # Errors
/// The authority does not sign, or the socket cannot be made.
pub(crate) fn serve(world: &World, issuer: &Issuer, scratch: &Path) -> Result<()> {
    let pod = world.proxy_pod();
    let svid = issuer.svid(&pod.namespace, &pod.account)?;
    let roots: String = issuer.roots().iter().map(identity::Certificate::pem).collect();
    let certificate = TlsCertificate {
        certificate_chain: inline(svid.chain_pem()),
        private_key: inline(svid.key().to_pem()?.to_string()),
        ..TlsCertificate::default()
    };
    let authorities = CertificateValidationContext {
        trusted_ca: inline(roots),
        ..CertificateValidationContext::default()
    };
    let secrets = [
        ("default", Type::TlsCertificate(certificate)),
        ("ROOTCA", Type::ValidationContext(authorities)),
    ];
    let secrets = secrets.map(|(name, content)| {
        let secret = Secret {
            name: name.to_owned(),
            r#type: Some(content),
        };
        (name.to_owned(), secret)
    });
    let socket = scratch.join(SECRETS_SOCKET);
    let listener = UnixListener::bind(&socket).with_context(|| socket.display().to_string())?;
    let service = SecretDiscoveryServiceServer::new(Secrets(Arc::new(secrets.into())));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    Ok(())
}

fn inline(pem: String) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(Specifier::InlineString(pem)),
        ..DataSource::default()
    })
}

impl Secrets {
    /// The answer to a request; nothing for one that acknowledges an answer.
    fn answer(&self, request: &ads::DiscoveryRequest) -> Option<ads::DiscoveryResponse> {
        let asked = request.resource_names.iter().filter_map(|name| self.0.get(name));
        request.response_nonce.is_empty().then(|| ads::DiscoveryResponse {
            version_info: "1".to_owned(),
            nonce: "1".to_owned(),
            type_url: type_url::SECRET.to_owned(),
            resources: asked.map(any::pack).collect(),
            ..ads::DiscoveryResponse::default()
        })
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for Secrets {
    type DeltaSecretsStream = Answers<ads::DeltaDiscoveryResponse>;
    type StreamSecretsStream = Answers<ads::DiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<ads::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let secrets = self.clone();
        let requests = request.into_inner();
        let answers = requests.filter_map(move |request| match request {
            Ok(request) => secrets.answer(&request).map(Ok),
            Err(status) => Some(Err(status)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn delta_secrets(
        &self,
        _: Request<Streaming<ads::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented(
            "Istio's configuration asks by StreamSecrets",
        ))
    }

    async fn fetch_secrets(
        &self,
        _: Request<ads::DiscoveryRequest>,
    ) -> Result<Response<ads::DiscoveryResponse>, Status> {
        Err(Status::unimplemented(
            "Istio's configuration asks by StreamSecrets",
        ))
    }
}
