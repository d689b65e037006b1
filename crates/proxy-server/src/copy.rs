//! Copying bytes between two connections, both ways.
//!
//! An idle connection holds no buffer: bytes are read into a buffer of the thread when they have arrived, and what
//! cannot be written at once is kept. A direction that has moved [`limits::SPLICE_AFTER_BYTES`] goes on in the kernel with
//! splice(2), where that is cheaper. Streams that are more than a socket, as those over TLS, are copied by [`polled`].

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;

use net::splice::{End, Socket};
use proxy_upstream::Stream;
use socket2::SockRef;

use crate::limits;

mod polled;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Which side bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Downstream,
    Upstream,
}

/// Why a copy ended early.
#[derive(Debug)]
pub(crate) struct Broken {
    /// The side whose connection broke.
    pub(crate) side: Side,
    pub(crate) error: io::Error,
}

impl Broken {
    fn at(side: Side) -> impl Fn(io::Error) -> Self {
        move |error| Self { side, error }
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }
}

/// Reports bytes that were delivered to the other side.
pub(crate) type Progress<'a> = &'a dyn Fn(Side, usize);

/// Sides that begin with a frame of `istio.metadata_exchange`. They speak TLS.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Framed {
    pub(crate) downstream: bool,
    pub(crate) upstream: bool,
}

/// Copies both ways until both sides have closed their sending half; `read` was read from downstream before, and is
/// behind the frame, if downstream has one.
///
/// # Errors
/// The first error of either connection.
pub(crate) async fn both_ways(
    downstream: &mut Stream,
    upstream: &mut Stream,
    (read, framed): (&[u8], Framed),
    progress: Progress<'_>,
) -> Result<(), Broken> {
    if matches!(downstream, Stream::Tls(_)) || matches!(upstream, Stream::Tls(_)) {
        return polled::both_ways(downstream, upstream, (read, framed), progress).await;
    }
    let (downstream, upstream) = (&*downstream, &*upstream);
    write_all(upstream, read)
        .await
        .map_err(Broken::at(Side::Upstream))?;
    if !read.is_empty() {
        progress(Side::Downstream, read.len());
    }
    let (from_downstream, from_upstream) = (
        |bytes| progress(Side::Downstream, bytes),
        |bytes| progress(Side::Upstream, bytes),
    );
    tokio::try_join!(
        one_way((Side::Downstream, downstream), upstream, &from_downstream),
        one_way((Side::Upstream, upstream), downstream, &from_upstream),
    )?;
    Ok(())
}

fn socket(stream: &Stream) -> Option<Socket<'_>> {
    match stream {
        Stream::Tcp(stream) => Some(Socket::Tcp(stream)),
        Stream::Unix(stream) => Some(Socket::Unix(stream)),
        Stream::Tls(_) => None,
    }
}

/// Copies one way until the end of the stream.
async fn one_way(
    (sender, from): (Side, &Stream),
    to: &Stream,
    progress: &dyn Fn(usize),
) -> Result<(), Broken> {
    let sockets = socket(from).zip(socket(to));
    let spliced = sockets.filter(|(from, to)| from.pays_to(*to));
    let mut moved = 0;
    loop {
        if let Some((from, to)) = spliced.filter(|_| moved >= limits::SPLICE_AFTER_BYTES) {
            let copied = net::splice::copy(from, to, progress).await;
            return copied.map_err(|broken| match broken.at {
                End::Sender => Broken::at(sender)(broken.error),
                End::Receiver => Broken::at(sender.other())(broken.error),
            });
        }
        readable(from).await.map_err(Broken::at(sender))?;
        match move_some((sender, from), to)? {
            Moved::Nothing => {}
            Moved::End => {
                shutdown_write(to);
                return Ok(());
            }
            Moved::Bytes { delivered, rest } => {
                write_all(to, &rest).await.map_err(Broken::at(sender.other()))?;
                progress(delivered + rest.len());
                moved += (delivered + rest.len()) as u64;
            }
        }
    }
}

enum Moved {
    Nothing,
    End,
    Bytes { delivered: usize, rest: Vec<u8> },
}

/// Reads what has arrived into the thread's buffer and writes it at once; what does not fit comes back.
fn move_some((sender, from): (Side, &Stream), to: &Stream) -> Result<Moved, Broken> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(limits::COPY_BUFFER_BYTES, 0);
        let read = match try_read(from, scratch) {
            Ok(0) => return Ok(Moved::End),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Moved::Nothing),
            Err(error) => return Err(Broken::at(sender)(error)),
        };
        let delivered = match try_write(to, &scratch[..read]) {
            Ok(delivered) => delivered,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(Broken::at(sender.other())(error)),
        };
        Ok(Moved::Bytes {
            delivered,
            rest: scratch[delivered..read].to_vec(),
        })
    })
}

async fn write_all(to: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match try_write(to, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writable(to).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn try_read(stream: &Stream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream {
        Stream::Tcp(stream) => stream.try_read(buffer),
        Stream::Unix(stream) => stream.try_read(buffer),
        Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn try_write(stream: &Stream, bytes: &[u8]) -> io::Result<usize> {
    match stream {
        Stream::Tcp(stream) => stream.try_write(bytes),
        Stream::Unix(stream) => stream.try_write(bytes),
        Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

async fn readable(stream: &Stream) -> io::Result<()> {
    match stream {
        Stream::Tcp(stream) => stream.readable().await,
        Stream::Unix(stream) => stream.readable().await,
        Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

async fn writable(stream: &Stream) -> io::Result<()> {
    match stream {
        Stream::Tcp(stream) => stream.writable().await,
        Stream::Unix(stream) => stream.writable().await,
        Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn shutdown_write(stream: &Stream) {
    // The peer may have reset the connection already; then there is nobody left to tell.
    let _ = match stream {
        Stream::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
        Stream::Unix(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
        Stream::Tls(_) => Ok(()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    async fn tcp_pair() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        (client.unwrap(), Stream::Tcp(accepted.unwrap().0))
    }

    /// Sends `request` through a copy to an echo with a final word; checks order, half-close and counts.
    async fn check_copy(
        mut server: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
        mut upstream: Stream,
        bytes: usize,
    ) {
        let (mut client, mut downstream) = tcp_pair().await;
        let request: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
        let counted = Cell::new((0, 0));
        let progress = |side, bytes| {
            let (from_client, from_server) = counted.get();
            counted.set(match side {
                Side::Downstream => (from_client + bytes, from_server),
                Side::Upstream => (from_client, from_server + bytes),
            });
        };
        let early = b"early";
        let proxy = both_ways(
            &mut downstream,
            &mut upstream,
            (early, Framed::default()),
            &progress,
        );
        let client_side = async {
            client.write_all(&request).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let server_side = async {
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.unwrap();
            server.write_all(b"done").await.unwrap();
            server.shutdown().await.unwrap();
            received
        };
        let all = async { tokio::join!(proxy, client_side, server_side) };
        let patience = std::time::Duration::from_secs(20);
        let (proxied, answer, received) = tokio::time::timeout(patience, all).await.expect("in time");
        proxied.unwrap();
        assert_eq!(answer, b"done");
        assert_eq!(&received[..5], early);
        assert!(received[5..] == request[..], "the bytes differ");
        assert_eq!(counted.get(), (bytes + 5, 4));
    }

    #[tokio::test]
    async fn a_short_connection_is_copied_with_its_half_closes() {
        let (server, upstream) = tcp_pair().await;
        check_copy(server, upstream, 10).await;
    }

    #[tokio::test]
    async fn a_long_connection_goes_on_in_the_kernel() {
        let (server, upstream) = tcp_pair().await;
        check_copy(server, upstream, 8 << 20).await;
    }

    #[tokio::test]
    async fn a_unix_socket_is_copied_to_its_end_in_the_kernel_too() {
        for bytes in [1 << 10, 8 << 20] {
            let (server, upstream) = UnixStream::pair().unwrap();
            check_copy(server, Stream::Unix(upstream), bytes).await;
        }
    }
}
