//! The call of a turn that came last, for whoever asks what has held the thread up.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::route::table::RouteId;

/// The last code of the embedder's that was called in a turn. To note it takes a store or two, once
/// for all the messages that a session has sent together.
#[derive(Debug, Default)]
pub(crate) struct LastCall {
    what: Cell<What>,
    /// The route that is in no table.
    text: RefCell<String>,
    /// The name of the future.
    name: RefCell<Option<Rc<str>>>,
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum What {
    #[default]
    Nothing,
    /// The handler of a route.
    Route(RouteId),
    /// That of a route which is in no table.
    Text,
    /// The future of an async handler, by the handler's place.
    Answer(usize),
    /// A spawned future.
    Future,
}

impl LastCall {
    /// A turn begins.
    pub(crate) fn clear(&self) {
        self.what.set(What::Nothing);
    }

    #[inline]
    pub(crate) fn note_route(&self, route: RouteId) {
        self.what.set(What::Route(route));
    }

    /// Notes a route that is in no table.
    pub(crate) fn note_text(&self, route: &str) {
        self.what.set(What::Text);
        let mut text = self.text.borrow_mut();
        text.clear();
        text.push_str(route);
    }

    pub(super) fn note_answer(&self, handler: usize) {
        self.what.set(What::Answer(handler));
    }

    pub(super) fn note_future(&self, name: &Rc<str>) {
        self.what.set(What::Future);
        self.name.replace(Some(Rc::clone(name)));
    }

    pub(super) fn what(&self) -> What {
        self.what.get()
    }

    pub(super) fn text(&self) -> String {
        self.text.borrow().clone()
    }

    pub(super) fn name(&self) -> Option<Rc<str>> {
        self.name.borrow().clone()
    }
}
