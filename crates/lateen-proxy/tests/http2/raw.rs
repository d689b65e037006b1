//! Frames as a client writes them that means harm.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::harness::connect;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// `GET / HTTP/2` of `a`, compressed (RFC 7541).
pub(crate) const GET: &[u8] = &[0x82, 0x84, 0x86, 0x01, 1, b'a'];
/// `POST / HTTP/2` of `a`.
pub(crate) const POST: &[u8] = &[0x83, 0x84, 0x86, 0x01, 1, b'a'];

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A connection whose preface is sent.
pub(crate) fn open(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream
}

/// How a connection ended.
#[derive(Debug, PartialEq)]
pub(crate) enum End {
    /// With this error code in its last `GOAWAY`.
    GoAway(u32),
    /// Without one.
    Closed,
    /// It has not, within the time that reads may take.
    Open,
}

/// Writes as much as is taken, and reads until the connection ends.
pub(crate) fn end_after(mut stream: TcpStream, attack: &[u8]) -> End {
    // What is not taken any more says the same as what is read then.
    let mut writer = stream.try_clone().unwrap();
    let attack = attack.to_vec();
    let writing = std::thread::spawn(move || writer.write_all(&attack).is_ok());
    let (mut got, mut block) = (Vec::new(), vec![0; 65536]);
    let closed = loop {
        match stream.read(&mut block) {
            Ok(0) => break true,
            Ok(count) => got.extend_from_slice(&block[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
            Err(_) => break true,
        }
    };
    let _ = stream.shutdown(std::net::Shutdown::Both);
    let _ = writing.join();
    match last_go_away(&got) {
        Some(code) => End::GoAway(code),
        None if closed => End::Closed,
        None => End::Open,
    }
}

/// The frames in these bytes: kind, flags and payload.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(header) = bytes.first_chunk::<9>() {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let Some(payload) = bytes.get(9..9 + length) else {
            break;
        };
        frames.push((header[3], header[4], payload.to_vec()));
        bytes = &bytes[9 + length..];
    }
    frames
}

fn last_go_away(bytes: &[u8]) -> Option<u32> {
    let found = frames(bytes).into_iter().rev().find(|frame| frame.0 == GOAWAY)?;
    Some(u32::from_be_bytes(found.2.get(4..8)?.try_into().ok()?))
}
