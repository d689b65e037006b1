//! The entries of docs/differences.md: `` - `case` — reason `` or `` - `case` `part of the difference` — reason ``.
//!
//! In a case name `*` stands for any text. An entry with a second quoted text explains only differences that contain
//! that text, so that one known difference does not hide others in the same case.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

#[derive(Clone, Debug)]
struct Entry {
    case: String,
    part: Option<String>,
    reason: String,
}

impl Entry {
    fn explains(&self, case: &str, difference: &str) -> bool {
        let named = |part: &String| difference.contains(part.as_str());
        matches(&self.case, case) && self.part.as_ref().is_none_or(named)
    }
}

/// The entries of one set.
#[derive(Clone, Debug)]
pub(crate) struct Differences {
    entries: Vec<Entry>,
}

impl Differences {
    /// Reads the section of a set.
    pub(crate) fn read(file: &Path, set: &str) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Self::parse(&text, set)
    }

    fn parse(text: &str, set: &str) -> Result<Self> {
        let section = text
            .split("\n## ")
            .skip(1)
            .find(|s| s.lines().next().is_some_and(|l| l.trim() == set));
        let mut entries = Vec::new();
        for line in section
            .unwrap_or_default()
            .lines()
            .filter(|l| l.starts_with("- `"))
        {
            let (quoted, reason) = line
                .split_once('—')
                .with_context(|| format!("no reason (after —) in: {line}"))?;
            let mut names = quoted.split('`').skip(1).step_by(2).map(str::to_owned);
            let case = names.next().with_context(|| format!("no case in: {line}"))?;
            let reason = reason.trim().to_owned();
            ensure!(!reason.is_empty(), "no reason in: {line}");
            entries.push(Entry {
                case,
                part: names.next(),
                reason,
            });
        }
        Ok(Self { entries })
    }

    /// Whether an entry explains this difference of the case.
    pub(crate) fn covers(&self, case: &str, difference: &str) -> bool {
        self.entry(case, difference).is_some()
    }

    /// The entries that explain no difference of any of these cases, in words.
    pub(crate) fn stale(&self, cases: &[(&str, &[String])]) -> Vec<String> {
        let explains = |entry: &&Entry| {
            let mut all = cases
                .iter()
                .flat_map(|(case, list)| list.iter().map(move |d| (*case, d)));
            all.any(|(case, difference)| entry.explains(case, difference))
        };
        let stale = self.entries.iter().filter(|entry| !explains(entry));
        stale
            .map(|entry| match &entry.part {
                Some(part) => format!("`{}` `{part}`", entry.case),
                None => format!("`{}`", entry.case),
            })
            .collect()
    }

    fn entry(&self, case: &str, difference: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.explains(case, difference))
    }

    /// The reasons, when every difference of the case is explained.
    pub(crate) fn explain(&self, case: &str, differences: &[String]) -> Option<String> {
        if differences.is_empty() {
            return None;
        }
        let mut reasons: Vec<&str> = Vec::new();
        for difference in differences {
            let reason = &self.entry(case, difference)?.reason;
            if !reasons.contains(&reason.as_str()) {
                reasons.push(reason);
            }
        }
        Some(reasons.join("; "))
    }
}

/// Whether a name matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let parts: Vec<&str> = parts.collect();
    let mut rest = rest;
    for (index, part) in parts.iter().enumerate() {
        if index + 1 == parts.len() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# T\n\n## a\n\n- `x/*/rds` `timeout` — we round\n- `y` — gone\n\n## b\n\n- `x/1/rds` — other set\n";

    #[test]
    fn an_entry_explains_its_own_differences_only() {
        let known = Differences::parse(TEXT, "a").unwrap();
        let one = vec!["timeout: 1 for 2".to_owned()];
        assert_eq!(known.explain("x/1/rds", &one).as_deref(), Some("we round"));
        let two = vec!["timeout: 1 for 2".to_owned(), "name: a for b".to_owned()];
        assert_eq!(known.explain("x/1/rds", &two), None);
        assert_eq!(known.explain("y", &two).as_deref(), Some("gone"));
        assert_eq!(known.explain("x/1/lds", &one), None);
    }

    #[test]
    fn an_entry_that_explains_nothing_is_stale() {
        let known = Differences::parse(TEXT, "a").unwrap();
        let timeout = ["timeout: 1 for 2".to_owned()];
        assert_eq!(known.stale(&[("x/1/rds", &timeout)]), ["`y`"]);
        assert_eq!(known.stale(&[("y", &timeout)]), ["`x/*/rds` `timeout`"]);
    }

    #[test]
    fn an_entry_without_a_reason_is_refused() {
        assert!(Differences::parse("\n## a\n- `x` — \n", "a").is_err());
    }
}
