//! Functions that Kubernetes adds to CEL: URLs, IP addresses, regular expressions, lists.

use std::net::IpAddr;
use std::sync::Arc;

use cel::extractors::This;
use cel::objects::Opaque;
use cel::{Context, ExecutionError, Value};

use super::environment::GO_DURATION;
use super::url::Url;
use crate::formats::{go_duration_nanos, is_cidr};

/// Every function that [`register`] adds.
pub(super) const NAMES: &[&str] = &[
    GO_DURATION,
    "isURL",
    "url",
    "getScheme",
    "getHost",
    "getHostname",
    "getPort",
    "getEscapedPath",
    "find",
    "findAll",
    "isSorted",
    "sum",
    "isIP",
    "isCIDR",
];

type Result<T> = std::result::Result<T, ExecutionError>;

/// Adds the functions to a root context.
pub(super) fn register(context: &mut Context<'_, '_>) {
    let added = [
        context.add_function(GO_DURATION, duration),
        context.add_function("isURL", |text: Arc<String>| Url::parse(&text).is_some()),
        context.add_function("url", url),
        context.add_function("getScheme", |This(url): This<Value>| {
            part(&url, |url| url.scheme.clone())
        }),
        context.add_function("getHost", |This(url): This<Value>| {
            part(&url, |url| url.host.clone())
        }),
        context.add_function("getHostname", |This(url): This<Value>| part(&url, Url::hostname)),
        context.add_function("getPort", |This(url): This<Value>| part(&url, Url::port)),
        context.add_function("getEscapedPath", |This(url): This<Value>| {
            part(&url, |url| url.path.clone())
        }),
        context.add_function("find", find),
        context.add_function("findAll", find_all),
        context.add_function("isSorted", |This(list): This<Arc<Vec<Value>>>| is_sorted(&list)),
        context.add_function("sum", |This(list): This<Arc<Vec<Value>>>| sum(&list)),
        context.add_function("isIP", |text: Arc<String>| text.parse::<IpAddr>().is_ok()),
        context.add_function("isCIDR", |text: Arc<String>| is_cidr(&text)),
    ];
    debug_assert!(
        added.iter().all(std::result::Result::is_ok),
        "every function is added once"
    );
}

fn failure(function: &str, message: impl Into<String>) -> ExecutionError {
    ExecutionError::FunctionError {
        function: function.to_owned(),
        message: message.into(),
    }
}

fn duration(value: Value) -> Result<Value> {
    let text = match value {
        Value::Duration(duration) => return Ok(Value::Duration(duration)),
        Value::String(text) => text,
        other => {
            return Err(failure(
                GO_DURATION,
                format!(
                    "found no matching overload for 'duration' applied to '({})'",
                    other.type_of()
                ),
            ));
        }
    };
    go_duration_nanos(&text)
        .map(|nanos| Value::Duration(chrono::Duration::nanoseconds(nanos)))
        .ok_or_else(|| {
            failure(
                GO_DURATION,
                "type conversion error from 'string' to 'google.protobuf.Duration'",
            )
        })
}

fn url(text: Arc<String>) -> Result<Value> {
    match Url::parse(&text) {
        Some(url) => Ok(Value::Opaque(Arc::new(url))),
        None => Err(failure(
            "url",
            format!("URL parse error during conversion from string: {text:?} is not a valid URL"),
        )),
    }
}

fn part(value: &Value, read: impl Fn(&Url) -> String) -> Result<Value> {
    let url = match value {
        Value::Opaque(opaque) => {
            let opaque: &dyn Opaque = &**opaque;
            opaque.downcast_ref::<Url>()
        }
        _ => None,
    };
    url.map(|url| Value::String(Arc::new(read(url))))
        .ok_or_else(|| failure("url", "no such overload"))
}

fn pattern(text: &str) -> Result<regex::Regex> {
    regex::Regex::new(text).map_err(|error| failure("find", error.to_string()))
}

fn find(This(text): This<Arc<String>>, expression: Arc<String>) -> Result<Value> {
    let found = pattern(&expression)?
        .find(&text)
        .map(|found| found.as_str().to_owned());
    Ok(Value::String(Arc::new(found.unwrap_or_default())))
}

fn find_all(This(text): This<Arc<String>>, expression: Arc<String>) -> Result<Value> {
    let expression = pattern(&expression)?;
    let found = expression
        .find_iter(&text)
        .map(|found| Value::String(Arc::new(found.as_str().to_owned())));
    Ok(Value::List(Arc::new(found.collect())))
}

fn is_sorted(list: &[Value]) -> bool {
    list.windows(2).all(|pair| {
        pair[0]
            .partial_cmp(&pair[1])
            .is_some_and(std::cmp::Ordering::is_le)
    })
}

fn sum(list: &[Value]) -> Result<Value> {
    let mut total = Value::Int(0);
    for item in list {
        total = match (total, item) {
            (Value::Int(a), Value::Int(b)) => Value::Int(
                a.checked_add(*b)
                    .ok_or_else(|| failure("sum", "integer overflow"))?,
            ),
            (Value::Int(0), Value::Float(b)) => Value::Float(*b),
            (Value::Float(a), Value::Float(b)) => Value::Float(a + b),
            _ => return Err(failure("sum", "no such overload")),
        };
    }
    Ok(total)
}
