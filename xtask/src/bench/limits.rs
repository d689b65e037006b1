//! What the figures must keep to.

/// HTTP/1: our CPU per request, of Envoy's.
pub(super) const HTTP1_OF_ENVOY: f64 = 0.45;
/// HTTP/1: our CPU per request, of nginx's.
pub(super) const HTTP1_OF_NGINX: f64 = 1.0;
/// Our resident set when idle, kibibytes.
pub(super) const IDLE_KIB: f64 = 15.0 * 1024.0;
/// HTTP/2 and gRPC: our CPU per request, of Envoy's.
pub(super) const HTTP2_OF_ENVOY: f64 = 0.5;
/// A sidecar with mutual TLS on one side: our CPU per request, of Envoy's.
pub(super) const SIDECAR_OF_ENVOY: f64 = 0.45;
/// Full mutual TLS handshakes per CPU-second, of Envoy's.
pub(super) const HANDSHAKES_OF_ENVOY: f64 = 1.3;
/// TCP: our CPU per gigabyte, of the least of the others'.
pub(super) const TCP_OF_BEST: f64 = 0.9;
/// Our resident set with the resources of a large mesh, of Envoy's.
pub(super) const SIZE_OF_ENVOY: f64 = 0.25;
/// Our resident set with idle HTTP/1 connections, megabytes.
pub(super) const IDLE_PLAIN_MB: f64 = 120.0;
/// Our resident set with idle connections of mutual TLS, megabytes.
pub(super) const IDLE_TLS_MB: f64 = 300.0;
/// The median time until a change of endpoints has reached every proxy, milliseconds.
pub(super) const ENDPOINT_CHANGE_MS: f64 = 100.0;
/// The median time until a change of a `VirtualService` has reached every proxy, milliseconds.
pub(super) const ROUTE_CHANGE_MS: f64 = 300.0;

/// Connections that stay idle.
pub(super) const IDLE_CONNECTIONS: usize = 10_000;
/// Services of the large mesh.
pub(super) const SERVICES: usize = 1_000;
/// Endpoints of each.
pub(super) const ENDPOINTS: usize = 5;
/// Proxies of the large mesh.
pub(super) const PROXIES: usize = 200;
/// Workloads that these proxies belong to; each sees something else of the mesh.
pub(super) const WORKLOADS: usize = 20;
