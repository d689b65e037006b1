//! Ejected hosts leave load balancing on every worker and come back.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proxy_upstream::PickContext;
use proxy_upstream::outlier::Outcome;
use support::{World, port, random};

const YAML: &str = "type: EDS
outlier_detection: { enforcing_success_rate: 0, consecutive_5xx: 3, max_ejection_percent: 50 }";

fn used(world: &World, now: Instant) -> BTreeSet<u16> {
    let mut random = random();
    (0..100)
        .map(|_| {
            port(
                &world
                    .cluster()
                    .pick(&PickContext::default(), now, &mut random)
                    .unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_host_that_fails_is_not_picked_until_its_time_is_over() {
    let world = World::new(YAML, "[{ hosts: [{ port: 1 }, { port: 2 }, { port: 3 }] }]");
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    world.clusters.tick(at(0));
    let bad = world
        .cluster()
        .hosts()
        .into_iter()
        .find(|h| port(h) == 2)
        .unwrap();
    for _ in 0..3 {
        assert!(used(&world, at(1)).contains(&2));
        world
            .cluster()
            .record_outcome(&bad, Outcome::Status(500), at(1), &mut || 0);
    }
    assert!(bad.is_ejected());
    assert_eq!(used(&world, at(1)), [1, 3].into());
    assert_eq!(
        (world.stat("membership_total"), world.stat("membership_healthy")),
        (3, 2)
    );
    world.clusters.tick(at(40));
    assert_eq!(used(&world, at(40)), [1, 2, 3].into());
}
