//! The embedded API server, with what every mesh has.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use control_apiserver::{ApiServer, Config, Handle};
use control_sources::write::{self, WriteError};
use control_sources::{Client, client};
use serde_json::json;

/// A running server and a client over it, in process.
pub(super) struct Embedded {
    pub(super) handle: Handle,
    pub(super) client: Client,
}

/// MeshConfig of a mesh that nobody has configured. People edit it with `kubectl -n istio-system edit configmap istio`.
const MESH: &str = "# MeshConfig: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/\n\
                    trustDomain: cluster.local\n";

pub(super) async fn start(
    state_dir: PathBuf,
    address: SocketAddr,
    root_namespace: &str,
) -> anyhow::Result<Embedded> {
    let shown = state_dir.display().to_string();
    let config = Config {
        bind: address,
        ..Config::new(state_dir)
    };
    let handle = ApiServer::start(config)
        .await
        .with_context(|| format!("start the embedded API server in {shown}"))?;
    let client = client::in_process(handle.service());
    let objects = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": root_namespace}}),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "istio", "namespace": root_namespace},
            "data": {"mesh": MESH},
        }),
    ];
    for object in &objects {
        match write::create(&client, object).await {
            Ok(_) | Err(WriteError::Conflict(_)) => {}
            Err(error) => return Err(error).context("write what every mesh has"),
        }
    }
    Ok(Embedded { handle, client })
}
