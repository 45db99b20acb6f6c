//! The servers of a cluster, as they stand in etcd (docs/protocol/pitaya.md,
//! "Server registration").

use std::collections::BTreeMap;

use async_nats::Subject;
use serde::{Deserialize, Serialize};

use super::subjects;
use crate::dispatch::chain;
use crate::forward::{Route, ServerId};
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

/// What becomes of the list of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// One has come, or has been written again.
    Put(ServerName),
    /// One has gone.
    Delete(ServerName),
    /// These are all.
    Replace(Vec<ServerName>),
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

/// What the keys of all servers begin with, behind the prefix.
pub(crate) const KEYS: &str = "servers/";

/// One server that messages are sent to.
pub(super) struct Server {
    pub(super) subject: Subject,
    /// The requests that it has not answered.
    pub(super) calls: usize,
}

/// The servers of the types that are forwarded.
pub(super) struct Servers {
    types: Vec<ServerType>,
    pub(super) table: Table<Server>,
    random: Random,
}

struct ServerType {
    name: Box<str>,
    router: Option<Route>,
    /// In the order they became known.
    ids: Vec<ServerId>,
    /// Their places in the table, in the same order.
    slots: Vec<Slot>,
}

impl Servers {
    pub(super) fn new(
        names: &[String],
        routers: &[(String, Route)],
        len_max: usize,
        random: Random,
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
        Self { types, table: Table::new(len_max), random }
    }

    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Put(name) => self.add(&name),
            Change::Delete(name) => self.remove(&name.server_type, &name.id),
            Change::Replace(names) => {
                let mut gone: Vec<(Box<str>, ServerId)> = Vec::new();
                for kind in &self.types {
                    let stays = |id: &&ServerId| {
                        let is_it = |name: &ServerName| {
                            name.server_type == *kind.name && name.id == id.as_str()
                        };
                        names.iter().any(is_it)
                    };
                    let leave = kind.ids.iter().filter(|id| !stays(id));
                    gone.extend(leave.map(|id| (kind.name.clone(), id.clone())));
                }
                for (server_type, id) in gone {
                    self.remove(&server_type, id.as_str());
                }
                names.iter().for_each(|name| self.add(name));
            }
        }
    }

    fn add(&mut self, name: &ServerName) {
        let ServerName { server_type, id } = name;
        let Some(kind) = self.types.iter_mut().find(|kind| *kind.name == **server_type) else {
            return;
        };
        // Nothing of a known one but its name counts here, and that is the same.
        if kind.ids.iter().any(|other| other.as_str() == id) {
            return;
        }
        let server = Server { subject: subjects::server(server_type, id), calls: 0 };
        let Some((slot, _)) = self.table.insert(server) else {
            return crate::log::seldom!(warn, server_type, id, "too many servers; one is left out");
        };
        crate::log::seldom!(of id.as_str(), info, server_type, id, "a server has come");
        kind.ids.push(ServerId::from(id.as_str()));
        kind.slots.push(slot);
    }

    fn remove(&mut self, server_type: &str, id: &str) {
        let Some(kind) = self.types.iter_mut().find(|kind| *kind.name == *server_type) else {
            return;
        };
        if let Some(place) = kind.ids.iter().position(|other| other.as_str() == id) {
            crate::log::seldom!(of id, info, server_type, id, "a server has gone");
            kind.ids.remove(place);
            self.table.remove(kind.slots.remove(place));
        }
    }

    /// Picks a server of a type for a session: at random, or as the embedder's router says.
    pub(super) fn pick(&mut self, server_type: &str, session: &SessionView<'_>) -> Option<Slot> {
        let kind = self.types.iter().find(|kind| *kind.name == *server_type)?;
        let place = match &kind.router {
            None if kind.slots.is_empty() => None,
            None => Some(self.random.below(kind.slots.len())),
            Some(route) => chain::guarded(|| route(session, &kind.ids)).flatten(),
        };
        kind.slots.get(place?).copied()
    }

    /// A request of a server's is over. The server may have gone meanwhile, and another one may be
    /// in its place, so its generation counts.
    pub(super) fn finish_call(&mut self, place: (Slot, crate::session::Generation)) {
        if let Some(server) = self.table.get_mut(place.0, place.1) {
            server.calls = server.calls.saturating_sub(1);
        }
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
        Servers::new(&["room".into(), "area".into()], routers, 3, Random::new(1))
    }

    fn pick(servers: &mut Servers, server_type: &str) -> Option<String> {
        let data = SessionData::new(1, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
        let id = SessionId::new(ShardIndex(0), Slot(0), Generation::FIRST);
        let slot = servers.pick(server_type, &SessionView { id, data: &data })?;
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
            servers.apply(Change::Put(other));
        }
        assert_eq!(servers.ids("room"), ["1", "2"]);
        servers.apply(Change::Delete(name("area", "1")));
        servers.apply(Change::Replace(vec![name("area", "9"), name("room", "2")]));
        assert_eq!((servers.ids("room"), servers.ids("area")), (vec!["2"], vec!["9"]));
        assert_eq!(pick(&mut servers, "room").unwrap(), "pitaya/servers/room/2");
        servers.apply(Change::Delete(name("room", "2")));
        assert_eq!(pick(&mut servers, "room"), None);
        assert_eq!(pick(&mut servers, "gate"), None);
    }

    #[test]
    fn there_are_never_more_than_said() {
        let mut servers = servers(&[]);
        servers.apply(Change::Replace((0..9).map(|n| name("room", &n.to_string())).collect()));
        assert_eq!(servers.ids("room"), ["0", "1", "2"]);
        assert_eq!(servers.table.len(), 3);
    }

    #[test]
    fn each_is_picked_as_often_as_the_others() {
        let mut servers = servers(&[]);
        servers.apply(Change::Replace((0..3).map(|n| name("room", &n.to_string())).collect()));
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
            servers.apply(Change::Put(name("room", id)));
        }
        servers.apply(Change::Put(name("area", "1")));
        assert_eq!(pick(&mut servers, "room").unwrap(), "pitaya/servers/room/2");
        assert_eq!(pick(&mut servers, "area"), None);
    }
}
