//! The control plane's one way to the Kubernetes API, over HTTPS or directly over a service in this process.
//!
//! - [`client`] makes a client, either way; everything else cannot tell the difference.
//! - [`watch`] lists and watches every kind the mesh reads and reports changes.
//! - [`write`](mod@write) creates, patches and deletes objects.
//! - [`pod_view`] and [`findings`] show workloads and mistakes to people, as Pods and Events.
//! - [`registration`] turns proxies that announce a WorkloadGroup into WorkloadEntries, and tracks their health.
//! - [`secrets`], [`reviews`] and [`authority_config_maps`] are what the mesh's authority needs of it.
//!
//! No other crate of the control plane knows the `kube` crate.

pub mod authority_config_maps;
pub mod client;
pub mod findings;
pub mod limits;
pub mod pod_view;
pub mod registration;
pub mod reviews;
pub mod secrets;
pub mod watch;
pub mod write;

pub use client::Client;
pub use write::apply;
