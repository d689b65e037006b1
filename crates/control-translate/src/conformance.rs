//! Comparison with recordings of a real istiod: for each scenario the recorded world is built, translated for each
//! recorded proxy, and compared field by field.
//!
//! Lists whose order has no meaning (clusters, domains, endpoints, header and query matchers, fault-like sets) are
//! compared as sets; routes, filter chains and filters in order.

mod compare;
mod world;

use std::path::{Path, PathBuf};

use api_envoy::Message;
use api_envoy::envoy::config::core::v3::Node;
use api_envoy::json::{JsonError, Schema, Style};
use api_envoy::{Name, any};
use control_snapshot::{Proxy, Snapshot};
use serde_json::Value;

use crate::Resources;

/// A part that may be left out of the comparison, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// Transport sockets and the filter chains and listener filters that exist only for mutual TLS.
    Mtls,
    /// Istio's telemetry filters, tracing and access logs.
    Telemetry,
}

impl Without {
    /// Reads a name as the command line has it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "mtls" => Some(Self::Mtls),
            "telemetry" => Some(Self::Telemetry),
            _ => None,
        }
    }
}

/// The verdict on one file of a recording.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// The scenario's folder.
    pub scenario: String,
    /// The proxy.
    pub proxy: String,
    /// `cds`, `eds`, `lds`, `rds` or `nds`.
    pub type_: String,
    /// Whether ours is equivalent.
    pub passed: bool,
    /// Where it is not: path, what was recorded, what we have.
    pub differences: Vec<String>,
}

/// A recording that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// A file or folder that is not there or not readable.
    #[error("{0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// A file that does not parse.
    #[error("{0}: {1}")]
    Parse(PathBuf, String),
    /// Our own resources cannot be printed.
    #[error("our resource cannot be printed")]
    Print(#[from] JsonError),
}

/// Compares all scenarios of a folder, or some of them.
///
/// # Errors
/// A recording that cannot be read. Differences are results, not errors.
pub fn run(
    dir: &Path,
    scenarios: Option<&[String]>,
    without: &[Without],
) -> Result<Vec<CaseResult>, RecordingError> {
    let schema = Schema::get();
    let mut results = Vec::new();
    for scenario in world::folders(dir)? {
        let wanted = |list: &[String]| {
            list.iter()
                .any(|w| scenario == *w || scenario.starts_with(&format!("{w}-")))
        };
        // A scenario that was recorded with nothing from istiod (no proxy folders) compares nothing.
        if scenario == "nodes" || !scenarios.is_none_or(wanted) {
            continue;
        }
        let objects = world::load(dir, &scenario)?;
        let snapshot = Snapshot::build(&objects);
        for proxy in world::folders(&dir.join(&scenario))? {
            let case = Case {
                dir,
                scenario: &scenario,
                proxy: &proxy,
                schema: &schema,
                without,
            };
            results.extend(case.run(&snapshot)?);
        }
    }
    Ok(results)
}

/// One proxy of one scenario.
struct Case<'a> {
    dir: &'a Path,
    scenario: &'a str,
    proxy: &'a str,
    schema: &'a Schema,
    without: &'a [Without],
}

impl Case<'_> {
    fn run(&self, snapshot: &Snapshot) -> Result<Vec<CaseResult>, RecordingError> {
        let folder = self.dir.join(self.scenario).join(self.proxy);
        let own = folder.join("node.json");
        let node_file = if own.exists() {
            own
        } else {
            self.dir.join("nodes").join(format!("{}.json", self.proxy))
        };
        let node: Node = self
            .schema
            .parse(&world::json(&node_file)?)
            .map_err(|e| RecordingError::Parse(node_file.clone(), e.to_string()))?;
        let proxy = match Proxy::from_node(&node) {
            Ok(proxy) => proxy,
            Err(error) => return Ok(vec![self.result("node", vec![error.to_string()])]),
        };
        let view = snapshot.proxy_view(&proxy);
        let (resources, _) = crate::translate(&view);
        let mut results = Vec::new();
        for type_ in ["cds", "eds", "lds", "rds", "nds"] {
            let file = folder.join(format!("{type_}.json"));
            if !file.exists() {
                continue;
            }
            let recorded = world::json(&file)?;
            let ours = self.ours(type_, &resources, snapshot, &proxy, &view, &recorded)?;
            results.push(self.result(type_, compare::resources(type_, recorded, ours, self.without)));
        }
        Ok(results)
    }

    fn result(&self, type_: &str, differences: Vec<String>) -> CaseResult {
        CaseResult {
            scenario: self.scenario.to_owned(),
            proxy: self.proxy.to_owned(),
            type_: type_.to_owned(),
            passed: differences.is_empty(),
            differences,
        }
    }

    /// Our resources of a type as JSON. Endpoints and routes are asked for by the names the recording asked for.
    fn ours(
        &self,
        type_: &str,
        resources: &Resources,
        snapshot: &Snapshot,
        proxy: &Proxy,
        view: &control_snapshot::ProxyView,
        recorded: &Value,
    ) -> Result<Vec<Value>, RecordingError> {
        let names = |key: &str| -> Vec<String> {
            let all = recorded.as_array().into_iter().flatten();
            all.filter_map(|r| r.get(key)?.as_str().map(str::to_owned))
                .collect()
        };
        match type_ {
            "cds" => self.print(resources.clusters.iter()),
            "lds" => self.print(resources.listeners.iter()),
            "nds" => self.print(std::iter::once(&resources.name_table)),
            "rds" => {
                let mut routes = resources.routes.clone();
                for name in names("name") {
                    if routes.iter().all(|r| r.name != name) {
                        routes.push(crate::route(view, &name, &crate::Parts::default()).message());
                    }
                }
                self.print(routes.iter())
            }
            _ => {
                let clusters = resources
                    .clusters
                    .iter()
                    .filter(|c| c.eds_cluster_config.is_some());
                let own: Vec<String> = clusters.map(|c| c.name.clone()).collect();
                let list: Vec<_> = own
                    .iter()
                    .map(|name| crate::endpoints(&snapshot.endpoint_view(proxy, name)))
                    .collect();
                self.print(list.iter())
            }
        }
    }

    fn print<'m, M: Message + Name + 'm>(
        &self,
        messages: impl Iterator<Item = &'m M>,
    ) -> Result<Vec<Value>, RecordingError> {
        messages
            .map(|m| Ok(self.schema.print_any(&any::pack(m), Style::Canonical)?))
            .collect()
    }
}
