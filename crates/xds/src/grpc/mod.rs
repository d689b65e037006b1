//! The gRPC shell: it moves messages between the state machines and the wire, and decides nothing.

pub mod client;
pub mod secrets;
pub mod server;
mod traffic;

pub use traffic::Traffic;
