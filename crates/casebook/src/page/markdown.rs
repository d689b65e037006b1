//! Fenced code blocks of Markdown (CommonMark, section 4.5).

use anyhow::{Result, bail};

/// A fenced block.
#[derive(Debug, PartialEq)]
pub(super) struct Block {
    /// Line of the opening fence, from 1.
    pub(super) line: usize,
    /// What stands behind the opening fence.
    pub(super) info: String,
    /// The lines between the fences.
    pub(super) text: String,
}

/// All fenced blocks of a text.
pub(super) fn blocks(text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    for (index, line) in text.lines().enumerate() {
        let ticks = line.bytes().take_while(|byte| *byte == b'`').count();
        let rest = &line[ticks..];
        match &mut open {
            None if ticks >= 3 => {
                let block = Block {
                    line: index + 1,
                    info: rest.trim().to_owned(),
                    text: String::new(),
                };
                open = Some((ticks, block));
            }
            None => {}
            Some((fence, _)) if ticks >= *fence && rest.trim().is_empty() => {
                blocks.extend(open.take().map(|(_, block)| block));
            }
            Some((_, block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
        }
    }
    if let Some((_, block)) = open {
        bail!("line {}: the block is never closed", block.line);
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_fence_may_contain_a_shorter_one() {
        let blocks = blocks("````md\n```\na\n```\n````\n``` yaml x\n```\n").expect("blocks");
        let seen: Vec<_> = blocks
            .iter()
            .map(|b| (b.line, b.info.as_str(), b.text.as_str()))
            .collect();
        assert_eq!(seen, [(1, "md", "```\na\n```\n"), (6, "yaml x", "")]);
    }
}
