//! What a real istiod sends must be accepted: the recordings of the scenarios that this proxy serves today.

#[path = "../../proxy-router/tests/recordings/mod.rs"]
mod recordings;

use std::path::PathBuf;

use api_envoy::envoy::config::cluster::v3::Cluster;
use api_envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api_envoy::json::Schema;
use proxy_upstream::secrets::{SecretStore, Sources};
use proxy_upstream::{Assignment, ClusterConfig};
use recordings::SCENARIOS;
use telemetry::stats::Registry;

/// Scenarios of which only clusters and endpoints are served today.
const MORE_SCENARIOS: &[&str] = &["11-pool-outlier", "13-locality"];

/// The recordings called `file`, or `None` where there are none.
fn recorded(test: &str, file: &str) -> Option<Vec<(PathBuf, Vec<serde_json::Value>)>> {
    let root = recordings::folder(test)?;
    let proxies = SCENARIOS
        .iter()
        .chain(MORE_SCENARIOS)
        .flat_map(|s| std::fs::read_dir(root.join(s)).expect("scenario folder"));
    let files = proxies
        .map(|entry| entry.unwrap().path().join(file))
        .filter(|path| path.is_file());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path, serde_json::from_str(&text).unwrap())
    };
    Some(files.map(read).collect())
}

fn without_type(mut resource: serde_json::Value) -> serde_json::Value {
    resource.as_object_mut().unwrap().remove("@type");
    resource
}

#[test]
fn every_recorded_cluster_is_accepted() {
    let Some(recordings) = recorded("every_recorded_cluster_is_accepted", "cds.json") else {
        return;
    };
    let (schema, registry) = (Schema::get(), Registry::new());
    let sources = Sources {
        ads: true,
        clusters: ["sds-grpc".into()].into(),
    };
    let mut secrets = SecretStore::new(&registry, sources);
    let mut accepted = 0;
    for (path, resources) in recordings {
        for resource in resources {
            let proto: Cluster = schema.parse(&without_type(resource)).unwrap();
            let compiled = ClusterConfig::compile_with(&proto, &registry, &mut secrets);
            if let Err(error) = compiled {
                panic!("{}: {}: {error}", path.display(), proto.name);
            }
            accepted += 1;
        }
    }
    assert!(accepted > 100, "{accepted}");
}

#[test]
fn every_recorded_endpoint_set_is_accepted() {
    let Some(recordings) = recorded("every_recorded_endpoint_set_is_accepted", "eds.json") else {
        return;
    };
    let schema = Schema::get();
    let mut hosts = 0;
    for (path, resources) in recordings {
        for resource in resources {
            let proto: ClusterLoadAssignment = schema.parse(&without_type(resource)).unwrap();
            let plaintext = proxy_upstream::config::TransportSelection::plaintext();
            match Assignment::compile(&proto, &plaintext, None) {
                Ok(assignment) => hosts += assignment.hosts().count(),
                Err(error) => panic!("{}: {}: {error}", path.display(), proto.cluster_name),
            }
        }
    }
    assert!(hosts > 50, "{hosts}");
}
