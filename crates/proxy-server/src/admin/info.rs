//! `/server_info`, `/ready`, `/listeners`, `/memory`.

use api_envoy::envoy::admin::v3::{ListenerStatus, Listeners, Memory, ServerInfo, server_info};
use api_envoy::envoy::config::core::v3::{Address, Pipe, SocketAddress, address, socket_address};
use api_envoy::json::{Schema, Style};
use api_envoy::{Message, Name, wkt};

use super::reply::{Query, Reply, pretty};
use super::source::{AdminSource, ServerState};

/// What `/server_info` gives as version: revision, version, state of the tree, build type, TLS library.
pub const VERSION: &str = if cfg!(debug_assertions) {
    concat!("lateen/", env!("CARGO_PKG_VERSION"), "/Clean/DEBUG/rustls")
} else {
    concat!("lateen/", env!("CARGO_PKG_VERSION"), "/Clean/RELEASE/rustls")
};

/// `/ready`: 200 when live, else 503; the state as text.
#[must_use]
pub fn ready(state: ServerState) -> Reply {
    let body = format!("{}\n", state.name());
    if state == ServerState::Live {
        Reply::text(body)
    } else {
        Reply::error(503, body)
    }
}

/// `/server_info`.
#[must_use]
pub fn server_info(source: &dyn AdminSource) -> Reply {
    let state = match source.state() {
        ServerState::Live => server_info::State::Live,
        ServerState::Draining => server_info::State::Draining,
        ServerState::PreInitializing => server_info::State::PreInitializing,
        ServerState::Initializing => server_info::State::Initializing,
    };
    let uptime = wkt::seconds(i64::try_from(source.uptime().as_secs()).unwrap_or(i64::MAX));
    let info = ServerInfo {
        version: VERSION.to_owned(),
        state: state.into(),
        uptime_current_epoch: Some(uptime),
        uptime_all_epochs: Some(uptime),
        hot_restart_version: "disabled".to_owned(),
        command_line_options: Some(source.options()),
        node: source.bootstrap().node,
        ..ServerInfo::default()
    };
    let mut reply = message(&info);
    // LIVE is the enum's default and would be left out; every reader looks for it.
    if !reply.body.contains("\"state\"") {
        reply.body = reply.body.replacen('{', "{\n \"state\": \"LIVE\",", 1);
    }
    reply
}

/// `/listeners`, in text or JSON.
#[must_use]
pub fn listeners(source: &dyn AdminSource, query: &Query) -> Reply {
    let bound = source.listeners();
    if query.get("format") != Some("json") {
        return Reply::text(
            bound
                .iter()
                .map(|l| format!("{}::{}\n", l.name, l.address))
                .collect::<String>(),
        );
    }
    let statuses = bound.into_iter().map(|l| ListenerStatus {
        name: l.name,
        local_address: Some(address(&l.address)),
        additional_local_addresses: Vec::new(),
    });
    message(&Listeners {
        listener_statuses: statuses.collect(),
    })
}

/// `/memory`, from the kernel's accounting.
#[must_use]
pub fn memory() -> Reply {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let page = |n: usize| {
        statm
            .split_whitespace()
            .nth(n)
            .and_then(|p| p.parse::<u64>().ok())
            .unwrap_or(0)
            * 4096
    };
    let memory = Memory {
        allocated: page(5),
        heap_size: page(5),
        total_physical_bytes: page(1),
        ..Memory::default()
    };
    message(&memory)
}

/// A message as Envoy prints it.
pub(super) fn message<M: Message + Name>(message: &M) -> Reply {
    match Schema::get().print(message, Style::Envoy) {
        Ok(json) => Reply::json(pretty(&json)),
        Err(error) => Reply::error(500, format!("{error}\n")),
    }
}

/// An address from `ip:port`, `[ip]:port` or the path of a pipe.
pub(super) fn address(text: &str) -> Address {
    let address = match text.parse::<std::net::SocketAddr>() {
        Ok(socket) => address::Address::SocketAddress(SocketAddress {
            address: socket.ip().to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(u32::from(socket.port()))),
            ..SocketAddress::default()
        }),
        Err(_) => address::Address::Pipe(Pipe {
            path: text.to_owned(),
            mode: 0,
        }),
    };
    Address {
        address: Some(address),
    }
}
