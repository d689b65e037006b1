//! Path normalisation (`normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`), so that what routes
//! and policies see is what the upstream will act on. RFC 3986 section 6.2.2, as Envoy's canonicaliser does it.

use std::borrow::Cow;

use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::PathWithEscapedSlashesAction;
use proxy_http::RequestHead;

/// What is done to paths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PathOptions {
    /// Resolve dot segments, decode unreserved characters, turn backslashes round.
    pub(crate) normalize: bool,
    /// Merge neighbouring slashes.
    pub(crate) merge_slashes: bool,
    /// What `%2F` and `%5C` lead to.
    pub(crate) escaped_slashes: EscapedSlashes,
}

/// `PathWithEscapedSlashesAction`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum EscapedSlashes {
    /// They stay.
    #[default]
    Keep,
    /// 400.
    Reject,
    /// They are decoded, and the client is redirected to the result.
    Redirect,
    /// They are decoded.
    Unescape,
}

impl From<PathWithEscapedSlashesAction> for EscapedSlashes {
    fn from(action: PathWithEscapedSlashesAction) -> Self {
        match action {
            PathWithEscapedSlashesAction::ImplementationSpecificDefault
            | PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashes::Keep,
            PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::Reject,
            PathWithEscapedSlashesAction::UnescapeAndRedirect => EscapedSlashes::Redirect,
            PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::Unescape,
        }
    }
}

/// What normalisation led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PathVerdict {
    /// Go on; the path may have changed.
    Continue,
    /// 400 with details `path_normalization_failed`.
    Reject,
    /// 307 to the path that the head now has.
    Redirect,
}

/// Normalises the path of a request.
pub(crate) fn normalize_request(head: &mut RequestHead, options: PathOptions) -> PathVerdict {
    let path = head.path();
    // A fragment is never sent by a client that means well (Envoy: `http_reject_path_with_fragment`).
    if memchr::memchr(b'#', path).is_some() {
        return PathVerdict::Reject;
    }
    let split = memchr::memchr(b'?', path).unwrap_or(path.len());
    let (before, query) = path.split_at(split);
    let mut verdict = PathVerdict::Continue;
    let mut changed = Cow::Borrowed(before);
    if options.escaped_slashes != EscapedSlashes::Keep
        && let Some(unescaped) = unescape_slashes(&changed)
    {
        match options.escaped_slashes {
            EscapedSlashes::Reject => return PathVerdict::Reject,
            EscapedSlashes::Redirect => verdict = PathVerdict::Redirect,
            EscapedSlashes::Keep | EscapedSlashes::Unescape => {}
        }
        changed = Cow::Owned(unescaped);
    }
    if options.normalize {
        match normalize(&changed) {
            Ok(None) => {}
            Ok(Some(normalized)) => changed = Cow::Owned(normalized),
            Err(NulByte) => return PathVerdict::Reject,
        }
    }
    if options.merge_slashes && memchr::memmem::find(&changed, b"//").is_some() {
        changed = Cow::Owned(merge_slashes(&changed));
    }
    if let Cow::Owned(mut path) = changed {
        path.extend_from_slice(query);
        head.set_path(&path);
    }
    verdict
}

/// A path that decodes to a NUL byte.
struct NulByte;

/// Decodes `%2F` and `%5C`; `None` when there is none.
fn unescape_slashes(path: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'%', path)?;
    let mut out = Vec::with_capacity(path.len());
    let (mut at, mut found) = (0, false);
    while at < path.len() {
        match decoded(path, at) {
            Some(byte @ (b'/' | b'\\')) => {
                out.push(byte);
                at += 3;
                found = true;
            }
            _ => {
                out.push(path[at]);
                at += 1;
            }
        }
    }
    found.then_some(out)
}

/// The byte that a percent escape at `at` stands for.
fn decoded(path: &[u8], at: usize) -> Option<u8> {
    let digit = |offset: usize| {
        path.get(at + offset)
            .and_then(|&byte| char::from(byte).to_digit(16))
    };
    if path[at] != b'%' {
        return None;
    }
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

/// Normalises a path without its query; `None` when it is normal already.
fn normalize(path: &[u8]) -> Result<Option<Vec<u8>>, NulByte> {
    if is_normal(path) {
        return Ok(None);
    }
    let decoded = decode_unreserved(path)?;
    Ok(Some(remove_dot_segments(&decoded)))
}

/// A cheap look that answers yes for nearly every path.
fn is_normal(path: &[u8]) -> bool {
    let plain = !path.iter().fold(false, |odd, &byte| {
        odd | must_escape(byte) | matches!(byte, b'%' | b'\\')
    });
    plain && memchr::memmem::find(path, b"/.").is_none()
}

/// Characters that may not stand in a path as they are.
fn must_escape(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// Decodes escapes of unreserved characters (RFC 3986 section 2.3), escapes what must be, turns backslashes round.
fn decode_unreserved(path: &[u8]) -> Result<Vec<u8>, NulByte> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(path.len() + 8);
    let mut at = 0;
    while at < path.len() {
        let byte = path[at];
        match decoded(path, at) {
            Some(0) => return Err(NulByte),
            Some(byte) if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') => {
                out.push(byte);
                at += 3;
                continue;
            }
            _ if byte == b'\\' => out.push(b'/'),
            _ if must_escape(byte) => {
                out.extend([
                    b'%',
                    DIGITS[usize::from(byte >> 4)],
                    DIGITS[usize::from(byte & 0xf)],
                ]);
            }
            _ => out.push(byte),
        }
        at += 1;
    }
    Ok(out)
}

/// Resolves `.` and `..` segments; `..;x` counts as `..`, because some upstreams read it so.
fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path
        .strip_prefix(b"/")
        .unwrap_or(path)
        .split(|&byte| byte == b'/')
        .peekable();
    while let Some(segment) = segments.next() {
        let name = segment.split(|&byte| byte == b';').next().unwrap_or_default();
        let is_last = segments.peek().is_none();
        match name {
            b"." => {}
            b".." => out.truncate(out.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        if is_last {
            out.push(b'/');
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|next, previous| *next == b'/' && *previous == b'/');
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: PathOptions, cases: &[(&str, &str)]) {
        for (path, expected) in cases {
            let mut head = RequestHead::with("GET", "http", "a", path);
            let verdict = normalize_request(&mut head, options);
            assert_eq!(verdict, PathVerdict::Continue, "{path}");
            assert_eq!(String::from_utf8_lossy(head.path()), *expected, "{path}");
        }
    }

    /// The expected paths are what Envoy 1.40 forwards.
    #[test]
    fn paths_are_normalised_as_envoy_does() {
        check(
            PathOptions {
                normalize: true,
                ..PathOptions::default()
            },
            &[
                ("/a/./b/../c", "/a/c"),
                ("/a%2Fb", "/a%2Fb"),
                ("/a%5Cb", "/a%5Cb"),
                ("/a\\b", "/a/b"),
                ("/%7Euser/%41%2e%2E/x", "/~user/A../x"),
                ("/a//b///c", "/a//b///c"),
                ("/..", "/"),
                ("/../x", "/x"),
                ("/a/%2e%2e/b", "/b"),
                ("/a%zz", "/a%zz"),
                ("/a%", "/a%"),
                ("/%20%2D%2E%5F%7E%7B", "/%20-._~%7B"),
                (
                    "/!\"$&'()*+,;:@<>[]^`{|}~",
                    "/!%22$&'()*+,;:@%3C%3E[]%5E%60%7B%7C%7D~",
                ),
                ("/a?x=/../b//c", "/a?x=/../b//c"),
                ("/a/..;/b", "/b"),
                ("/a/.", "/a/"),
                ("/a/..", "/"),
                ("/.hidden/..x/x..", "/.hidden/..x/x.."),
            ],
        );
    }

    #[test]
    fn slashes_are_merged_and_unescaped_when_asked() {
        let options = PathOptions {
            normalize: true,
            merge_slashes: true,
            escaped_slashes: EscapedSlashes::Unescape,
        };
        check(
            options,
            &[
                ("/a//b///c", "/a/b/c"),
                ("/a%2Fb", "/a/b"),
                ("/a%5Cb", "/a/b"),
                ("/a%2f%2fb", "/a/b"),
                ("/a?x=//", "/a?x=//"),
                ("/a%2f..%2fb", "/b"),
            ],
        );
    }

    #[test]
    fn fragments_and_nul_bytes_are_rejected_and_redirects_carry_the_new_path() {
        let options = PathOptions {
            normalize: true,
            ..PathOptions::default()
        };
        for path in ["/a#b", "/a%00b"] {
            let mut head = RequestHead::with("GET", "http", "a", path);
            assert_eq!(
                normalize_request(&mut head, options),
                PathVerdict::Reject,
                "{path}"
            );
        }
        let mut head = RequestHead::with("GET", "http", "a", "/a%2Fb?q");
        let redirect = PathOptions {
            escaped_slashes: EscapedSlashes::Redirect,
            ..options
        };
        assert_eq!(normalize_request(&mut head, redirect), PathVerdict::Redirect);
        assert_eq!(head.path(), b"/a/b?q");
    }
}
