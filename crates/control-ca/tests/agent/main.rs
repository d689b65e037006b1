//! A workload's identity, with a real authority: how it is kept, how it is served over SDS, and to a real Envoy.

mod authority;
mod envoy;
mod keeping;
mod mounted;
mod network;
mod sds;
mod support;
