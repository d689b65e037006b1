//! The sidecar's side of the broker.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::wire::{Question, decode_answer, decode_listeners, decode_moved};
use super::{BrokeredListener, Family};
use crate::descriptors::{self, Message};
use crate::limits::SOCKETS_PER_FETCH;

/// A connection to the socket broker. Shared by the workers of a proxy; each call blocks for one short round trip
/// (about 50 µs), and most calls of [`Broker::socket`] are served from sockets fetched earlier.
#[derive(Debug)]
pub struct Broker {
    agent: Mutex<OwnedFd>,
    /// `None` when the application shares the host's network.
    namespace: Option<Sockets>,
    /// See [`super::Policy::moved`].
    moved: Vec<(SocketAddr, SocketAddr)>,
}

impl Broker {
    /// Connects to the broker that listens at `path`.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` when no agent serves the path, and whatever the broker's policy refuses.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let agent = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::connect(&agent, &SocketAddrUnix::new(path)?)?;
        let mut answer = ask(&agent, Question::Namespace)?;
        let moved = decode_moved(decode_answer(&answer.text)?)?;
        let namespace = answer.descriptors.pop().map(Sockets::new);
        Ok(Self {
            agent: Mutex::new(agent),
            namespace,
            moved,
        })
    }

    /// Where the application really listens that the configuration looks for at `address`.
    #[must_use]
    pub fn destination(&self, address: SocketAddr) -> SocketAddr {
        let moved = self.moved.iter().find(|(configured, _)| *configured == address);
        moved.map_or(address, |(_, real)| *real)
    }

    /// Opens the listeners that stand for `address`. Each call opens new sockets (on the same ports as before), so each
    /// worker can have its own.
    ///
    /// # Errors
    /// The policy's reason, with the kind of the system's error (`AddrInUse`, `PermissionDenied`).
    pub fn listen(&self, address: SocketAddr) -> io::Result<Vec<BrokeredListener>> {
        let agent = lock(&self.agent);
        let answer = ask(&*agent, Question::Listen(address))?;
        let kinds = decode_listeners(decode_answer(&answer.text)?)?;
        if kinds.len() != answer.descriptors.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the broker sent a different number of listeners",
            ));
        }
        let listeners = kinds.into_iter().zip(answer.descriptors);
        Ok(listeners
            .map(|((kind, local_addr), fd)| BrokeredListener { fd, kind, local_addr })
            .collect())
    }

    /// An unbound, non-blocking TCP socket that lives where the application lives.
    ///
    /// # Errors
    /// `BrokenPipe` when the application's namespace is gone, and what `socket` reports there.
    pub fn socket(&self, family: Family) -> io::Result<OwnedFd> {
        match &self.namespace {
            Some(sockets) => sockets.socket(family),
            None => crate::socket::unbound(family),
        }
    }
}

/// Sockets from inside a namespace, over a channel that [`super::serve_channel`] answers there.
#[derive(Debug)]
pub struct Sockets {
    state: Mutex<Fetched>,
}

/// The channel and the sockets that were fetched ahead.
#[derive(Debug)]
struct Fetched {
    channel: OwnedFd,
    v4: VecDeque<OwnedFd>,
    v6: VecDeque<OwnedFd>,
}

impl Sockets {
    /// Takes the asking end of a channel.
    #[must_use]
    pub fn new(channel: OwnedFd) -> Self {
        Self {
            state: Mutex::new(Fetched {
                channel,
                v4: VecDeque::new(),
                v6: VecDeque::new(),
            }),
        }
    }

    /// An unbound, non-blocking TCP socket of the namespace.
    ///
    /// # Errors
    /// `BrokenPipe` when the namespace is gone, and what `socket` reports there.
    pub fn socket(&self, family: Family) -> io::Result<OwnedFd> {
        let mut state = lock(&self.state);
        let Fetched { channel, v4, v6 } = &mut *state;
        let ready = match family {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        if ready.is_empty() {
            let answer = ask(&*channel, Question::Socket(family, SOCKETS_PER_FETCH))?;
            decode_answer(&answer.text)?;
            ready.extend(answer.descriptors);
        }
        ready
            .pop_front()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the broker sent no socket"))
    }
}

/// A poisoned lock is taken over: what it guards is a socket and a queue, which no panic can leave half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One question and its answer.
fn ask(channel: impl AsFd, question: Question) -> io::Result<Message> {
    descriptors::send(&channel, &question.encode(), &[])?;
    descriptors::receive(&channel)?.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::BrokenPipe,
            "the socket broker closed the connection",
        )
    })
}
