//! Nouns that every crate of the data plane shares.
//!
//! - [`error`]: a configuration that was refused, with the path of the field and the reason (the text of a NACK).
//! - [`cluster_slot`]: the number that stands for a cluster's name at request time.
//! - [`connection`]: what is known of a downstream connection before its first byte is interpreted.
//! - [`stream_info`]: what is known of a stream when it ends, and who wants to know.
//! - [`substitution`]: format strings with command operators, for access logs and header values.
//! - [`proxy_protocol`]: the header that tells of a client's addresses, read and written.
//! - [`random`]: the random numbers of one thread.
//! - [`response_flags`]: Envoy's short codes for what went wrong.

pub mod cluster_slot;
pub mod connection;
pub mod error;
pub mod limits;
pub mod proxy_protocol;
pub mod random;
pub mod response_flags;
pub mod stream_info;
pub mod substitution;

pub use cluster_slot::ClusterSlot;
pub use connection::{Address, ConnectionInfo, TrafficDirection, TransportProtocol};
pub use error::{ConfigError, ConfigResult};
pub use random::Random;
pub use response_flags::{ResponseFlag, ResponseFlags};
pub use stream_info::{AccessLogger, StreamInfo};
