//! The servers that a member knows, by type.

use std::sync::Arc;

use super::mailbox::Mailbox;
use super::router::{CustomRouter, Picker, Router, Servers};
use super::servers::Server;
use crate::forward::{Route, ServerId};
use crate::metrics::Counters;
use crate::session::{SessionView, Slot, Table};

/// All servers of the types that are forwarded.
pub(super) struct Mailboxes {
    table: Table<Mailbox>,
    types: Vec<ServerType>,
}

impl Mailboxes {
    pub(super) fn new(
        server_types: &[(String, Router)],
        routers: &[(String, Route)],
        len_max: usize,
    ) -> Self {
        let types = server_types.iter();
        let types = types.map(|(name, router)| ServerType::new(name, router, routers)).collect();
        Self { table: Table::new(len_max), types }
    }

    pub(super) fn at(&self, slot: Slot) -> Option<&Mailbox> {
        self.table.at(slot)
    }

    pub(super) fn at_mut(&mut self, slot: Slot) -> Option<&mut Mailbox> {
        self.table.at_mut(slot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Mailbox)> {
        self.table.iter().map(|(slot, _, mailbox)| (slot, mailbox))
    }

    pub(super) fn find(&self, id: &ServerId) -> Option<Slot> {
        self.iter().find(|(_, mailbox)| mailbox.server.id == *id).map(|(slot, _)| slot)
    }

    /// The server of a type that a session's message goes to.
    pub(super) fn pick(
        &mut self,
        name: &str,
        session: &SessionView<'_>,
        counters: &Counters,
    ) -> Option<Slot> {
        let kind = self.types.iter_mut().find(|kind| *kind.name == *name)?;
        kind.pick(session, &self.table, counters)
    }

    /// True if messages of a type are forwarded.
    pub(super) fn has_type(&self, name: &str) -> bool {
        self.types.iter().any(|kind| *kind.name == *name)
    }

    /// Takes a server in, if there is room for one more.
    pub(super) fn add(&mut self, server: Server, now_us: u64) {
        let (id, name) = (server.id.clone(), server.server_type.clone());
        match self.table.insert(Mailbox::new(server, now_us)) {
            Some((slot, _)) => self.list(slot, &name),
            None => {
                crate::log::seldom!(warn, server = id.as_str(), "too many servers; one is left out")
            }
        }
    }

    /// Replaces what is known of a server; gives what it was.
    pub(super) fn replace(&mut self, slot: Slot, server: Server) -> Option<Server> {
        let mailbox = self.table.at_mut(slot)?;
        mailbox.leaves_us = None;
        let name = server.server_type.clone();
        let old = std::mem::replace(&mut mailbox.server, server);
        if old.server_type != name {
            self.unlist(slot);
            self.list(slot, &name);
        }
        Some(old)
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        self.unlist(slot);
        self.table.remove(slot);
    }

    /// Tells the routers that the servers have changed.
    pub(super) fn refresh(&mut self) {
        self.types.iter_mut().for_each(|kind| kind.refresh(&self.table));
    }

    fn list(&mut self, slot: Slot, name: &str) {
        if let Some(kind) = self.types.iter_mut().find(|kind| *kind.name == *name) {
            kind.servers.push(slot);
        }
    }

    fn unlist(&mut self, slot: Slot) {
        self.types.iter_mut().for_each(|kind| kind.servers.retain(|server| *server != slot));
    }
}

/// The servers of one type.
struct ServerType {
    name: Box<str>,
    /// By their mailboxes, in the order they became known.
    servers: Vec<Slot>,
    /// Their names, in the same order.
    ids: Vec<ServerId>,
    picker: Picker,
}

impl ServerType {
    fn new(name: &str, router: &Router, routers: &[(String, Route)]) -> Self {
        // The last one that was given counts, as for workers.
        let router = match routers.iter().rev().find(|(other, _)| other == name) {
            Some((_, route)) => Router::Custom(CustomRouter(Arc::clone(route))),
            None => router.clone(),
        };
        let (servers, ids) = (Vec::new(), Vec::new());
        Self { name: name.into(), servers, ids, picker: Picker::new(router) }
    }

    /// The servers have changed.
    fn refresh(&mut self, mailboxes: &Table<Mailbox>) {
        let servers = || self.servers.iter().filter_map(|slot| Some(&mailboxes.at(*slot)?.server));
        self.ids = servers().map(|server| server.id.clone()).collect();
        let weights = self.ids.iter().zip(servers().map(|server| server.weight));
        self.picker.set_servers(weights);
    }

    fn pick(
        &mut self,
        session: &SessionView<'_>,
        mailboxes: &Table<Mailbox>,
        counters: &Counters,
    ) -> Option<Slot> {
        let view = View { servers: &self.servers, mailboxes };
        let index = self.picker.pick(session, &self.ids, &view, counters)?;
        self.servers.get(index).copied()
    }
}

/// The servers of a type as its router sees them.
struct View<'a> {
    servers: &'a [Slot],
    mailboxes: &'a Table<Mailbox>,
}

impl Servers for View<'_> {
    fn active(&self, index: usize) -> usize {
        self.mailboxes.at(self.servers[index]).map_or(0, |mailbox| mailbox.calls.len())
    }

    fn is_connected(&self, index: usize) -> bool {
        self.mailboxes.at(self.servers[index]).is_some_and(Mailbox::is_open)
    }
}
