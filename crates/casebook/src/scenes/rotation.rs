//! Certificates that live for seconds, renewed by the agent at the authority and taken over by the proxy under load.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::mesh::{Mesh, mode};
use super::{Report, Scene};
use crate::stage::Stage;
use crate::world::World;

/// How long the load runs unless something else is asked for.
const LASTING: Duration = Duration::from_secs(12);

/// The life of certificates where the load runs for minutes.
const LIFE: Duration = Duration::from_secs(30);

/// The life of certificates where it runs for seconds.
const SHORT_LIFE: Duration = Duration::from_secs(6);

/// From which load on certificates have their long life.
const LONG: Duration = Duration::from_secs(120);

/// Time between two looks at which certificate is in force.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) async fn play(stage: &Stage, world: &World, scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let lasting = scene.lasting.unwrap_or(LASTING);
    let life = if lasting >= LONG { LIFE } else { SHORT_LIFE };
    let mesh = Mesh::start(stage, world, scene, &[mode("STRICT")], life).await?;
    let load = mesh.load()?;
    let mut serials = BTreeSet::from([mesh.agent.serial()]);
    let (mut shown, end) = (0, Instant::now() + lasting);
    while Instant::now() < end {
        sleep(LOOK_AGAIN).await;
        if serials.insert(mesh.agent.serial()) && mesh.shows_what_the_agent_holds().await? {
            shown += 1;
        }
    }
    let renewed = serials.len() - 1;
    for (lane, tally) in load.end().await? {
        let what = format!(
            "{lane}: {} requests answered, {} failed {:?}",
            tally.answered, tally.failed, tally.failures
        );
        report.check(tally.failed == 0 && tally.answered > 0, what);
    }
    let least = lasting.as_secs() / life.as_secs();
    report.check(
        renewed as u64 >= least,
        format!("in {lasting:?} certificates of {life:?} were renewed {renewed} times"),
    );
    report.check(
        shown == renewed,
        format!("the proxy showed {shown} of those {renewed} soon after"),
    );
    let page = mesh.agent.page();
    let none = "num_failed_outgoing_requests{request_type=\"csr\"} 0\n";
    report.check(page.contains(none), "no request to the authority failed");
    Ok(())
}
