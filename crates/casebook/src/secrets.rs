//! What the agent beside the proxy under test does: serves its workload's identity, and files, over SDS.

use std::path::Path;
use std::sync::Arc;

use agent::metrics::Metrics;
use agent::secrets::{self, Secrets};
use anyhow::{Context as _, Result};

use crate::data_plane::SECRETS_SOCKET;
use crate::identities::Issuer;
use crate::world::World;

/// Serves the identity of the proxy's workload on a task of the current runtime; it ends with it.
///
/// # Errors
/// The authority does not sign, or the socket cannot be made.
pub(crate) fn serve(world: &World, issuer: &Issuer, scratch: &Path) -> Result<()> {
    let pod = world.proxy_pod();
    let secrets = Secrets::new(Arc::new(Metrics::default()));
    secrets.set_certificate(&issuer.svid(&pod.namespace, &pod.account)?)?;
    secrets.set_roots(issuer.roots(), "");
    let socket = scratch.join(SECRETS_SOCKET);
    let listener = secrets::bind(&socket).with_context(|| socket.display().to_string())?;
    tokio::spawn(secrets::serve(listener, secrets));
    Ok(())
}
