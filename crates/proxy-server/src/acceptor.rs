//! Accepting connections on one worker, or giving them to another.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use proxy_upstream::Stream;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::AbortHandle;

use crate::command::{HandedOver, ListenSocket};
use crate::connection::{self, Accepted};
use crate::handler::ConnectionHandler;
use crate::limits;
use crate::listeners::ListenerSlot;

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    fn new(socket: ListenSocket) -> io::Result<Self> {
        if socket.is_unix {
            return Ok(Self::Unix(UnixListener::from_std(socket.fd.into())?));
        }
        Ok(Self::Tcp(TcpListener::from_std(socket.fd.into())?))
    }

    /// The next connection, and who is at its other end. One that was reset meanwhile tells that no more by itself.
    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Self::Unix(listener) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }
}

/// Starts to accept connections from a socket.
pub(crate) fn start(
    handler: &ConnectionHandler,
    slot: &Rc<ListenerSlot>,
    socket: ListenSocket,
) -> Option<AbortHandle> {
    let kind = socket.kind;
    let acceptor = match Acceptor::new(socket) {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(listener = %slot.current().config.name, %error, "cannot watch a listening socket");
            return None;
        }
    };
    // The slot holds the task's handle, so the task holds the slot weakly.
    let (handler, slot) = (handler.clone(), Rc::downgrade(slot));
    let task = tokio::task::spawn_local(async move {
        loop {
            let accepted = acceptor.accept().await;
            let Some(slot) = slot.upgrade() else { return };
            match accepted {
                Ok((stream, peer)) => dispatch(&handler, &slot, Accepted { stream, peer, kind }),
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(listener = %slot.current().config.name, %error, "cannot accept");
                    tokio::time::sleep(limits::REST_AFTER_ACCEPT_ERROR).await;
                }
            }
        }
    });
    Some(task.abort_handle())
}

/// Errors of accept(2) that concern the connection alone.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// Serves a connection here, or on the worker with fewest.
fn dispatch(handler: &ConnectionHandler, slot: &Rc<ListenerSlot>, accepted: Accepted) {
    let active = slot.current();
    let Some(peer) = handler.balancer.less_loaded_peer(active.config.exact_balance) else {
        return connection::spawn(handler, slot, accepted);
    };
    let Accepted {
        stream,
        peer: address,
        kind,
    } = accepted;
    let is_unix = matches!(stream, Stream::Unix(_));
    let fd: io::Result<OwnedFd> = match stream {
        Stream::Tcp(stream) => stream.into_std().map(Into::into),
        Stream::Unix(stream) => stream.into_std().map(Into::into),
        // A connection just accepted has no TLS yet.
        Stream::Tls(_) => return,
    };
    let Ok(fd) = fd else { return };
    let listener = active.config.name.clone();
    if let Err(connection) = handler.balancer.hand_over(
        peer,
        HandedOver {
            listener,
            fd,
            peer: address,
            kind,
            is_unix,
        },
    ) {
        take_over(handler, connection);
    }
}

/// Serves a connection that another worker accepted.
pub(crate) fn take_over(handler: &ConnectionHandler, connection: HandedOver) {
    let Some(slot) = handler.listeners.get(&connection.listener) else {
        return;
    };
    let stream = match connection.is_unix {
        true => UnixStream::from_std(connection.fd.into()).map(Stream::Unix),
        false => TcpStream::from_std(connection.fd.into()).map(Stream::Tcp),
    };
    match stream {
        Ok(stream) => {
            let HandedOver { peer, kind, .. } = connection;
            connection::spawn(handler, &slot, Accepted { stream, peer, kind });
        }
        Err(error) => tracing::warn!(%error, "cannot take over a connection"),
    }
}
