//! `envoy.filters.listener.tls_inspector`: recognises a ClientHello and reads its server name and application
//! protocols (RFC 8446, section 4.1.2; RFC 6066, section 3; RFC 7301).

use proxy_config::limits::CLIENT_HELLO_MAX_BYTES;

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER_BYTES: usize = 5;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const HOST_NAME: u8 = 0;

/// What the first bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// Not decided: wait for more.
    NeedMore,
    /// Not TLS.
    Other,
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

/// Looks at the first bytes of a connection.
#[must_use]
pub fn inspect(bytes: &[u8]) -> Inspected {
    match bytes {
        [] => return Inspected::NeedMore,
        [HANDSHAKE_RECORD] => return Inspected::NeedMore,
        [HANDSHAKE_RECORD, 3, ..] => {}
        _ => return Inspected::Other,
    }
    match handshake(bytes) {
        Ok(Some(message)) => match client_hello(&message) {
            Some(hello) => Inspected::Tls(hello),
            None => Inspected::Other,
        },
        Ok(None) => Inspected::NeedMore,
        Err(()) => Inspected::Other,
    }
}

/// The body of the first handshake message, which may be cut into several records; `None` while it is incomplete.
fn handshake(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let mut message = Vec::new();
    loop {
        if message.len() >= 4 {
            let length =
                usize::from(message[1]) << 16 | usize::from(message[2]) << 8 | usize::from(message[3]);
            if message[0] != CLIENT_HELLO || length > CLIENT_HELLO_MAX_BYTES {
                return Err(());
            }
            if message.len() >= 4 + length {
                return Ok(Some(message[4..4 + length].to_vec()));
            }
        }
        if bytes.len() < RECORD_HEADER_BYTES {
            return Ok(None);
        }
        if bytes[0] != HANDSHAKE_RECORD || bytes[1] != 3 {
            return Err(());
        }
        let length = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        let fragment = &bytes[RECORD_HEADER_BYTES..];
        let have = length.min(fragment.len());
        message.extend_from_slice(&fragment[..have]);
        bytes = &fragment[have..];
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
        self.take(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(length_bytes: usize, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32).to_be_bytes();
        [&length[4 - length_bytes..], body].concat()
    }

    /// A ClientHello for `Example.COM` that offers h2 and http/1.1, in records of at most `record` bytes.
    fn hello(record: usize) -> Vec<u8> {
        let name = [&[HOST_NAME][..], &vector(2, b"Example.COM")].concat();
        let alpn = [vector(1, b"h2"), vector(1, b"http/1.1")].concat();
        let extensions = [
            [&[0, 51][..], &vector(2, &[0; 38])].concat(),
            [
                &EXTENSION_SERVER_NAME.to_be_bytes()[..],
                &vector(2, &vector(2, &name)),
            ]
            .concat(),
            [&EXTENSION_ALPN.to_be_bytes()[..], &vector(2, &vector(2, &alpn))].concat(),
        ]
        .concat();
        let body = [
            &[3, 3][..],
            &[7; 32],
            &vector(1, &[9; 32]),
            &vector(2, &[0x13, 0x01]),
            &vector(1, &[0]),
            &vector(2, &extensions),
        ]
        .concat();
        let message = [&[CLIENT_HELLO][..], &vector(3, &body)].concat();
        message
            .chunks(record)
            .flat_map(|part| [&[22, 3, 1][..], &vector(2, part)].concat())
            .collect()
    }

    fn check_hello(bytes: &[u8]) {
        let Inspected::Tls(found) = inspect(bytes) else {
            panic!("not recognised: {:?}", inspect(bytes))
        };
        assert_eq!(found.server_name.as_deref(), Some("example.com"));
        assert_eq!(found.alpn, ["h2", "http/1.1"]);
    }

    #[test]
    fn server_name_and_protocols_are_read() {
        check_hello(&hello(10_000));
    }

    #[test]
    fn a_hello_cut_into_records_is_put_together() {
        check_hello(&hello(17));
    }

    #[test]
    fn every_prefix_of_a_hello_waits_for_more() {
        let whole = hello(50);
        for end in 0..whole.len() {
            assert_eq!(inspect(&whole[..end]), Inspected::NeedMore, "{end}");
        }
    }

    #[test]
    fn other_protocols_are_recognised_by_their_first_bytes() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x04",
            b"\x15\x03\x01",
            &[22, 3, 1, 0, 4, 2, 0, 0, 0],
        ] {
            assert_eq!(inspect(bytes), Inspected::Other, "{bytes:?}");
        }
    }

    #[test]
    fn a_hello_that_lies_about_its_lengths_is_not_tls() {
        let mut bytes = hello(10_000);
        let session_id = RECORD_HEADER_BYTES + 4 + 34;
        bytes[session_id] = 255;
        assert_eq!(inspect(&bytes), Inspected::Other);
    }
}
