//! `cargo xtask bench http1`: HTTP/1.1 in plaintext, beside Envoy, nginx and HAProxy; and how many instructions the codec
//! and the router take.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::contest::Contest;
use super::figure::{Figure, verdict};
use super::load::{self, Sample};
use super::report::{median, of, ratio};
use super::{Plan, limits, proxies};
use crate::process::{root, which};

#[allow(clippy::cast_precision_loss)]
pub(super) fn run(plan: &Plan, dir: &Path) -> Result<bool> {
    let upstream = proxies::upstream(dir)?;
    let connections = plan.connections.unwrap_or(64);
    let contest = Contest {
        title: "HTTP/1.1 plaintext, 1 KB answers, one worker each",
        file: "http1",
        contenders: proxies::http1(dir, upstream.port)?,
        load: &|port, seconds| load::wrk(port, connections, seconds),
    };
    let samples = contest.run(plan, dir)?;
    for (part, each) in instructions(plan.build)? {
        println!("\n{part}: {each:.0} instructions per request (callgrind)");
    }
    let idle = median(of(&samples, "lateen"), |s: &Sample| s.idle_kib as f64);
    Ok(verdict(&[
        Figure::at_most(
            "CPU per request of Envoy's",
            ratio(&samples, "lateen", "envoy"),
            limits::HTTP1_OF_ENVOY,
        ),
        Figure::at_most(
            "CPU per request of nginx's",
            ratio(&samples, "lateen", "nginx"),
            limits::HTTP1_OF_NGINX,
        ),
        Figure::at_most("resident KiB when idle", idle, limits::IDLE_KIB),
    ]))
}

/// Instructions per request of the codec and the router, by callgrind: repeatable, whatever else the machine does.
fn instructions(build: bool) -> Result<Vec<(String, f64)>> {
    let mut found = Vec::new();
    for (package, example) in [("proxy-http", "instructions"), ("proxy-router", "instructions")] {
        let source = root()
            .join("crates")
            .join(package)
            .join("examples")
            .join(format!("{example}.rs"));
        if !source.is_file() || which("valgrind").is_none() {
            continue;
        }
        let binary = super::programs::example(package, example, build)?;
        let (few, many) = (1_000_u64, 11_000_u64);
        #[allow(clippy::cast_precision_loss)]
        let each = (callgrind(&binary, many)? - callgrind(&binary, few)?) as f64 / (many - few) as f64;
        found.push((package.to_owned(), each));
    }
    Ok(found)
}

fn callgrind(binary: &Path, requests: u64) -> Result<u64> {
    let mut command = std::process::Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(binary)
        .arg(requests.to_string());
    let out = command.output().context("cannot start valgrind")?;
    let text = String::from_utf8_lossy(&out.stderr);
    let line = text
        .lines()
        .find_map(|l| l.split("Collected :").nth(1))
        .context("valgrind printed no count")?;
    line.trim()
        .parse()
        .with_context(|| format!("valgrind printed {line:?}"))
}
