//! The kinds of `extensions.istio.io`: code of the user's own inside proxies.

mod traffic_extension;
mod wasm;

pub use traffic_extension::*;
pub use wasm::*;
