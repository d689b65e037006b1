//! The data plane alone: `lateen-proxy -c bootstrap.yaml`, with Envoy's flags.
//!
//! The allocator is the C library's. Measured on an idle proxy with two workers, anonymous memory: 2 MB with it and
//! `net::memory::release_free`, 5 to 9 MB without the latter, 41 MB with mimalloc 0.1.52, which keeps what reading the
//! bootstrap took; requests hardly allocate, so there is nothing to win it back.

use std::process::ExitCode;

fn main() -> ExitCode {
    proxy_server::main(std::env::args_os())
}
