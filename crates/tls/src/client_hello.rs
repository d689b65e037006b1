//! `envoy.filters.listener.tls_inspector`: recognises a ClientHello in the first bytes of a connection, and reads its
//! server name and application protocols (RFC 8446, section 4.1.2; RFC 6066, section 3; RFC 7301), without taking part.

use crate::limits::{MAX_CLIENT_HELLO_BYTES, MAX_CLIENT_HELLO_MESSAGE_BYTES};

const HANDSHAKE_RECORD: u8 = 22;
const MAJOR_VERSION: u8 = 3;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER_BYTES: usize = 5;
const MESSAGE_HEADER_BYTES: usize = 4;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const HOST_NAME: u8 = 0;

/// What the first bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// Not decided: wait for more.
    NeedMore,
    /// Not TLS.
    NotTls,
    /// TLS, with a ClientHello that has not ended after as many bytes as may be looked at; Envoy closes such a
    /// connection.
    TooLong,
    /// TLS.
    Tls(ClientHello),
}

/// What is read of a ClientHello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name, lower-cased.
    pub server_name: Option<String>,
    /// Application protocols in the order offered.
    pub alpn: Vec<String>,
}

/// Looks at the first bytes of a connection as they come, each once. How they are cut makes no difference.
#[derive(Clone, Debug)]
pub struct Inspector {
    /// Most bytes, with record headers, that are looked at.
    most: usize,
    /// The header of the record that is being read, as far as it has come.
    header: Vec<u8>,
    /// How much of that record's content has not come.
    missing: usize,
    /// The handshake message, without record headers.
    message: Vec<u8>,
    /// Everything looked at, with record headers.
    seen: usize,
    decision: Option<Inspected>,
}

impl Default for Inspector {
    /// Looks at [`MAX_CLIENT_HELLO_BYTES`] at most.
    fn default() -> Self {
        Self::up_to(MAX_CLIENT_HELLO_BYTES)
    }
}

/// Looks at all the bytes there are.
pub fn inspect(bytes: &[u8]) -> Inspected {
    Inspector::default().push(bytes)
}

impl Inspector {
    /// Looks at so many bytes at most (`max_client_hello_size`).
    pub fn up_to(most: usize) -> Self {
        Self {
            most,
            header: Vec::new(),
            missing: 0,
            message: Vec::new(),
            seen: 0,
            decision: None,
        }
    }

    /// How many bytes were looked at.
    pub fn looked_at(&self) -> usize {
        self.seen
    }

    /// Looks at the bytes that follow those of the calls before. Once it has decided, it does not change its mind.
    pub fn push(&mut self, bytes: &[u8]) -> Inspected {
        for byte in bytes {
            if self.decision.is_some() {
                break;
            }
            self.seen += 1;
            self.decision = self.step(*byte);
        }
        self.decision.clone().unwrap_or(Inspected::NeedMore)
    }

    fn step(&mut self, byte: u8) -> Option<Inspected> {
        if self.missing == 0 {
            self.header.push(byte);
            let plausible = match self.header.len() {
                1 => byte == HANDSHAKE_RECORD,
                2 => byte == MAJOR_VERSION,
                _ => true,
            };
            if !plausible {
                return Some(Inspected::NotTls);
            }
            if self.header.len() == RECORD_HEADER_BYTES {
                self.missing = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                self.header.clear();
                // An empty record of a handshake is against RFC 8446, section 5.1, and would let a client go on forever.
                if self.missing == 0 {
                    return Some(Inspected::NotTls);
                }
            }
        } else {
            self.missing -= 1;
            self.message.push(byte);
            if let Some(decision) = self.look() {
                return Some(decision);
            }
        }
        (self.seen >= self.most).then_some(Inspected::TooLong)
    }

    fn look(&self) -> Option<Inspected> {
        if self.message.len() == 1 && self.message[0] != CLIENT_HELLO {
            return Some(Inspected::NotTls);
        }
        let (header, body) = self.message.split_at_checked(MESSAGE_HEADER_BYTES)?;
        let length = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
        // BoringSSL takes no longer message for a ClientHello, and Envoy goes by that.
        if length > MAX_CLIENT_HELLO_MESSAGE_BYTES {
            return Some(Inspected::NotTls);
        }
        if body.len() < length {
            return None;
        }
        Some(client_hello(&body[..length]).map_or(Inspected::NotTls, Inspected::Tls))
    }
}

/// A cursor over the vectors of TLS's presentation language.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A vector with a length of one byte.
    fn short(&mut self) -> Option<Reader<'a>> {
        let length = self.u8()?;
        self.take(length.into()).map(Reader)
    }

    /// A vector with a length of two bytes.
    fn long(&mut self) -> Option<Reader<'a>> {
        let length = self.u16()?;
        self.take(length.into()).map(Reader)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn client_hello(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(body);
    reader.take(2 + 32)?; // legacy_version, random
    reader.short()?; // legacy_session_id
    reader.long()?; // cipher_suites
    reader.short()?; // legacy_compression_methods
    let mut hello = ClientHello::default();
    if reader.is_empty() {
        return Some(hello);
    }
    let mut extensions = reader.long()?;
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.long()?;
        match kind {
            EXTENSION_SERVER_NAME => hello.server_name = server_name(data),
            EXTENSION_ALPN => hello.alpn = alpn(data)?,
            _ => {}
        }
    }
    Some(hello)
}

fn server_name(mut data: Reader<'_>) -> Option<String> {
    let mut names = data.long()?;
    while !names.is_empty() {
        let kind = names.u8()?;
        let name = names.long()?;
        if kind == HOST_NAME {
            return std::str::from_utf8(name.0).ok().map(str::to_ascii_lowercase);
        }
    }
    None
}

fn alpn(mut data: Reader<'_>) -> Option<Vec<String>> {
    let mut list = data.long()?;
    let mut protocols = Vec::new();
    while !list.is_empty() {
        protocols.push(String::from_utf8_lossy(list.short()?.0).into_owned());
    }
    Some(protocols)
}
