//! A server with a given set of CRDs, asked for verdicts.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::Service;

use crate::{ApiServer, ApiService, Config, Handle};

/// What the server said about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was accepted.
    Accepted,
    /// The message of the Status.
    Refused(String),
}

impl Verdict {
    /// Whether it was accepted.
    pub fn is_accepted(&self) -> bool {
        *self == Self::Accepted
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Refused(message) => write!(f, "refused: {message}"),
        }
    }
}

/// A running server with its own runtime and directory; both go with it.
pub struct VerdictServer {
    runtime: tokio::runtime::Runtime,
    handle: Option<Handle>,
    service: ApiService,
    plurals: Vec<(String, String)>,
    directory: PathBuf,
}

impl VerdictServer {
    /// Starts a server with these CRDs.
    ///
    /// # Errors
    /// The server does not start.
    pub fn start(crds: Vec<Value>) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("lateen-conformance-{}-{number}", std::process::id()));
        let plurals = crds
            .iter()
            .map(|crd| {
                let names = &crd["spec"]["names"];
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (
                    format!("{}/{}", text(&crd["spec"]["group"]), text(&names["kind"])),
                    text(&names["plural"]),
                )
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let config = Config {
            custom_resource_definitions: crds,
            ..Config::new(&directory)
        };
        let handle = runtime
            .block_on(ApiServer::start(config))
            .map_err(|error| error.to_string())?;
        let service = handle.service();
        Ok(Self {
            runtime,
            handle: Some(handle),
            service,
            plurals,
            directory,
        })
    }

    /// Creates the object in a dry run, in the namespace `default`.
    ///
    /// # Errors
    /// The server's answer cannot be read.
    pub fn verdict(&self, object: &Value) -> Result<Verdict, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let group = api_version.split('/').next().unwrap_or_default();
        let identity = format!("{group}/{kind}");
        let Some((_, plural)) = self.plurals.iter().find(|(known, _)| *known == identity) else {
            return Ok(Verdict::Refused(format!("no CRD defines {identity}")));
        };
        let mut object = object.clone();
        object["metadata"]["namespace"] = "default".into();
        if text(&object["metadata"]["name"]).is_empty() {
            object["metadata"]["name"] = "sample".into();
        }
        let uri =
            format!("/apis/{api_version}/namespaces/default/{plural}?dryRun=All&fieldValidation=Strict");
        let request = Request::post(uri)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(object.to_string())))
            .map_err(|error| error.to_string())?;
        let mut service = self.service.clone();
        self.runtime.block_on(async {
            let response = match service.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if response.status().is_success() {
                return Ok(Verdict::Accepted);
            }
            let body = match response.into_body().collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let status: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            Ok(Verdict::Refused(text(&status["message"])))
        })
    }
}

impl Drop for VerdictServer {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.runtime.block_on(handle.shutdown());
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(%error, directory = %self.directory.display(), "a temporary directory stays");
        }
    }
}
