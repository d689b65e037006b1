//! A radix tree over bytes: which of many prefixes does a path begin with?

/// Prefixes and the numbers filed under them.
#[derive(Clone, Debug, Default)]
pub(crate) struct PathTree {
    root: Node,
}

#[derive(Clone, Debug, Default)]
struct Node {
    label: Vec<u8>,
    /// Numbers filed under the prefix that ends here, ascending.
    numbers: Vec<u32>,
    /// Sorted by the first byte of their labels, which differ.
    children: Vec<Node>,
}

impl PathTree {
    /// Files `number` under `prefix`. Numbers must come in ascending order.
    pub(crate) fn insert(&mut self, prefix: &[u8], number: u32) {
        self.root.insert(prefix, number);
    }

    /// Calls `found` with every number whose prefix `path` begins with, shortest prefix first.
    pub(crate) fn find(&self, path: &[u8], mut found: impl FnMut(u32)) {
        let (mut node, mut rest) = (&self.root, path);
        loop {
            node.numbers.iter().copied().for_each(&mut found);
            let Some(child) = rest.first().and_then(|first| node.child(*first)) else {
                return;
            };
            let Some(after) = rest.strip_prefix(child.label.as_slice()) else {
                return;
            };
            (node, rest) = (child, after);
        }
    }
}

impl Node {
    fn child(&self, first: u8) -> Option<&Self> {
        let at = self
            .children
            .binary_search_by_key(&first, |child| child.label[0])
            .ok()?;
        Some(&self.children[at])
    }

    fn insert(&mut self, prefix: &[u8], number: u32) {
        let Some(first) = prefix.first() else {
            self.numbers.push(number);
            return;
        };
        match self.children.binary_search_by_key(first, |child| child.label[0]) {
            Err(at) => {
                let leaf = Self {
                    label: prefix.to_vec(),
                    numbers: vec![number],
                    children: Vec::new(),
                };
                self.children.insert(at, leaf);
            }
            Ok(at) => {
                let child = &mut self.children[at];
                let shared = child.label.iter().zip(prefix).take_while(|(a, b)| a == b).count();
                if shared < child.label.len() {
                    child.split(shared);
                }
                child.insert(&prefix[shared..], number);
            }
        }
    }

    /// Moves what lies beyond the first `at` bytes of the label into a child.
    fn split(&mut self, at: usize) {
        let tail = self.label.split_off(at);
        let below = Self {
            label: tail,
            numbers: std::mem::take(&mut self.numbers),
            children: std::mem::take(&mut self.children),
        };
        self.children = vec![below];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_tree_finds_what_a_scan_finds(
            prefixes in prop::collection::vec("[ab/]{0,5}", 0..40),
            path in "[ab/]{0,8}",
        ) {
            let mut tree = PathTree::default();
            for (number, prefix) in prefixes.iter().enumerate() {
                tree.insert(prefix.as_bytes(), number as u32);
            }
            let mut found = Vec::new();
            tree.find(path.as_bytes(), |n| found.push(n));
            found.sort_unstable();
            let scan = prefixes.iter().enumerate().filter(|(_, p)| path.starts_with(p.as_str()));
            prop_assert_eq!(found, scan.map(|(n, _)| n as u32).collect::<Vec<_>>());
        }
    }
}
