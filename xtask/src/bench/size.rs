//! `cargo xtask bench size`: the resident set of a sidecar of a large mesh, beside Envoy's, both told by our control
//! plane, over ADS.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::figure::{Figure, verdict};
use super::load;
use super::proxies::{self, Proxy};
use super::report::median_of;
use super::{Plan, configuration, limits, programs};

/// How long the configuration may take to come and to be taken.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a proxy is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// Bytes of a mebibyte, in kibibytes.
const MEBIBYTE: f64 = 1024.0;

pub(super) fn run(plan: &Plan, dir: &Path) -> Result<bool> {
    let program = programs::example("control-discovery", "mesh", plan.build)?;
    let (mut control_plane, port) = control_plane(&program)?;
    let result = compare(plan, dir, port);
    // The end of its standard input ends it.
    drop(control_plane.stdin.take());
    control_plane.wait()?;
    result
}

fn control_plane(program: &Path) -> Result<(Child, u16)> {
    let mut child = Command::new(program)
        .arg("serve")
        .args([limits::SERVICES, limits::ENDPOINTS].map(|n| n.to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut line)?;
    let port = line.trim().parse().context("the control plane did not start")?;
    Ok((child, port))
}

fn compare(plan: &Plan, dir: &Path, ads: u16) -> Result<bool> {
    let contenders = proxies::both(dir, "size", |port| Ok(bootstrap(port, ads)))?;
    let rounds = plan.rounds.min(3);
    let mut medians = Vec::new();
    let mut document = serde_json::Map::new();
    println!(
        "{} services of {} endpoints by ADS; medians of {rounds} rounds, one worker each\n",
        limits::SERVICES,
        limits::ENDPOINTS
    );
    println!("| proxy | RSS MB | clusters |");
    println!("|---|---|---|");
    for proxy in &contenders {
        let taken = (0..rounds).map(|_| resident(proxy)).collect::<Result<Vec<_>>>();
        let taken = taken.with_context(|| proxy.name)?;
        let clusters = taken.iter().map(|(_, clusters)| *clusters).min().unwrap_or(0);
        let median = median_of(taken.into_iter().map(|(megabytes, _)| megabytes).collect());
        println!("| {} | {median:.1} | {clusters} |", proxy.name);
        document.insert(proxy.name.to_owned(), median.into());
        medians.push(median);
    }
    std::fs::write(dir.join("size.json"), serde_json::to_string_pretty(&document)?)?;
    let ratio = match medians.as_slice() {
        [ours, theirs] => ours / theirs,
        _ => f64::NAN,
    };
    Ok(verdict(&[Figure::at_most(
        "resident set of Envoy's",
        ratio,
        limits::SIZE_OF_ENVOY,
    )]))
}

/// The resident set of a proxy that has everything, mebibytes, and how many clusters it has.
fn resident(proxy: &Proxy) -> Result<(f64, u64)> {
    let running = proxy.start()?;
    load::wait_for(proxy.port, super::START)?;
    let end = Instant::now() + PATIENCE;
    let clusters = loop {
        // A second listener means that the listeners are there, and they come after the clusters.
        let stats = get(
            proxy.port,
            "/stats?filter=(active_clusters|warming_clusters|total_listeners_active)$",
        )?;
        let value = |name: &str| {
            stats.lines().find_map(|l| {
                l.trim()
                    .strip_prefix(name)?
                    .strip_prefix(": ")?
                    .parse::<u64>()
                    .ok()
            })
        };
        let clusters = value("cluster_manager.active_clusters").unwrap_or(0);
        let warming = value("cluster_manager.warming_clusters").unwrap_or(0);
        let listeners = value("listener_manager.total_listeners_active").unwrap_or(0);
        if clusters >= limits::SERVICES as u64 && warming == 0 && listeners > 1 {
            break clusters;
        }
        anyhow::ensure!(Instant::now() < end, "after {PATIENCE:?} it has: {stats}");
        std::thread::sleep(Duration::from_millis(100));
    };
    std::thread::sleep(SETTLE);
    #[allow(clippy::cast_precision_loss)]
    let megabytes = load::usage(running.pid())?.rss_kib as f64 / MEBIBYTE;
    Ok((megabytes, clusters))
}

/// Asks an admin interface.
fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A sidecar beside an endpoint of the first service.
fn bootstrap(admin: u16, ads: u16) -> String {
    let from_ads = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    let cluster = json!({
        "name": "xds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": configuration::by_http2(),
        "load_assignment": {
            "cluster_name": "xds-grpc",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": configuration::address(ads) } }] }],
        },
    });
    json!({
        "node": {
            "id": "sidecar~10.1.0.1~s0-0.n0~n0.svc.cluster.local",
            "cluster": "s0.n0",
            "metadata": {
                "NAME": "s0-0", "NAMESPACE": "n0", "CLUSTER_ID": "Kubernetes", "SERVICE_ACCOUNT": "s0",
                "ISTIO_VERSION": "1.31.0", "INSTANCE_IPS": "10.1.0.1", "LABELS": { "app": "s0", "version": "v1" },
            },
        },
        "admin": { "address": configuration::address(admin) },
        "dynamic_resources": {
            "lds_config": from_ads,
            "cds_config": from_ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
            },
        },
        "static_resources": { "clusters": [cluster] },
    })
    .to_string()
}
