//! Nouns that every crate of the data plane shares.
//!
//! - [`error`]: a configuration that was refused, with the path of the field and the reason (the text of a NACK).
//! - [`connection`]: what is known of a downstream connection before its first byte is interpreted.

pub mod connection;
pub mod error;

pub use connection::{Address, ConnectionInfo, TrafficDirection, TransportProtocol};
pub use error::{ConfigError, ConfigResult};
