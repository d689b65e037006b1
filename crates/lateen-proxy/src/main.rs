//! The data plane alone: `lateen-proxy -c bootstrap.yaml`, with Envoy's flags.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    proxy_server::main(std::env::args_os())
}
