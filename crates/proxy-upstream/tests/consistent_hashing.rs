//! Consistent hashing must lead a request to the host that Envoy leads it to: a mesh may have both, and a session must not
//! move when one takes the other's place.

mod support;

use std::time::Instant;

use proxy_upstream::PickContext;
use support::World;
use twox_hash::XxHash64;

/// The last octet of the host's address for the header values k0 to k59, as an Envoy 1.40 chose them for hosts 127.1.0.1:7,
/// 127.1.0.2:7 and 127.1.0.3:7 and a hash policy on that header.
const CHOICES: &[(&str, &str, &str)] = &[
    (
        "RING_HASH",
        "1 1 1",
        "221331133133111311333133332121333332333312322331323111331222",
    ),
    (
        "RING_HASH",
        "1 3 5",
        "223331333333333323333333332121333332333312322331333331331222",
    ),
    (
        "MAGLEV",
        "1 1 1",
        "122332131223231231111321122121132313313213231131311331133223",
    ),
    (
        "MAGLEV",
        "1 3 5",
        "122332333323233233111322322323332323313233232133331331133223",
    ),
];

#[test]
fn hashes_lead_to_the_hosts_that_envoy_chooses() {
    for (policy, weights, expected) in CHOICES {
        let endpoints = weights.split(' ').zip(1..).map(|(weight, octet)| {
            format!(
                "{{ load_balancing_weight: {weight}, endpoint: {{ address: {{ socket_address: {{ address: 127.1.0.{octet}, port_value: 7 }} }} }} }}"
            )
        });
        let world = World::ready(&format!(
            "type: STATIC\nlb_policy: {policy}\nload_assignment: {{ endpoints: [{{ lb_endpoints: [{}] }}] }}",
            endpoints.collect::<Vec<_>>().join(", ")
        ));
        let choose = |key: usize| {
            let hash = XxHash64::oneshot(0, format!("k{key}").as_bytes());
            let context = PickContext {
                hash: Some(hash),
                ..Default::default()
            };
            let host = world
                .cluster()
                .pick(&context, Instant::now(), &mut || panic!("not random"))
                .unwrap();
            host.spec().key.as_bytes()["127.1.0.".len()]
        };
        let chosen: Vec<u8> = (0..60).map(choose).collect();
        assert_eq!(
            std::str::from_utf8(&chosen).unwrap(),
            *expected,
            "{policy} {weights}"
        );
    }
}
