//! The llhttp test vectors (Markdown, `test/request` and `test/response` of nodejs/llhttp) against our codec.
//!
//! A vector is an input and the events that llhttp's strict parser reports for it. Ours must report the same
//! messages (start line, fields, body, trailers), and refuse where llhttp refuses. Each vector is fed whole and
//! byte by byte. Vectors of llhttp's lenient modes must be refused. Where our verdict is another one on purpose,
//! docs/differences.md says why.

mod driver;
mod vectors;

use std::io;
use std::path::Path;

use driver::{End, Outcome, drive};
use vectors::{Expected, Vector, Verdict};

/// The verdict on one vector.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// File and title: `request/invalid.md: Invalid method`.
    pub name: String,
    /// Whether the verdict is llhttp's.
    pub passed: bool,
    /// Whether our codec refuses the vector.
    pub refused: bool,
    /// What was seen and expected.
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
    CaseResult {
        name: format!("{file}: {}", vector.title),
        passed: found.is_none(),
        refused: matches!(whole.end, End::Refused(_)) && matches!(by_byte.end, End::Refused(_)),
        detail: found.unwrap_or_else(|| format!("{:?}", whole.end)),
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
