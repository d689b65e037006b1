//! Headers that routes add and remove (`request_headers_to_add` and its like).

use api_envoy::envoy::config::core::v3 as core;
use api_envoy::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use proxy_core::StreamInfo;
use proxy_core::error::ConfigContext as _;
use proxy_core::substitution::{Context, Format, ProcessInfo};
use proxy_core::{ConfigError, ConfigResult};
use proxy_http::{HeaderName, Headers, RequestHead, ResponseHead};
use smallvec::SmallVec;

/// Headers to remove and to add at one level (weighted cluster, route, virtual host or route configuration).
#[derive(Clone, Debug, Default)]
pub struct HeaderMutations {
    remove: Vec<HeaderName>,
    add: Vec<Addition>,
}

#[derive(Clone, Debug)]
struct Addition {
    name: HeaderName,
    value: Value,
    action: HeaderAppendAction,
    keep_empty: bool,
}

#[derive(Clone, Debug)]
enum Value {
    Literal(Box<[u8]>),
    Format(Format),
}

/// What an addition does once its value is known.
struct Pending<'m> {
    name: &'m HeaderName,
    value: SmallVec<[u8; 64]>,
    overwrite: bool,
}

impl HeaderMutations {
    /// Compiles the two lists, called `prefix_to_add` and `prefix_to_remove`.
    ///
    /// # Errors
    /// A name that may not be changed, or an unknown operator in a value.
    pub fn compile(prefix: &str, add: &[core::HeaderValueOption], remove: &[String]) -> ConfigResult<Self> {
        let add_field = format!("{prefix}_to_add");
        let add = add
            .iter()
            .enumerate()
            .map(|(i, option)| Addition::compile(option).within_index(&add_field, i));
        let remove_field = format!("{prefix}_to_remove");
        let remove = remove.iter().enumerate().map(|(i, name)| {
            changeable(name).within_index(&remove_field, i)?;
            Ok(HeaderName::new(name))
        });
        Ok(Self {
            remove: remove.collect::<ConfigResult<_>>()?,
            add: add.collect::<ConfigResult<_>>()?,
        })
    }

    /// Changes the headers of `message`. All values are computed before any header is changed, so that a value may
    /// refer to a header that is overwritten: removals first, then overwrites, then additions.
    pub fn apply(&self, message: &mut impl Message, info: &StreamInfo<'_>, process: &ProcessInfo) {
        for name in &self.remove {
            message.headers_mut().remove(name);
        }
        if self.add.is_empty() {
            return;
        }
        let mut pending: SmallVec<[Pending<'_>; 4]> = SmallVec::new();
        for addition in &self.add {
            let value = addition.value.text(|| message.context(info, process));
            if value.is_empty() && !addition.keep_empty {
                continue;
            }
            let present = message.headers().contains(&addition.name);
            let overwrite = match addition.action {
                HeaderAppendAction::AppendIfExistsOrAdd => false,
                HeaderAppendAction::AddIfAbsent if present => continue,
                HeaderAppendAction::AddIfAbsent => false,
                HeaderAppendAction::OverwriteIfExists if !present => continue,
                HeaderAppendAction::OverwriteIfExists | HeaderAppendAction::OverwriteIfExistsOrAdd => true,
            };
            pending.push(Pending {
                name: &addition.name,
                value,
                overwrite,
            });
        }
        let headers = message.headers_mut();
        for change in pending.iter().filter(|p| p.overwrite) {
            headers.set(change.name, &change.value);
        }
        for change in pending.iter().filter(|p| !p.overwrite) {
            headers.append(change.name, &change.value);
        }
    }
}

/// A message whose headers are changed.
pub trait Message {
    /// Its headers.
    fn headers(&self) -> &Headers;
    /// Its headers, to change.
    fn headers_mut(&mut self) -> &mut Headers;
    /// What command operators read.
    fn context<'c>(&'c self, info: &'c StreamInfo<'c>, process: &'c ProcessInfo) -> Context<'c>;
}

impl Message for RequestHead {
    fn headers(&self) -> &Headers {
        &self.headers
    }

    fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }

    fn context<'c>(&'c self, info: &'c StreamInfo<'c>, process: &'c ProcessInfo) -> Context<'c> {
        Context {
            info,
            request: Some(self),
            response: None,
            trailers: None,
            process,
        }
    }
}

/// An answer, and the request that it answers.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The answer.
    pub response: &'a mut ResponseHead,
    /// The request.
    pub request: &'a RequestHead,
}

impl Message for Answer<'_> {
    fn headers(&self) -> &Headers {
        &self.response.headers
    }

    fn headers_mut(&mut self) -> &mut Headers {
        &mut self.response.headers
    }

    fn context<'c>(&'c self, info: &'c StreamInfo<'c>, process: &'c ProcessInfo) -> Context<'c> {
        Context {
            info,
            request: Some(self.request),
            response: Some(self.response),
            trailers: None,
            process,
        }
    }
}

impl Value {
    fn text<'c>(&self, context: impl FnOnce() -> Context<'c>) -> SmallVec<[u8; 64]> {
        match self {
            Self::Literal(text) => SmallVec::from_slice(text),
            Self::Format(format) => {
                let mut out = Vec::new();
                format.write(&context(), b"", &mut out);
                // A header value cannot hold a line break, whatever the operator found.
                out.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
                SmallVec::from_vec(out)
            }
        }
    }
}

impl Addition {
    #[allow(deprecated)]
    fn compile(proto: &core::HeaderValueOption) -> ConfigResult<Self> {
        let header = proto
            .header
            .as_ref()
            .ok_or_else(|| ConfigError::at("header", "missing"))?;
        changeable(&header.key).within("key").within("header")?;
        let value = match (header.value.is_empty(), header.raw_value.is_empty()) {
            (false, false) => {
                return Err(ConfigError::at("raw_value", "value is given as well").within("header"));
            }
            (true, false) => Value::Literal(header.raw_value.to_vec().into()),
            (_, true) => {
                let format = Format::parse(&header.value).within("value").within("header")?;
                match format.literal() {
                    Some(text) => Value::Literal(text.as_bytes().into()),
                    None => Value::Format(format),
                }
            }
        };
        if let Value::Literal(text) = &value
            && text.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
        {
            return Err(ConfigError::at("value", "must not hold a line break").within("header"));
        }
        let action = match proto.append {
            Some(true) => HeaderAppendAction::AppendIfExistsOrAdd,
            Some(false) => HeaderAppendAction::OverwriteIfExistsOrAdd,
            None => HeaderAppendAction::try_from(proto.append_action)
                .map_err(|_| ConfigError::at("append_action", "not an action"))?,
        };
        Ok(Self {
            name: HeaderName::new(&header.key),
            value,
            action,
            keep_empty: proto.keep_empty_value,
        })
    }
}

/// Pseudo-headers and the host are changed by rewrites, not by mutations.
fn changeable(name: &str) -> ConfigResult<()> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(ConfigError::new(":-prefixed or host headers may not be modified"));
    }
    if !name.bytes().all(token) {
        return Err(ConfigError::new("not a header name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use std::time::{Instant, SystemTime};

    use proxy_core::{Address, ConnectionInfo};

    fn option(key: &str, value: &str, action: HeaderAppendAction) -> core::HeaderValueOption {
        core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: key.into(),
                value: value.into(),
                ..Default::default()
            }),
            append_action: action as i32,
            ..Default::default()
        }
    }

    fn apply(add: &[core::HeaderValueOption], remove: &[&str], fields: &[(&str, &str)]) -> Vec<String> {
        let remove: Vec<String> = remove.iter().map(|r| (*r).to_owned()).collect();
        let mutations = HeaderMutations::compile("request_headers", add, &remove).unwrap();
        let mut head = RequestHead::with("GET", "http", "a.test", "/p");
        fields
            .iter()
            .for_each(|(name, value)| head.headers.append(&HeaderName::new(name), value.as_bytes()));
        let address = Address::Ip("10.0.0.1:99".parse().unwrap());
        let connection = Rc::new(ConnectionInfo::new(
            1,
            address.clone(),
            address,
            SystemTime::UNIX_EPOCH,
        ));
        let info = StreamInfo::new(connection, SystemTime::UNIX_EPOCH, Instant::now());
        let process = ProcessInfo::default();
        mutations.apply(&mut head, &info, &process);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        head.headers
            .iter()
            .map(|(n, v)| format!("{}={}", text(n), text(v)))
            .collect()
    }

    #[test]
    fn each_action_does_what_its_name_says() {
        use HeaderAppendAction as Action;
        let present = &[("x-a", "0")][..];
        for (action, with, without) in [
            (
                Action::AppendIfExistsOrAdd,
                &["x-a=0", "x-a=1"][..],
                &["x-a=1"][..],
            ),
            (Action::AddIfAbsent, &["x-a=0"], &["x-a=1"]),
            (Action::OverwriteIfExistsOrAdd, &["x-a=1"], &["x-a=1"]),
            (Action::OverwriteIfExists, &["x-a=1"], &[]),
        ] {
            let add = [option("X-A", "1", action)];
            assert_eq!(apply(&add, &[], present), with, "{action:?}");
            assert_eq!(apply(&add, &[], &[]), without, "{action:?}");
        }
    }

    #[test]
    fn removal_comes_before_addition() {
        let add = [option("x-a", "1", HeaderAppendAction::AppendIfExistsOrAdd)];
        assert_eq!(
            apply(&add, &["x-a"], &[("x-a", "0"), ("x-b", "2")]),
            ["x-b=2", "x-a=1"]
        );
    }

    #[test]
    fn values_are_computed_before_headers_are_overwritten() {
        let add = [
            option("x-a", "new", HeaderAppendAction::OverwriteIfExistsOrAdd),
            option(
                "x-b",
                "%REQ(x-a)% from %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                HeaderAppendAction::AppendIfExistsOrAdd,
            ),
        ];
        assert_eq!(
            apply(&add, &[], &[("x-a", "old")]),
            ["x-a=new", "x-b=old from 10.0.0.1"]
        );
    }

    #[test]
    fn an_empty_value_adds_nothing_unless_it_is_to_be_kept() {
        let mut add = [option(
            "x-a",
            "%REQ(x-none)%",
            HeaderAppendAction::AppendIfExistsOrAdd,
        )];
        assert!(apply(&add, &[], &[]).is_empty());
        add[0].keep_empty_value = true;
        assert_eq!(apply(&add, &[], &[]), ["x-a="]);
    }

    #[test]
    fn pseudo_headers_unknown_operators_and_line_breaks_are_refused() {
        let path = |name: &str, value: &str| {
            let add = [option(name, value, HeaderAppendAction::AddIfAbsent)];
            HeaderMutations::compile("request_headers", &add, &[])
                .unwrap_err()
                .path()
                .to_owned()
        };
        assert_eq!(path(":path", "x"), "request_headers_to_add[0].header.key");
        assert_eq!(path("Host", "x"), "request_headers_to_add[0].header.key");
        assert_eq!(
            path("x-a", "%NO_SUCH_THING%"),
            "request_headers_to_add[0].header.value"
        );
        assert_eq!(
            path("x-a", "a\r\nx-b: c"),
            "request_headers_to_add[0].header.value"
        );
    }
}
