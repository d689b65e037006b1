//! `docs/limits.md`, generated from the `limits` modules: every bound with its name, value and reason.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::find::collect;
use crate::process::root;

const HEAD: &str = "# Limits\n\nEverything has a limit with a name. This page is generated from the modules called `limits` \
(`cargo xtask limits`); `cargo xtask tidy` checks that it is current.\n";

/// Writes the page.
pub(crate) fn run(_: &[String]) -> Result<bool> {
    std::fs::write(root().join("docs/limits.md"), page()?)?;
    Ok(true)
}

/// Says when the page is not what the sources say.
pub(crate) fn check() -> Result<Vec<String>> {
    let current = std::fs::read_to_string(root().join("docs/limits.md")).unwrap_or_default();
    let stale = current != page()?;
    Ok(if stale {
        vec!["docs/limits.md is stale: cargo xtask limits".to_owned()]
    } else {
        Vec::new()
    })
}

fn page() -> Result<String> {
    let mut files = Vec::new();
    collect(&root().join("crates"), &mut files)?;
    files.retain(|f| f.file_name().is_some_and(|n| n == "limits.rs"));
    files.sort();
    let mut page = HEAD.to_owned();
    for file in &files {
        let rows = constants(&std::fs::read_to_string(file)?);
        if rows.is_empty() {
            continue;
        }
        let _ = write!(
            page,
            "\n## {}\n\n| limit | value | what for |\n|---|---|---|\n",
            title(file)
        );
        for (name, value, doc) in rows {
            let _ = writeln!(page, "| `{name}` | `{value}` | {doc} |");
        }
    }
    Ok(page)
}

/// The crate, and the module where it is not the crate's own.
fn title(file: &Path) -> String {
    let relative = file
        .strip_prefix(root().join("crates"))
        .unwrap_or(file)
        .display()
        .to_string();
    relative
        .trim_end_matches("/limits.rs")
        .replace("/src", "")
        .replace('/', "::")
}

/// Name, value and documentation of each public constant.
fn constants(text: &str) -> Vec<(String, String, String)> {
    let mut rows = Vec::new();
    let mut doc = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if let Some(sentence) = line.strip_prefix("///") {
            doc.push_str(sentence);
        } else if let Some(constant) = line
            .strip_prefix("pub const ")
            .or_else(|| line.strip_prefix("pub(crate) const "))
        {
            let mut whole = constant.to_owned();
            while !whole.ends_with(';') {
                let Some(next) = lines.next() else { break };
                whole.push(' ');
                whole.push_str(next.trim());
            }
            if let Some((declared, value)) = whole.trim_end_matches(';').split_once('=') {
                let name = declared.split(':').next().unwrap_or_default().trim();
                let doc = std::mem::take(&mut doc).trim().replace('|', "\\|");
                rows.push((name.to_owned(), value.trim().replace('|', "\\|"), doc));
            }
        } else if !line.starts_with("#[") {
            doc.clear();
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::constants;

    #[test]
    fn a_constant_over_two_lines_is_one_row() {
        let text = "//! x\n\n/// How many\n/// there are.\npub const A_B: usize =\n    1 << 4;\nconst HIDDEN: u8 = 1;\n";
        assert_eq!(
            constants(text),
            [(
                "A_B".to_owned(),
                "1 << 4".to_owned(),
                "How many there are.".to_owned()
            )]
        );
    }
}
