//! The limits of the agent, by name.

use std::time::Duration;

/// How long an application's namespace may take to set up.
pub const CAPTURE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a sidecar may take from start to its first complete configuration.
pub const SIDECAR_READY_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a starting sidecar is asked whether it is ready.
pub const READY_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long one readiness question may take.
pub const READY_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the first table of service names may take after the sidecar is ready; the application then starts without.
pub const NAMES_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a starting application is asked for a connection, until its first answer.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// How long an application may take to accept connections before its probes become rare.
pub const PROBE_FAST_PERIOD: Duration = Duration::from_secs(10);

/// How often a slow application is asked for a connection.
pub const PROBE_SLOW_INTERVAL: Duration = Duration::from_secs(1);

/// How long an application may take to end after it was asked to.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Wait before a process that ended is started again: the first time, doubled each time after.
pub const RESTART_BASE: Duration = Duration::from_millis(200);

/// The longest wait before a process that ended is started again.
pub const RESTART_MAX: Duration = Duration::from_secs(10);

/// How long a process must have run for its earlier ends not to lengthen the wait.
pub const RESTART_FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// The most service ports of one workload; the socket broker hands over one listener for each.
pub const MAX_PORTS: usize = 64;

/// The most bytes of a hosts file; names beyond are left out, with a warning.
pub const MAX_HOSTS_BYTES: usize = 4 * 1024 * 1024;

/// Addresses that are tried before the agent gives up to find a free one.
pub const MAX_ADDRESS_TRIES: u16 = 1024;

/// Ports that are tried before the agent gives up to find a free one for an application on the host's network.
pub const MAX_APP_PORT_TRIES: u16 = 1024;

/// The most services that an application is told of by environment variables; Linux refuses to start a program with
/// more than some megabytes of them.
pub const MAX_TOLD_SERVICES: usize = 1024;

/// How often the agent looks whether the services that an application needs are there.
pub const SERVICES_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Ports that are tried, one after the other, when a gateway's port is taken.
pub const MAX_PORT_TRIES: u16 = 50;

/// The most name servers of the host that are asked (glibc's `MAXNS`).
pub const MAX_NAMESERVERS: usize = 3;

/// How long one name server may take.
pub const DNS_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The most DNS queries of one application that are under way at once.
pub const MAX_DNS_QUERIES: usize = 64;

/// The largest DNS message, in bytes; what resolvers announce with EDNS is below.
pub const MAX_DNS_MESSAGE_BYTES: usize = 4096;
