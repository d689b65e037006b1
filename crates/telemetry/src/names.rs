//! What statistics are called within their scopes. All clusters have the same ones, so that each name is kept once.

use std::collections::HashMap;
use std::sync::Arc;

/// What a statistic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A kind and a name, valid as long as somebody uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameId(u32);

#[derive(Debug)]
struct Name {
    kind: Kind,
    text: Arc<str>,
    /// How many statistics have it.
    uses: u32,
}

/// All names in use.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: Vec<Name>,
    /// The ids by name, of each [`Kind`].
    ids: [HashMap<Arc<str>, NameId>; 3],
    free: Vec<NameId>,
}

impl Names {
    /// The id of a name, if somebody uses it.
    pub(crate) fn find(&self, kind: Kind, text: &str) -> Option<NameId> {
        self.ids[kind as usize].get(text).copied()
    }

    /// The id of a name for one use, to be given back by [`Names::release`].
    pub(crate) fn acquire(&mut self, kind: Kind, text: &str) -> NameId {
        if let Some(id) = self.find(kind, text) {
            self.names[id.0 as usize].uses += 1;
            return id;
        }
        let text: Arc<str> = text.into();
        let name = Name {
            kind,
            text: Arc::clone(&text),
            uses: 1,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.names[id.0 as usize] = name;
                id
            }
            None => {
                self.names.push(name);
                // A registry holds fewer statistics than this has numbers, and a name is of at least one.
                NameId(u32::try_from(self.names.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.ids[kind as usize].insert(text, id);
        id
    }

    /// Gives one use back; the kind that the name was of.
    pub(crate) fn release(&mut self, id: NameId) -> Kind {
        let name = &mut self.names[id.0 as usize];
        name.uses -= 1;
        if name.uses == 0 {
            self.ids[name.kind as usize].remove(&name.text);
            self.free.push(id);
        }
        name.kind
    }

    /// What an id stands for.
    pub(crate) fn of(&self, id: NameId) -> (Kind, &str) {
        let name = &self.names[id.0 as usize];
        (name.kind, &name.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_for_each_kind_and_as_long_as_it_is_used() {
        let mut names = Names::default();
        let counter = names.acquire(Kind::Counter, "total");
        assert_eq!(names.acquire(Kind::Counter, "total"), counter);
        let gauge = names.acquire(Kind::Gauge, "total");
        assert_ne!(gauge, counter);
        assert_eq!(names.of(gauge), (Kind::Gauge, "total"));

        assert_eq!(names.release(counter), Kind::Counter);
        assert_eq!(names.find(Kind::Counter, "total"), Some(counter));
        names.release(counter);
        assert_eq!(names.find(Kind::Counter, "total"), None);
        assert_eq!(names.find(Kind::Gauge, "total"), Some(gauge));

        let other = names.acquire(Kind::Histogram, "time");
        assert_eq!(other, counter, "its place is used again");
        assert_eq!(names.of(other), (Kind::Histogram, "time"));
    }
}
