//! `cargo xtask bench idle`: the resident set with many connections that have been used once, in plaintext and with
//! mutual TLS. Envoy's is shown beside.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::figure::{Figure, verdict};
use super::load;
use super::proxies::{self, Proxy};
use super::report::median_of;
use super::{Plan, START, certificates, configuration, limits, programs};

/// Descriptors that a process may need: the connections, and some.
const DESCRIPTORS: usize = limits::IDLE_CONNECTIONS + 1_000;
/// How long a proxy is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) fn run(plan: &Plan, dir: &Path) -> Result<bool> {
    let certificates = certificates::make(dir)?;
    let clients = programs::example("tls", "clients", plan.build)?;
    let upstream = proxies::upstream(dir)?;
    let cluster = configuration::upstream(upstream.port);
    let filter = configuration::http(&configuration::to_upstream());
    let tls = configuration::mutual_tls_server(&certificates);
    let rounds = plan.rounds.min(3);
    let (mut figures, mut document) = (Vec::new(), serde_json::Map::new());
    println!(
        "{} connections, one request on each, then idle; medians of {rounds} rounds, one worker each\n",
        limits::IDLE_CONNECTIONS
    );
    println!("| connections | proxy | RSS MB | KB per connection |");
    println!("|---|---|---|---|");
    for (kind, folder, socket, limit) in [
        ("HTTP/1", Path::new("-"), None, limits::IDLE_PLAIN_MB),
        (
            "mutual TLS",
            certificates.as_path(),
            Some(&tls),
            limits::IDLE_TLS_MB,
        ),
    ] {
        let contenders = proxies::both(dir, "idle", |port| {
            Ok(configuration::bootstrap(
                &configuration::listener(port, &filter, socket),
                &cluster,
            ))
        })?;
        for proxy in &contenders {
            let taken = (0..rounds)
                .map(|_| resident(proxy, &clients, folder))
                .collect::<Result<Vec<_>>>();
            let megabytes = median_of(taken.with_context(|| format!("{} with {kind}", proxy.name))?);
            #[allow(clippy::cast_precision_loss)]
            let each =
                (megabytes * 1e3 - proxy.idle_rss_kib as f64 * 1.024) / limits::IDLE_CONNECTIONS as f64;
            println!("| {kind} | {} | {megabytes:.1} | {each:.1} |", proxy.name);
            document.insert(format!("{} {kind}", proxy.name), megabytes.into());
            if proxy.name == "lateen" {
                figures.push(Figure::at_most(
                    format!("MB with idle connections of {kind}"),
                    megabytes,
                    limit,
                ));
            }
        }
    }
    std::fs::write(dir.join("idle.json"), serde_json::to_string_pretty(&document)?)?;
    Ok(verdict(&figures))
}

/// The resident set of a proxy with all connections open, megabytes (10^6 bytes).
fn resident(proxy: &Proxy, clients: &Path, folder: &Path) -> Result<f64> {
    let proxy_process = proxy.start_with_descriptors(DESCRIPTORS)?;
    load::wait_for(proxy.port, START)?;
    let mut command = proxies::with_descriptors(clients, DESCRIPTORS);
    command
        .arg("idle")
        .arg(proxy.port.to_string())
        .arg(folder)
        .arg(limits::IDLE_CONNECTIONS.to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let open = first_line(&mut child);
    let answered: usize = open?
        .trim()
        .parse()
        .context("the clients could not open their connections")?;
    anyhow::ensure!(
        answered == limits::IDLE_CONNECTIONS,
        "only {answered} connections were answered"
    );
    std::thread::sleep(SETTLE);
    let usage = load::usage(proxy_process.pid());
    // The end of its standard input ends it.
    drop(child.stdin.take());
    child.wait()?;
    #[allow(clippy::cast_precision_loss)]
    Ok(usage?.rss_kib as f64 * 1.024 / 1e3)
}

fn first_line(child: &mut Child) -> Result<String> {
    let mut line = String::new();
    let output = child.stdout.take().context("no standard output")?;
    BufReader::new(output).read_line(&mut line)?;
    Ok(line)
}
