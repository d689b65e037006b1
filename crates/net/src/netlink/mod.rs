//! Netlink messages (RFC 3549), built by hand: the few that set up a network namespace.
//!
//! A message is a header (length, type, flags, sequence, port), a fixed part that depends on the type, and attributes:
//! length, type, value, each padded to four bytes, possibly nested.

pub mod nftables;
pub mod route;

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::limits::{MAX_NETLINK_ANSWER_BYTES, NETLINK_ANSWER_TIMEOUT};

const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;

/// A message under construction.
#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    wants_ack: bool,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        Self {
            bytes,
            wants_ack: flags & NLM_F_ACK != 0,
        }
    }

    /// Appends the fixed part, or a piece of it.
    fn fixed(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends an attribute.
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.put(kind, value);
        self
    }

    /// Appends a string attribute, which ends with a zero byte.
    fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends an attribute that holds attributes.
    fn nested(mut self, kind: u16, attributes: &Attributes) -> Self {
        self.put(kind | NLA_F_NESTED, &attributes.0);
        self
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        put_attribute(&mut self.bytes, kind, value);
    }

    /// Fills in length and sequence number.
    fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = u32::try_from(self.bytes.len()).expect("messages are a few hundred bytes long");
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }
}

/// Attributes that will be nested in another one.
#[derive(Debug, Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        put_attribute(&mut self.0, kind, value);
        self
    }

    /// Appends a number in network byte order, as nf_tables wants all its numbers.
    fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    fn nested(mut self, kind: u16, attributes: &Self) -> Self {
        put_attribute(&mut self.0, kind | NLA_F_NESTED, &attributes.0);
        self
    }
}

fn put_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("attributes are a few hundred bytes long");
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Sends the messages in one datagram and waits until each that asked for it is acknowledged.
///
/// # Errors
/// The kernel's error number for the first message that it refuses.
fn transact(protocol: Option<Protocol>, mut messages: Vec<Message>) -> io::Result<()> {
    let socket = open(protocol)?;
    let mut datagram = Vec::new();
    for (sequence, message) in (1..).zip(&mut messages) {
        datagram.extend_from_slice(message.finish(sequence));
    }
    rustix::net::send(&socket, &datagram, SendFlags::empty())?;
    let mut unanswered = messages.iter().filter(|message| message.wants_ack).count();
    let mut answer = vec![0; MAX_NETLINK_ANSWER_BYTES];
    while unanswered > 0 {
        let (length, _) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
        unanswered = unanswered.saturating_sub(acknowledgements(&answer[..length])?);
    }
    Ok(())
}

fn open(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )?;
    let timeout = rustix::net::sockopt::Timeout::Recv;
    rustix::net::sockopt::set_socket_timeout(&socket, timeout, Some(NETLINK_ANSWER_TIMEOUT))?;
    Ok(socket)
}

/// Counts the acknowledgements in an answer; a refusal is an error.
fn acknowledgements(mut answer: &[u8]) -> io::Result<usize> {
    let mut count = 0;
    while answer.len() >= HEADER_BYTES + 4 {
        let length = u32::from_ne_bytes([answer[0], answer[1], answer[2], answer[3]]) as usize;
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        if kind == NLMSG_ERROR {
            let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
            count += 1;
        }
        let next = length.max(HEADER_BYTES).next_multiple_of(4).min(answer.len());
        answer = &answer[next..];
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_to_four_bytes_but_say_their_own_length() {
        let mut message = Message::new(7, NLM_F_ACK).fixed(&[1, 2, 3, 4]).text(5, "ab");
        let bytes = message.finish(9);
        assert_eq!(bytes.len(), 16 + 4 + 8);
        assert_eq!(bytes[0..4], 28_u32.to_ne_bytes());
        assert_eq!(
            bytes[20..22],
            7_u16.to_ne_bytes(),
            "4 bytes of header and \"ab\\0\""
        );
        assert_eq!(bytes[24..28], *b"ab\0\0");
    }

    #[test]
    fn a_refusal_carries_the_kernels_error_number() {
        let mut answer = vec![0_u8; 36];
        answer[0..4].copy_from_slice(&36_u32.to_ne_bytes());
        answer[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        assert_eq!(acknowledgements(&answer).unwrap(), 1);
        answer[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(
            acknowledgements(&answer).unwrap_err().raw_os_error(),
            Some(libc::EPERM)
        );
    }
}
