//! `cargo xtask where WORD`: the rooms where something lives, best guess first.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process::root;

/// Most content lines shown.
const MAX_LINES: usize = 20;

/// Prints feature pages, modules and documents that carry the word in their name, then definitions that do.
pub(crate) fn run(arguments: &[String]) -> Result<bool> {
    let word = arguments
        .first()
        .context("name what you look for, such as: where retry")?;
    let wanted = fold(word);
    let mut files = Vec::new();
    for place in ["features", "crates", "docs", "xtask", "tools"] {
        collect(&root().join(place), &mut files)?;
    }
    files.sort();
    let named: Vec<&PathBuf> = files
        .iter()
        .filter(|f| fold(&shown(f)).contains(&wanted))
        .collect();
    for file in &named {
        println!("{:<60} {}", shown(file), first_sentence(file));
    }
    let mut definitions = 0;
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "rs")) {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            if definitions < MAX_LINES && is_definition(line) && fold(line).contains(&wanted) {
                definitions += 1;
                println!("{}:{}: {}", shown(file), number + 1, line.trim());
            }
        }
    }
    if named.is_empty() && definitions == 0 {
        println!("nothing here is called {word:?}; docs/glossary.md lists the words in use");
    }
    Ok(!(named.is_empty() && definitions == 0))
}

fn fold(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '/')
        .collect::<String>()
        .to_ascii_lowercase()
}

fn is_definition(line: &str) -> bool {
    let line = line
        .trim_start()
        .trim_start_matches("pub(crate) ")
        .trim_start_matches("pub ");
    [
        "fn ",
        "async fn ",
        "struct ",
        "enum ",
        "trait ",
        "type ",
        "const ",
        "mod ",
    ]
    .iter()
    .any(|k| line.starts_with(k))
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

fn first_sentence(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text
        .lines()
        .find(|l| l.starts_with("//!") || l.starts_with("# "))
        .unwrap_or_default();
    line.trim_start_matches("//!")
        .trim_start_matches('#')
        .trim()
        .to_owned()
}

/// All Rust and Markdown files below `dir`, generated ones excepted.
pub(crate) fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        if path.is_dir() {
            if !["gen", "target"].contains(&name.as_str()) {
                collect(&path, into)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs" || e == "md") {
            into.push(path);
        }
    }
    Ok(())
}
