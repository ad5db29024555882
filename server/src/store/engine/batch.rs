//! Changes of records that are applied together.

use super::Family;
use std::ops::Range;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The key has this value from now on.
    Put(Family, &'a [u8], &'a [u8]),
    /// The key is gone.
    Delete(Family, &'a [u8]),
}

/// What a batch has space for at once: so many bytes, and changes.
const ROOM: (usize, usize) = (512, 8);

/// Changes in their order; of those of one key the last holds.
#[derive(Clone, Debug)]
pub struct WriteBatch {
    /// All keys and values, one after the other.
    bytes: Vec<u8>,
    changes: Vec<Place>,
}

/// Where the bytes of a change lie.
#[derive(Clone, Debug)]
struct Place {
    family: Family,
    key: Range<usize>,
    /// `None` if the key goes.
    value: Option<Range<usize>>,
}

impl Default for WriteBatch {
    fn default() -> Self {
        WriteBatch { bytes: Vec::with_capacity(ROOM.0), changes: Vec::with_capacity(ROOM.1) }
    }
}

impl WriteBatch {
    /// Sets a key.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        let (key, value) = (self.add(key), self.add(value));
        self.changes.push(Place { family, key, value: Some(value) });
    }

    /// Removes a key.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        let key = self.add(key);
        self.changes.push(Place { family, key, value: None });
    }

    fn add(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many bytes its keys and values have.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Its changes, in order.
    #[inline]
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.changes.iter().map(|place| {
            let key = &self.bytes[place.key.clone()];
            match &place.value {
                Some(value) => Change::Put(place.family, key, &self.bytes[value.clone()]),
                None => Change::Delete(place.family, key),
            }
        })
    }
}
