//! A feature page: Markdown for people, with fenced blocks that the runner executes from top to bottom.
//!
//! | block | what it does |
//! |---|---|
//! | ```` ```yaml world ```` | services, upstreams and the proxy under test (see [`crate::world`]); at most one, before all others |
//! | ```` ```yaml istio ```` | objects to apply, several with `---` |
//! | ```` ```secrets ```` | Secrets and ConfigMaps to put, as commands (see [`secrets`]) |
//! | ```` ```yaml xds ```` | parts that generated resources must contain (see [`fragment`]) |
//! | ```` ```diagnostics ```` | what the control plane must complain of: words of a line, such as `IST0101 VirtualService reviews.default` |
//! | ```` ```traffic ```` | requests and what must come of them (see [`traffic`]) |
//!
//! Other fences are prose.

pub mod fragment;
mod markdown;
pub mod secrets;
pub mod traffic;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::certificates::Files;
use crate::world::World;
use fragment::Fragment;
use traffic::Exchange;

/// A parsed page.
#[derive(Debug)]
pub struct Page {
    /// Where the page plays.
    pub world: World,
    /// What the runner does, in order.
    pub steps: Vec<Step>,
}

/// One executable block and the line it begins at.
#[derive(Debug)]
pub struct Step {
    /// Line of the opening fence, from 1.
    pub line: usize,
    /// What it does.
    pub action: Action,
}

/// What a block does.
#[derive(Debug)]
pub enum Action {
    /// Applies objects.
    Apply(Vec<Value>),
    /// Puts Secrets and ConfigMaps.
    Secrets(Vec<secrets::Command>),
    /// Compares generated resources.
    Contains(Vec<Fragment>),
    /// Expects diagnostics: each line's words must all be in one of them.
    Diagnoses(Vec<String>),
    /// Sends traffic.
    Traffic(Vec<Exchange>),
}

impl Step {
    /// The objects that a step puts, if that is what it does.
    pub fn objects(&self, files: &Files) -> Option<Result<Vec<Value>>> {
        match &self.action {
            Action::Apply(objects) => Some(Ok(objects.clone())),
            Action::Secrets(commands) => Some(commands.iter().map(|command| command.object(files)).collect()),
            Action::Contains(_) | Action::Diagnoses(_) | Action::Traffic(_) => None,
        }
    }
}

impl Page {
    /// Reads `features/<slug>/README.md`.
    ///
    /// # Errors
    /// The file cannot be read, or a block cannot be understood; the message names its line.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Parses a page's text.
    ///
    /// # Errors
    /// As [`Page::read`].
    pub fn parse(text: &str) -> Result<Self> {
        if !text.starts_with("# ") {
            bail!("a page begins with a heading");
        }
        let mut page = Self {
            world: World::default(),
            steps: Vec::new(),
        };
        let mut worlds = 0;
        for block in markdown::blocks(text)? {
            let line = block.line;
            let in_block = || format!("line {line}: ```{}", block.info);
            let action = match block.info.as_str() {
                "yaml world" => {
                    worlds += 1;
                    if worlds > 1 || !page.steps.is_empty() {
                        bail!("line {line}: there is one world, and it comes first");
                    }
                    page.world = World::parse(&block.text).with_context(in_block)?;
                    continue;
                }
                "yaml istio" => Action::Apply(documents(&block.text).with_context(in_block)?),
                "secrets" => Action::Secrets(secrets::parse(&block.text).with_context(in_block)?),
                "yaml xds" => Action::Contains(Fragment::parse(&block.text).with_context(in_block)?),
                "diagnostics" => Action::Diagnoses(block.text.lines().map(str::to_owned).collect()),
                "traffic" => Action::Traffic(traffic::parse(&block.text, line).with_context(in_block)?),
                info if info.starts_with("traffic") || info.starts_with("yaml ") => {
                    bail!(
                        "line {line}: the runner knows no block `{info}`; it knows `yaml world`, `yaml istio`, `secrets`, `yaml xds`, `diagnostics` and `traffic`"
                    )
                }
                _ => continue,
            };
            page.steps.push(Step { line, action });
        }
        let traffic = |step: &Step| matches!(step.action, Action::Traffic(_));
        if !page.steps.iter().any(traffic) {
            bail!("the page promises nothing: it has no traffic block");
        }
        Ok(page)
    }
}

/// The documents of a YAML text, empty ones left out.
///
/// # Errors
/// It is not YAML, or holds no document.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    let objects: Vec<Value> = documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect();
    if objects.is_empty() {
        bail!("there is no object");
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAFFIC: &str = "```traffic\nGET http://reviews:9080/\n=> 200\n```\n";

    #[test]
    fn a_page_is_read_from_top_to_bottom() {
        let text = format!(
            "# Title\n\nProse.\n\n```yaml istio\nkind: A\n---\nkind: B\n```\n{TRAFFIC}```json\n{{}}\n```\n```yaml xds\ncluster x: {{}}\n```\n"
        );
        let page = Page::parse(&text).expect("page");
        let lines: Vec<_> = page.steps.iter().map(|step| step.line).collect();
        assert_eq!(lines, [5, 10, 17]);
        assert!(matches!(&page.steps[0].action, Action::Apply(objects) if objects.len() == 2));
    }

    #[test]
    fn a_page_that_cannot_fail_is_refused() {
        for (text, reason) in [
            ("# T\n", "promises nothing"),
            ("no heading\n", "begins with a heading"),
            ("# T\n```yaml isto\na: b\n```\n", "knows no block"),
            ("# T\n```traffic\nGET http://reviews/\n```\n", "expects nothing"),
            ("# T\n```traffic\n", "never closed"),
        ] {
            let error = format!("{:#}", Page::parse(text).expect_err(text));
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
