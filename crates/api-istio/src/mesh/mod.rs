//! Mesh-wide configuration: `istio.mesh.v1alpha1`, read from the ConfigMap `istio`.

mod config;
mod defaults;
mod extension_provider;
mod networks;
mod proxy_config;
mod proxy_settings;

pub use config::*;
pub use defaults::{MeshConfigError, merge_mesh};
pub use extension_provider::*;
pub use networks::*;
pub use proxy_config::*;
pub use proxy_settings::*;
