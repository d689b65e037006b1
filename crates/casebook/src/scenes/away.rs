//! The authority is away: the proxy works until its certificate ends, and again soon after the authority is back.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep};

use super::load;
use super::mesh::{FRESH, HOST, Mesh, mode};
use super::{Report, Scene};
use crate::client;
use crate::stage::Stage;
use crate::world::World;

/// How long certificates are valid.
const LIFE: Duration = Duration::from_secs(8);

/// How long before a certificate's end requests are not counted: clocks have seconds.
const MARGIN: Duration = Duration::from_millis(1500);

/// How long after the authority's return the next certificate may take: the longest wait of an agent by then.
const RETURN: Duration = Duration::from_secs(20);

pub(super) async fn play(stage: &Stage, world: &World, scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let mesh = Mesh::start(stage, world, scene, &[mode("STRICT")], LIFE).await?;
    // A certificate that has just come has its whole life before it.
    let before = mesh.agent.serial();
    let renewed = |state: &agent::certificates::State| {
        let held = state.held.as_ref();
        held.is_some_and(|held| held.svid.leaf().serial() != before)
    };
    mesh.agent.until("a renewal", LIFE, renewed).await?;
    mesh.agent.set_away(true);
    let expires = {
        let state = mesh.agent.state.borrow();
        state.held.as_ref().context("a certificate")?.svid.expires()
    };
    let load = mesh.load()?;
    let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
    sleep(left.saturating_sub(MARGIN)).await;
    for (lane, tally) in load.end().await? {
        let what = format!(
            "while the authority was away, {lane}: {} requests answered, {} failed {:?}",
            tally.answered, tally.failed, tally.failures
        );
        report.check(tally.failed == 0 && tally.answered > 0, what);
    }
    let (failures, reason) = {
        let state = mesh.agent.state.borrow();
        (
            state.failures,
            state.failure.as_deref().unwrap_or_default().to_owned(),
        )
    };
    report.check(
        (3..20).contains(&failures),
        format!("the agent tried {failures} times, ever more rarely: {reason}"),
    );
    let page = mesh.agent.page();
    let gauge = page
        .lines()
        .find(|line| line.starts_with("cert_expiry_seconds{resource_name=\"default\"}"));
    let seconds: i64 = gauge
        .and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(i64::MAX);
    report.check(seconds <= 2, format!("the gauge told of the end: {gauge:?}"));
    expired(&mesh, report).await?;
    mesh.agent.set_away(false);
    let back = Instant::now();
    mesh.agent
        .until("a certificate after the return", RETURN, |state| {
            state.failures == 0
        })
        .await?;
    mesh.answers().await?;
    report.seen.push(format!(
        "{:?} after its return everything worked again",
        back.elapsed()
    ));
    Ok(())
}

/// When the certificate has ended, new connections are refused, and the log says why.
async fn expired(mesh: &Mesh<'_>, report: &mut Report) -> Result<()> {
    sleep(MARGIN + Duration::from_secs(1)).await;
    let request = load::get(&format!("{HOST}:{FRESH}"));
    let answer = client::send(&mesh.own_way(FRESH)?, &request, "expired")
        .await
        .answer;
    let status = answer.as_ref().map(|answer| answer.status);
    report.check(
        status == Ok(503),
        format!("after the end a new connection is refused: {status:?}"),
    );
    report.check(
        mesh.logged(&["expired 503 U", "certificate_has_expired"]).await
            || mesh.logged(&["expired 503 U", "CERTIFICATE_EXPIRED"]).await,
        "the access log says that the certificate has expired",
    );
    Ok(())
}
