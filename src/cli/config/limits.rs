//! `[limits]`: the bounds of everything.

use std::time::Duration;

use shaddock::{Builder, Limit, LimitNumber, LimitVisitor, Limits};

use super::Section;
use super::kind::{DURATION, bytes, count};
use super::table::Table;

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    let mut limits = Limits::default();
    root.table(name, |table| limits.visit(table));
    Box::new(limits)
}

impl LimitVisitor for Table<'_> {
    fn count<T: LimitNumber>(&mut self, limit: &'static Limit, field: &mut T) {
        self.read(limit.key, field, count());
    }

    fn bytes<T: LimitNumber>(&mut self, limit: &'static Limit, field: &mut T) {
        self.read(limit.key, field, bytes());
    }

    fn duration(&mut self, limit: &'static Limit, field: &mut Duration) {
        self.read(limit.key, field, DURATION);
    }
}

impl Section for Limits {
    fn describe(&self, builder: Builder) -> Builder {
        builder.limits(self.clone())
    }
}
