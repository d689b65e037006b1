//! Plays one page on one data plane, on the stage.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::DataPlane;
use crate::certificates::Files;
use crate::check::{self, Observed};
use crate::client::{self, Secured, Way};
use crate::control_plane::{Access, ControlPlane};
use crate::data_plane::{self, Proxy};
use crate::identities::Issuer;
use crate::limits::{ACCESS_LOG_TIME, CHANGE_TIME, CONCURRENT_REQUESTS};
use crate::page::fragment::Fragment;
use crate::page::traffic::{Exchange, Request};
use crate::page::{Action, Page};
use crate::secrets;
use crate::world::{STRANGER, World};

/// What came of a page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Exchanges that were compared.
    pub exchanges: u32,
    /// Requests that were sent.
    pub requests: u32,
    /// What is not as promised; none is a success.
    pub problems: Vec<String>,
}

/// Time between two tries while a change is on its way, and between two looks at the access log.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Istio's port for mutual TLS that a gateway passes on.
const BETWEEN_NETWORKS: u16 = 15443;

/// Plays a page. This process must have one thread; it ends up inside a namespace of its own.
///
/// # Errors
/// The stage cannot be set up.
pub fn play(page: &Page, data_plane: DataPlane, program: &Path) -> Result<Report> {
    let files = Arc::new(Files::make(&page.world.certificates)?);
    crate::stage::on(&page.world, &files, async |stage| {
        let scratch = &stage.scratch;
        let access_log = scratch.join("access.log");
        let first = page
            .steps
            .iter()
            .take_while(|step| step.objects(&files).is_some())
            .count();
        // Each page is played on two data planes; its control plane reads the API in one way and in the other.
        let access = match data_plane {
            DataPlane::Lateen => Access::InProcess,
            DataPlane::Envoy => Access::Https,
        };
        let control_plane = ControlPlane::start(&scratch.join("api"), access, page.world.identities).await?;
        control_plane
            .put_cluster(&page.world.objects(&access_log.to_string_lossy()))
            .await?;
        for step in &page.steps[..first] {
            if let Some(objects) = step.objects(&files) {
                let at = || format!("line {}", step.line);
                control_plane
                    .apply(&objects.with_context(at)?)
                    .await
                    .with_context(at)?;
            }
        }
        control_plane.ready().await?;
        let mut issuer = None;
        if page.world.has_identity() {
            let authority = control_plane.admit(&page.world.identity()).await?;
            let own = Arc::new(Issuer::new(authority));
            secrets::serve(&page.world, &own, scratch)?;
            stage.mesh.send_replace(Some(Arc::clone(&own)));
            issuer = Some(own);
        }
        let mut player = Player {
            world: &page.world,
            files: Arc::clone(&files),
            data_plane,
            control_plane,
            issuer,
            node: data_plane::node_id(&page.world),
            access_log,
            changed: Instant::now(),
            marks: 0,
            report: Report::default(),
        };
        let mut proxy = Proxy::start(program, &page.world, scratch)?;
        let outcome = player.steps(page, first, &mut proxy).await;
        if let Err(error) = outcome {
            player.report.problems.push(format!("{error:#}"));
        }
        if !player.report.problems.is_empty() {
            player
                .report
                .problems
                .push(format!("the data plane's log ends:\n{}", proxy.log_tail()));
        }
        Ok(player.report)
    })
}

struct Player<'a> {
    world: &'a World,
    files: Arc<Files>,
    data_plane: DataPlane,
    control_plane: ControlPlane,
    /// Gives callers from other pods identities, in a mesh that has any.
    issuer: Option<Arc<Issuer>>,
    node: String,
    access_log: PathBuf,
    /// When objects were applied last; soon after, an exchange may be tried again.
    changed: Instant,
    marks: u32,
    report: Report,
}

impl Player<'_> {
    async fn steps(&mut self, page: &Page, first: usize, proxy: &mut Proxy) -> Result<()> {
        self.control_plane
            .converge(&self.node, crate::limits::READY_TIME)
            .await?;
        proxy.wait_until_ready().await?;
        self.changed = Instant::now();
        for step in &page.steps[first..] {
            let at = || format!("line {}", step.line);
            match &step.action {
                Action::Apply(_) | Action::Secrets(_) => {
                    let objects = step.objects(&self.files).unwrap_or_else(|| Ok(Vec::new()));
                    self.control_plane
                        .apply(&objects.with_context(at)?)
                        .await
                        .with_context(at)?;
                    self.changed = Instant::now();
                    self.control_plane
                        .converge(&self.node, CHANGE_TIME)
                        .await
                        .with_context(at)?;
                }
                Action::Contains(fragments) => {
                    for fragment in fragments {
                        self.contains(step.line, fragment).await.with_context(at)?;
                    }
                }
                Action::Diagnoses(expected) => self.diagnoses(step.line, expected),
                Action::Traffic(exchanges) => {
                    for exchange in exchanges {
                        self.exchange(exchange).await?;
                    }
                }
            }
        }
        self.control_plane.check_refusals(&self.node)
    }

    fn problems(&mut self, problems: impl Iterator<Item = String>) {
        self.report.problems.extend(problems);
    }

    /// Compares a generated resource; while a change is on its way it is looked at again.
    async fn contains(&mut self, line: usize, fragment: &Fragment) -> Result<()> {
        loop {
            let resource = self.control_plane.resource(&self.node, fragment)?;
            let missing = fragment.missing_in(resource.as_ref());
            if missing.is_empty() || self.changed.elapsed() > CHANGE_TIME {
                self.problems(
                    missing
                        .into_iter()
                        .map(|problem| format!("line {line}: {problem}")),
                );
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn diagnoses(&mut self, line: usize, expected: &[String]) {
        let found = self.control_plane.diagnostics(&self.node);
        for expected in expected {
            let says = |line: &String| expected.split_whitespace().all(|word| line.contains(word));
            if !found.iter().any(says) {
                self.report.problems.push(format!(
                    "line {line}: no diagnostic says `{expected}`; there are {found:#?}"
                ));
            }
        }
    }

    /// Sends an exchange and compares; while a change is on its way it is tried again.
    async fn exchange(&mut self, exchange: &Exchange) -> Result<()> {
        self.report.exchanges += 1;
        loop {
            let observed = self.send(exchange).await?;
            let problems = check::problems(exchange, self.data_plane, &observed);
            if problems.is_empty() || self.changed.elapsed() > CHANGE_TIME {
                self.problems(problems.into_iter());
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn send(&mut self, exchange: &Exchange) -> Result<Vec<Observed>> {
        let way = self.way(exchange)?;
        let mut observed = Vec::new();
        let mut under_way = JoinSet::new();
        for _ in 0..exchange.times {
            self.marks += 1;
            self.report.requests += 1;
            let (mark, request) = (self.marks.to_string(), exchange.request.clone());
            let way = way.clone();
            let log = check::wants_flags(exchange).then(|| self.access_log.clone());
            under_way.spawn(async move {
                let outcome = client::send(&way, &request, &mark).await;
                let flags = match log {
                    Some(log) => flags(&log, &mark).await,
                    None => None,
                };
                Observed { outcome, flags }
            });
            if under_way.len() >= CONCURRENT_REQUESTS {
                observed.extend(under_way.join_next().await.transpose()?);
            }
        }
        while let Some(one) = under_way.join_next().await {
            observed.push(one?);
        }
        Ok(observed)
    }

    /// Where an exchange starts from, where it goes, and in what.
    fn way(&self, exchange: &Exchange) -> Result<Way> {
        let (source, target) = self.route(exchange)?;
        if let Some(tls) = &exchange.tls {
            return Ok(Way {
                source,
                target,
                secured: Some(Secured::ByPage(tls.clone(), Arc::clone(&self.files))),
            });
        }
        let secured = exchange.caller.as_ref().map(|(namespace, account)| {
            let issuer = self
                .issuer
                .as_ref()
                .context("a caller has an identity in a world with `identities: true`")?;
            let server_name = self.server_name(exchange, target.port());
            let http = matches!(exchange.request, Request::Http { .. });
            let context = issuer.client((namespace, account), &server_name, http)?;
            Ok(Secured::ByMesh(Arc::new(context)))
        });
        let secured: Result<Option<_>> = secured.transpose();
        Ok(Way {
            source,
            target,
            secured: secured.with_context(|| format!("line {}", exchange.line))?,
        })
    }

    /// What a client of the mesh calls its server: by the mesh's name of a service, or at a gateway by the host.
    fn server_name(&self, exchange: &Exchange, port: u16) -> String {
        let (Request::Http { authority: to, .. } | Request::Tcp { address: to, .. }) = &exchange.request;
        let (host, own_port) = to.rsplit_once(':').unwrap_or((to, "80"));
        if exchange.encrypted {
            return host.to_owned();
        }
        if !exchange.inbound {
            return format!("outbound_.{own_port}_._.{host}");
        }
        let pod = self.world.proxy_pod();
        format!(
            "outbound_.{port}_._.{}.{}.svc.cluster.local",
            pod.service, pod.namespace
        )
    }

    /// The addresses that an exchange starts from and goes to.
    fn route(&self, exchange: &Exchange) -> Result<(Ipv4Addr, std::net::SocketAddr)> {
        let (authority, default_port) = match &exchange.request {
            Request::Http { authority, .. } if exchange.encrypted => (authority, 443),
            Request::Http { authority, .. } => (authority, 80),
            Request::Tcp { address, .. } => (address, 0),
        };
        let application = self.world.proxy_pod().address;
        let at = || format!("line {}", exchange.line);
        if exchange.caller.is_some() && !exchange.inbound {
            let gateway = self.world.is_gateway().then_some((STRANGER, application));
            let (source, gateway) = gateway
                .context("a client of the mesh calls a gateway, or is inbound")
                .with_context(at)?;
            if !exchange.encrypted {
                return Ok((source, (gateway, BETWEEN_NETWORKS).into()));
            }
        }
        let target = self.world.resolve(authority, default_port).with_context(at)?;
        if exchange.inbound {
            return Ok((STRANGER, (application, target.port()).into()));
        }
        let source = if self.world.is_gateway() {
            STRANGER
        } else {
            application
        };
        Ok((source, target))
    }
}

/// The response flags that the access log has for a request.
async fn flags(log: &Path, mark: &str) -> Option<String> {
    let deadline = Instant::now() + ACCESS_LOG_TIME;
    while Instant::now() < deadline {
        let text = tokio::fs::read_to_string(log).await.unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        if let Some((_, flags)) = lines.find(|(seen, _)| *seen == mark) {
            return Some(flags.to_owned());
        }
        sleep(LOOK_AGAIN).await;
    }
    None
}
