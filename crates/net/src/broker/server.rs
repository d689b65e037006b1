//! The agent's side of the broker.
#![allow(
    unsafe_code,
    reason = "registering a descriptor with tokio promises that it stays open"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Policy;
use super::wire::{Question, encode_error, encode_listeners, encode_moved};
use crate::descriptors;
use crate::limits::{MAX_BROKER_CLIENTS, SOCKETS_PER_FETCH};

/// A broker that listens on a Unix socket. Access is governed by the permissions of the directory that it lies in.
#[derive(Debug)]
pub struct Server {
    listener: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl Server {
    /// Listens at `path`. Needs a tokio runtime; the socket file goes away with the server.
    ///
    /// # Errors
    /// `AddrInUse` when the path exists, `InvalidInput` when it is longer than the 107 bytes that a Unix address holds.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let address = SocketAddrUnix::new(path).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is too long for a Unix socket", path.display()),
            )
        })?;
        rustix::net::bind(&listener, &address)?;
        rustix::net::listen(&listener, 16)?;
        Ok(Self {
            listener: watch(listener)?,
            path: path.to_owned(),
        })
    }

    /// Serves sidecars until it is dropped. A client that breaks the protocol loses its connection, nothing else.
    ///
    /// # Errors
    /// Only when the listening socket itself fails.
    pub async fn serve(self, mut policy: impl Policy) -> io::Result<()> {
        let mut clients: Vec<AsyncFd<OwnedFd>> = Vec::new();
        loop {
            tokio::select! {
                accepted = accept(&self.listener) => {
                    if clients.len() < MAX_BROKER_CLIENTS {
                        clients.push(watch(accepted?)?);
                    }
                }
                (index, question) = next_question(&clients), if !clients.is_empty() => {
                    let outcome = question.and_then(|line| answer(clients[index].get_ref(), &line, &mut policy));
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "a sidecar left the socket broker");
                        clients.swap_remove(index);
                    }
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the returned value owns the descriptor, so it stays open as long as it is registered.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

async fn accept(listener: &AsyncFd<OwnedFd>) -> io::Result<OwnedFd> {
    listener
        .async_io(Interest::READABLE, |listener| {
            Ok(rustix::net::accept_with(
                listener,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            )?)
        })
        .await
}

/// The next line from any client, with the client's index.
async fn next_question(clients: &[AsyncFd<OwnedFd>]) -> (usize, io::Result<String>) {
    std::future::poll_fn(|context| {
        for (index, client) in clients.iter().enumerate() {
            while let std::task::Poll::Ready(ready) = client.poll_read_ready(context) {
                let mut guard = match ready {
                    Ok(guard) => guard,
                    Err(error) => return std::task::Poll::Ready((index, Err(error))),
                };
                match guard.try_io(|client| descriptors::receive(client.get_ref())) {
                    Ok(Ok(Some(message))) => return std::task::Poll::Ready((index, Ok(message.text))),
                    Ok(Ok(None)) => {
                        return std::task::Poll::Ready((index, Err(io::ErrorKind::UnexpectedEof.into())));
                    }
                    Ok(Err(error)) => return std::task::Poll::Ready((index, Err(error))),
                    Err(_would_block) => {}
                }
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// Answers one question of a sidecar.
fn answer(client: &OwnedFd, line: &str, policy: &mut impl Policy) -> io::Result<()> {
    match Question::decode(line) {
        Some(Question::Listen(address)) => match policy.listen(address) {
            Ok(listeners) => {
                let fds: Vec<BorrowedFd<'_>> = listeners.iter().map(|listener| listener.fd.as_fd()).collect();
                let words = encode_listeners(
                    listeners
                        .iter()
                        .map(|listener| (listener.kind, listener.local_addr)),
                );
                descriptors::send(client, &words, &fds)
            }
            Err(error) => descriptors::send(client, &encode_error(&error), &[]),
        },
        Some(Question::Namespace) => match policy.namespace_channel() {
            Ok(channel) => {
                let fds: Vec<BorrowedFd<'_>> = channel.iter().map(AsFd::as_fd).collect();
                descriptors::send(client, &encode_moved(&policy.moved()), &fds)
            }
            Err(error) => descriptors::send(client, &encode_error(&error), &[]),
        },
        Some(Question::Socket(..)) | None => {
            let error = io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("\"{line}\" is no question for this broker"),
            );
            descriptors::send(client, &encode_error(&error), &[])
        }
    }
}

/// Answers one `socket` question on a namespace channel: called by the process inside the namespace when the channel is
/// readable. Returns whether the channel is still open.
///
/// # Errors
/// What receiving or sending reports; the channel is then best closed.
pub fn serve_channel(channel: impl AsFd) -> io::Result<bool> {
    let Some(message) = descriptors::receive(&channel)? else {
        return Ok(false);
    };
    let Some(Question::Socket(family, count)) = Question::decode(&message.text) else {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "only sockets are made here");
        descriptors::send(&channel, &encode_error(&error), &[])?;
        return Ok(true);
    };
    let sockets: io::Result<Vec<OwnedFd>> = (0..count.min(SOCKETS_PER_FETCH))
        .map(|_| crate::socket::unbound(family))
        .collect();
    match sockets {
        Ok(sockets) => {
            let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
            descriptors::send(&channel, "ok", &fds)?;
        }
        Err(error) => descriptors::send(&channel, &encode_error(&error), &[])?,
    }
    Ok(true)
}
