//! The demo where applications have no namespace: captured by ports, because that was asked for, and because the kernel
//! refuses.
//!
//! Its own harness, because the cases share a demo and run in order. Run it with
//! `cargo test --package lateen --test capture_by_ports`; `LATEEN_KUBECTL` names the kubectl.

#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "a test program prints its verdicts"
)]

mod mesh;

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh::cases::{self, Case};
use mesh::shop::{JASON, SUBSETS, version_of, versions};
use mesh::{Mesh, within};

/// Every case in order. Later ones rely on what earlier ones applied.
const CASES: &[Case] = &[
    ("ps shows that capture is by ports", ps_shows_the_capture),
    ("the whole shop works, through its sidecars", the_shop_works),
    ("a route by header is followed", route_by_header),
    (
        "a process that listens on its port joins and finds others by variables",
        a_process_joins,
    ),
    (
        "a process that ends is told to the mesh with its code",
        a_process_ends,
    ),
    (
        "an application and a sidecar that are killed come back on their ports",
        killed_processes_come_back,
    ),
    (
        "where the kernel refuses, the reason is told in one line",
        refused,
    ),
];

fn main() -> ExitCode {
    cases::run(|| Mesh::start(&["--capture", "ports"]), CASES)
}

fn ps_shows_the_capture(mesh: &mut Mesh) -> Result<()> {
    let list = mesh.lateen(&["ps"])?;
    let row = list.lines().find(|line| line.starts_with("reviews-v2 "));
    ensure!(row.is_some_and(|row| row.contains(" ports ")), "ps shows\n{list}");
    let network = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net"));
    let own = network(std::process::id())?;
    ensure!(
        network(mesh.pid_of("reviews-v2", "app")?)? == own,
        "the application has a namespace after all"
    );
    Ok(())
}

fn the_shop_works(mesh: &mut Mesh) -> Result<()> {
    let seen = versions(mesh, None, 60)?;
    ensure!(
        ["v1", "v2", "v3"].iter().all(|v| seen.contains_key(v)) && !seen.contains_key("none"),
        "reviews answered as {seen:?}"
    );
    let page = mesh.shop(None)?;
    ensure!(page.contains("ISBN-10"), "details are missing: {page}");
    // Both sides of the call counted it.
    let called = "cluster.outbound|9080||ratings.default.svc.cluster.local;.upstream_rq_200: ";
    for (workload, counter) in [
        ("reviews-v2", called),
        ("ratings-v1", "cluster.inbound|9080||;.upstream_rq_200: "),
    ] {
        let stats = mesh.admin(workload, "/stats")?;
        let count = stats.lines().find_map(|line| line.strip_prefix(counter));
        ensure!(
            count.is_some_and(|count| count.trim() != "0"),
            "{workload} has no {counter}"
        );
    }
    Ok(())
}

fn route_by_header(mesh: &mut Mesh) -> Result<()> {
    mesh.apply(SUBSETS)?;
    mesh.apply(JASON)?;
    within(Duration::from_secs(5), || {
        Ok(version_of(&mesh.shop(Some("jason"))?) == "v2" && version_of(&mesh.shop(None)?) == "v1")
    })?;
    let (jason, others) = (versions(mesh, Some("jason"), 20)?, versions(mesh, None, 20)?);
    ensure!(jason.get("v2") == Some(&20), "jason sees {jason:?}");
    ensure!(others.get("v1") == Some(&20), "others see {others:?}");
    mesh.kubectl(&["delete", "vs", "reviews"]).map(drop)
}

/// A review service in a few lines of Python that listens where it is told, and asks ratings where it is told.
const APP: &str = r#"
import http.server, json, os, urllib.request
ratings = "http://%s:%s/ratings/0" % (os.environ["RATINGS_SERVICE_HOST"], os.environ["RATINGS_SERVICE_PORT"])
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        stars = urllib.request.urlopen(ratings, timeout=5).read().decode()
        body = json.dumps({"id": "0", "podname": "v4", "reviews": [{"reviewer": "four", "text": stars}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), H).serve_forever()
"#;

fn a_process_joins(mesh: &mut Mesh) -> Result<()> {
    let flags = [
        "--capture",
        "ports",
        "--service",
        "reviews",
        "--version",
        "v4",
        "--port",
        "9080",
    ];
    let mut run = mesh.run(&flags, &["python3", "-c", APP])?;
    within(Duration::from_secs(20), || {
        let page = mesh.shop(None)?;
        Ok(page.contains("four") && page.contains("Reviewer1"))
    })
    .context("v4 got no traffic, or no answer of ratings")?;
    run.terminate()?;
    within(Duration::from_secs(5), || {
        let pages: Result<Vec<String>> = (0..8).map(|_| mesh.shop(None)).collect();
        Ok(pages?
            .iter()
            .all(|p| !p.contains("four") && version_of(p) != "none"))
    })
    .context("v4 did not leave")
}

fn a_process_ends(mesh: &mut Mesh) -> Result<()> {
    let run = [
        "run",
        "--capture",
        "ports",
        "--service",
        "short",
        "--port",
        "9080",
        "--",
        "sh",
        "-c",
    ];
    let mut arguments = run.to_vec();
    // It has its port, and that is not the service's.
    arguments
        .push("test -n \"$PORT\" && test \"$PORT\" != 9080 && test \"$PORT\" = \"$PORT_9080\" && exit 7");
    mesh.lateen_codes(&arguments, &[7]).map(drop)
}

fn killed_processes_come_back(mesh: &mut Mesh) -> Result<()> {
    for role in ["app", "sidecar", "parent"] {
        let pid = mesh.pid_of("ratings-v1", role)?;
        mesh.kill(pid)?;
        within(Duration::from_secs(20), || {
            Ok(mesh.pid_of("ratings-v1", role).is_ok_and(|new| new != pid)
                && mesh
                    .shop_path("/api/v1/products/0/ratings", "")?
                    .contains("Reviewer1"))
        })
        .with_context(|| format!("ratings did not come back after its {role} was killed"))?;
    }
    Ok(())
}

/// Where this machine grants user namespaces, one is made in which no network namespace is granted.
const REFUSING: [&str; 6] = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    "echo 0 > /proc/sys/user/max_net_namespaces && exec \"$0\" \"$@\"",
];

fn refused(mesh: &mut Mesh) -> Result<()> {
    // There is one mesh per home and gateway port, so the other goes first.
    mesh.lateen(&["down"])?;
    let granted = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "true"])
        .status()?;
    let wrapper: &[&str] = if granted.success() { &REFUSING } else { &[] };
    let refusing = Mesh::start_in(wrapper, &[])?;
    let why = refusing.facts()["namespace_refused"].as_str().unwrap_or_default();
    ensure!(
        why.contains("unshare(") && !why.contains('\n'),
        "the reason is {why:?}"
    );
    let seen = versions(&refusing, None, 30)?;
    ensure!(!seen.contains_key("none"), "reviews failed: {seen:?}");
    let error = refusing.lateen(&[
        "run",
        "--capture",
        "namespace",
        "--service",
        "short",
        "--",
        "true",
    ]);
    let message = error.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(
        message.contains(why) && message.contains("sysctl"),
        "it said {message:?}"
    );
    Ok(())
}
