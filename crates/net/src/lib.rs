//! Sockets, original destination, network namespaces, nftables, descriptor passing.
//!
//! The one crate of the workspace that speaks to the kernel beyond what `std` and tokio offer. Everything here is
//! Linux; where a kernel refuses a feature the error says which call was refused, so that callers can fall back and
//! tell the user why.

pub mod broker;
pub mod descriptors;
pub mod limits;
pub mod memory;
pub mod namespace;
pub mod netlink;
pub mod peer;
pub mod process;
pub mod socket;
pub mod splice;
#[cfg(test)]
mod testing;
