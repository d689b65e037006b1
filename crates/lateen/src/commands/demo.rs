//! `lateen demo`: the bookinfo shop on this machine, every service with its own process, namespace and sidecar.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use agent::Spec;
use anyhow::Context as _;
use serde_json::{Value, json};

use super::mesh::{RunningMesh, gateway_address};
use super::{Stop, capture_by_ports, detach, log_to, on_this_thread};
use crate::cli::{Capture, DemoArgs, OutputFormat};
use crate::limits::{FIRST_RESPONSE_POLL, FIRST_RESPONSE_TIMEOUT};
use crate::load::{self, Counts};
use crate::output::{self, Steps, seconds};
use crate::state::Home;
use crate::terminal::Keys;
use crate::{http, memory, objects};

pub(crate) fn run(arguments: DemoArgs) -> anyhow::Result<ExitCode> {
    let home = Home::find()?;
    if arguments.detach {
        return detach::run(&home, "demo", arguments.output);
    }
    on_this_thread(demo(home, arguments))
}

async fn demo(home: Home, arguments: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let json = arguments.output == OutputFormat::Json;
    let mut steps = Steps::new(json);
    home.create()?;
    log_to(&home.log("supervisor"))?;
    steps.plain(&format!(
        "lateen {} demo   state: {}",
        env!("CARGO_PKG_VERSION"),
        home.folder().display()
    ));
    steps.plain("");
    let mesh = RunningMesh::start(home, "demo", !arguments.keep, &mut steps).await?;
    let outcome = tokio::select! {
        opened = open(&mesh, &mut steps, &arguments) => match opened {
            Ok(shop) => serve(&mesh, shop, arguments.load, &mut steps, &mut stop).await,
            Err(error) => Err(error),
        },
        _ = stop.wait() => Ok(()),
    };
    mesh.stop().await;
    steps.plain("  everything is stopped, nothing is left behind");
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Starts services and gateway, and waits for the first page.
async fn open(mesh: &RunningMesh, steps: &mut Steps, arguments: &DemoArgs) -> anyhow::Result<SocketAddr> {
    let specs = specs(arguments.capture)?;
    let mut all = objects::bookinfo(&specs);
    all.extend(objects::gateway(&RunningMesh::gateway_spec()));
    all.extend(objects::bookinfo_gateway());
    mesh.apply(&all).await?;
    steps.done(
        "configuration",
        &format!("{} objects applied through the Kubernetes API", all.len()),
    );

    let (records, gateway) = tokio::try_join!(mesh.workloads.start(specs), mesh.start_gateway())?;
    let names: Vec<&str> = records.iter().map(|record| record.name.as_str()).collect();
    let own = if records
        .iter()
        .any(|record| record.capture.as_deref() == Some(agent::CaptureMode::Ports.as_str()))
    {
        "each with its own process, explicit ports and sidecar"
    } else {
        "each with its own process, namespace and sidecar; no root, no iptables"
    };
    steps.done(
        &format!("{} workloads", names.len()),
        &format!("{}\n{own}", names.join(" ")),
    );
    if let Some(why) = records
        .iter()
        .find_map(|record| record.namespace_refused.as_deref())
    {
        steps.note(&capture_by_ports(why));
    }

    let shop = gateway_address(&gateway).await?;
    if shop.port() != objects::GATEWAY_PORT {
        steps.note(&format!(
            "port {} is taken, the gateway uses {}",
            objects::GATEWAY_PORT,
            shop.port()
        ));
    }
    steps.done("ingress gateway", &format!("bookinfo-gateway on http://{shop}"));

    first_page(shop).await?;
    let total = steps.elapsed();
    steps.done("first page", &format!("200 after {} in total", seconds(total)));
    let capture = Value::from_iter(
        records
            .iter()
            .map(|record| (record.name.clone(), json!(record.capture))),
    );
    let refused = records.iter().find_map(|record| record.namespace_refused.clone());
    let mut summary = summary(mesh, shop, total, arguments.load);
    summary["capture"] = capture;
    summary["namespace_refused"] = json!(refused);
    mesh.ready(Some(shop), summary.clone())?;
    if arguments.output == OutputFormat::Json {
        output::line(&format!("{summary:#}"));
    } else {
        print_summary(steps, &summary);
    }
    Ok(shop)
}

/// The seven workloads; each runs this program's `bookinfo` command.
fn specs(capture: Capture) -> anyhow::Result<Vec<Spec>> {
    let program = std::env::current_exe().context("find this program's file")?;
    let specs = objects::BOOKINFO.iter().map(|(service, version)| {
        let mut spec = Spec::sidecar("default", service, version, vec![objects::bookinfo_port(service)]);
        spec.service_account = format!("bookinfo-{service}");
        spec.capture = capture.mode();
        spec.calls = objects::BOOKINFO_SERVICES
            .map(|(name, _)| name.to_owned())
            .to_vec();
        if *service == "ratings" {
            let database = ("RATINGS_DATABASE".to_owned(), "ratingsdb".to_owned());
            spec.environment.push(database);
        }
        spec.command = vec![program.clone().into()];
        spec.command
            .extend(["bookinfo", service, "--version", version].map(Into::into));
        spec
    });
    Ok(specs.collect())
}

/// Asks for the product page until it comes, whole.
async fn first_page(shop: SocketAddr) -> anyhow::Result<()> {
    let mut last = String::new();
    let polling = async {
        loop {
            match http::get(shop, "/productpage").await {
                Ok((200, body)) if is_whole(&body) => return,
                Ok((200, _)) => last = "a page without details or reviews".to_owned(),
                Ok((status, _)) => last = format!("status {status}"),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(FIRST_RESPONSE_POLL).await;
        }
    };
    let answered = tokio::time::timeout(FIRST_RESPONSE_TIMEOUT, polling).await;
    answered.with_context(|| format!("http://{shop}/productpage answers {last}; see `lateen logs --sidecar`"))
}

/// Whether details and reviews are on the page; without them it is an apology.
fn is_whole(page: &[u8]) -> bool {
    let page = String::from_utf8_lossy(page);
    page.contains("Reviews served by") && page.contains("ISBN-10") && !page.contains("Sorry, ")
}

fn summary(mesh: &RunningMesh, shop: SocketAddr, total: Duration, load: u32) -> Value {
    let pids = mesh.pids();
    let record = mesh.record.borrow();
    json!({
        "shop": format!("http://{shop}/productpage"),
        "pid": std::process::id(),
        "kubeconfig": record.kubeconfig,
        "xds": record.secure.to_string(),
        "debug": format!("http://{}", record.debug),
        "memory_bytes": memory::proportional_set_size(pids.iter().copied()),
        "processes": pids.len(),
        "first_page_seconds": total.as_secs_f64(),
        "load_rps": load,
        "moved_ports": mesh.moved.iter().map(|moved| json!({ "wanted": moved.wanted, "used": moved.used })).collect::<Vec<_>>(),
        "pids": mesh.pids_by_name(),
    })
}

/// The lines below the steps.
fn print_summary(steps: &Steps, summary: &Value) {
    let text = |key: &str| summary[key].as_str().unwrap_or_default().to_owned();
    let memory = memory::megabytes(summary["memory_bytes"].as_u64().unwrap_or_default());
    for line in [
        String::new(),
        format!("  Shop       {}", text("shop")),
        format!("  kubectl    export KUBECONFIG={}", text("kubeconfig")),
        format!("  memory     {memory} in {} processes", summary["processes"]),
        format!(
            "  load       {} requests per second to the shop",
            summary["load_rps"]
        ),
        String::new(),
        "  Next       kubectl get virtualservices,gateways,services,workloadentries -A".to_owned(),
        "             lateen run --service reviews --version v4 --port 9080 -- python3 app.py".to_owned(),
        "             lateen ps · lateen logs -f · lateen down".to_owned(),
    ] {
        steps.plain(&line);
    }
}

/// Keeps the shop open until somebody ends it.
async fn serve(
    mesh: &RunningMesh,
    shop: SocketAddr,
    rps: u32,
    steps: &mut Steps,
    stop: &mut Stop,
) -> anyhow::Result<()> {
    let counts = Rc::new(Counts::default());
    let mut keys = Keys::listen();
    if keys.is_some() {
        steps.plain("  [q] quit");
    }
    let quit = async {
        match &mut keys {
            Some(keys) => while !matches!(keys.next().await, b'q' | b'Q') {},
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = load::generate(shop, rps, Rc::clone(&counts)) => {}
        () = quit => {}
        _ = stop.wait() => {}
    }
    drop(keys);
    let restarts = mesh.record.borrow().control_plane_restarts;
    tracing::info!(
        requests = counts.requests.get(),
        failed = counts.failed.get(),
        restarts,
        "the demo ends"
    );
    steps.plain(&format!(
        "  stopping: {} requests were made, {} failed",
        counts.requests.get(),
        counts.failed.get()
    ));
    Ok(())
}
