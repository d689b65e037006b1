//! Joins a process to the mesh: registration, bootstrap, capture, lifecycle.
//!
//! A [`Workload`] is an application with its sidecar, or a gateway, run by this process:
//!
//! 1. it gets an address of its own, 127.66.N.M ([`address`]);
//! 2. the application gets a network namespace in which its connections are redirected ([`capture`]), or, where that is
//!    refused, ports to listen on and to dial ([`explicit_ports`]);
//! 3. its key is made, and a certificate for it asked for ([`certificates`]) and served to the sidecar ([`secrets`]);
//! 4. the sidecar starts with a bootstrap for its node ([`bootstrap`]) and asks the socket broker for its sockets
//!    ([`policy`]); its ADS stream registers the workload, as Istio's VM expansion does with a WorkloadGroup;
//! 5. a stream of the agent's own receives the names of all services and reports the workload's health ([`discovery`]);
//! 6. when the sidecar is ready the application starts; when the application ends, the mesh is told at once.
//!
//! The control plane may be on another machine: [`onboarding`] reads what Istio writes for machines outside of Kubernetes.
//! A host's programs get the same identities for themselves from the node agent ([`workload_api`]).
//!
//! The agent knows the control plane by its addresses only.

pub mod address;
pub mod bootstrap;
pub mod capture;
pub mod certificates;
mod credentials;
pub mod discovery;
pub mod dns;
mod error;
pub mod explicit_ports;
pub mod hosts;
pub mod limits;
pub mod metrics;
pub mod names;
pub mod onboarding;
pub mod policy;
mod probe;
mod restarts;
pub mod secrets;
mod sidecar;
mod small_file;
mod spec;
pub mod status;
mod surroundings;
mod workload;
pub mod workload_api;

pub use error::AgentError;
pub use restarts::Restarts;
pub use spec::{CaptureMode, CertificateSource, Control, Mesh, MeshIdentity, Programs, Role, Spec, Xds};
pub use surroundings::NAMESPACE_ADVICE;
pub use workload::{Event as WorkloadEvent, Workload};
