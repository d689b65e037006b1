//! The gRPC shell: it moves messages between the state machines and the wire, and decides nothing.

mod call;
pub mod client;
mod connect;
pub mod secrets;
pub mod server;
mod target;
mod traffic;

pub use traffic::Traffic;
