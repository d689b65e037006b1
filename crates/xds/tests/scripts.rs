//! Runs the scripts in `tests/scripts/`: one conversation per file, seen from the client or from the server.
//!
//! A script's first line says whose state machine is under test, and the variant: `client delta`, `server sotw`.
//! Then, in both: `>` is a request, `<` a response. What the machine under test produces is compared with the line;
//! what the other side produces is read from it. See the files for the rest; they are meant to be read.

use std::fmt::Write as _;
use std::path::Path;

use api_envoy::envoy::config::core::v3::Node;
use api_envoy::envoy::service::discovery::v3 as ads;
use api_envoy::google::rpc::Status;
use api_envoy::{Any, type_url};
use xds::Variant;
use xds::client::{Client, Rejection, Request, Response, Update};
use xds::server::{Content, Outgoing, Said, Scope, Stream};

const TYPES: [(&str, &str); 5] = [
    ("CDS", type_url::CLUSTER),
    ("EDS", type_url::ENDPOINT),
    ("LDS", type_url::LISTENER),
    ("RDS", type_url::ROUTE),
    ("NDS", type_url::NAME_TABLE),
];

fn url(short: &str) -> String {
    TYPES
        .iter()
        .find(|(s, _)| *s == short)
        .unwrap_or_else(|| panic!("no type {short}"))
        .1
        .to_owned()
}

fn short(url: &str) -> &str {
    TYPES.iter().find(|(_, u)| *u == url).map_or(url, |(s, _)| s)
}

/// A cluster-like body: the name in field 1, and the text after `=` in field 2.
fn body(type_url: &str, name: &str, text: &str) -> Any {
    let mut value = vec![0x0a, u8::try_from(name.len()).unwrap()];
    value.extend(name.as_bytes());
    value.extend([0x12, u8::try_from(text.len()).unwrap()]);
    value.extend(text.as_bytes());
    Any {
        type_url: type_url.to_owned(),
        value,
    }
}

/// `TYPE [node] [nonce=N] [version=V] [error=TEXT] [+name] [-name] [name] [holds:name]`, words in this order.
fn render(request: &Request) -> String {
    let mut line = String::new();
    match request {
        Request::Delta(r) => {
            line.push_str(short(&r.type_url));
            head(
                &mut line,
                r.node.is_some(),
                &r.response_nonce,
                "",
                r.error_detail.as_ref(),
            );
            r.resource_names_subscribe
                .iter()
                .for_each(|n| write!(line, " +{n}").unwrap());
            r.resource_names_unsubscribe
                .iter()
                .for_each(|n| write!(line, " -{n}").unwrap());
            r.initial_resource_versions
                .iter()
                .for_each(|(n, v)| write!(line, " holds:{n}@{v}").unwrap());
        }
        Request::StateOfTheWorld(r) => {
            line.push_str(short(&r.type_url));
            head(
                &mut line,
                r.node.is_some(),
                &r.response_nonce,
                &r.version_info,
                r.error_detail.as_ref(),
            );
            r.resource_names
                .iter()
                .for_each(|n| write!(line, " {n}").unwrap());
        }
    }
    line
}

fn head(line: &mut String, node: bool, nonce: &str, version: &str, error: Option<&Status>) {
    if node {
        line.push_str(" node");
    }
    if !nonce.is_empty() {
        write!(line, " nonce={nonce}").unwrap();
    }
    if !version.is_empty() {
        write!(line, " version={version}").unwrap();
    }
    if let Some(status) = error {
        write!(
            line,
            " error={}",
            status.message.replace(' ', "_").replace('\n', "|")
        )
        .unwrap();
    }
}

fn parse_request(variant: Variant, line: &str) -> Request {
    let mut words = line.split_whitespace();
    let mut r = ads::DeltaDiscoveryRequest {
        type_url: url(words.next().unwrap()),
        ..Default::default()
    };
    let (mut names, mut version) = (Vec::new(), String::new());
    for word in words {
        if word == "node" {
            r.node = Some(Node {
                id: "sidecar~10.0.0.1~a.default~x".into(),
                ..Default::default()
            });
        } else if let Some(nonce) = word.strip_prefix("nonce=") {
            r.response_nonce = nonce.to_owned();
        } else if let Some(text) = word.strip_prefix("version=") {
            text.clone_into(&mut version);
        } else if let Some(message) = word.strip_prefix("error=") {
            r.error_detail = Some(Status {
                code: 3,
                message: message.to_owned(),
                ..Default::default()
            });
        } else if let Some(name) = word.strip_prefix('+') {
            r.resource_names_subscribe.push(name.to_owned());
        } else if let Some(name) = word.strip_prefix('-') {
            r.resource_names_unsubscribe.push(name.to_owned());
        } else if let Some((name, v)) = word.strip_prefix("holds:").and_then(|w| w.split_once('@')) {
            r.initial_resource_versions.insert(name.to_owned(), v.to_owned());
        } else {
            names.push(word.to_owned());
        }
    }
    match variant {
        Variant::Delta => Request::Delta(r),
        Variant::StateOfTheWorld => Request::StateOfTheWorld(ads::DiscoveryRequest {
            version_info: version,
            node: r.node,
            resource_names: names,
            type_url: r.type_url,
            response_nonce: r.response_nonce,
            error_detail: r.error_detail,
            ..Default::default()
        }),
    }
}

/// `TYPE nonce version [name=text[@version]] [-name]`.
fn parse_response(variant: Variant, line: &str) -> Response {
    let mut words = line.split_whitespace();
    let type_url = url(words.next().unwrap());
    let (nonce, version) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let (mut resources, mut removed_resources) = (Vec::new(), Vec::new());
    for word in words {
        if let Some(name) = word.strip_prefix('-') {
            removed_resources.push(name.to_owned());
            continue;
        }
        let (name, text) = word.split_once('=').unwrap();
        let (text, version) = text.split_once('@').unwrap_or((text, ""));
        let resource = Some(body(&type_url, name, text));
        resources.push(ads::Resource {
            name: name.to_owned(),
            version: version.to_owned(),
            resource,
            ..Default::default()
        });
    }
    match variant {
        Variant::Delta => Response::Delta(ads::DeltaDiscoveryResponse {
            system_version_info: version,
            resources,
            type_url,
            removed_resources,
            nonce,
            ..Default::default()
        }),
        Variant::StateOfTheWorld => Response::StateOfTheWorld(ads::DiscoveryResponse {
            version_info: version,
            resources: resources.into_iter().filter_map(|r| r.resource).collect(),
            type_url,
            nonce,
            ..Default::default()
        }),
    }
}

struct ClientUnderTest {
    client: Client,
    update: Option<Update>,
}

impl ClientUnderTest {
    fn step(&mut self, variant: Variant, verb: &str, rest: &str, at: &str) {
        let mut words = rest.split_whitespace();
        match verb {
            "watch" => self.client.watch_all(&url(rest)),
            "subscribe" => self.client.subscribe(&url(words.next().unwrap()), words),
            "unsubscribe" => self.client.unsubscribe(&url(words.next().unwrap()), words),
            "connected" => self.client.connected(),
            "disconnected" => self.client.disconnected(),
            "accept" => self.client.accept(self.update.as_ref().unwrap()),
            "reject" => {
                let (name, reason) = rest.split_once(' ').unwrap();
                let rejection = Rejection {
                    name: name.to_owned(),
                    reason: reason.to_owned(),
                };
                self.client.reject(self.update.as_ref().unwrap(), &[rejection]);
            }
            ">" => {
                let request = self.client.poll_request();
                assert_eq!(
                    request.as_ref().map_or("nothing".to_owned(), render),
                    rest,
                    "{at}"
                );
            }
            "<" => self.update = self.client.receive(parse_response(variant, rest)),
            "=" => assert_eq!(render_update(self.update.as_ref()), rest, "{at}"),
            other => panic!("{at}: no verb {other}"),
        }
    }
}

fn render_update(update: Option<&Update>) -> String {
    let Some(update) = update else {
        return "ignored".to_owned();
    };
    let mut words = vec![short(&update.type_url).to_owned()];
    for resource in &update.resources {
        words.push(format!(
            "{}{}",
            if resource.unchanged { "same:" } else { "" },
            resource.name
        ));
    }
    words.extend(update.removed.iter().map(|name| format!("-{name}")));
    words.join(" ")
}

struct ServerUnderTest {
    stream: Stream,
    outcome: String,
}

impl ServerUnderTest {
    fn step(&mut self, variant: Variant, verb: &str, rest: &str, at: &str) {
        match verb {
            ">" => {
                let received = match parse_request(variant, rest) {
                    Request::Delta(r) => self.stream.receive_delta(&r),
                    Request::StateOfTheWorld(r) => self.stream.receive_sotw(&r),
                };
                self.outcome = received.map_or_else(|e| e.to_string(), |r| render_outcome(&r.said, r.answer));
            }
            "=" => assert_eq!(self.outcome, rest, "{at}"),
            "<" => self.respond(variant, rest, at),
            "vanished" => {
                let (kind, present) = rest.split_once(" of ").unwrap();
                let (kind, expected) = kind.split_once(' ').unwrap_or((kind, ""));
                let type_url = url(kind);
                let present = present
                    .split_whitespace()
                    .map(|name| Outgoing::new(name, body(&type_url, name, "")));
                let mut present: Vec<_> = present.collect();
                present.sort_by(|a, b| a.name.cmp(&b.name));
                let changes = self.stream.watch(&type_url).unwrap().changes(&present);
                assert_eq!(changes.vanished.join(" "), expected, "{at}");
            }
            "nack" => {
                let (kind, reason) = rest.split_once(' ').unwrap();
                let watch = self.stream.watch(&url(kind)).unwrap();
                assert_eq!(watch.nack().map_or("none", |n| &n.reason), reason, "{at}");
            }
            other => panic!("{at}: no verb {other}"),
        }
    }

    fn respond(&mut self, variant: Variant, rest: &str, at: &str) {
        let mut words = rest.split_whitespace();
        let type_url = url(words.next().unwrap());
        let (nonce, version) = (words.next().unwrap(), words.next().unwrap());
        let mut content = Content::default();
        for word in words {
            match (word.strip_prefix('-'), word.split_once('=')) {
                (Some(name), _) => content.removed.push(name.into()),
                (None, Some((name, text))) => {
                    content
                        .resources
                        .push(Outgoing::new(name, body(&type_url, name, text)));
                }
                (None, None) => panic!("{at}: {word}"),
            }
        }
        let sent = match variant {
            Variant::Delta => self
                .stream
                .respond_delta(&type_url, version, content)
                .map(|r| r.nonce),
            Variant::StateOfTheWorld => self
                .stream
                .respond_sotw(&type_url, version, content)
                .map(|r| r.nonce),
        };
        assert_eq!(sent.as_deref().unwrap_or("held-back"), nonce, "{at}");
    }
}

fn render_outcome(said: &Said, answer: Option<Scope>) -> String {
    let said = match said {
        Said::Hello => "hello".to_owned(),
        Said::Changed => "changed".to_owned(),
        Said::Ack => "ack".to_owned(),
        Said::Nack(reason) => format!("nack({reason})"),
        Said::Stale => "stale".to_owned(),
        Said::Nothing => "nothing".to_owned(),
    };
    match answer {
        None => said,
        Some(Scope::All) => format!("{said}, answer all"),
        Some(Scope::Names(names)) => {
            format!(
                "{said}, answer {}",
                names.into_iter().collect::<Vec<_>>().join(" ")
            )
        }
    }
}

fn check_xds_script(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'));
    let (side, variant) = lines.next().unwrap().1.split_once(' ').unwrap();
    let variant = match variant {
        "delta" => Variant::Delta,
        "sotw" => Variant::StateOfTheWorld,
        other => panic!("{}: variant {other}", path.display()),
    };
    let node = Node {
        id: "sidecar~10.0.0.1~a.default~x".into(),
        ..Default::default()
    };
    let mut client = ClientUnderTest {
        client: Client::new(variant, node),
        update: None,
    };
    let mut server = ServerUnderTest {
        stream: Stream::new("s", ""),
        outcome: String::new(),
    };
    for (number, line) in lines {
        let at = format!("{}:{}: {line}", path.display(), number + 1);
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match side {
            "client" => client.step(variant, verb, rest, &at),
            "server" => server.step(variant, verb, rest, &at),
            other => panic!("{at}: side {other}"),
        }
    }
}

#[test]
fn every_script_holds() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 6, "scripts are missing");
    for path in paths {
        check_xds_script(&path);
    }
}
