//! The authority over the network, as a server of its own: Istio's certificate service with TLS and on a Unix socket.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use control_ca::{
    Authenticator, Authority, Caller, CertificateService, Credentials, Inventory, Lifetimes,
    NotAuthenticated, PeerCertificates, PeerCredentials, PeerIdentity, Pod, Rules, Settings, UnixPeer,
    bearer_token,
};
use futures::future::BoxFuture;
use identity::{
    Certificate, KeyKind, PrivateKey, ServiceAccount, SpiffeId, SubjectName, TrustDomain, TrustDomains,
};
use tls::ServerContext;
use tls::settings::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, Secret, TlsCertificate,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::Status;
use tonic::transport::Server;
use tonic::transport::server::{Connected, UdsConnectInfo};

use crate::support::{reviews, signer};

/// The name in the server's certificate.
pub(crate) const NAME: &str = "istiod.istio-system.svc";
/// The token that is worth the account of reviews.
pub(crate) const TOKEN: &str = "token-of-reviews";

/// Knows one token.
struct Tokens;

impl Authenticator for Tokens {
    fn name(&self) -> &'static str {
        "token"
    }

    fn authenticate<'c>(
        &'c self,
        credentials: Credentials<'c>,
    ) -> BoxFuture<'c, Result<Option<Caller>, NotAuthenticated>> {
        let caller = bearer_token(credentials.metadata).map(|token| {
            if token != TOKEN {
                return Err(NotAuthenticated("nobody knows the token".to_owned()));
            }
            Ok(Caller::TokenReview {
                account: reviews(),
                pod: None,
            })
        });
        Box::pin(std::future::ready(caller.transpose()))
    }
}

/// No pods; reviews is a workload of this host.
struct Workloads;

impl Inventory for Workloads {
    fn pod(&self, _: &str, _: &str) -> Option<Pod> {
        None
    }

    fn runs_on(&self, _: &str, _: &ServiceAccount) -> bool {
        false
    }

    fn registered(&self, _: u32) -> Vec<SpiffeId> {
        Vec::new()
    }

    fn workload_accounts(&self) -> BTreeSet<ServiceAccount> {
        BTreeSet::from([reviews()])
    }
}

/// A running certificate service.
pub(crate) struct Service {
    pub(crate) signer: Arc<ArcSwap<Authority>>,
    /// `127.0.0.1:port`, when it is served over TLS.
    pub(crate) address: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    fn settings(signer: &Arc<ArcSwap<Authority>>, host_users: BTreeSet<u32>) -> Settings {
        let domain = TrustDomain::new("cluster.local").expect("a trust domain");
        let rules = Rules {
            trust_domains: TrustDomains::new(domain, []),
            trusted_node_accounts: BTreeSet::new(),
            oidc: None,
            host_users,
        };
        Settings {
            authority: Arc::clone(signer),
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            inventory: Arc::new(Workloads),
            authenticators: vec![Arc::new(PeerCertificates), Arc::new(Tokens), Arc::new(UnixPeer)],
            lifetimes: Lifetimes::default(),
            metrics: Arc::default(),
            clock: Arc::new(SystemTime::now),
        }
    }

    /// On a Unix socket, for this user only if `known`.
    pub(crate) fn unix(path: &Path, known: bool) -> Self {
        let signer = Arc::new(ArcSwap::from_pointee(signer(SystemTime::now())));
        let listener = UnixListener::bind(path).expect("a socket");
        let users = if known {
            BTreeSet::from([rustix::process::getuid().as_raw()])
        } else {
            BTreeSet::new()
        };
        let service = CertificateService::server(Self::settings(&signer, users));
        let tell = |mut call: tonic::Request<()>| {
            let peer = call
                .extensions()
                .get::<UdsConnectInfo>()
                .and_then(|info| info.peer_cred);
            if let Some(peer) = peer {
                call.extensions_mut().insert(PeerCredentials { uid: peer.uid() });
            }
            Ok::<_, Status>(call)
        };
        let service = tonic::service::interceptor::InterceptedService::new(service, tell);
        let task = tokio::spawn(async move {
            let server = Server::builder().add_service(service);
            let served = server.serve_with_incoming(UnixListenerStream::new(listener));
            served.await.expect("a server");
        });
        Self {
            signer,
            address: String::new(),
            task,
        }
    }

    /// Over TLS, with a certificate for [`NAME`].
    pub(crate) async fn tls() -> Self {
        let signer = Arc::new(ArcSwap::from_pointee(signer(SystemTime::now())));
        let context = context(&signer.load());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let service = CertificateService::server(Self::settings(&signer, BTreeSet::new()));
        let tell = |mut call: tonic::Request<()>| {
            if let Some(Some(peer)) = call.extensions().get::<Option<PeerIdentity>>().cloned() {
                call.extensions_mut().insert(peer);
            }
            Ok::<_, Status>(call)
        };
        let service = tonic::service::interceptor::InterceptedService::new(service, tell);
        let incoming = incoming(listener, context);
        let task = tokio::spawn(async move {
            let served = Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming);
            served.await.expect("a server");
        });
        Self {
            signer,
            address,
            task,
        }
    }

    /// Writes the roots, and a token or something else in its place.
    pub(crate) fn write(&self, folder: &Path, token: &str) -> (PathBuf, PathBuf) {
        let (roots, path) = (folder.join("root-cert.pem"), folder.join("token"));
        std::fs::write(&roots, self.signer.load().roots_pem()).expect("written");
        std::fs::write(&path, format!("{token}\n")).expect("written");
        (roots, path)
    }
}

fn context(signer: &Authority) -> ServerContext {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
    let names = [SubjectName::Dns(NAME.to_owned())];
    let hour = Duration::from_secs(3600);
    let issued = signer.certify(key.public_key(), &names, hour, SystemTime::now());
    let chain = issued.expect("a certificate").leaf().expect("a leaf").pem();
    let settings = DownstreamTlsContext {
        common: CommonTlsContext {
            tls_certificates: vec![TlsCertificate {
                certificate_chain: chain.into_bytes(),
                private_key: Secret::new(key.to_pem().expect("PEM").as_bytes()),
            }],
            alpn_protocols: vec!["h2".to_owned()],
            validation_context: Some(CertificateValidationContext {
                trusted_ca: Some(signer.roots_pem().into_bytes()),
                ..CertificateValidationContext::default()
            }),
            ..CommonTlsContext::default()
        },
        ..DownstreamTlsContext::default()
    };
    ServerContext::new(&settings, SystemTime::now()).expect("a context")
}

/// A connection after its handshake, and the certificate that was shown.
struct Secure {
    stream: tls::ServerStream<tokio::net::TcpStream>,
    peer: Option<PeerIdentity>,
}

fn incoming(listener: TcpListener, context: ServerContext) -> ReceiverStream<io::Result<Secure>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not like us has broken off; its test knows.
            let Ok((stream, info)) = context.accept(stream).await else {
                continue;
            };
            let leaf = info.peer.as_ref().and_then(|peer| peer.chain().first());
            let peer = leaf.map(|der| PeerIdentity(Certificate::from_der(der).expect("a certificate")));
            if sender.send(Ok(Secure { stream, peer })).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

impl Connected for Secure {
    type ConnectInfo = Option<PeerIdentity>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Secure {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
