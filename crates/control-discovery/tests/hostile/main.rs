//! A hostile workload at the control plane: it has a good identity of its own and wants what is another's. Each trick is
//! refused, and the log has a line by which an operator sees who tried what, and why it failed.

mod agents_socket;
mod certificates;
mod configuration;
mod connections;
mod log;
#[allow(dead_code, reason = "this test uses a part")]
#[path = "../identities/mesh.rs"]
mod mesh;
mod node_socket;

use identity::Certificate;
use mesh::{Mesh, Shown};

/// The account of the hostile workload.
const OWN: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

/// The certificate of the hostile workload: a good one, which it has got by its token.
async fn own_certificate(mesh: &Mesh) -> Shown {
    let token = mesh.token("shop", "reviews", "istio-ca").await;
    let issued = mesh.certificate(None, Some(&token)).await.expect("its own");
    Shown {
        chain: leaf(&issued).pem(),
        key: issued.key,
        ..Shown::default()
    }
}

fn leaf(shown: &Shown) -> Certificate {
    let chain = Certificate::bundle_from_pem(shown.chain.as_bytes()).expect("a chain");
    chain.into_iter().next().expect("a leaf")
}
