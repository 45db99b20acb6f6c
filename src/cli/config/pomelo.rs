//! `[pomelo]`: the Pomelo cluster whose Node servers handle the other server types.

use std::time::Duration;

use serde_json::{Map, Value};
use shaddock::{Builder, ClosedArg, LaneFull, PomeloCluster, PomeloLimits, Router};
use toml::de::DeValue;

use super::Section;
use super::kind::{DURATION, Kind, LANE_FULL, TEXT, bytes, count};
use super::table::Table;
use crate::cli::signals;

/// The cluster, if there is any.
struct Pomelo {
    cluster: Option<PomeloCluster>,
    lanes_full: Vec<(String, LaneFull)>,
}

/// The names of routers here.
const ROUTERS: [(&str, Router); 5] = [
    ("default", Router::Default),
    ("round robin", Router::RoundRobin),
    ("weighted", Router::Weighted),
    ("least active", Router::LeastActive),
    ("consistent hash", Router::ConsistentHash),
];

/// A router by its name, as routers themselves can't be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RouterName(&'static str);

impl RouterName {
    fn router(self) -> Router {
        let named = ROUTERS.into_iter().find(|(name, _)| *name == self.0);
        named.map(|(_, router)| router).expect("names are taken from the list")
    }
}

const ROUTER: Kind<RouterName> = Kind {
    expected: "\"default\", \"round robin\", \"weighted\", \"least active\" or \"consistent hash\"",
    parse: |value| {
        let name = value.as_str()?;
        ROUTERS.into_iter().find(|(other, _)| *other == name).map(|(name, _)| RouterName(name))
    },
};

const CLOSED_ARG: Kind<ClosedArg> = Kind {
    expected: "\"uid\", \"session id\", \"frontend id\", \"session\", or \"setting:\" and its name",
    parse: |value| match value.as_str()? {
        "uid" => Some(ClosedArg::Uid),
        "session id" => Some(ClosedArg::SessionId),
        "frontend id" => Some(ClosedArg::FrontendId),
        "session" => Some(ClosedArg::Session),
        other => other.strip_prefix("setting:").map(|name| ClosedArg::Setting(name.to_owned())),
    },
};

const MEMBERS: Kind<Map<String, Value>> = Kind {
    expected: "a table of texts, numbers, flags, lists and tables",
    parse: |value| match json(value)? {
        Value::Object(members) => Some(members),
        _ => None,
    },
};

/// A value as JSON, which has no dates and no infinite numbers.
fn json(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(text.as_ref().into()),
        DeValue::Boolean(flag) => Some((*flag).into()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::from)
        }
        DeValue::Float(number) => {
            let number = number.as_str().parse().ok()?;
            serde_json::Number::from_f64(number).map(Value::Number)
        }
        DeValue::Array(elements) => elements.iter().map(|one| json(one.get_ref())).collect(),
        DeValue::Table(members) => members
            .iter()
            .map(|(name, value)| Some((name.get_ref().to_string(), json(value.get_ref())?)))
            .collect::<Option<Map<_, _>>>()
            .map(Value::Object),
        DeValue::Datetime(_) => None,
    }
}

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    root.table(name, |table| Box::new(read_cluster(table)))
}

fn read_cluster(table: &mut Table<'_>) -> Pomelo {
    let master = table.read_some("master", TEXT);
    let mut token = "ok".to_owned();
    let mut env = "production".to_owned();
    let mut listen = "127.0.0.1:0".to_owned();
    table.read("token", &mut token, TEXT);
    table.read("env", &mut env, TEXT);
    table.read("listen", &mut listen, TEXT);
    let advertise = table.read_some("advertise", TEXT);
    let client_host = table.read_some("client_host", TEXT);
    let client_port = table.read_some("client_port", count());
    let server_info = table.read_some("server_info", MEMBERS);
    let (mut call_timeout, mut keepalive) = (Duration::from_secs(30), Duration::from_secs(10));
    table.read("call_timeout", &mut call_timeout, DURATION);
    table.read("keepalive", &mut keepalive, DURATION);
    let limits = read_limits(table);
    let types = table.tables("type", read_type).into_iter().flatten();
    let types: Vec<Type> = types.collect();
    let lanes_full = types.iter().filter_map(|of| Some((of.name.clone(), of.lane_full?))).collect();
    let servers = table.tables("server", read_server).into_iter().flatten();
    let servers: Vec<Server> = servers.collect();
    let on_closed = table.tables("on_closed", read_hook);
    let on_bound = table.tables("on_bound", read_hook);

    if master.is_none() && servers.is_empty() {
        if !types.is_empty() {
            let expected = "the master's address, or servers as [[pomelo.server]]";
            table.refuse("master", expected, None);
        }
        return Pomelo { cluster: None, lanes_full: Vec::new() };
    }
    let mut cluster = match master {
        Some(master) => PomeloCluster::new(master),
        None => PomeloCluster::fixed(),
    };
    if let Some(host) = advertise {
        cluster = cluster.advertise(host);
    }
    if let Some(host) = client_host {
        cluster = cluster.client_host(host);
    }
    if let Some(port) = client_port {
        cluster = cluster.client_port(port);
    }
    for (name, value) in server_info.unwrap_or_default() {
        cluster = cluster.server_info(name, value);
    }
    cluster = cluster
        .token(token)
        .env(env)
        .listen(listen)
        .call_timeout(call_timeout)
        .keepalive(keepalive)
        .limits(limits)
        .on_stop(signals::stop);
    for Type { name, router, .. } in types {
        cluster = cluster.server_type(name, router);
    }
    for Server { id, server_type, address, weight } in servers {
        cluster = cluster.weighted_server(id, server_type, address, weight);
    }
    for (remote, args) in on_closed.into_iter().flatten() {
        cluster = cluster.on_closed(remote, args);
    }
    for (remote, args) in on_bound.into_iter().flatten() {
        cluster = cluster.on_bound(remote, args);
    }
    Pomelo { cluster: Some(cluster), lanes_full }
}

/// Taken apart whole, so that a bound that is added later is not forgotten here.
fn read_limits(table: &mut Table<'_>) -> PomeloLimits {
    let mut limits = PomeloLimits::default();
    let PomeloLimits {
        calls_max,
        queue_len_max,
        output_bytes_max,
        output_total_bytes_max,
        packet_bytes_max,
        input_total_bytes_max,
        push_uids_max,
        callers_max,
        servers_max,
        lookups_max,
    } = &mut limits;
    table.read("calls_max", calls_max, count());
    table.read("queue_len_max", queue_len_max, count());
    table.read("output_bytes_max", output_bytes_max, bytes());
    table.read("output_total_bytes_max", output_total_bytes_max, bytes());
    table.read("packet_bytes_max", packet_bytes_max, bytes());
    table.read("input_total_bytes_max", input_total_bytes_max, bytes());
    table.read("push_uids_max", push_uids_max, count());
    table.read("callers_max", callers_max, count());
    table.read("servers_max", servers_max, count());
    table.read("lookups_max", lookups_max, count());
    limits
}

struct Type {
    name: String,
    router: Router,
    lane_full: Option<LaneFull>,
}

/// A type, unless there is nothing in the table.
fn read_type(table: &mut Table<'_>) -> Option<Type> {
    let name = table.read_some("name", TEXT);
    let router = table.read_some("router", ROUTER);
    let lane_full = table.read_some("lane_full", LANE_FULL);
    if name.is_none() && (router.is_some() || lane_full.is_some()) {
        table.refuse("name", "the name of a server type", None);
    }
    let router = router.map_or_else(Router::default, RouterName::router);
    Some(Type { name: name?, router, lane_full })
}

struct Server {
    id: String,
    server_type: String,
    address: String,
    weight: u32,
}

fn read_server(table: &mut Table<'_>) -> Option<Server> {
    let id = table.read_some("id", TEXT);
    let server_type = table.read_some("type", TEXT);
    let address = table.read_some("address", TEXT);
    let weight = table.read_some("weight", count());
    let is_there = id.is_some() || server_type.is_some() || address.is_some() || weight.is_some();
    for (key, value) in [("id", &id), ("type", &server_type), ("address", &address)] {
        if is_there && value.is_none() {
            table.refuse(key, "text, as a server has an id, a type and an address", None);
        }
    }
    let (id, server_type, address) = (id?, server_type?, address?);
    Some(Server { id, server_type, address, weight: weight.unwrap_or(1) })
}

fn read_hook(table: &mut Table<'_>) -> Option<(String, Vec<ClosedArg>)> {
    let remote = table.read_some("remote", TEXT);
    let args = table.read_list("args", CLOSED_ARG);
    if remote.is_none() && !args.is_empty() {
        table.refuse("remote", "a remote like chat.chatRemote.leave", None);
    }
    Some((remote?, args))
}

impl Section for Pomelo {
    fn describe(&self, builder: Builder) -> Builder {
        let Some(cluster) = &self.cluster else { return builder };
        let set = |builder: Builder, (name, policy): &(String, LaneFull)| {
            builder.lane_full(name, *policy)
        };
        self.lanes_full.iter().fold(builder.pomelo(cluster.clone()), set)
    }

    fn forwards(&self) -> bool {
        self.cluster.is_some()
    }
}
