//! A server in a temporary directory, and requests to it without a socket.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::time::Duration;

use bytes::Bytes;
use control_apiserver::{ApiServer, Body, Config, Handle};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::Service;

/// No test waits longer than this for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server and its directory.
pub struct Server {
    pub handle: Handle,
    pub directory: tempfile::TempDir,
}

/// Starts a server without any CRDs, which is quick.
pub async fn start() -> Server {
    start_with(Vec::new()).await
}

/// Starts a server with these CRDs.
pub async fn start_with(crds: Vec<Value>) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        custom_resource_definitions: crds,
        ..Config::new(directory.path().join("state"))
    };
    Server {
        handle: ApiServer::start(config).await.unwrap(),
        directory,
    }
}

/// A CRD `widgets.example.org` with defaults, an enumeration, a transition rule, status and scale.
pub fn widgets() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {
            "group": "example.org", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [
                {
                    "name": "v1", "served": true, "storage": true,
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                    },
                    "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                        "spec": {
                            "type": "object", "required": ["size"],
                            "x-kubernetes-validations": [{"rule": "self.size >= oldSelf.size", "message": "may not shrink"}],
                            "properties": {
                                "size": {"type": "integer", "maximum": 10},
                                "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
                            },
                        },
                        "status": {"type": "object", "properties": {"size": {"type": "integer"}}},
                    }}},
                },
                {
                    "name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                },
            ],
        },
    })
}

/// A widget of this name and size.
pub fn widget(name: &str, size: i64) -> Value {
    json!({"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": size}})
}

/// Where widgets are.
pub const WIDGETS: &str = "/apis/example.org/v1/namespaces/default/widgets";

/// Where ConfigMaps are.
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A ConfigMap of this name.
pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "value"}})
}

/// An answer, read to its end.
pub struct Answer {
    pub code: u16,
    pub body: Value,
    pub warnings: Vec<String>,
}

impl Answer {
    /// The body of a successful answer.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.code < 300, "{}: {}", self.code, self.body);
        self.body
    }

    /// Code and message of a Status.
    #[track_caller]
    pub fn refusal(self) -> (u16, String) {
        assert!(self.code >= 400, "{}: {}", self.code, self.body);
        assert_eq!(self.body["kind"], "Status");
        assert_eq!(self.body["code"], self.code);
        (self.code, self.body["message"].as_str().unwrap().to_owned())
    }
}

impl Server {
    /// Sends a request and returns the answer with its body unread.
    pub async fn open(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        self.handle.service().call(request).await.unwrap()
    }

    /// Sends a request with a body of the given type.
    pub async fn send(&self, method: Method, uri: &str, content_type: &str, body: Vec<u8>) -> Answer {
        let response = self
            .open(method, uri, &[("content-type", content_type)], body)
            .await;
        let code = response.status().as_u16();
        let warnings = response
            .headers()
            .get_all("warning")
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer {
            code,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            warnings,
        }
    }

    pub async fn get(&self, uri: &str) -> Answer {
        self.send(Method::GET, uri, "", Vec::new()).await
    }

    pub async fn post(&self, uri: &str, body: &Value) -> Answer {
        self.send(
            Method::POST,
            uri,
            "application/json",
            body.to_string().into_bytes(),
        )
        .await
    }

    pub async fn put(&self, uri: &str, body: &Value) -> Answer {
        self.send(
            Method::PUT,
            uri,
            "application/json",
            body.to_string().into_bytes(),
        )
        .await
    }

    pub async fn patch(&self, uri: &str, kind: &str, body: &Value) -> Answer {
        let content_type = format!("application/{kind}+json");
        self.send(Method::PATCH, uri, &content_type, body.to_string().into_bytes())
            .await
    }

    pub async fn delete(&self, uri: &str, options: &Value) -> Answer {
        self.send(
            Method::DELETE,
            uri,
            "application/json",
            options.to_string().into_bytes(),
        )
        .await
    }

    /// Waits until a path answers 404.
    pub async fn gone(&self, uri: &str) {
        self.until(uri, |answer| answer.code == 404).await;
    }

    /// Asks until the answer is as wanted.
    pub async fn until(&self, uri: &str, wanted: impl Fn(&Answer) -> bool) {
        let asking = async {
            while !wanted(&self.get(uri).await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| panic!("{uri} did not become as wanted"));
    }

    /// Opens a watch.
    pub async fn watch(&self, uri: &str) -> Watch {
        let response = self.open(Method::GET, uri, &[], Vec::new()).await;
        assert_eq!(response.status(), 200);
        Watch {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }
}

/// A stream of events.
pub struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event, or `None` when the stream ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .expect("an event in time");
            self.buffer
                .extend_from_slice(&frame?.unwrap().into_data().unwrap());
        }
    }

    /// Type and name of the next event.
    pub async fn next_named(&mut self) -> (String, String) {
        let event = self.next().await.expect("another event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}
