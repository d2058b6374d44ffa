//! The names of initiators that are known: those of the configuration, and those that models were seen to use.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Every name that some model uses, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub(super) given: Arc<UsedNames>,
    pub(super) learned: Arc<UsedNames>,
}

/// Names, and the keys of the models that use them.
#[derive(Debug, Clone, Default)]
pub(super) struct UsedNames {
    pub(super) keys_by_name: HashMap<Box<str>, HashSet<Box<str>>>,
    /// A [`mark`] of each name: most others are told apart without a hash.
    marks: u64,
    /// Names and keys together.
    pub(super) size: usize,
}

impl Known {
    /// Whether some model uses this name for its initiator.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.learned.contains(name) || self.given.contains(name)
    }

    /// Whether a model of this key was seen to use it.
    pub(super) fn is_used(&self, name: &str, key: &str) -> bool {
        self.learned.is_used(name, key)
    }
}

impl UsedNames {
    pub(super) fn given(names: &[String]) -> Self {
        let mut given = Self::default();
        for name in names {
            given.add(&[name.as_str().into()], None);
        }
        given
    }

    fn contains(&self, name: &str) -> bool {
        self.marks & mark(name) != 0 && self.keys_by_name.contains_key(name)
    }

    /// Whoever deploys models may use any number of names, so there is a bound.
    pub(super) fn add(&mut self, names: &[Box<str>], key: Option<&str>) {
        for name in names {
            if self.size >= MAX_KNOWN {
                return;
            }
            if !self.keys_by_name.contains_key(name) {
                self.size += 1;
                self.marks |= mark(name);
            }
            let keys = self.keys_by_name.entry(name.clone()).or_default();
            if let Some(key) = key
                && keys.insert(key.into())
            {
                self.size += 1;
            }
        }
    }

    pub(super) fn is_used(&self, name: &str, key: &str) -> bool {
        self.keys_by_name
            .get(name)
            .is_some_and(|keys| keys.contains(key))
    }
}

/// One of 64 bits, by a name's length and its ends.
fn mark(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let end = |byte: Option<&u8>| usize::from(byte.copied().unwrap_or_default());
    let ends = end(bytes.first()) * 7 + end(bytes.last()) * 3;
    1 << ((ends + bytes.len()) % 64)
}

/// Names of initiators, and the keys of their models, that are remembered.
pub(super) const MAX_KNOWN: usize = 10_000;
