//! The limits of this crate, by name.

use std::time::Duration;

/// The longest message, in bytes, on a broker or namespace channel; a longer one is refused by the sender.
pub const MAX_CHANNEL_MESSAGE_BYTES: usize = 16 * 1024;

/// The most descriptors in one message. The kernel refuses more than 253 (`SCM_MAX_FD`).
pub const MAX_DESCRIPTORS_PER_MESSAGE: usize = 128;

/// How many namespace sockets a broker client fetches in one round trip, to be used by later connections.
pub const SOCKETS_PER_FETCH: usize = 8;

/// The most sidecar connections that one broker serves at the same time.
pub const MAX_BROKER_CLIENTS: usize = 64;

/// The kernel's queue of connections that a listener has not accepted yet.
pub const LISTEN_BACKLOG: i32 = 1024;

/// The pipe between two sockets in a splice loop, in bytes. The kernel's default is 64 KiB.
pub const SPLICE_PIPE_BYTES: usize = 64 * 1024;

/// The most bytes that one netlink answer may take.
pub const MAX_NETLINK_ANSWER_BYTES: usize = 16 * 1024;

/// How long the kernel may take to answer a netlink message. It answers at once; a missing answer is a bug, not a slow
/// machine.
pub const NETLINK_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
