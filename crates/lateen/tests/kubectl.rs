//! A real kubectl against a running demo, as a new user would: every line of the README and the life of the mesh.
//!
//! Its own harness, because the cases share one demo and run in order. Run it with
//! `cargo test --package lateen --test kubectl`; `LATEEN_KUBECTL` names the kubectl.

#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "a test program prints its verdicts"
)]

mod mesh;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mesh::cases::{self, Case};
use mesh::shop::{JASON, SPLIT, SUBSETS, version_of, versions};
use mesh::{Mesh, within};

/// Every case in order. Later ones rely on what earlier ones applied.
const CASES: &[Case] = &[
    ("the shop answers through gateway and sidecars", the_shop_answers),
    (
        "all versions of reviews share the traffic without rules",
        all_versions_share,
    ),
    ("kubectl lists what the demo made", kubectl_lists),
    ("a route by header follows within 200 ms", route_by_header),
    ("a watch shows the change of a route", a_watch_shows_changes),
    ("a split of 90 to 10 follows within 200 ms", split_90_10),
    ("explain describes a nested field", explain),
    (
        "describe, diff, edit, label and wait work",
        describe_diff_edit_wait,
    ),
    ("built-in kinds are updated by apply", apply_updates_a_service),
    (
        "bad input is refused with its path and nothing is stored",
        bad_input,
    ),
    (
        "what the server does not do is refused with what to do instead",
        refusals_point_on,
    ),
    (
        "a missing subset fails its own route only, with a diagnostic",
        missing_subset,
    ),
    ("a new kind can be added", custom_kind),
    (
        "a process joins, serves its share and calls others by name",
        a_process_joins,
    ),
    (
        "an application that is killed leaves within a second",
        killed_application,
    ),
    (
        "a control plane that is killed costs no request and comes back",
        killed_control_plane,
    ),
    (
        "a demo that is killed leaves nothing for the next start",
        killed_demo,
    ),
    ("down leaves nothing behind", down),
    ("of two that start at once one runs", two_at_once),
];

fn main() -> ExitCode {
    cases::run(|| Mesh::start(&[]), CASES)
}

fn the_shop_answers(mesh: &mut Mesh) -> Result<()> {
    let page = mesh.shop(None)?;
    ensure!(
        page.contains("Comedy of Errors"),
        "the page is not the shop's: {page}"
    );
    Ok(())
}

fn all_versions_share(mesh: &mut Mesh) -> Result<()> {
    let seen = versions(mesh, None, 60)?;
    ensure!(
        ["v1", "v2", "v3"].iter().all(|v| seen.contains_key(v)),
        "only {seen:?} answered"
    );
    ensure!(!seen.contains_key("none"), "reviews failed: {seen:?}");
    Ok(())
}

fn kubectl_lists(mesh: &mut Mesh) -> Result<()> {
    let list = mesh.kubectl(&[
        "get",
        "virtualservices,destinationrules,gateways,services,workloadentries",
        "-A",
    ])?;
    for name in [
        "bookinfo-gateway",
        "service/productpage",
        "service/reviews",
        "workloadentry",
    ] {
        ensure!(list.contains(name), "{name} is not in\n{list}");
    }
    let pods = mesh.kubectl(&["get", "pods", "-A"])?;
    ensure!(pods.contains("reviews-v2"), "no pod of reviews-v2 in\n{pods}");
    mesh.kubectl(&["api-resources", "--api-group=networking.istio.io"])?;
    mesh.kubectl(&["auth", "whoami"])?;
    Ok(())
}

const ALL_TO_V3: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: reviews, subset: v3}}]
";

/// The longest that a change may take to be seen in traffic.
const FOLLOWS: Duration = Duration::from_millis(200);

/// Applies, then measures how long it takes until the traffic is as wanted; the best of three, because the machine
/// that runs this may be busy with something else.
fn follows(mesh: &Mesh, away: &str, yaml: &str, user: Option<&str>, wanted: &str) -> Result<()> {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        mesh.apply(away)?;
        std::thread::sleep(Duration::from_millis(300));
        mesh.apply(yaml)?;
        let start = Instant::now();
        within(Duration::from_secs(5), || {
            Ok(version_of(&mesh.shop(user)?) == wanted)
        })
        .with_context(|| format!("the traffic of {user:?} never went to {wanted}"))?;
        best = best.min(start.elapsed());
    }
    ensure!(best <= FOLLOWS, "the change took {best:?}");
    Ok(())
}

fn route_by_header(mesh: &mut Mesh) -> Result<()> {
    mesh.apply(SUBSETS)?;
    follows(mesh, ALL_TO_V3, JASON, Some("jason"), "v2")?;
    let (jason, others) = (versions(mesh, Some("jason"), 20)?, versions(mesh, None, 20)?);
    ensure!(jason.get("v2") == Some(&20), "jason sees {jason:?}");
    ensure!(others.get("v1") == Some(&20), "others see {others:?}");
    Ok(())
}

fn a_watch_shows_changes(mesh: &mut Mesh) -> Result<()> {
    let watch = mesh.watch(&["get", "vs", "-w"])?;
    watch.expect("reviews", Duration::from_secs(5))?;
    mesh.kubectl(&[
        "patch",
        "vs",
        "reviews",
        "--type=merge",
        "-p",
        r#"{"spec":{"hosts":["reviews","reviews.example"]}}"#,
    ])?;
    watch.expect(r#"["reviews","reviews.example"]"#, Duration::from_secs(5))
}

fn split_90_10(mesh: &mut Mesh) -> Result<()> {
    follows(mesh, ALL_TO_V3, SPLIT, None, "v1")?;
    let seen = versions(mesh, None, 200)?;
    let v2 = seen.get("v2").copied().unwrap_or(0);
    // 200 draws at 10 %: outside of 4..=40 once in some hundred thousand runs.
    ensure!((4..=40).contains(&v2) && !seen.contains_key("v3"), "{seen:?}");
    Ok(())
}

fn explain(mesh: &mut Mesh) -> Result<()> {
    let text = mesh.kubectl(&["explain", "vs.spec.http.match"])?;
    for word in [
        "KIND:",
        "VirtualService",
        "headers",
        "DESCRIPTION:",
        "queryParams",
    ] {
        ensure!(text.contains(word), "{word} is not in\n{text}");
    }
    mesh.kubectl(&["explain", "service.spec.ports"])?;
    Ok(())
}

fn describe_diff_edit_wait(mesh: &mut Mesh) -> Result<()> {
    let text = mesh.kubectl(&["describe", "vs", "reviews"])?;
    ensure!(
        text.contains("Subset:") && text.contains("v1"),
        "describe shows\n{text}"
    );
    let diff = mesh.kubectl_stdin(&["diff", "-f", "-"], JASON, &[1])?;
    ensure!(diff.contains("end-user"), "diff shows\n{diff}");
    mesh.kubectl_env(
        &["edit", "vs", "reviews"],
        &[(
            "KUBE_EDITOR",
            "sed -i -e 's/weight: 90/weight: 80/' -e 's/weight: 10/weight: 20/'",
        )],
    )?;
    let weight = mesh.kubectl(&[
        "get",
        "vs",
        "reviews",
        "-o",
        "jsonpath={.spec.http[0].route[0].weight}",
    ])?;
    ensure!(weight == "80", "after the edit the weight is {weight}");
    mesh.kubectl(&["label", "vs", "reviews", "team=shop"])?;
    mesh.kubectl(&["annotate", "vs", "reviews", "note=hello"])?;
    let named = mesh.kubectl(&["get", "vs", "-l", "team=shop", "-o", "name"])?;
    ensure!(named.contains("reviews"), "the label selects {named}");
    mesh.kubectl(&[
        "wait",
        "--for=jsonpath={.spec.hosts[0]}=reviews",
        "vs/reviews",
        "--timeout=5s",
    ])?;
    Ok(())
}

fn apply_updates_a_service(mesh: &mut Mesh) -> Result<()> {
    let service = |port: u16| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: probe}}\nspec:\n  selector: {{app: probe}}\n  ports: [{{name: http, port: {port}}}]\n"
        )
    };
    mesh.apply(&service(8000))?;
    mesh.apply(&service(8001))?;
    let port = mesh.kubectl(&["get", "service", "probe", "-o", "jsonpath={.spec.ports[*].port}"])?;
    ensure!(port == "8001", "after the update the port is {port}");
    mesh.kubectl(&["create", "configmap", "probe", "--from-literal=a=b"])?;
    mesh.kubectl(&["create", "namespace", "probe"])?;
    mesh.kubectl(&["delete", "service/probe", "configmap/probe", "namespace/probe"])?;
    Ok(())
}

fn bad_input(mesh: &mut Mesh) -> Result<()> {
    let refused = |yaml: &str, words: &[&str]| -> Result<()> {
        let message = mesh.refused(yaml)?;
        for word in words {
            ensure!(message.contains(word), "{word:?} is not in: {message}");
        }
        Ok(())
    };
    let head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad}\nspec:\n  hosts: [a]\n";
    refused(&format!("{head}  bogus: 1\n"), &["unknown field", "spec.bogus"])?;
    refused(
        &format!("{head}  http: [{{timeout: soon}}]\n"),
        &["spec.http", "timeout"],
    )?;
    refused(&format!("{head}  http: 7\n"), &["spec.http"])?;
    refused("kind: [", &["error"])?;
    ensure!(
        mesh.kubectl(&["get", "vs", "bad"]).is_err(),
        "something was stored"
    );
    Ok(())
}

fn refusals_point_on(mesh: &mut Mesh) -> Result<()> {
    let refused = |arguments: &[&str], words: &str| match mesh.kubectl(arguments) {
        Ok(text) => bail!("kubectl {arguments:?} went through: {text}"),
        Err(error) => {
            let message = format!("{error:#}");
            ensure!(message.contains(words), "kubectl {arguments:?}: {message}");
            Ok(())
        }
    };
    let pods = mesh.kubectl(&["get", "pods", "-o", "name"])?;
    let pod = pods.lines().next().context("no pods")?;
    refused(&["logs", pod], "`lateen logs` prints what they write")?;
    refused(&["delete", pod], "written by the server only")?;
    refused(
        &["scale", "vs", "reviews", "--replicas=2"],
        "could not find the requested resource",
    )?;
    refused(
        &["patch", "vs", "reviews", "-p", "{}"],
        "accepted media types include: application/json-patch+json, application/merge-patch+json",
    )?;
    let server_side = mesh.kubectl_stdin(&["apply", "--server-side", "-f", "-"], JASON, &[]);
    let message = format!("{:#}", server_side.err().context("applied by the server")?);
    ensure!(message.contains("Server-side apply not available"), "{message}");
    mesh.kubectl(&["label", "vs", "reviews", "probe=1"])?;
    mesh.kubectl(&["label", "vs", "reviews", "probe-", "team-"])?;
    let labels = mesh.kubectl(&["get", "vs", "reviews", "-o", "jsonpath={.metadata.labels}"])?;
    ensure!(labels.is_empty(), "after the last label: {labels}");
    let text = mesh.kubectl(&["explain", "vs"])?;
    ensure!(
        text.contains("how requests to a host are routed"),
        "explain shows\n{text}"
    );
    Ok(())
}

fn missing_subset(mesh: &mut Mesh) -> Result<()> {
    mesh.apply(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: reviews, subset: nowhere}}]
  - route: [{destination: {host: reviews, subset: v2}}]
",
    )?;
    within(Duration::from_secs(5), || {
        Ok(version_of(&mesh.shop(Some("jason"))?) == "none")
    })
    .context("the route to a missing subset never failed")?;
    let others = versions(mesh, None, 10)?;
    ensure!(
        others.get("v2") == Some(&10),
        "other routes are disturbed: {others:?}"
    );
    within(Duration::from_secs(5), || {
        Ok(mesh.kubectl(&["describe", "vs", "reviews"])?.contains("nowhere"))
    })?;
    mesh.apply(SPLIT)
}

fn custom_kind(mesh: &mut Mesh) -> Result<()> {
    mesh.apply(
        "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, maximum: 5}}}
",
    )?;
    mesh.kubectl(&[
        "wait",
        "--for=condition=established",
        "crd/widgets.example.com",
        "--timeout=5s",
    ])?;
    mesh.apply("apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: a}\nspec: {size: 3}\n")?;
    let message =
        mesh.refused("apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: b}\nspec: {size: 9}\n")?;
    ensure!(message.contains("spec.size"), "{message}");
    mesh.kubectl(&["delete", "crd", "widgets.example.com"])?;
    Ok(())
}

/// A review service in a few lines of Python that asks `http://ratings:9080` as if it were in a cluster.
const APP: &str = r#"
import http.server, urllib.request, json
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        stars = urllib.request.urlopen("http://ratings:9080/ratings/0", timeout=5).read().decode()
        body = json.dumps({"id": "0", "podname": "v4", "reviews": [{"reviewer": "four", "text": stars}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 9080), H).serve_forever()
"#;

fn a_process_joins(mesh: &mut Mesh) -> Result<()> {
    mesh.kubectl(&["delete", "vs", "reviews"])?;
    let mut run = mesh.run(
        &["--service", "reviews", "--version", "v4", "--port", "9080"],
        &["python3", "-c", APP],
    )?;
    within(Duration::from_secs(20), || {
        Ok(mesh.shop(None)?.contains("Reviewer1") || mesh.shop(None)?.contains("four"))
    })?;
    within(Duration::from_secs(20), || Ok(mesh.shop(None)?.contains("four"))).context("v4 got no traffic")?;
    let list = mesh.lateen(&["ps"])?;
    ensure!(list.contains("v4"), "ps does not show it:\n{list}");
    run.terminate()?;
    within(Duration::from_secs(5), || {
        let pages: Result<Vec<String>> = (0..8).map(|_| mesh.shop(None)).collect();
        Ok(pages?
            .iter()
            .all(|p| !p.contains("four") && version_of(p) != "none"))
    })
    .context("v4 did not leave")
}

fn killed_application(mesh: &mut Mesh) -> Result<()> {
    let pid = mesh.pid_of("reviews-v3", "app")?;
    mesh.kill(pid)?;
    std::thread::sleep(Duration::from_secs(1));
    let seen = versions(mesh, None, 30)?;
    ensure!(
        !seen.contains_key("none"),
        "a second after the kill requests still fail: {seen:?}"
    );
    Ok(())
}

fn killed_control_plane(mesh: &mut Mesh) -> Result<()> {
    let pid = mesh.pid_of("control-plane", "control-plane")?;
    mesh.kill(pid)?;
    let seen = versions(mesh, None, 50)?;
    ensure!(
        !seen.contains_key("none"),
        "requests failed while the control plane was away: {seen:?}"
    );
    within(Duration::from_secs(20), || {
        Ok(mesh.kubectl(&["get", "dr", "reviews"]).is_ok())
    })
    .context("it did not come back")?;
    mesh.apply(ALL_TO_V3.replace("v3", "v2").as_str())?;
    within(Duration::from_secs(20), || {
        Ok(version_of(&mesh.shop(None)?) == "v2")
    })
    .context("proxies did not reconnect")
}

fn killed_demo(mesh: &mut Mesh) -> Result<()> {
    let before = mesh.processes()?;
    mesh.kill(mesh.supervisor()?)?;
    within(Duration::from_secs(10), || {
        Ok(before.iter().all(|pid| !mesh::alive(*pid)))
    })
    .context("children outlived the demo")?;
    mesh.restart()?;
    the_shop_answers(mesh)
}

fn down(mesh: &mut Mesh) -> Result<()> {
    let before = mesh.processes()?;
    mesh.lateen(&["down"])?;
    within(Duration::from_secs(10), || {
        Ok(before.iter().all(|pid| !mesh::alive(*pid)))
    })
    .context("processes are left")?;
    ensure!(mesh.shop(None).is_err(), "something still serves the shop");
    Ok(())
}

fn two_at_once(mesh: &mut Mesh) -> Result<()> {
    let start = || mesh.lateen(&["up", "--detach", "--no-gateway"]);
    let outcomes = std::thread::scope(|scope| {
        let starting = [scope.spawn(start), scope.spawn(start)];
        starting.map(|thread| thread.join().expect("no panic"))
    });
    let refused: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| outcome.as_ref().err())
        .map(|error| format!("{error:#}"))
        .collect();
    let why = ["is starting a mesh", "a mesh is running already"];
    ensure!(
        matches!(&refused[..], [only] if why.iter().any(|why| only.contains(why))),
        "refused: {refused:?}"
    );
    mesh.lateen(&["ps"]).context("the other one does not run")?;
    mesh.lateen(&["down"])?;
    Ok(())
}
