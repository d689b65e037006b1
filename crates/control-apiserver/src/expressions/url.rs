//! `url()` of Kubernetes' CEL: Go's `url.ParseRequestURI`, so either an absolute URI or an absolute path.

use cel::objects::Opaque;

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) scheme: String,
    /// Host with port, as written.
    pub(super) host: String,
    pub(super) path: String,
}

impl Opaque for Url {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.URL"
    }
}

impl Url {
    /// Parses `text`, or says that it is not a URL.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty()
            || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
            || !escapes_are_valid(text)
        {
            return None;
        }
        let without_fragment = text;
        let (scheme, rest) = match without_fragment.find(':') {
            Some(0) => return None,
            Some(colon) if is_scheme(&text[..colon]) => {
                (text[..colon].to_ascii_lowercase(), &text[colon + 1..])
            }
            _ => (String::new(), text),
        };
        let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
        if !rest.starts_with('/') {
            // `mailto:x` is opaque; without a scheme it would be a relative reference, which is refused.
            return (!scheme.is_empty()).then(|| Self {
                scheme,
                host: String::new(),
                path: String::new(),
            });
        }
        let Some(after) = rest.strip_prefix("//").filter(|_| !scheme.is_empty()) else {
            return Some(Self {
                scheme,
                host: String::new(),
                path: rest.to_owned(),
            });
        };
        let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        port_is_valid(host).then(|| Self {
            scheme,
            host: host.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Host without port and brackets.
    pub(super) fn hostname(&self) -> String {
        split_port(&self.host)
            .0
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned()
    }

    /// Port, or the empty string.
    pub(super) fn port(&self) -> String {
        split_port(&self.host).1.to_owned()
    }
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => (&host[..colon], &host[colon + 1..]),
        _ => (host, ""),
    }
}

fn port_is_valid(host: &str) -> bool {
    let (name, port) = split_port(host);
    let bare_colons = !name.starts_with('[') && name.contains(':');
    !bare_colons && port.bytes().all(|byte| byte.is_ascii_digit()) && !name.contains(['<', '>', '"', ' '])
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn escapes_are_valid(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_hexdigit);
    (0..bytes.len()).all(|index| bytes[index] != b'%' || (hex(index + 1) && hex(index + 2)))
}
