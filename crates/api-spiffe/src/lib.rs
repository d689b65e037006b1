//! SPIFFE's Workload API (`SpiffeWorkloadAPI`), and what agents ask of SPIRE's server API. Generated (`cargo xtask
//! codegen`) from `tools/codegen/spiffe`.
//!
//! [`workload`]'s messages hold private keys, and print them: nobody logs them.

#[allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    rustdoc::all,
    rust_2018_idioms
)]
mod generated {
    include!("gen/mod.rs");
}

pub use generated::spire;

/// The Workload API. Its messages and its service have no package.
pub mod workload {
    pub use super::generated::{
        JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse,
        ValidateJwtsvidRequest, ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svid,
        X509svidRequest, X509svidResponse, spiffe_workload_api_client, spiffe_workload_api_server,
    };
}
