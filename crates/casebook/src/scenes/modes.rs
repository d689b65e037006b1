//! A namespace moves between the modes of mutual TLS under load: callers of the mesh lose nothing between PERMISSIVE and
//! STRICT, and callers in plaintext are served and refused as the mode says. To DISABLE nothing is lost when a
//! DestinationRule makes callers move first. Without one Istio promises nothing, since callers hear of it by their
//! endpoints and servers by their listeners, at different moments; what is lost then is counted.

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::load;
use super::mesh::{FRESH, HOST, Mesh, mode, rule};
use super::{Report, Scene};
use crate::client;
use crate::limits::CHANGE_TIME;
use crate::stage::Stage;
use crate::world::World;

/// How often the namespace moves unless something else is asked for.
const ROUNDS: usize = 3;

/// Requests after each move.
const REQUESTS: u64 = 200;

/// How long certificates are valid: nothing is renewed in this scene.
const LIFE: Duration = Duration::from_secs(600);

/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a connection in plaintext may outlive the move to STRICT: the time in which the proxy drains, and some.
const DRAIN: Duration = Duration::from_secs(8);

pub(super) async fn play(stage: &Stage, world: &World, scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let mesh = Mesh::start(stage, world, scene, &[mode("PERMISSIVE")], LIFE).await?;
    let load = mesh.load()?;
    let began = Instant::now();
    let lasts = |round| match scene.lasting {
        Some(lasting) => began.elapsed() < lasting,
        None => round < ROUNDS,
    };
    let mut round = 0;
    while lasts(round) {
        round += 1;
        load.more(REQUESTS).await;
        becomes(&mesh, true).await?;
        let old = served(&mesh).await?;
        mesh.apply(&[mode("STRICT")]).await?;
        becomes(&mesh, false).await?;
        ends(old).await?;
        load.more(REQUESTS).await;
        mesh.apply(&[mode("PERMISSIVE")]).await?;
    }
    becomes(&mesh, true).await?;
    report.seen.push(format!(
        "in {round} moves to STRICT and back, callers in plaintext were refused and served each time, and their open \
         connections ended"
    ));
    report.check(
        mesh.logged(&["plain 0 NR filter_chain_not_found"]).await
            || mesh.logged(&["NR filter_chain_not_found"]).await,
        "the access log says that STRICT has no chain for plaintext",
    );
    tell(load, true, report).await?;
    with_a_rule(&mesh, report).await?;
    by_way_of(&mesh, &["DISABLE", "PERMISSIVE", "DISABLE", "PERMISSIVE"], report).await
}

/// Moves to DISABLE and back by way of the callers: they leave mutual TLS before the servers refuse it, and come back when
/// the servers take it again.
async fn with_a_rule(mesh: &Mesh<'_>, report: &mut Report) -> Result<()> {
    let load = mesh.own_load()?;
    for next in [
        rule(Some("DISABLE")),
        mode("DISABLE"),
        mode("PERMISSIVE"),
        rule(Some("ISTIO_MUTUAL")),
    ] {
        load.more(REQUESTS).await;
        mesh.apply(&[next]).await?;
    }
    load.more(REQUESTS).await;
    report
        .seen
        .push("to DISABLE and back, with a DestinationRule for the callers first:".to_owned());
    tell(load, true, report).await
}

/// Moves on and counts what is lost.
async fn by_way_of(mesh: &Mesh<'_>, modes: &[&str], report: &mut Report) -> Result<()> {
    // A rule that asks for mutual TLS would ask for it in every mode.
    mesh.control_plane.delete(&[rule(None)]).await?;
    mesh.apply(&[rule(None)]).await?;
    let load = mesh.own_load()?;
    for name in modes {
        load.more(REQUESTS).await;
        mesh.apply(&[mode(name)]).await?;
    }
    load.more(REQUESTS).await;
    report.seen.push(format!(
        "by way of {modes:?} without one, for which nothing is promised:"
    ));
    tell(load, false, report).await
}

async fn tell(load: load::Load, promised: bool, report: &mut Report) -> Result<()> {
    for (lane, tally) in load.end().await? {
        let what = format!(
            "{lane}: {} requests answered, {} failed {:?}",
            tally.answered, tally.failed, tally.failures
        );
        report.check(!promised || tally.failed == 0 && tally.answered > 0, what);
    }
    Ok(())
}

/// Waits until a caller in plaintext is served, or is not.
async fn becomes(mesh: &Mesh<'_>, served: bool) -> Result<()> {
    let deadline = Instant::now() + CHANGE_TIME;
    loop {
        let answer = client::send(&mesh.way_in(FRESH, None), &load::get(HOST), "plain")
            .await
            .answer;
        match answer {
            Ok(answer) if served && answer.status == 200 => return Ok(()),
            Err(_) if !served => return Ok(()),
            other if Instant::now() > deadline => {
                anyhow::bail!("a caller in plaintext, who is to be served {served}, gets {other:?}")
            }
            _ => sleep(LOOK_AGAIN).await,
        }
    }
}

/// A connection in plaintext on which a request has been answered.
async fn served(mesh: &Mesh<'_>) -> Result<TcpStream> {
    let way = mesh.way_in(FRESH, None);
    let mut connection = client::connect(way.source, way.target).await?;
    connection
        .write_all(format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n").as_bytes())
        .await?;
    let mut head = [0; 15];
    connection.read_exact(&mut head).await?;
    anyhow::ensure!(&head == b"HTTP/1.1 200 OK", "{}", String::from_utf8_lossy(&head));
    Ok(connection)
}

/// Waits until the proxy ends a connection.
async fn ends(mut connection: TcpStream) -> Result<()> {
    let mut rest = Vec::new();
    let read = timeout(DRAIN, connection.read_to_end(&mut rest)).await;
    anyhow::ensure!(
        read.is_ok(),
        "an open connection in plaintext is still there {DRAIN:?} after the move to STRICT"
    );
    Ok(())
}
