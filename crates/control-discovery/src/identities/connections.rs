//! TLS connections of the secure port: handshakes beside each other, each with its place and time, and what they prove.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use control_ca::{Authority, PeerCredentials, PeerIdentity};
use identity::Certificate;
use tls::{ConnectionInfo, HandshakeFailure, PeerValidation, ServerContext, ServerStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::server::{Connected, TcpConnectInfo, UdsConnectInfo};

use super::first_bytes::FirstBytes;
use super::places::{Place, Places};
use crate::limits;

/// Who is at the other end of a connection of the secure port.
#[derive(Clone, Debug)]
pub struct SecurePeer {
    /// From where.
    pub address: SocketAddr,
    /// What it has proven by a certificate, if it has shown one.
    pub identity: Option<PeerIdentity>,
}

/// A connection after its handshake.
pub(super) struct SecureStream {
    stream: FirstBytes<ServerStream<TcpStream>>,
    peer: SecurePeer,
    /// Given back with the connection.
    _place: Place,
}

/// Accepts connections for as long as the returned stream is read.
pub(super) fn incoming(
    listener: TcpListener,
    certificates: watch::Receiver<Option<Arc<ServerContext>>>,
    authorities: watch::Receiver<Option<Arc<Authority>>>,
) -> ReceiverStream<io::Result<SecureStream>> {
    let (sender, receiver) = mpsc::channel(limits::SECURE_ACCEPT_QUEUE);
    tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(limits::CONCURRENT_HANDSHAKES));
        let places = Places::default();
        loop {
            let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the secure port could not be accepted");
                    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (context, authority) = (certificates.borrow().clone(), authorities.borrow().clone());
            let (Some(context), Some(authority)) = (context, authority) else {
                continue;
            };
            let place = match places.take(address.ip()) {
                Ok(place) => place,
                Err(full) => {
                    tracing::warn!(%address, reason = %full, "no TLS connection to the secure port");
                    continue;
                }
            };
            let sender = sender.clone();
            tokio::spawn(async move {
                match shake_hands(stream, address, place, &context, &authority).await {
                    // Nobody reads any more when the server stops.
                    Ok(Some(stream)) => drop(sender.send(Ok(stream)).await),
                    // Somebody has looked whether the port is open.
                    Ok(None) => {}
                    Err(reason) => tracing::warn!(%address, %reason, "no TLS connection to the secure port"),
                }
                drop(permit);
            });
        }
    });
    ReceiverStream::new(receiver)
}

async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    mut place: Place,
    context: &ServerContext,
    authority: &Authority,
) -> Result<Option<SecureStream>, String> {
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let shaken = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, context.accept(stream)).await;
    let shaken =
        shaken.map_err(|_| format!("the handshake took longer than {:?}", limits::HANDSHAKE_TIMEOUT))?;
    let (stream, info) = match shaken {
        Ok(shaken) => shaken,
        Err(HandshakeFailure::Closed) => return Ok(None),
        Err(failure) => return Err(failure.to_string()),
    };
    let identity = proven(&info, authority)?;
    place
        .settle(identity.is_some())
        .map_err(|full| full.to_string())?;
    Ok(Some(SecureStream {
        stream: FirstBytes::new(stream),
        peer: SecurePeer { address, identity },
        _place: place,
    }))
}

/// What the peer's certificate proves; nothing when it has shown none.
fn proven(info: &ConnectionInfo, authority: &Authority) -> Result<Option<PeerIdentity>, String> {
    let Some(peer) = info
        .peer
        .as_ref()
        .filter(|_| info.validation == PeerValidation::Passed)
    else {
        return Ok(None);
    };
    let mut leaf = None;
    for der in peer.chain() {
        let certificate = Certificate::from_der(der).map_err(|e| e.to_string())?;
        if authority
            .revocations()
            .iter()
            .any(|list| list.revokes(&certificate))
        {
            return Err(format!("the certificate of {} is revoked", certificate.serial()));
        }
        leaf = leaf.or(Some(certificate));
    }
    Ok(leaf.map(PeerIdentity))
}

/// Tells the services of a call who is at the other end, in the words that they know.
pub(super) fn tell_of_peer(mut call: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
    let credentials = call.extensions().get::<UdsConnectInfo>();
    if let Some(user) = credentials.and_then(|info| info.peer_cred) {
        let uid = user.uid();
        call.extensions_mut().insert(PeerCredentials { uid });
    }
    if let Some(peer) = call.extensions().get::<SecurePeer>().cloned() {
        call.extensions_mut().insert(TcpConnectInfo {
            local_addr: None,
            remote_addr: Some(peer.address),
        });
        if let Some(identity) = peer.identity {
            call.extensions_mut().insert(identity);
        }
    }
    Ok(call)
}

impl Connected for SecureStream {
    type ConnectInfo = SecurePeer;

    fn connect_info(&self) -> SecurePeer {
        self.peer.clone()
    }
}

impl AsyncRead for SecureStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for SecureStream {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
