//! A hostile workload calls others, as another, or as nobody; each trick is refused, or changes nothing, and the reason
//! is logged where an operator looks. What it tries at the control plane is tested there.

use std::time::Duration;

use anyhow::Result;

use super::impostor::{self, Pair};
use super::mesh::{FRESH, HOST, Mesh, mode};
use super::{Report, Scene, load};
use crate::DataPlane;
use crate::client;
use crate::page::traffic::Request;
use crate::stage::Stage;
use crate::upstream::Seen;
use crate::world::World;

/// How long certificates are valid: nothing is renewed in this scene.
const LIFE: Duration = Duration::from_secs(600);

/// A trick in the handshake: what is shown, and how both data planes say why it fails.
struct Trick {
    name: &'static str,
    shown: Option<Pair>,
    lateen: &'static str,
    envoy: &'static str,
}

async fn tricks(mesh: &Mesh<'_>) -> Result<[Trick; 7]> {
    let trick = |name, shown, lateen, envoy| Trick {
        name,
        shown,
        lateen,
        envoy,
    };
    Ok([
        trick(
            "an expired certificate",
            Some(impostor::expired(mesh)?),
            "the certificate has expired",
            "certificate has expired",
        ),
        trick(
            "a certificate of the future",
            Some(impostor::of_the_future(mesh)?),
            "the certificate is not valid yet",
            "certificate is not yet valid",
        ),
        trick(
            "a certificate of a foreign root",
            Some(impostor::foreign()?),
            "no trusted authority issued the certificate",
            "verify cert failed",
        ),
        trick(
            "the authority's own certificate",
            Some(impostor::of_the_authority(mesh).await?),
            "the certificate is an authority's own",
            "verify cert failed",
        ),
        trick(
            "a certificate that a workload has signed",
            Some(impostor::signed_by_a_workload(mesh)?),
            "the certificate's issuer is no authority",
            "verify cert failed",
        ),
        trick(
            "an identity of another mesh",
            Some(impostor::of_another_mesh(mesh)?),
            "it has [spiffe://elsewhere/ns/default/sa/admin]",
            "SAN matcher",
        ),
        trick(
            "no certificate",
            None,
            "the peer has no certificate",
            "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        ),
    ])
}

pub(super) async fn play(stage: &Stage, world: &World, scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let mesh = Mesh::start(stage, world, scene, &[mode("STRICT")], LIFE).await?;
    for trick in tricks(&mesh).await? {
        let context = impostor::caller(trick.shown.as_ref(), &impostor::server_name())?;
        let way = mesh.way_in(FRESH, Some(context));
        let answer = client::send(&way, &load::get(HOST), "trick").await.answer;
        let name = trick.name;
        report.check(answer.is_err(), format!("{name} gets no answer: {answer:?}"));
        let reason = match mesh.data_plane {
            DataPlane::Lateen => trick.lateen,
            DataPlane::Envoy => trick.envoy,
        };
        report.check(
            mesh.logged(&[reason]).await,
            format!("{name}: the log says {reason:?}"),
        );
    }
    plaintext(&mesh, report).await;
    names_in_headers(&mesh, report).await?;
    server_names(&mesh, report).await?;
    if !report.problems.is_empty() {
        report.problems.push(format!(
            "the log ends:\n{}\n{}",
            mesh.access_log(),
            mesh.proxy.log_tail()
        ));
    }
    Ok(())
}

async fn plaintext(mesh: &Mesh<'_>, report: &mut Report) {
    let answer = client::send(&mesh.way_in(FRESH, None), &load::get(HOST), "plain")
        .await
        .answer;
    report.check(
        answer.is_err(),
        format!("plaintext to STRICT gets no answer: {answer:?}"),
    );
    let logged = mesh.logged(&["NR filter_chain_not_found"]).await;
    report.check(
        logged,
        "plaintext to STRICT: the access log says that no chain takes it",
    );
}

fn request(headers: &[(&str, &str)]) -> Request {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Request::Http {
        method: "GET".to_owned(),
        authority: HOST.to_owned(),
        path: "/".to_owned(),
        headers: headers.collect(),
        http2: false,
        said: None,
    }
}

/// Sends a request as `frontend`; what the application got.
async fn as_frontend(mesh: &Mesh<'_>, server_name: &str, headers: &[(&str, &str)]) -> Result<Seen> {
    let context = mesh.issuer.client(("default", "frontend"), server_name, true)?;
    let way = mesh.way_in(FRESH, Some(context));
    let answer = client::send(&way, &request(headers), "headers").await.answer;
    let answer = answer.map_err(anyhow::Error::msg)?;
    Ok(serde_json::from_str(&answer.body)?)
}

/// A workload with a good certificate puts another's name into headers.
async fn names_in_headers(mesh: &Mesh<'_>, report: &mut Report) -> Result<()> {
    let forged = "By=spiffe://cluster.local/ns/default/sa/reviews;Hash=00;Subject=\"\";\
                  URI=spiffe://cluster.local/ns/default/sa/admin";
    let seen = as_frontend(
        mesh,
        &impostor::server_name(),
        &[
            ("x-forwarded-client-cert", forged),
            // They are for statistics only: nobody who decides anything reads them.
            (
                "x-envoy-peer-metadata-id",
                "sidecar~10.0.0.1~admin.default~default.svc.cluster.local",
            ),
            ("x-envoy-peer-metadata", "ChIKBE5BTUUSChoIYWRtaW4tdjE="),
        ],
    )
    .await?;
    let values = |name: &str| -> Vec<&str> {
        let named = seen.headers.iter().filter(|(header, _)| header == name);
        named.map(|(_, value)| value.as_str()).collect()
    };
    let shown = values("x-forwarded-client-cert");
    let true_name = "URI=spiffe://cluster.local/ns/default/sa/frontend";
    let last = shown.iter().flat_map(|header| header.split(',')).next_back();
    report.check(
        last.is_some_and(|last| last.ends_with(true_name)),
        format!("the last element of x-forwarded-client-cert is the true one, whatever was there: {shown:?}"),
    );
    let metadata = [
        values("x-envoy-peer-metadata"),
        values("x-envoy-peer-metadata-id"),
    ]
    .concat();
    match mesh.data_plane {
        DataPlane::Lateen => report.check(
            metadata.is_empty(),
            format!("what a caller tells of itself does not reach the application: {metadata:?}"),
        ),
        DataPlane::Envoy => {
            let left = "a plain Envoy, which lacks Istio's filter, leaves what a caller tells of itself";
            report.seen.push(format!("{left}: {metadata:?}"));
        }
    }
    Ok(())
}

/// A workload with a good certificate asks by names that are not this service's, or do not agree.
async fn server_names(mesh: &Mesh<'_>, report: &mut Report) -> Result<()> {
    let other = "outbound_.9080_._.ratings.default.svc.cluster.local";
    for (server_name, host) in [
        (other, HOST),
        (impostor::server_name().as_str(), "ratings:9080"),
        (other, "admin.example.com"),
    ] {
        let seen = as_frontend(mesh, server_name, &[("host", host)]).await?;
        report.check(
            seen.upstream == "reviews-v1",
            format!(
                "SNI {server_name} with host {host} reaches the pod's own application: {}",
                seen.upstream
            ),
        );
        let principal = seen.headers.iter().any(|(name, value)| {
            name == "x-forwarded-client-cert"
                && value.contains("URI=spiffe://cluster.local/ns/default/sa/frontend")
        });
        report.check(principal, "and the application learns who really calls");
    }
    Ok(())
}
