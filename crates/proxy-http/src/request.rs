//! The request line (RFC 9112 section 3) and the forms of its target.

use std::ops::Range;

use crate::error::ParseError;
use crate::head::{RequestHead, Version};
use crate::header_id::HeaderId;
use crate::syntax::{is_method, is_method_prefix, is_token, is_visible};

/// Parses `method SP target SP version`.
pub(crate) fn parse_line(line: &[u8], head: &mut RequestHead) -> Result<(), ParseError> {
    let method_end = memchr::memchr(b' ', line).ok_or(ParseError::Method)?;
    if !is_method(&line[..method_end]) {
        return Err(ParseError::Method);
    }
    let version_start = memchr::memrchr(b' ', line).ok_or(ParseError::Version)? + 1;
    if version_start <= method_end + 1 {
        return Err(ParseError::Version);
    }
    head.version = parse_version(&line[version_start..])?;
    let target = method_end + 1..version_start - 1;
    if target.is_empty() || !is_visible(&line[target.clone()]) {
        return Err(ParseError::Target);
    }
    let base = head.headers.take_block(line);
    head.headers
        .push_pseudo(HeaderId::Method, base..base + method_end);
    place_target(head, base, target)
}

/// `HTTP/1.0` or `HTTP/1.1`, exactly.
pub(crate) fn parse_version(version: &[u8]) -> Result<Version, ParseError> {
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        _ => Err(ParseError::Version),
    }
}

/// Takes path and authority out of the target, whose range is relative to `base` in the block.
fn place_target(head: &mut RequestHead, base: usize, target: Range<usize>) -> Result<(), ParseError> {
    let absolute = base + target.start..base + target.end;
    let block = head.headers.block();
    let bytes = &block[absolute.clone()];
    let method = head.method();
    if method == b"CONNECT" {
        if bytes.contains(&b'/') || bytes.contains(&b'?') {
            return Err(ParseError::Target);
        }
        head.headers.push_pseudo(HeaderId::Authority, absolute);
        return Ok(());
    }
    match bytes[0] {
        b'/' => head.headers.push_pseudo(HeaderId::Path, absolute),
        b'*' if bytes.len() == 1 && matches!(method, b"OPTIONS" | b"M-SEARCH") => {
            head.headers.push_pseudo(HeaderId::Path, absolute)
        }
        _ => return place_absolute_form(head, absolute),
    }
    Ok(())
}

/// `scheme://authority/path?query`; the authority outranks a `Host` field (RFC 9112 section 3.2.2).
fn place_absolute_form(head: &mut RequestHead, target: Range<usize>) -> Result<(), ParseError> {
    let bytes = &head.headers.block()[target.clone()];
    let scheme_end = bytes
        .iter()
        .position(|byte| !byte.is_ascii_alphanumeric())
        .ok_or(ParseError::Target)?;
    if !bytes[0].is_ascii_alphabetic() || !bytes[scheme_end..].starts_with(b"://") {
        return Err(ParseError::Target);
    }
    let authority_start = scheme_end + 3;
    let authority_length = bytes[authority_start..]
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .unwrap_or(bytes.len() - authority_start);
    let path_start = authority_start + authority_length;
    if authority_length == 0 {
        return Err(ParseError::Target);
    }
    // User information is of no use to a proxy and of use to an attacker (RFC 9110 section 4.2.4).
    let user_end = memchr::memrchr(b'@', &bytes[authority_start..path_start]).map_or(0, |at| at + 1);
    let has_slash = bytes.get(path_start) == Some(&b'/');
    let (start, end) = (target.start, target.end);
    let authority_start = authority_start + user_end;
    if authority_start == path_start {
        return Err(ParseError::Target);
    }
    head.headers
        .push_pseudo(HeaderId::Scheme, start..start + scheme_end);
    head.headers
        .push_pseudo(HeaderId::Authority, start + authority_start..start + path_start);
    if has_slash {
        head.headers.push_pseudo(HeaderId::Path, start + path_start..end);
    } else {
        // An empty path is sent as "/" (RFC 9112 section 3.2.1), a query stays behind it.
        let path = [b"/", &head.headers.block()[start + path_start..end]].concat();
        head.set_path(&path);
    }
    Ok(())
}

/// What a complete head must satisfy as a whole: at most one `Host`, which becomes the authority.
pub(crate) fn finish(head: &mut RequestHead) -> Result<(), ParseError> {
    if head.headers.host_count() > 1 {
        return Err(ParseError::Host);
    }
    head.headers.promote_host();
    Ok(())
}

/// Finds what is already wrong with the beginning of a request line.
pub(crate) fn check_unfinished_line(line: &[u8]) -> Result<(), ParseError> {
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let method = parts.next().unwrap_or_default();
    let Some(target) = parts.next() else {
        return if is_method_prefix(method) {
            Ok(())
        } else {
            Err(ParseError::Method)
        };
    };
    if !is_method(method) || !method.iter().copied().all(is_token) {
        return Err(ParseError::Method);
    }
    if !is_visible(target) {
        return Err(ParseError::Target);
    }
    let Some(version) = parts.next() else {
        return Ok(());
    };
    if target.is_empty() {
        return Err(ParseError::Target);
    }
    check_unfinished_version(version)
}

/// Finds what is already wrong with the beginning of a version.
pub(crate) fn check_unfinished_version(version: &[u8]) -> Result<(), ParseError> {
    if b"HTTP/1.1".starts_with(version) || b"HTTP/1.0".starts_with(version) {
        Ok(())
    } else {
        Err(ParseError::Version)
    }
}
