//! Connections to the socket, each with the process at its other end, and bounds on how many there are.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use net::peer::Peer;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::authority::Mended;
use crate::limits::{ACCEPT_PAUSE, MAX_WORKLOAD_CONNECTIONS, MAX_WORKLOAD_CONNECTIONS_OF_USER};

/// How much is read at once. Calls are short.
const READ_BYTES: usize = 4096;

/// A connection whose other end is known.
pub(super) struct PeerStream {
    stream: UnixStream,
    mended: Mended,
    caller: Caller,
    _place: Place,
}

/// The process that calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) peer: Arc<Peer>,
    /// Held while it is looked what the process is: once at a time for each connection.
    pub(super) attesting: Arc<tokio::sync::Mutex<()>>,
}

/// How many connections each user has.
#[derive(Default)]
struct Places(Mutex<BTreeMap<u32, usize>>);

/// One connection of a user, until dropped.
struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Place {
    /// `None` when the user, or all of them together, have too many.
    fn take(places: &Arc<Places>, uid: u32) -> Option<Self> {
        let mut held = places.0.lock();
        if held.values().sum::<usize>() >= MAX_WORKLOAD_CONNECTIONS {
            return None;
        }
        let own = held.entry(uid).or_default();
        if *own >= MAX_WORKLOAD_CONNECTIONS_OF_USER {
            return None;
        }
        *own += 1;
        Some(Self {
            places: Arc::clone(places),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.0.lock();
        if let Some(own) = held.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.uid);
            }
        }
    }
}

/// Accepts connections for as long as the returned stream is read.
pub(super) fn incoming(listener: UnixListener) -> ReceiverStream<io::Result<PeerStream>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let places = Arc::<Places>::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    if let Some(stream) = admit(stream, &places)
                        && sender.send(Ok(stream)).await.is_err()
                    {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the Workload API could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

fn admit(stream: UnixStream, places: &Arc<Places>) -> Option<PeerStream> {
    let peer = match Peer::of(&stream) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::info!(%error, "a caller of the Workload API is not seen");
            return None;
        }
    };
    let Some(place) = Place::take(places, peer.uid) else {
        tracing::warn!(
            uid = peer.uid,
            pid = peer.pid,
            "too many connections to the Workload API"
        );
        return None;
    };
    Some(PeerStream {
        stream,
        mended: Mended::default(),
        caller: Caller {
            peer: Arc::new(peer),
            attesting: Arc::default(),
        },
        _place: place,
    })
}

impl Connected for PeerStream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.mended.is_ready() {
            let mut bytes = [0; READ_BYTES];
            let mut sent = ReadBuf::new(&mut bytes);
            std::task::ready!(Pin::new(&mut this.stream).poll_read(context, &mut sent))?;
            if sent.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.mended.take(sent.filled());
        }
        this.mended.read(buffer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PeerStream {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_the_places_of_others() {
        let places = Arc::<Places>::default();
        let taken: Vec<Place> = (0..MAX_WORKLOAD_CONNECTIONS_OF_USER)
            .map(|_| Place::take(&places, 7).unwrap())
            .collect();
        assert!(Place::take(&places, 7).is_none());
        assert!(Place::take(&places, 8).is_some());
        drop(taken);
        assert!(Place::take(&places, 7).is_some());
        assert!(places.0.lock().is_empty());
    }

    #[test]
    fn all_users_together_have_a_limit_too() {
        let places = Arc::<Places>::default();
        let users = MAX_WORKLOAD_CONNECTIONS / MAX_WORKLOAD_CONNECTIONS_OF_USER + 1;
        let many = (0..u32::try_from(users).unwrap())
            .flat_map(|uid| std::iter::repeat_n(uid, MAX_WORKLOAD_CONNECTIONS_OF_USER));
        let taken = many
            .filter_map(|uid| Place::take(&places, uid))
            .collect::<Vec<_>>();
        assert_eq!(taken.len(), MAX_WORKLOAD_CONNECTIONS);
    }
}
