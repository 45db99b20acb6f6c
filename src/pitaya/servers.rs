//! The servers of a cluster, as they stand in etcd (docs/protocol/pitaya.md,
//! "Server registration").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::subjects::{self, Subject};
use super::window::{ServerKey, Waiting, Window};
use crate::dispatch::chain;
use crate::forward::{Route, ServerId};
use crate::metrics::Counters;
use crate::session::{SessionView, Slot, Table};

/// A server's entry: what is written for this one and read of others. Keys that are not known here
/// are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) server_type: String,
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) frontend: bool,
    #[serde(default)]
    pub(crate) hostname: String,
}

/// A change of the list of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// One has come, or has been written again.
    Put(ServerName),
    /// One has gone.
    Delete(ServerName),
    /// These are all.
    Replace(Vec<ServerName>),
    /// Etcd has forgotten what it knew, and these have made themselves known since. The others may
    /// live all the same: they stay until they should have.
    Restart(Vec<ServerName>),
}

/// Which server is meant: its type and its id, as they stand in its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerName {
    pub(crate) server_type: String,
    pub(crate) id: String,
}

impl ServerName {
    /// Reads a key: the prefix, `servers`, the type and the id. `None` for a key that is no
    /// server's, and for a name that can't be called.
    pub(crate) fn from_key(prefix: &str, key: &[u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        let (server_type, id) = key.strip_prefix(prefix)?.strip_prefix(KEYS)?.split_once('/')?;
        let is_good = subjects::is_server_name(server_type) && subjects::is_server_name(id);
        is_good.then(|| Self { server_type: server_type.into(), id: id.into() })
    }

    /// Its key.
    pub(crate) fn key(&self, prefix: &str) -> String {
        format!("{prefix}{KEYS}{}/{}", self.server_type, self.id)
    }
}

/// The head of all servers' keys, behind the prefix.
pub(crate) const KEYS: &str = "servers/";

/// One server that messages are sent to.
pub(super) struct Server {
    pub(super) subject: Subject,
    pub(super) window: Window,
    /// Until when it stays though etcd has forgotten it.
    doubted_until_us: Option<u64>,
}

/// The servers of the types that are forwarded.
pub(super) struct Servers {
    types: Vec<ServerType>,
    pub(super) table: Table<Server>,
    random: Random,
    /// The first [`Server::doubted_until_us`].
    doubts_end_us: Option<u64>,
    /// True if it logs who comes and goes, which one of a frontend's threads does.
    logs: bool,
}

struct ServerType {
    name: Box<str>,
    router: Option<Route>,
    /// In the order they became known.
    ids: Vec<ServerId>,
    /// Their slots in the table, in the same order.
    slots: Vec<Slot>,
}

impl Servers {
    pub(super) fn new(
        names: &[String],
        routers: &[(String, Route)],
        len_max: usize,
        random: Random,
        logs: bool,
    ) -> Self {
        let server_type = |name: &String| ServerType {
            name: name.as_str().into(),
            // The last one that was given counts, as for workers.
            router: routers
                .iter()
                .rev()
                .find(|(other, _)| other == name)
                .map(|(_, route)| Route::clone(route)),
            ids: Vec::new(),
            slots: Vec::new(),
        };
        let types = names.iter().map(server_type).collect();
        Self { types, table: Table::new(len_max), random, doubts_end_us: None, logs }
    }

    /// Follows a change; what waited for servers that have gone has to find others. A server that
    /// etcd has forgotten may stay until the given time.
    pub(super) fn apply(&mut self, change: Change, doubted_until_us: u64) -> Vec<Waiting> {
        let mut left = Vec::new();
        match change {
            Change::Put(name) => self.add(&name),
            Change::Delete(name) => self.remove(&name, &mut left),
            Change::Replace(names) => {
                for name in self.missing_in(&names) {
                    if self.server_mut(&name).is_some_and(|it| it.doubted_until_us.is_none()) {
                        self.remove(&name, &mut left);
                    }
                }
                names.iter().for_each(|name| self.add(name));
            }
            Change::Restart(names) => {
                for name in self.missing_in(&names) {
                    if let Some(server) = self.server_mut(&name) {
                        server.doubted_until_us.get_or_insert(doubted_until_us);
                    }
                }
                names.iter().for_each(|name| self.add(name));
            }
        }
        self.find_doubts();
        left
    }

    /// Takes those off the list that etcd has forgotten and that have not come back in time.
    pub(super) fn end_doubts(&mut self, now_us: u64) -> Vec<Waiting> {
        let mut left = Vec::new();
        if self.doubts_end_us.is_some_and(|end_us| end_us <= now_us) {
            for name in self.missing_in(&[]) {
                let until_us = self.server_mut(&name).and_then(|server| server.doubted_until_us);
                if until_us.is_some_and(|until_us| until_us <= now_us) {
                    self.remove(&name, &mut left);
                }
            }
            self.find_doubts();
        }
        left
    }

    pub(super) fn doubts_end_us(&self) -> Option<u64> {
        self.doubts_end_us
    }

    /// Nobody listens on a server's subject. One that etcd has forgotten is known to be dead so.
    pub(super) fn handle_unheard(&mut self, key: ServerKey) -> Vec<Waiting> {
        let mut left = Vec::new();
        let server = self.table.get_mut(key.0, key.1);
        if server.is_some_and(|server| server.doubted_until_us.is_some())
            && let Some(name) = self.name_of(key.0)
        {
            self.remove(&name, &mut left);
            self.find_doubts();
        }
        left
    }

    /// The keys of all servers.
    pub(super) fn keys(&self) -> Vec<ServerKey> {
        let slots = self.types.iter().flat_map(|kind| &kind.slots);
        slots.map(|slot| (*slot, self.table.generation(*slot))).collect()
    }

    fn find_doubts(&mut self) {
        let servers = self.types.iter().flat_map(|kind| &kind.slots);
        let ends = servers.filter_map(|slot| self.table.at(*slot)?.doubted_until_us);
        self.doubts_end_us = ends.min();
    }

    /// Those that are known and not among these.
    fn missing_in(&self, names: &[ServerName]) -> Vec<ServerName> {
        let known = self.types.iter().flat_map(|kind| {
            let name = |id: &ServerId| ServerName {
                server_type: kind.name.to_string(),
                id: id.as_str().to_owned(),
            };
            kind.ids.iter().map(name)
        });
        known.filter(|name| !names.contains(name)).collect()
    }

    fn name_of(&self, slot: Slot) -> Option<ServerName> {
        let kind = self.types.iter().find(|kind| kind.slots.contains(&slot))?;
        let index = kind.slots.iter().position(|other| *other == slot)?;
        let id = kind.ids[index].as_str().to_owned();
        Some(ServerName { server_type: kind.name.to_string(), id })
    }

    fn server_mut(&mut self, name: &ServerName) -> Option<&mut Server> {
        let kind = self.types.iter().find(|kind| *kind.name == *name.server_type)?;
        let index = kind.ids.iter().position(|id| id.as_str() == name.id)?;
        self.table.at_mut(kind.slots[index])
    }

    fn add(&mut self, name: &ServerName) {
        let ServerName { server_type, id } = name;
        // Nothing of a known one but its name counts here, and that is the same.
        if let Some(server) = self.server_mut(name) {
            server.doubted_until_us = None;
            return;
        }
        let Some(kind) = self.types.iter_mut().find(|kind| *kind.name == **server_type) else {
            return;
        };
        let subject = subjects::server(server_type, id);
        let server = Server { subject, window: Window::default(), doubted_until_us: None };
        let Some((slot, _)) = self.table.insert(server) else {
            return crate::log::seldom!(warn, server_type, id, "too many servers; one is left out");
        };
        if self.logs {
            crate::log::seldom!(of id.as_str(), info, server_type, id, "a server has come");
        }
        kind.ids.push(ServerId::from(id.as_str()));
        kind.slots.push(slot);
    }

    /// Takes a server out, and what waits for it.
    fn remove(&mut self, name: &ServerName, left: &mut Vec<Waiting>) {
        let ServerName { server_type, id } = name;
        let Some(kind) = self.types.iter_mut().find(|kind| *kind.name == **server_type) else {
            return;
        };
        if let Some(index) = kind.ids.iter().position(|other| other.as_str() == id) {
            if self.logs {
                crate::log::seldom!(of id, info, server_type, id, "a server has gone");
            }
            kind.ids.remove(index);
            if let Some(mut server) = self.table.remove(kind.slots.remove(index)) {
                left.extend(std::iter::from_fn(|| server.window.pop()));
            }
        }
    }

    /// Picks a server of a type for a session: at random, or as the embedder's router says.
    pub(super) fn pick(
        &mut self,
        server_type: &str,
        session: &SessionView<'_>,
        counters: &Counters,
    ) -> Option<Slot> {
        let kind = self.types.iter().find(|kind| *kind.name == *server_type)?;
        let index = match &kind.router {
            None if kind.slots.is_empty() => None,
            None => Some(self.random.below(kind.slots.len())),
            Some(route) => {
                chain::guarded("route", counters, || route(session, &kind.ids)).flatten()
            }
        };
        kind.slots.get(index?).copied()
    }

    /// The servers of a type, and how many of them etcd has forgotten.
    pub(super) fn known(&self, server_type: &str) -> (usize, usize) {
        let kind = self.types.iter().find(|kind| *kind.name == *server_type);
        let slots = kind.map_or(&[][..], |kind| &kind.slots);
        let servers = slots.iter().filter_map(|slot| self.table.at(*slot));
        let doubted = servers.filter(|server| server.doubted_until_us.is_some()).count();
        (slots.len(), doubted)
    }

    #[cfg(test)]
    pub(super) fn ids(&self, server_type: &str) -> Vec<&str> {
        let kind = self.types.iter().find(|kind| *kind.name == *server_type);
        kind.map_or(Vec::new(), |kind| kind.ids.iter().map(ServerId::as_str).collect())
    }
}

/// Numbers to pick servers by; nobody has to be unable to guess them.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `len`, which is not 0 (SplitMix64).
    fn below(&mut self, len: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ (mixed >> 31)) * len as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    use super::*;
    use crate::session::{Generation, SessionData, SessionId, ShardIndex};

    fn name(server_type: &str, id: &str) -> ServerName {
        ServerName { server_type: server_type.into(), id: id.into() }
    }

    fn servers(routers: &[(String, Route)]) -> Servers {
        Servers::new(&["room".into(), "area".into()], routers, 3, Random::new(1), true)
    }

    fn pick(servers: &mut Servers, server_type: &str) -> Option<String> {
        let data = SessionData::new(1, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
        let id = SessionId::new(ShardIndex(0), Slot(0), Generation::FIRST);
        let slot =
            servers.pick(server_type, &SessionView { id, data: &data }, &Counters::default())?;
        Some(servers.table.at(slot).unwrap().subject.to_string())
    }

    #[test]
    fn keys_name_servers() {
        let room = name("room", "a-1");
        assert_eq!(room.key("pitaya/"), "pitaya/servers/room/a-1");
        assert_eq!(ServerName::from_key("pitaya/", b"pitaya/servers/room/a-1"), Some(room));
        for bad in ["servers/room/a", "pitaya/servers/room", "pitaya/servers/room/", "pitaya/x"] {
            assert_eq!(ServerName::from_key("pitaya/", bad.as_bytes()), None, "{bad}");
        }
        for bad in
            [&b"pitaya/servers/room/a b"[..], b"pitaya/servers/a/b/c", b"pitaya/servers/\xff/a"]
        {
            assert_eq!(ServerName::from_key("pitaya/", bad), None);
        }
    }

    #[test]
    fn entries_are_as_seen() {
        let entry = Entry {
            id: "4f".into(),
            server_type: "connector".into(),
            metadata: BTreeMap::new(),
            frontend: true,
            hostname: "h".into(),
        };
        let text = r#"{"id":"4f","type":"connector","metadata":{},"frontend":true,"hostname":"h"}"#;
        assert_eq!(serde_json::to_string(&entry).unwrap(), text);
        assert_eq!(serde_json::from_str::<Entry>(text).unwrap(), entry);
    }

    #[test]
    fn the_list_follows_what_is_told() {
        let mut servers = servers(&[]);
        assert_eq!(pick(&mut servers, "room"), None);
        for other in [name("room", "1"), name("room", "2"), name("gate", "1"), name("room", "1")] {
            servers.apply(Change::Put(other), 0);
        }
        assert_eq!(servers.ids("room"), ["1", "2"]);
        servers.apply(Change::Delete(name("area", "1")), 0);
        servers.apply(Change::Replace(vec![name("area", "9"), name("room", "2")]), 0);
        assert_eq!((servers.ids("room"), servers.ids("area")), (vec!["2"], vec!["9"]));
        assert_eq!(pick(&mut servers, "room").unwrap(), "pitaya/servers/room/2");
        servers.apply(Change::Delete(name("room", "2")), 0);
        assert_eq!(pick(&mut servers, "room"), None);
        assert_eq!(pick(&mut servers, "gate"), None);
    }

    /// As by Pitaya, whose frontends keep what they knew when etcd has lost its data
    /// (docs/protocol/pitaya.md, "Server registration").
    #[test]
    fn what_etcd_has_forgotten_stays_until_it_should_have_come_back() {
        let mut servers = servers(&[]);
        servers.apply(Change::Replace(vec![name("room", "1"), name("room", "2")]), 0);
        servers.apply(Change::Restart(vec![name("area", "9")]), 100);
        assert_eq!((servers.ids("room"), servers.ids("area")), (vec!["1", "2"], vec!["9"]));
        // One comes back; the other one stays over a further look at the list.
        servers.apply(Change::Put(name("room", "2")), 150);
        servers.apply(Change::Replace(vec![name("room", "2"), name("area", "9")]), 150);
        assert_eq!(servers.ids("room"), ["1", "2"]);
        assert_eq!(servers.doubts_end_us(), Some(100));
        servers.end_doubts(99);
        assert_eq!(servers.ids("room"), ["1", "2"]);
        servers.end_doubts(100);
        assert_eq!((servers.ids("room"), servers.doubts_end_us()), (vec!["2"], None));
        // One that nobody listens on goes at once if it is doubted, and only then.
        let key = servers.keys()[0];
        servers.handle_unheard(key);
        assert_eq!(servers.ids("room"), ["2"]);
        servers.apply(Change::Restart(Vec::new()), 200);
        servers.handle_unheard(key);
        assert_eq!((servers.ids("room"), servers.ids("area")), (vec![], vec!["9"]));
        // One that says itself that it leaves is gone.
        servers.apply(Change::Delete(name("area", "9")), 300);
        assert_eq!((servers.ids("area"), servers.doubts_end_us()), (vec![], None));
    }

    #[test]
    fn there_are_never_more_than_said() {
        let mut servers = servers(&[]);
        servers.apply(Change::Replace((0..9).map(|n| name("room", &n.to_string())).collect()), 0);
        assert_eq!(servers.ids("room"), ["0", "1", "2"]);
        assert_eq!(servers.table.len(), 3);
    }

    #[test]
    fn each_is_picked_as_often_as_the_others() {
        let mut servers = servers(&[]);
        servers.apply(Change::Replace((0..3).map(|n| name("room", &n.to_string())).collect()), 0);
        let mut counts = BTreeMap::new();
        for _ in 0..3_000 {
            *counts.entry(pick(&mut servers, "room").unwrap()).or_insert(0) += 1;
        }
        assert!(counts.values().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_embedders_router_decides() {
        let last: Route = Arc::new(|_, ids| ids.len().checked_sub(1));
        let bad: Route = Arc::new(|_, ids| Some(ids.len()));
        let mut servers = servers(&[("room".into(), last), ("area".into(), bad)]);
        for id in ["1", "2"] {
            servers.apply(Change::Put(name("room", id)), 0);
        }
        servers.apply(Change::Put(name("area", "1")), 0);
        assert_eq!(pick(&mut servers, "room").unwrap(), "pitaya/servers/room/2");
        assert_eq!(pick(&mut servers, "area"), None);
    }
}
