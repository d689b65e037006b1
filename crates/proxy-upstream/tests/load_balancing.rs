//! Which hosts requests go to.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proxy_upstream::{PickContext, PickError, RequestPriority};
use support::{World, port, random, refusal};

const THREE: &str = "[{ hosts: [{ port: 1 }, { port: 2 }, { port: 3 }] }]";

/// How many of `picks` go to each port.
fn spread(world: &World, picks: usize) -> BTreeMap<u16, usize> {
    spread_at(world, picks, Instant::now())
}

fn spread_at(world: &World, picks: usize, now: Instant) -> BTreeMap<u16, usize> {
    let mut random = random();
    let mut counts = BTreeMap::new();
    for _ in 0..picks {
        let host = world
            .cluster()
            .pick(&PickContext::default(), now, &mut random)
            .unwrap();
        *counts.entry(port(&host)).or_default() += 1;
    }
    counts
}

fn eds(policy: &str) -> String {
    format!("type: EDS\nlb_policy: {policy}\n")
}

/// Asserts that each port got its share of 10 000 picks, give or take `tolerance`.
fn check_shares(world: &World, shares: &[(u16, f64)], tolerance: f64) {
    let counts = spread(world, 10_000);
    for (port, share) in shares {
        let got = *counts.get(port).unwrap_or(&0) as f64 / 10_000.0;
        assert!(
            (got - share).abs() <= tolerance,
            "port {port} got {got}, expected {share}: {counts:?}"
        );
    }
    assert!(
        counts.keys().all(|port| shares.iter().any(|(p, _)| p == port)),
        "{counts:?}"
    );
}

#[test]
fn round_robin_takes_hosts_in_turn() {
    let world = World::new(&eds("ROUND_ROBIN"), THREE);
    assert_eq!(spread(&world, 9).into_values().collect::<Vec<_>>(), [3, 3, 3]);
}

#[test]
fn round_robin_follows_weights() {
    let hosts = "[{ hosts: [{ port: 1 }, { port: 2, weight: 3 }] }]";
    check_shares(
        &World::new(&eds("ROUND_ROBIN"), hosts),
        &[(1, 0.25), (2, 0.75)],
        0.001,
    );
}

#[test]
fn random_spreads_evenly() {
    let third = 1.0 / 3.0;
    check_shares(
        &World::new(&eds("RANDOM"), THREE),
        &[(1, third), (2, third), (3, third)],
        0.02,
    );
}

#[test]
fn least_request_prefers_hosts_with_fewer_requests() {
    let world = World::new(&eds("LEAST_REQUEST"), THREE);
    let busy = world
        .cluster()
        .hosts()
        .into_iter()
        .find(|h| port(h) == 1)
        .unwrap();
    let active: Vec<_> = (0..5)
        .map(|_| {
            world
                .cluster()
                .begin_request(&busy, RequestPriority::Default, Instant::now())
                .unwrap()
        })
        .collect();
    // The busy host is taken only when both choices fall on it.
    check_shares(&world, &[(1, 1.0 / 9.0), (2, 4.0 / 9.0), (3, 4.0 / 9.0)], 0.02);
    drop(active);
    let third = 1.0 / 3.0;
    check_shares(&world, &[(1, third), (2, third), (3, third)], 0.02);
}

#[test]
fn least_request_weighs_hosts_when_weights_differ() {
    let hosts = "[{ hosts: [{ port: 1 }, { port: 2, weight: 4 }] }]";
    check_shares(
        &World::new(&eds("LEAST_REQUEST"), hosts),
        &[(1, 0.2), (2, 0.8)],
        0.001,
    );
}

#[test]
fn a_new_host_gets_its_share_bit_by_bit() {
    let window = "slow_start_config: { slow_start_window: 100s }";
    for (policy, field) in [
        ("ROUND_ROBIN", "round_robin_lb_config"),
        ("LEAST_REQUEST", "least_request_lb_config"),
    ] {
        let mut world = World::new(
            &format!("{}{field}: {{ {window} }}", eds(policy)),
            "[{ hosts: [{ port: 1 }, { port: 2 }] }]",
        );
        assert_eq!(spread(&world, 100)[&1], 50, "all are new");
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        let joined = at(200);
        world.update_at(THREE, joined);
        let share = |world: &World, after| {
            let counts = spread_at(world, 10_000, joined + Duration::from_secs(after));
            assert!(counts[&1].abs_diff(counts[&2]) < 200, "{policy}: {counts:?}");
            *counts.get(&3).unwrap_or(&0) as f64 / 10_000.0
        };
        for (after, expected) in [(0, 0.1 / 2.1), (50, 0.5 / 2.5), (100, 1.0 / 3.0)] {
            let share = share(&world, after);
            assert!((share - expected).abs() < 0.02, "{policy}, {after} s: {share}");
        }
        // An update does not make old hosts new.
        world.update_at(
            "[{ hosts: [{ port: 1 }, { port: 3 }] }]",
            joined + Duration::from_secs(150),
        );
        let counts = spread_at(&world, 100, joined + Duration::from_secs(151));
        assert!((40..=60).contains(&counts[&3]), "{policy}: {counts:?}");
    }
}

#[test]
fn a_host_that_becomes_healthy_is_new_from_then_on() {
    let hosts = |health: &str| format!("[{{ hosts: [{{ port: 1 }}, {{ port: 2, health: {health} }}] }}]");
    let extension =
        "load_balancing_policy: { policies: [{ typed_extension_config: { name: rr, typed_config: {
        '@type': type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin,
        slow_start_config: { slow_start_window: 100s, min_weight_percent: { value: 25 } } } } }] }";
    let mut world = World::new(&format!("type: EDS\n{extension}"), &hosts("UNHEALTHY"));
    let later = Instant::now() + Duration::from_secs(1000);
    world.update_at(&hosts("HEALTHY"), later);
    let share = |after| spread_at(&world, 1000, later + Duration::from_secs(after))[&2];
    assert!(share(0).abs_diff(200) < 5, "a quarter of the weight of the other");
    assert!(share(101).abs_diff(500) < 5, "the same weight");
}

#[test]
fn unhealthy_draining_and_timed_out_hosts_are_left_out() {
    let hosts = "[{ hosts: [{ port: 1 }, { port: 2 }, { port: 3 }, { port: 4, health: UNHEALTHY },
        { port: 5, health: DRAINING }, { port: 6, health: TIMEOUT }] }]";
    let third = 1.0 / 3.0;
    check_shares(
        &World::new(&eds("RANDOM"), hosts),
        &[(1, third), (2, third), (3, third)],
        0.02,
    );
}

#[test]
fn below_half_of_healthy_hosts_all_are_used() {
    let hosts = "[{ hosts: [{ port: 1 }, { port: 2, health: UNHEALTHY }, { port: 3, health: UNHEALTHY }] }]";
    let third = 1.0 / 3.0;
    let world = World::new(&eds("RANDOM"), hosts);
    check_shares(&world, &[(1, third), (2, third), (3, third)], 0.02);
    assert_eq!(world.stat("lb_healthy_panic"), 10_000);
    let never = format!(
        "{}common_lb_config: {{ healthy_panic_threshold: {{ value: 0 }} }}\n",
        eds("RANDOM")
    );
    check_shares(&World::new(&never, hosts), &[(1, 1.0)], 0.0);
}

#[test]
fn load_spills_to_the_next_priority_as_the_first_loses_hosts() {
    let hosts = "[{ hosts: [{ port: 1 }, { port: 2, health: UNHEALTHY }] },
        { priority: 1, hosts: [{ port: 3 }] }]";
    // Half of the hosts, times 1.4, is 70 percent.
    check_shares(&World::new(&eds("RANDOM"), hosts), &[(1, 0.7), (3, 0.3)], 0.02);
}

#[test]
fn without_locality_weighting_the_weights_of_localities_say_nothing() {
    let hosts = "[{ weight: 9, hosts: [{ port: 1 }] }, { weight: 1, hosts: [{ port: 2 }] }]";
    check_shares(&World::new(&eds("RANDOM"), hosts), &[(1, 0.5), (2, 0.5)], 0.02);
}

#[test]
fn localities_are_weighted_when_asked_for_and_lose_load_with_their_hosts() {
    let yaml = format!(
        "{}common_lb_config: {{ locality_weighted_lb_config: {{}} }}\n",
        eds("ROUND_ROBIN")
    );
    let all = "[{ weight: 9, hosts: [{ port: 1 }, { port: 2 }] }, { weight: 1, hosts: [{ port: 3 }] }]";
    check_shares(&World::new(&yaml, all), &[(1, 0.45), (2, 0.45), (3, 0.1)], 0.01);
    let half = "[{ weight: 9, hosts: [{ port: 1 }, { port: 2, health: UNHEALTHY }] }, { weight: 1, hosts: [{ port: 3 }] }]";
    // 9 × 0.5 × 1.4 = 6.3 against 1.
    check_shares(&World::new(&yaml, half), &[(1, 6.3 / 7.3), (3, 1.0 / 7.3)], 0.01);
}

#[test]
fn of_hosts_with_one_address_the_first_counts() {
    let hosts = "[{ hosts: [{ port: 1 }, { port: 1, weight: 50 }, { port: 2 }] }]";
    check_shares(
        &World::new(&eds("ROUND_ROBIN"), hosts),
        &[(1, 0.5), (2, 0.5)],
        0.001,
    );
}

#[test]
fn retries_pass_over_hosts_that_were_tried() {
    let world = World::new(&eds("ROUND_ROBIN"), THREE);
    let (mut random, now) = (random(), Instant::now());
    let hosts = world.cluster().hosts();
    for _ in 0..20 {
        let context = PickContext {
            previous_hosts: &hosts[..2],
            more_attempts: 5,
            ..Default::default()
        };
        assert_eq!(
            port(&world.cluster().pick(&context, now, &mut random).unwrap()),
            3
        );
    }
    let all = PickContext {
        previous_hosts: &hosts,
        more_attempts: 5,
        ..Default::default()
    };
    assert!(
        world.cluster().pick(&all, now, &mut random).is_ok(),
        "better a host that was tried than none"
    );
}

#[test]
fn a_cluster_without_hosts_has_no_healthy_upstream() {
    let world = World::new(&eds("ROUND_ROBIN"), "[]");
    let error = world
        .cluster()
        .pick(&PickContext::default(), Instant::now(), &mut random())
        .unwrap_err();
    assert_eq!(error, PickError::NoHealthyUpstream);
    assert_eq!(error.to_string(), "no healthy upstream");
    assert_eq!(
        (
            world.stat("upstream_cx_none_healthy"),
            world.stat("lb_healthy_panic")
        ),
        (1, 1)
    );
}

#[test]
fn the_same_hash_leads_to_the_same_host_and_little_moves_when_one_leaves() {
    for policy in ["RING_HASH", "MAGLEV"] {
        let mut world = World::new(&eds(policy), THREE);
        let place = |world: &World| -> Vec<u16> {
            let pick = |key: u64| {
                let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let context = PickContext {
                    hash: Some(hash),
                    ..Default::default()
                };
                port(
                    &world
                        .cluster()
                        .pick(&context, Instant::now(), &mut || panic!("not random"))
                        .unwrap(),
                )
            };
            (0..3000).map(pick).collect()
        };
        let before = place(&world);
        assert_eq!(before, place(&world), "{policy}");
        for port in 1..=3 {
            let share = before.iter().filter(|p| **p == port).count();
            assert!(
                (700..1300).contains(&share),
                "{policy}: port {port} has {share} of 3000"
            );
        }
        world.update("[{ hosts: [{ port: 1 }, { port: 2 }] }]");
        let after = place(&world);
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(b, a)| **b != 3 && b != a)
            .count();
        // A ring keeps its size, so those that stay get more entries and take a few keys from one another.
        assert!(moved < 300, "{policy}: {moved} moved between hosts that stayed");
    }
}

#[test]
fn typed_policies_are_the_same_as_classic_ones() {
    let typed = |name: &str, fields: &str| {
        format!(
            "type: EDS\nload_balancing_policy:\n  policies:\n  - typed_extension_config:\n      name: x\n      typed_config:\n        \
             '@type': type.googleapis.com/envoy.extensions.load_balancing_policies.{name}\n{fields}"
        )
    };
    let hosts = "[{ hosts: [{ port: 1 }, { port: 2, weight: 3 }] }]";
    check_shares(
        &World::new(&typed("round_robin.v3.RoundRobin", ""), hosts),
        &[(1, 0.25), (2, 0.75)],
        0.001,
    );
    check_shares(
        &World::new(&typed("random.v3.Random", ""), hosts),
        &[(1, 0.5), (2, 0.5)],
        0.02,
    );
    check_shares(
        &World::new(&typed("least_request.v3.LeastRequest", ""), hosts),
        &[(1, 0.25), (2, 0.75)],
        0.001,
    );
    let slow = typed(
        "round_robin.v3.RoundRobin",
        "        slow_start_config: { slow_start_window: 5s, min_weight_percent: { value: 101 } }\n",
    );
    assert!(refusal(&slow).contains("slow_start_config"), "{}", refusal(&slow));
}
