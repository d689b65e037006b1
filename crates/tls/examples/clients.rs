//! Clients of a proxy on loopback, to measure it by: many handshakes, or many connections that stay idle.
//!
//! `clients handshakes PORT FOLDER SECONDS` makes mutual TLS connections one after the other, with a request each, none
//! resumed, in some threads, and prints how many answers came.
//!
//! `clients idle PORT FOLDER COUNT` opens connections, makes one request on each, prints how many answers came, and keeps
//! all open until its standard input ends. With `-` for a folder it speaks plaintext.
//!
//! The folder has `client.crt`, `client.key` and `ca.crt`; the server's name is `server.test`.

#![allow(clippy::print_stdout, reason = "this is a program")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Clients at the same time.
const THREADS: usize = 8;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of an answer.
const ANSWER_BYTES: usize = 8 * 1024;

const NAME: &str = "server.test";
const ONCE: &[u8] = b"GET /bench HTTP/1.1\r\nhost: server.test\r\nconnection: close\r\n\r\n";
const AGAIN: &[u8] = b"GET /bench HTTP/1.1\r\nhost: server.test\r\n\r\n";

trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().collect();
    let [_, what, port, folder, number] = words.as_slice() else {
        return Err("clients handshakes|idle PORT FOLDER SECONDS|COUNT".into());
    };
    let clients = Clients {
        server: SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?)),
        tls: (folder != "-")
            .then(|| configuration(Path::new(folder)))
            .transpose()?
            .map(Arc::new),
    };
    match what.as_str() {
        "handshakes" => {
            let end = Instant::now() + Duration::from_secs(number.parse()?);
            let made = in_threads(|_| clients.one_after_the_other(end))?;
            println!("{}", made.into_iter().sum::<u64>());
        }
        "idle" => {
            let count: usize = number.parse()?;
            let share = |thread| count / THREADS + usize::from(thread < count % THREADS);
            let open = in_threads(|thread| clients.stay(share(thread)))?;
            println!("{}", open.iter().map(Vec::len).sum::<usize>());
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        other => return Err(format!("{other}: neither handshakes nor idle").into()),
    }
    Ok(())
}

/// What every thread came to; the first failure, if one failed.
fn in_threads<T: Send>(work: impl Fn(usize) -> Result<T, Failure> + Sync) -> Result<Vec<T>, Failure> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        let ends = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| "a thread panicked")?);
        ends.collect()
    })
}

/// A client with a certificate that resumes no session, and agrees on keys over X25519 as proxies do by default.
fn configuration(folder: &Path) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(folder.join("ca.crt"))? {
        roots.add(root?)?;
    }
    let chain = CertificateDer::pem_file_iter(folder.join("client.crt"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("client.key"))?;
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut configuration = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    configuration.resumption = Resumption::disabled();
    Ok(configuration)
}

struct Clients {
    server: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Clients {
    fn connect(&self) -> Result<Box<dyn Connection>, Failure> {
        let socket = TcpStream::connect_timeout(&self.server, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(socket),
            Some(configuration) => {
                let session = ClientConnection::new(Arc::clone(configuration), ServerName::try_from(NAME)?)?;
                Box::new(StreamOwned::new(session, socket))
            }
        })
    }

    /// Connections with a request each until then; how many were answered.
    fn one_after_the_other(&self, end: Instant) -> Result<u64, Failure> {
        let mut answered = 0;
        while Instant::now() < end {
            let mut connection = self.connect()?;
            connection.write_all(ONCE)?;
            connection.flush()?;
            read_answer(&mut connection)?;
            answered += 1;
        }
        Ok(answered)
    }

    /// Connections that have been used once.
    fn stay(&self, count: usize) -> Result<Vec<Box<dyn Connection>>, Failure> {
        let one = || {
            let mut connection = self.connect()?;
            connection.write_all(AGAIN)?;
            connection.flush()?;
            read_answer(&mut connection)?;
            Ok(connection)
        };
        (0..count).map(|_| one()).collect()
    }
}

/// Reads a whole answer of status 200 whose length is declared.
fn read_answer(connection: &mut impl Read) -> Result<(), Failure> {
    let mut answer = Vec::new();
    let mut chunk = [0; ANSWER_BYTES];
    loop {
        let count = connection.read(&mut chunk)?;
        answer.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            if !head.starts_with("HTTP/1.1 200") {
                return Err(format!("the answer is {head}").into());
            }
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            });
            if body.len() >= length.unwrap_or(0_usize) {
                return Ok(());
            }
        }
        if count == 0 || answer.len() > ANSWER_BYTES {
            return Err("the answer is not whole".into());
        }
    }
}
