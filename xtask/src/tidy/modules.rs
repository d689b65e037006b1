//! No cycles between the top-level modules of a crate.
//!
//! An edge is a `crate::name` or, in the crate's root file, nothing: the root may use every module. Test modules do
//! not count. This reads text, not types: a re-export at the root hides where a name comes from, so names re-exported
//! there count as the module that they come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::find::collect;
use crate::process::root;

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Cycles found in any crate.
pub(crate) fn check() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for entry in std::fs::read_dir(root().join("crates"))? {
        let krate = entry?.path();
        let graph = graph(&krate.join("src"))?;
        let name = krate
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let cycles = cycles(&graph).into_iter();
        findings.extend(cycles.map(|c| format!("{name}: {}", c.join(" ↔ "))));
    }
    findings.sort();
    Ok(findings)
}

fn graph(src: &Path) -> Result<Graph> {
    let mut files: Vec<PathBuf> = Vec::new();
    collect(src, &mut files)?;
    files.retain(|f| f.extension().is_some_and(|e| e == "rs"));
    let modules: BTreeSet<String> = files.iter().filter_map(|f| module(src, f)).collect();
    let mut graph = Graph::new();
    for file in &files {
        let Some(from) = module(src, file) else { continue };
        let text = std::fs::read_to_string(file)?;
        let code = code(&text);
        let edges = graph.entry(from.clone()).or_default();
        for to in mentions(&code) {
            if to != from && modules.contains(&to) {
                edges.insert(to);
            }
        }
    }
    Ok(graph)
}

/// The top-level module that a file belongs to; nothing for the crate's root and for test files.
fn module(src: &Path, file: &Path) -> Option<String> {
    let relative = file.strip_prefix(src).ok()?;
    let first = relative
        .components()
        .next()?
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    let name = first.trim_end_matches(".rs").to_owned();
    (!["lib", "main", "bin", "tests"].contains(&name.as_str())).then_some(name)
}

/// The code of a file without its comments, which may link anywhere, and without its test module.
fn code(text: &str) -> String {
    let lines = text.split("#[cfg(test)]").next().unwrap_or_default().lines();
    let code: Vec<&str> = lines.filter(|l| !l.trim_start().starts_with("//")).collect();
    code.join("\n")
}

/// The names after `crate::` in code, groups such as `crate::{a, b::c}` included.
fn mentions(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in code.split("crate::").skip(1) {
        if let Some(group) = line.strip_prefix('{') {
            let mut depth = 0;
            let mut item = String::new();
            for c in group.chars() {
                match c {
                    '}' if depth == 0 => break,
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => names.push(head(&std::mem::take(&mut item))),
                    _ if depth == 0 => item.push(c),
                    _ => {}
                }
            }
            names.push(head(&item));
        } else {
            names.push(head(line));
        }
    }
    names
}

fn head(path: &str) -> String {
    path.trim_start()
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

/// Strongly connected components of more than one module.
fn cycles(graph: &Graph) -> Vec<Vec<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        graph.keys().map(|m| (m, reachable(graph, m))).collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (module, targets) in &reach {
        let group: Vec<String> = targets
            .iter()
            .filter(|t| reach.get(**t).is_some_and(|back| back.contains(*module)))
            .map(|t| (*t).clone())
            .collect();
        if group.len() > 1 && group.iter().all(|m| seen.insert(m.clone())) {
            found.push(group);
        }
    }
    found
}

fn reachable<'a>(graph: &'a Graph, from: &'a String) -> BTreeSet<&'a String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for next in graph.get(module).into_iter().flatten() {
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_single_uses_are_read() {
        let code = "use crate::{a, b::{c, d}, e};\nfn f() { crate::g::h() }";
        assert_eq!(mentions(code), ["a", "b", "e", "g"]);
    }

    #[test]
    fn a_cycle_of_three_is_found_once() {
        let edges = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")];
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry(from.to_owned()).or_default().insert(to.to_owned());
        }
        assert_eq!(cycles(&graph), [["a", "b", "c"]]);
    }
}
