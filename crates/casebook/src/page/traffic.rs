//! The traffic block: requests, and what must come of them.
//!
//! ```text
//! GET http://reviews:9080/reviews/0 x100     a request, here a hundred times
//! GET http://reviews:9080/ HTTP/2            a request in HTTP/2, with prior knowledge
//!   end-user: jason                          headers of the request
//! => 200 from 75% reviews-v1 25% reviews-v2  status, and who answered; shares when repeated
//! => 200 from 10x v1 20x v2                  the same, with exact numbers
//!   x-added: yes                             headers of the answer; `*` is any value
//!   - x-gone                                 a header that the answer must not have
//! UPGRADE http://chat:9080/room "hello"     a WebSocket handshake, and a line that is said on what comes of it
//! => upstream GET /new ratings:9080          what the upstream received
//!   x-request: yes                           headers that it received
//! => body "text"                             the body of the answer
//! => flag NC                                 response flags of the access log
//! => in 400ms..1500ms                        how long it took
//! => on lateen 501 because ...               a difference between data planes, with its reason
//! TCP ratings:3306 "hello"                   a connection, and what is said on it
//! => "ratings-v1 hello"                      what is answered; a * stands for anything
//! TCP ratings:3306 ""                        a connection on which the server speaks first
//! => from 75% ratings-v1 25% ratings-v2      who answered
//! BYTES web:80 "GET / HTTP/1.1\r\n..."       exactly these bytes, and all that comes until the other side ends
//! GET https://shop.test/ --cacert ca.crt     over TLS; what follows are options of curl, and files of the page
//! => certificate shop.crt                    what the server showed
//! TLS db.test:443 "hello" --cacert ca.crt    a connection over TLS; the name is the server name
//! inbound GET http://reviews:9080/           a request that comes from another pod to the proxy's own workload
//! inbound as default/frontend GET http://...  the same with mutual TLS, as this namespace's service account
//! as default/frontend GET https://shop.test/ a client of the mesh at a gateway that takes mutual TLS
//! as default/frontend GET http://reviews...  the same at port 15443, by the mesh's server name of this service
//! => closed                                  the connection ends without an answer
//! # a remark
//! ```

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::DataPlane;
use crate::limits::MAX_REPEATS;

/// One request, or the same one several times, and what must come of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Line in the page, from 1.
    pub line: usize,
    /// The line as written.
    pub text: String,
    /// Whether it comes from another pod to the proxy's own workload.
    pub inbound: bool,
    /// The namespace and service account of a caller that speaks mutual TLS.
    pub caller: Option<(String, String)>,
    /// Whether it is written as something over TLS.
    pub encrypted: bool,
    /// What is sent.
    pub request: Request,
    /// How TLS is spoken; not at all when there is none.
    pub tls: Option<Tls>,
    /// How often.
    pub times: u32,
    /// What must come of it.
    pub expectations: Vec<Expectation>,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// An HTTP request.
    Http {
        /// Method.
        method: String,
        /// Scheme is http; `host[:port]`.
        authority: String,
        /// Path and query.
        path: String,
        /// Headers; `host` replaces the authority.
        headers: Vec<(String, String)>,
        /// Whether it is sent in HTTP/2.
        http2: bool,
        /// It asks for WebSocket; what is said then.
        said: Option<String>,
    },
    /// A TCP connection.
    Tcp {
        /// `host:port`.
        address: String,
        /// What is sent: a line, before the client ends its side; or these bytes, and the other side is to end.
        text: String,
        /// See `text`.
        waits: bool,
    },
}

/// How a client speaks TLS, in files of the page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The server name to ask for.
    pub server_name: String,
    /// `--cacert`: who may have signed the server. Without it nothing is verified (`--insecure`).
    pub authorities: Option<String>,
    /// `--cert` and `--key`: what the client shows.
    pub certificate: Option<(String, String)>,
    /// `--tls-max 1.2`: the client knows no later version.
    pub old: bool,
}

/// What must come of an exchange.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Line in the page, from 1.
    pub line: usize,
    /// The data plane that it is for, when they differ; the page says why.
    pub only: Option<DataPlane>,
    /// What is looked at.
    pub what: Expected,
}

/// One thing to look at.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// The answer's status, who answered, and headers.
    Answer {
        /// HTTP status; 0 for TCP.
        status: u16,
        /// Upstreams and their shares, if shares are said; empty when nobody is named.
        from: Vec<(String, Option<Share>)>,
        /// Headers of the answer.
        headers: Vec<HeaderExpectation>,
    },
    /// The request as the upstream received it.
    Upstream {
        /// Method.
        method: String,
        /// Path and query.
        path: String,
        /// Authority; any when empty.
        authority: String,
        /// Headers.
        headers: Vec<HeaderExpectation>,
    },
    /// The body of the answer, or what a TCP connection says.
    Text(String),
    /// The file of the certificate that the server shows.
    Certificate(String),
    /// Response flags in the access log.
    Flags(String),
    /// How long it took.
    Time(Duration, Duration),
    /// The connection ends without an answer.
    Closed,
}

/// The part of an exchange's requests that one upstream answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Share {
    /// In percent, within chance.
    Percent(f64),
    /// Exactly so many.
    Count(u32),
}

/// A header that must or must not be there.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderExpectation {
    /// Name in lower case.
    pub name: String,
    /// Its value; `*` is any. `None` when it must be absent.
    pub value: Option<String>,
}

/// Parses a block that begins at this line of the page.
pub(super) fn parse(text: &str, first_line: usize) -> Result<Vec<Exchange>> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let line = first_line + index + 1;
        let raw = raw.trim_end();
        if raw.is_empty() || raw.starts_with('#') {
            continue;
        }
        let at = || format!("line {line}: `{raw}`");
        if let Some(expected) = raw.strip_prefix("=> ") {
            let exchange = exchanges
                .last_mut()
                .with_context(at)
                .context("an expectation needs a request")?;
            exchange
                .expectations
                .push(expectation(expected, line).with_context(at)?);
        } else if raw.starts_with(' ') {
            let exchange = exchanges
                .last_mut()
                .with_context(at)
                .context("a header needs a request")?;
            header(exchange, raw.trim()).with_context(at)?;
        } else {
            exchanges.push(exchange(raw, line).with_context(at)?);
        }
    }
    if exchanges.is_empty() {
        bail!("the block sends nothing");
    }
    for exchange in &exchanges {
        let at = || format!("line {}: `{}`", exchange.line, exchange.text);
        if exchange.expectations.is_empty() {
            bail!("{} expects nothing", at());
        }
        for expectation in &exchange.expectations {
            if let Expected::Answer { status, from, .. } = &expectation.what {
                let http = matches!(exchange.request, Request::Http { .. });
                if http != (*status > 0) {
                    bail!(
                        "{}: a request is answered with a status, a connection without",
                        at()
                    );
                }
                check_shares(from, exchange.times).with_context(at)?;
            }
        }
    }
    Ok(exchanges)
}

/// Shares are said of all upstreams or of none, all in percent or all in numbers, and they add up.
fn check_shares(from: &[(String, Option<Share>)], times: u32) -> Result<()> {
    let (mut percent, mut count, mut without) = (None, None, false);
    for (_, share) in from {
        match share {
            Some(Share::Percent(part)) => *percent.get_or_insert(0.0) += part,
            Some(Share::Count(part)) => *count.get_or_insert(0) += part,
            None => without = true,
        }
    }
    match (percent, count, without) {
        (None, None, _) => Ok(()),
        (Some(sum), None, false) if (sum - 100.0_f64).abs() <= 0.01 => Ok(()),
        (None, Some(sum), false) if sum == times => Ok(()),
        _ => bail!("shares are said of all upstreams or of none, and add up to 100 % or to {times} requests"),
    }
}

fn exchange(text: &str, line: usize) -> Result<Exchange> {
    let (inbound, rest) = match text.strip_prefix("inbound ") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (caller, rest) = match rest.strip_prefix("as ") {
        Some(rest) => {
            let (caller, rest) = rest.split_once(' ').context("expected NAMESPACE/ACCOUNT")?;
            let (namespace, account) = caller.split_once('/').context("expected NAMESPACE/ACCOUNT")?;
            (Some((namespace.to_owned(), account.to_owned())), rest)
        }
        None => (None, rest),
    };
    let (rest, times) = match rest.rsplit_once(" x") {
        Some((rest, times)) if times.bytes().all(|byte| byte.is_ascii_digit()) => (rest, times.parse()?),
        _ => (rest, 1),
    };
    if times == 0 || times > MAX_REPEATS {
        bail!("an exchange is repeated 1 to {MAX_REPEATS} times");
    }
    let (rest, options) = match rest.find(" --") {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (verb, target) = rest
        .split_once(' ')
        .context("expected METHOD URL or TCP HOST:PORT \"text\"")?;
    let encrypted = verb == "TLS" || target.starts_with("https://");
    let request = request(verb, target)?;
    let tls = match (encrypted, options) {
        (false, "") => None,
        (false, _) => bail!("options are for TLS"),
        (true, "") if caller.is_some() => None,
        (true, _) if caller.is_some() => bail!("a caller of the mesh shows its own certificate"),
        (true, options) => Some(tls(host(&request), options)?),
    };
    Ok(Exchange {
        line,
        text: text.to_owned(),
        inbound,
        caller,
        encrypted,
        request,
        tls,
        times,
        expectations: Vec::new(),
    })
}

/// What a verb and its target ask for.
fn request(verb: &str, target: &str) -> Result<Request> {
    Ok(match verb {
        "TCP" | "TLS" | "BYTES" => {
            let (address, said) = target
                .split_once(' ')
                .context("expected TCP HOST:PORT \"text\"")?;
            Request::Tcp {
                address: address.to_owned(),
                text: quoted(said)?,
                waits: verb == "BYTES",
            }
        }
        method if method.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            let (method, target, said) = match method {
                "UPGRADE" => {
                    let (url, said) = target.split_once(' ').context("expected UPGRADE URL \"text\"")?;
                    ("GET", url, Some(quoted(said)?))
                }
                method => (method, target, None),
            };
            let (target, http2) = match target.strip_suffix(" HTTP/2") {
                Some(target) => (target, true),
                None => (target, false),
            };
            let url = target
                .strip_prefix("http://")
                .or_else(|| target.strip_prefix("https://"));
            let url = url.context("a URL begins with http:// or https://")?;
            let (authority, path) = url.find('/').map_or((url, "/"), |slash| url.split_at(slash));
            Request::Http {
                method: method.to_owned(),
                authority: authority.to_owned(),
                path: path.to_owned(),
                headers: Vec::new(),
                http2,
                said,
            }
        }
        _ => bail!("expected METHOD URL or TCP HOST:PORT \"text\""),
    })
}

/// The host that a request is sent to, without the port.
fn host(request: &Request) -> &str {
    let (Request::Http {
        authority: target, ..
    }
    | Request::Tcp { address: target, .. }) = request;
    target.rsplit_once(':').map_or(target.as_str(), |(host, _)| host)
}

/// Curl's options about TLS.
fn tls(server_name: &str, options: &str) -> Result<Tls> {
    let mut tls = Tls {
        server_name: server_name.to_owned(),
        ..Tls::default()
    };
    let (mut certificate, mut key, mut insecure) = (None, None, false);
    let mut words = options.split_whitespace();
    while let Some(option) = words.next() {
        let mut value = || {
            words
                .next()
                .map(str::to_owned)
                .with_context(|| format!("{option} needs a value"))
        };
        match option {
            "--cacert" => tls.authorities = Some(value()?),
            "--cert" => certificate = Some(value()?),
            "--key" => key = Some(value()?),
            "--insecure" => insecure = true,
            "--tls-max" if value()? == "1.2" => tls.old = true,
            _ => bail!("{option} is not understood"),
        }
    }
    tls.certificate = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => bail!("--cert and --key belong together"),
    };
    if tls.authorities.is_some() == insecure {
        bail!("a server is verified by --cacert, or not at all by --insecure");
    }
    Ok(tls)
}

fn expectation(text: &str, line: usize) -> Result<Expectation> {
    let (only, text) = match text.strip_prefix("on ") {
        None => (None, text),
        Some(rest) => {
            let (data_plane, rest) = rest
                .split_once(' ')
                .context("expected `on DATA_PLANE ... because ...`")?;
            let (rest, reason) = rest
                .rsplit_once(" because ")
                .context("a difference needs a reason: `because ...`")?;
            if reason.trim().is_empty() {
                bail!("a difference needs a reason: `because ...`");
            }
            (Some(data_plane.parse().map_err(anyhow::Error::msg)?), rest)
        }
    };
    Ok(Expectation {
        line,
        only,
        what: expected(text)?,
    })
}

fn expected(text: &str) -> Result<Expected> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    Ok(match word {
        "closed" => Expected::Closed,
        "upstream" => {
            let mut words = rest.split_whitespace();
            Expected::Upstream {
                method: words
                    .next()
                    .context("expected `upstream METHOD PATH [HOST]`")?
                    .to_owned(),
                path: words
                    .next()
                    .context("expected `upstream METHOD PATH [HOST]`")?
                    .to_owned(),
                authority: words.next().unwrap_or_default().to_owned(),
                headers: Vec::new(),
            }
        }
        "body" => Expected::Text(quoted(rest)?),
        "certificate" if !rest.is_empty() => Expected::Certificate(rest.to_owned()),
        "flag" => Expected::Flags(rest.to_owned()),
        "in" => {
            let (from, to) = rest.split_once("..").context("expected `in FROM..TO`")?;
            let parse = |text: &str| text.parse::<api_istio::Duration>().map(Duration::from);
            Expected::Time(parse(from)?, parse(to)?)
        }
        "from" => Expected::Answer {
            status: 0,
            from: answerers(text)?,
            headers: Vec::new(),
        },
        _ if text.starts_with('"') => Expected::Text(quoted(text)?),
        status => {
            let status = status.parse().ok().filter(|status| (100..600).contains(status));
            let status = status.context(
                "expected a status, or one of upstream, body, certificate, flag, in, closed, \"text\"",
            )?;
            Expected::Answer {
                status,
                from: answerers(rest)?,
                headers: Vec::new(),
            }
        }
    })
}

/// `from a b`, `from 75% a 25% b` or `from 3x a 1x b`.
fn answerers(text: &str) -> Result<Vec<(String, Option<Share>)>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let names = text
        .strip_prefix("from ")
        .context("expected `from UPSTREAM...`")?;
    let mut from = Vec::new();
    let mut share = None;
    for word in names.split_whitespace() {
        let number = word.trim_end_matches(['%', 'x']);
        share = match word.strip_prefix(number) {
            Some("%") => Some(Share::Percent(number.parse().context("expected a percentage")?)),
            Some("x") if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(Share::Count(number.parse().context("expected a number")?))
            }
            _ => {
                from.push((word.to_owned(), share.take()));
                None
            }
        };
    }
    if share.is_some() {
        bail!("a share stands before its upstream");
    }
    Ok(from)
}

/// A header line belongs to the request before any expectation, and to the last expectation after it.
fn header(exchange: &mut Exchange, text: &str) -> Result<()> {
    let absent = text.strip_prefix("- ");
    let (name, value) = match absent {
        Some(name) => (name, None),
        None => {
            let (name, value) = text
                .split_once(':')
                .context("expected `name: value` or `- name`")?;
            (name, Some(value.trim().to_owned()))
        }
    };
    let name = name.trim().to_ascii_lowercase();
    match exchange
        .expectations
        .last_mut()
        .map(|expectation| &mut expectation.what)
    {
        None => match (&mut exchange.request, value) {
            (Request::Http { headers, .. }, Some(value)) => headers.push((name, value)),
            _ => bail!("only an HTTP request has headers, and a request names none that are absent"),
        },
        Some(Expected::Answer { headers, .. } | Expected::Upstream { headers, .. }) => {
            headers.push(HeaderExpectation { name, value });
        }
        Some(_) => bail!("headers follow a status or `upstream`"),
    }
    Ok(())
}

fn quoted(text: &str) -> Result<String> {
    serde_json::from_str(text).context("expected a text in double quotes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_reads_as_written() {
        let text = "# remark\nGET http://reviews:9080/a?b=c x400\n  End-User: jason\n\n=> 200 from 75% v1 25% v2\n  x-a: b\n  - x-gone\n\
                    => upstream GET /new reviews\n  x-c: *\n=> flag NC\n=> in 10ms..1s\nTCP db:3306 \"hi\"\n=> \"v1 hi\"\n";
        let exchanges = parse(text, 10).expect("block");
        assert_eq!(exchanges.len(), 2);
        let first = &exchanges[0];
        assert_eq!((first.line, first.times, first.inbound), (12, 400, false));
        let Request::Http { path, headers, .. } = &first.request else {
            panic!("HTTP")
        };
        assert_eq!(path, "/a?b=c");
        assert_eq!(headers, &[("end-user".to_owned(), "jason".to_owned())]);
        let Expected::Answer { from, headers, .. } = &first.expectations[0].what else {
            panic!("answer")
        };
        assert_eq!(
            from,
            &[
                ("v1".to_owned(), Some(Share::Percent(75.0))),
                ("v2".to_owned(), Some(Share::Percent(25.0)))
            ]
        );
        assert_eq!(
            headers[1],
            HeaderExpectation {
                name: "x-gone".into(),
                value: None
            }
        );
        assert_eq!(first.expectations.len(), 4);
        assert_eq!(exchanges[1].expectations[0].what, Expected::Text("v1 hi".into()));
        let second = parse("GET http://a/b HTTP/2 x2\n=> 200\n", 1).expect("block");
        let Request::Http { path, http2, .. } = &second[0].request else {
            panic!("HTTP")
        };
        assert_eq!((path.as_str(), *http2, second[0].times), ("/b", true, 2));
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        for text in [
            "=> 200",
            "GET reviews:9080/\n=> 200",
            "GET http://a/ x0\n=> 200",
            "GET http://a/\n=> 99",
            "GET http://a/\n=> 200 from 10% a",
            "GET http://a/\n=> 200 from 100%",
            "GET http://a/ x4\n=> 200 from 2x a 1x b",
            "GET http://a/ x4\n=> 200 from 2x a 50% b",
            "GET http://a/ x4\n=> 200 from 4x a b",
            "GET http://a/\n=> on lateen 200",
            "GET http://a/\n=> on nginx 200 because it is another one",
            "GET http://a/\n=> flag NC\n  x: y",
            "TCP a:1 hi\n=> closed",
            "TCP a:1 \"hi\"\n=> 200",
            "GET http://a/\n=> from a",
            "GET http://a/ --cacert ca.crt\n=> 200",
            "GET https://a/\n=> 200",
            "GET https://a/ --cacert ca.crt --insecure\n=> 200",
            "GET https://a/ --cacert ca.crt --cert a.crt\n=> 200",
            "GET https://a/ --cacert\n=> 200",
            "",
        ] {
            assert!(parse(text, 1).is_err(), "{text}");
        }
    }
}
