//! The dictionaries and schemas that sessions of a shard have been told of.

use std::sync::Arc;

use crate::route::edition::{Edition, EditionId};

/// The newest edition, and those before it that sessions still use.
#[derive(Debug)]
pub(super) struct Editions {
    newest: Arc<Edition>,
    earlier: Vec<Arc<Edition>>,
}

impl Editions {
    pub(super) fn new(newest: Arc<Edition>) -> Self {
        Self { newest, earlier: Vec::new() }
    }

    pub(super) fn newest(&self) -> &Arc<Edition> {
        &self.newest
    }

    #[inline]
    pub(super) fn get(&self, id: EditionId) -> Option<&Edition> {
        if self.newest.id() == id {
            return Some(&self.newest);
        }
        self.earlier.iter().find(|edition| edition.id() == id).map(|edition| &**edition)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Edition> {
        std::iter::once(&self.newest).chain(&self.earlier).map(|edition| &**edition)
    }

    /// Takes a newer one, and drops those that nobody uses.
    pub(super) fn add(&mut self, newest: Arc<Edition>, used: &[EditionId]) {
        self.earlier.push(std::mem::replace(&mut self.newest, newest));
        self.earlier.retain(|edition| used.contains(&edition.id()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::RouteTable;

    #[test]
    fn an_edition_is_kept_as_long_as_it_is_used() {
        let edition = |id| Arc::new(Edition::plain(EditionId(id), None, &RouteTable::default()));
        let mut editions = Editions::new(edition(0));
        editions.add(edition(1), &[EditionId(0)]);
        assert_eq!(editions.newest().id(), EditionId(1));
        editions.add(edition(2), &[EditionId(0)]);
        let has = |editions: &Editions, id| editions.get(EditionId(id)).is_some();
        assert!(has(&editions, 0) && !has(&editions, 1) && has(&editions, 2));
        editions.add(edition(3), &[]);
        assert!(editions.earlier.is_empty() && has(&editions, 3));
    }
}
