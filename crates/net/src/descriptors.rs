//! Passing file descriptors between processes over a Unix socket (`SCM_RIGHTS`, unix(7)).
//!
//! Channels are `SOCK_SEQPACKET`: one send is one message, descriptors travel with the message they belong to, and an
//! empty read means that the other side is gone.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::limits::{MAX_CHANNEL_MESSAGE_BYTES, MAX_DESCRIPTORS_PER_MESSAGE};

/// Bytes of ancillary data for the most descriptors we accept: a header of 16 bytes and 4 bytes each.
const ANCILLARY_BYTES: usize = 32 + 4 * MAX_DESCRIPTORS_PER_MESSAGE;

/// A message and the descriptors that came with it.
#[derive(Debug)]
pub struct Message {
    /// The text of the message. All our channels speak short lines of text.
    pub text: String,
    /// The descriptors, close-on-exec, in the order in which they were sent.
    pub descriptors: Vec<OwnedFd>,
}

/// Two connected ends of a message channel, both close-on-exec and blocking.
///
/// # Errors
/// What `socketpair` reports.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let pair = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok(pair)
}

/// Limits how long [`receive`] waits on this end; afterwards it fails with `WouldBlock`.
///
/// # Errors
/// What `setsockopt` reports.
pub fn set_receive_timeout(channel: impl AsFd, limit: std::time::Duration) -> io::Result<()> {
    let timeout = rustix::net::sockopt::Timeout::Recv;
    Ok(rustix::net::sockopt::set_socket_timeout(
        channel,
        timeout,
        Some(limit),
    )?)
}

/// Sends one message with its descriptors. A closed channel is an error, never a signal.
///
/// # Errors
/// `InvalidInput` when a limit is exceeded, `BrokenPipe` when nobody listens, and what `sendmsg` reports.
pub fn send(channel: impl AsFd, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if text.len() > MAX_CHANNEL_MESSAGE_BYTES || descriptors.len() > MAX_DESCRIPTORS_PER_MESSAGE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "message exceeds the channel's limits",
        ));
    }
    let mut space = [MaybeUninit::<u8>::uninit(); ANCILLARY_BYTES];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors for one message",
        ));
    }
    rustix::net::sendmsg(
        channel,
        &[IoSlice::new(text.as_bytes())],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives one message; `None` when the other side has closed the channel.
///
/// # Errors
/// `InvalidData` when the message was cut short or is not UTF-8, and what `recvmsg` reports.
pub fn receive(channel: impl AsFd) -> io::Result<Option<Message>> {
    let mut space = [MaybeUninit::<u8>::uninit(); ANCILLARY_BYTES];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0_u8; MAX_CHANNEL_MESSAGE_BYTES];
    let received = loop {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(&channel, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message was cut short",
        ));
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    let text = String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(Message { text, descriptors }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{PATIENCE, within};
    use std::io::{Read, Write};

    /// Two ends of a channel that do not wait for ever.
    fn impatient_channel() -> (OwnedFd, OwnedFd) {
        let (left, right) = channel().unwrap();
        set_receive_timeout(&left, PATIENCE).unwrap();
        set_receive_timeout(&right, PATIENCE).unwrap();
        (left, right)
    }

    #[test]
    fn a_descriptor_arrives_with_its_message_and_works() {
        let (left, right) = impatient_channel();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        send(&left, "take this", &[writer.as_fd()]).unwrap();
        writer.write_all(b"one ").unwrap();
        drop(writer);
        let mut message = receive(&right).unwrap().unwrap();
        assert_eq!(message.text, "take this");
        assert_eq!(message.descriptors.len(), 1);
        let mut passed = std::fs::File::from(message.descriptors.remove(0));
        passed.write_all(b"two").unwrap();
        drop(passed);
        let text = within(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        assert_eq!(text.unwrap(), "one two");
    }

    #[test]
    fn a_closed_channel_reads_as_none_and_refuses_writes() {
        let (left, right) = impatient_channel();
        drop(left);
        assert!(receive(&right).unwrap().is_none());
        assert_eq!(
            send(&right, "anyone?", &[]).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn a_message_over_the_limit_is_refused_by_the_sender() {
        let (left, _right) = channel().unwrap();
        let long = "x".repeat(MAX_CHANNEL_MESSAGE_BYTES + 1);
        assert_eq!(
            send(&left, &long, &[]).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
