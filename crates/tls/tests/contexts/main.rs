//! Server and client contexts of the data plane, as their users see them: over pipes, and with OpenSSL as the peer.

mod client;
mod hello;
mod openssl;
mod peer;
mod rotation;
mod secrets;
mod server;
mod support;
mod verification;
