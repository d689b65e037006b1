//! The mesh moves to another root under load, in the order that loses nothing: everybody trusts the new root before
//! anybody shows a certificate of it, and the old one until nobody does.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use control_ca::{Authority, SelfSigned};
use identity::{Certificate, TrustDomain};
use serde_json::{Value, json};

use super::mesh::{Mesh, mode};
use super::{Report, Scene};
use crate::stage::Stage;
use crate::world::World;

/// How long certificates are valid: the new authority signs when they are renewed because of their age.
const LIFE: Duration = Duration::from_secs(10);

/// How long each step may take until the workload has what it brings: the file of the roots is looked at every few
/// seconds.
const STEP: Duration = Duration::from_secs(15);

/// Requests after each step.
const REQUESTS: u64 = 200;

/// An authority with its key, as an operator has it in files.
struct Plugged {
    certificate: String,
    key: String,
}

impl Plugged {
    fn new() -> Result<Self> {
        let settings = SelfSigned::for_trust_domain(&TrustDomain::new("cluster.local")?);
        let data = Authority::self_signed(&settings, SystemTime::now())?.to_self_signed_secret()?;
        let entry = |name: &str| {
            let bytes = data.get(name).with_context(|| name.to_owned())?.clone();
            anyhow::Ok(String::from_utf8(bytes)?)
        };
        Ok(Self {
            certificate: entry("ca-cert.pem")?,
            key: entry("ca-key.pem")?,
        })
    }

    /// The Secret that plugs it in, beside which these roots are trusted.
    fn secret(&self, roots: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": "cacerts", "namespace": "istio-system" },
            "stringData": {
                "ca-cert.pem": self.certificate, "ca-key.pem": self.key, "cert-chain.pem": self.certificate,
                "root-cert.pem": roots,
            },
        })
    }
}

pub(super) async fn play(stage: &Stage, world: &World, scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let (old, new) = (Plugged::new()?, Plugged::new()?);
    let both = format!("{}{}", old.certificate, new.certificate);
    let objects = [mode("STRICT"), old.secret(&old.certificate)];
    let mesh = Mesh::start(stage, world, scene, &objects, LIFE).await?;
    let load = mesh.own_load()?;
    for (step, secret, roots, issuer) in [
        ("both roots are trusted", old.secret(&both), 2, &old),
        ("the new authority signs", new.secret(&both), 2, &new),
        ("the old root is forgotten", new.secret(&new.certificate), 1, &new),
    ] {
        mesh.control_plane.apply(&[secret]).await?;
        let root = Certificate::from_pem(issuer.certificate.as_bytes())?;
        let holds = |state: &agent::certificates::State| {
            state.held.as_ref().is_some_and(|held| {
                held.roots.len() == roots
                    && held.svid.leaf().issuer_der() == root.subject_der()
                    && identity::path_to_root(
                        held.svid.leaf(),
                        &[],
                        std::slice::from_ref(&root),
                        SystemTime::now(),
                    )
                    .is_ok()
            })
        };
        mesh.agent.until(step, STEP, holds).await?;
        load.more(REQUESTS).await;
        report.check(mesh.shows_what_the_agent_holds().await?, step);
    }
    for (lane, tally) in load.end().await? {
        let what = format!(
            "{lane}: {} requests answered, {} failed {:?}",
            tally.answered, tally.failed, tally.failures
        );
        report.check(tally.failed == 0 && tally.answered > 0, what);
    }
    Ok(())
}
