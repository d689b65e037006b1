//! Runs the feature pages: applies their objects to an in-process control plane, starts a data plane, ours or Envoy,
//! sends real requests through it to scripted upstreams and compares.
//!
//! Each page plays in a network namespace of its own ([`stage`]): every address and port of the mesh exists there as
//! written, the application's connections are captured as in a pod, and nothing outside is touched. [`run`] starts
//! this program again for each page, because a namespace can be entered only by a process with one thread.
//!
//! This crate is the one place where both wings meet.

pub mod certificates;
pub mod check;
pub mod client;
pub mod control_plane;
pub mod data_plane;
mod dns;
pub mod identities;
pub mod limits;
pub mod load;
pub mod page;
pub mod play;
mod relay;
pub mod run;
pub mod scenes;
mod secrets;
pub mod stage;
pub mod upstream;
pub mod world;

use std::fmt;
use std::str::FromStr;

pub use page::Page;
pub use run::{Summary, run};

/// The proxy under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPlane {
    /// Our own: `lateen-proxy`.
    Lateen,
    /// A real Envoy.
    Envoy,
}

impl fmt::Display for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lateen => "lateen",
            Self::Envoy => "envoy",
        })
    }
}

impl FromStr for DataPlane {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "lateen" => Ok(Self::Lateen),
            "envoy" => Ok(Self::Envoy),
            _ => Err(format!(
                "there is no data plane {text}; there are lateen and envoy"
            )),
        }
    }
}
