//! What keeps one context from committing.

use super::super::accesses::hash_key;
use crate::access::AccessKey;
use mojavefs::limits::CONFLICTS_MAX;
use std::collections::{BTreeMap, HashSet};

/// One object that two contexts used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) struct Clash {
    /// The object.
    pub(crate) key: AccessKey,
    /// The losing context had changed it, not only read it.
    pub(crate) changed: bool,
}

/// The conflicts of one context.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Standing {
    /// By object; true where the context itself changed it.
    pub(crate) clashes: BTreeMap<AccessKey, bool>,
    /// How many more there are than are named.
    pub(crate) more: u64,
    /// The hashes of those, as far as they are known since the store was opened.
    #[serde(skip)]
    unnamed: HashSet<u64>,
}

impl Standing {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.clashes.is_empty() && self.more == 0
    }

    /// Adds another's.
    pub(crate) fn merge(&mut self, other: Standing) {
        for (key, changed) in other.clashes {
            self.add(Clash { key, changed });
        }
        self.more += other.more;
        self.unnamed.extend(other.unnamed);
    }

    /// Whether more is to be written down: of those that are not named only that there are some.
    pub(super) fn add(&mut self, clash: Clash) -> bool {
        if let Some(changed) = self.clashes.get_mut(&clash.key) {
            return !std::mem::replace(changed, *changed || clash.changed) && clash.changed;
        }
        if self.clashes.len() < CONFLICTS_MAX {
            self.clashes.insert(clash.key, clash.changed);
            return true;
        }
        let is_new = self.unnamed.insert(hash_key(&clash.key));
        self.more += u64::from(is_new);
        is_new && self.more == 1
    }
}
