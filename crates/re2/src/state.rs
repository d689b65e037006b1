//! Where a translation is.

use std::collections::BTreeMap;

/// Bytes that are still to be read, and what is written for those before.
pub(crate) struct Translation<'e> {
    rest: &'e [u8],
    pub(crate) out: String,
    /// Where in that the last byte begins that stands for itself.
    pub(crate) last: usize,
    /// The bytes of properties that came before, as they are written in brackets: to find them takes a while.
    pub(crate) properties: BTreeMap<&'e str, String>,
}

impl<'e> Translation<'e> {
    /// Nothing is read yet.
    pub(crate) fn new(expression: &'e str) -> Self {
        Self {
            rest: expression.as_bytes(),
            out: String::with_capacity(expression.len()),
            last: 0,
            properties: BTreeMap::new(),
        }
    }

    /// Takes the next byte.
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Takes the next byte if it is this one.
    pub(crate) fn next_if(&mut self, wanted: u8) -> bool {
        let found = self.rest.first() == Some(&wanted);
        if found {
            self.next();
        }
        found
    }

    /// What is still to be read.
    pub(crate) fn rest(&self) -> &'e [u8] {
        self.rest
    }

    /// Takes this many bytes.
    pub(crate) fn take(&mut self, count: usize) -> &'e [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Writes a byte that stands for itself.
    pub(crate) fn literal(&mut self, byte: u8) {
        self.last = self.out.len();
        if byte.is_ascii_alphanumeric() {
            self.out.push(char::from(byte));
        } else {
            self.out.push_str(&format!("\\x{byte:02X}"));
        }
    }
}
