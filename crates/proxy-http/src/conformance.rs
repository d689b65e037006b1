//! The llhttp test vectors (Markdown, `test/request` and `test/response` of nodejs/llhttp) against our codec.
//!
//! A vector is an input and the events that llhttp's strict parser reports for it. Ours must report the same
//! messages (start line, fields, body, trailers), and refuse where llhttp refuses. Each vector is fed whole and
//! byte by byte. Vectors of llhttp's lenient modes must be refused. [`DIFFERENCES`] lists where our verdict is
//! another one on purpose.

mod driver;
mod vectors;

use std::io;
use std::path::Path;

use driver::{End, Outcome, drive};
use vectors::{Expected, Vector, Verdict};

/// Vectors on which we differ from llhttp on purpose: file, title, reason.
pub const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("request/method.md", "SOURCE request with ICE", ONLY_HTTP),
    ("request/method.md", "OPTIONS request with RTSP", ONLY_HTTP),
    ("request/method.md", "ANNOUNCE request with RTSP", ONLY_HTTP),
    ("request/sample.md", "No HTTP version", NO_HTTP_0_9),
    (
        "request/transfer-encoding.md",
        "POST with `chunked` as last transfer-encoding",
        ONLY_CHUNKED,
    ),
    (
        "request/transfer-encoding.md",
        "POST with `chunked` as last transfer-encoding (multiple headers)",
        ONLY_CHUNKED,
    ),
    (
        "response/connection.md",
        "HTTP 101 response with Upgrade and Transfer-Encoding header",
        "a transfer coding in a 1xx response is forbidden (RFC 9112 section 6.1); Envoy refuses it too",
    ),
    ("response/sample.md", "RTSP response", ONLY_HTTP),
    ("response/sample.md", "ICE response", ONLY_HTTP),
    ("response/sample.md", "HTTP version 0.9", NO_HTTP_0_9),
    (
        "response/transfer-encoding.md",
        "`chunked` before other transfer-encoding",
        ONLY_CHUNKED,
    ),
    (
        "response/transfer-encoding.md",
        "multiple transfer-encoding where chunked is not the last one",
        ONLY_CHUNKED,
    ),
    (
        "response/transfer-encoding.md",
        "`chunkedchunked` transfer-encoding does not enable chunked enconding",
        ONLY_CHUNKED,
    ),
];

const ONLY_HTTP: &str = "this proxy speaks HTTP; RTSP and ICE are refused, as Envoy does";
const NO_HTTP_0_9: &str = "HTTP/0.9 is refused, as Envoy does";
const ONLY_CHUNKED: &str = "a proxy must be able to frame what it forwards, so any transfer coding but exactly \
     `chunked` is refused, as Envoy does";

/// The verdict on one vector.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// File and title: `request/invalid.md: Invalid method`.
    pub name: String,
    /// True when the verdict is as it should be, a listed difference included.
    pub passed: bool,
    /// What was seen and expected, or the reason of a listed difference.
    pub detail: String,
}

/// Runs every vector below `dir`, which holds the folders `request` and `response`.
///
/// # Errors
/// A file or folder could not be read, or there is no vector at all.
pub fn run_llhttp(dir: &Path) -> io::Result<Vec<CaseResult>> {
    let mut results = Vec::new();
    for side in ["request", "response"] {
        let mut files: Vec<_> = std::fs::read_dir(dir.join(side))?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        files.sort();
        for file in files
            .iter()
            .filter(|file| file.extension().is_some_and(|ending| ending == "md"))
        {
            let stem = file.file_name().unwrap_or_default().to_string_lossy();
            let text = std::fs::read_to_string(file)?;
            let file = format!("{side}/{stem}");
            results.extend(vectors::parse(&text).iter().map(|vector| judge(&file, vector)));
        }
    }
    if results.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no vectors found"));
    }
    Ok(results)
}

/// Compares our verdict on a vector, fed in both ways, with the expected one.
fn judge(file: &str, vector: &Vector) -> CaseResult {
    let whole = drive(vector, vector.input.len().max(1));
    let by_byte = drive(vector, 1);
    let mut found = compare(&vector.expected, &whole);
    if found.is_none() && !whole.is_like(&by_byte) {
        found = Some(format!(
            "depends on how the input is split: {whole:?} or {by_byte:?}"
        ));
    }
    let name = format!("{file}: {}", vector.title);
    let listed = DIFFERENCES
        .iter()
        .find(|(in_file, title, _)| *in_file == file && *title == vector.title);
    match (found, listed) {
        (None, None) => CaseResult {
            name,
            passed: true,
            detail: format!("{:?}", whole.end),
        },
        (Some(_), Some((_, _, reason))) => CaseResult {
            name,
            passed: true,
            detail: format!("differs on purpose: {reason}"),
        },
        (Some(detail), None) => CaseResult {
            name,
            passed: false,
            detail,
        },
        (None, Some(_)) => CaseResult {
            name,
            passed: false,
            detail: "listed as a difference, but there is none".to_owned(),
        },
    }
}

/// What is wrong with an outcome, if anything.
fn compare(expected: &Expected, outcome: &Outcome) -> Option<String> {
    match (expected.verdict, &outcome.end) {
        (Verdict::Refuse, End::Refused(_)) | (Verdict::Unfinished, End::Unfinished) => {}
        (Verdict::Accept, End::Open) | (Verdict::HandOver, End::HandedOver) => {}
        (verdict, end) => return Some(format!("expected {verdict:?}, got {end:?}")),
    }
    if expected.verdict == Verdict::Refuse {
        // How far a parser comes before it notices is its own affair; what it let through complete is not.
        let complete = expected
            .messages
            .iter()
            .filter(|message| message.complete)
            .count();
        let ours = outcome.messages.iter().filter(|message| message.complete).count();
        return (ours > complete).then(|| format!("let {ours} messages through instead of {complete}"));
    }
    // A head that is not complete is not a message yet.
    let complete: Vec<_> = expected
        .messages
        .iter()
        .filter(|message| message.head_complete)
        .collect();
    if complete.len() != outcome.messages.len() {
        return Some(format!("expected {complete:?}, got {:?}", outcome.messages));
    }
    let mut pairs = complete.into_iter().zip(&outcome.messages);
    pairs
        .find(|(wanted, seen)| wanted != seen)
        .map(|(wanted, seen)| format!("expected {wanted:?}, got {seen:?}"))
}
