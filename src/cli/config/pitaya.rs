//! `[pitaya]`: the Pitaya cluster whose servers handle the other server types.

use std::path::PathBuf;
use std::time::Duration;

use shaddock::{Builder, ClusterTls, LaneFull, PitayaCluster, PitayaLimits};

use super::Section;
use super::kind::{DURATION, FLAG, LANE_FULL, TEXT, bytes, count};
use super::table::Table;

/// The cluster, if there is any.
struct Pitaya {
    cluster: Option<PitayaCluster>,
    lanes_full: Vec<(String, LaneFull)>,
}

pub(super) fn read(root: &mut Table<'_>, name: &'static str) -> Box<dyn Section> {
    root.table(name, |table| Box::new(read_cluster(table)))
}

fn read_cluster(table: &mut Table<'_>) -> Pitaya {
    let nats = table.read_list("nats", TEXT);
    let etcd = table.read_list("etcd", TEXT);
    let nats_login = read_login(table, "nats_user", "nats_password");
    let nats_proof = read_proof(table, nats_login.is_some());
    let nats_tls = read_tls(table, ["nats_ca", "nats_certificate", "nats_key"]);
    let etcd_login = read_login(table, "etcd_user", "etcd_password");
    let etcd_tls = read_tls(table, ["etcd_ca", "etcd_certificate", "etcd_key"]);
    let mut prefix = "pitaya/".to_owned();
    table.read("prefix", &mut prefix, TEXT);
    let server_id = table.read_some("server_id", TEXT);
    let hostname = table.read_some("hostname", TEXT);
    let mut request_timeout = Duration::from_secs(5);
    let mut heartbeat_ttl = Duration::from_secs(60);
    let mut resync = Duration::from_secs(120);
    let mut unique_session = true;
    table.read("request_timeout", &mut request_timeout, DURATION);
    table.read("heartbeat_ttl", &mut heartbeat_ttl, DURATION);
    table.read("resync", &mut resync, DURATION);
    table.read("unique_session", &mut unique_session, FLAG);
    let mut threads = 1;
    table.read("threads", &mut threads, count());
    let limits = read_limits(table);
    let types = table.tables("type", read_type).into_iter().flatten();
    let types: Vec<(String, Option<LaneFull>)> = types.collect();
    let lanes_full = types.iter().filter_map(|(name, policy)| Some((name.clone(), (*policy)?)));
    let lanes_full = lanes_full.collect();
    let metadata = table.tables("metadata", read_metadata).into_iter().flatten();
    let metadata: Vec<(String, String)> = metadata.collect();

    if nats.is_empty() && etcd.is_empty() && types.is_empty() {
        return Pitaya { cluster: None, lanes_full };
    }
    let mut cluster = PitayaCluster::new(nats, etcd)
        .prefix(prefix)
        .request_timeout(request_timeout)
        .heartbeat_ttl(heartbeat_ttl)
        .resync(resync)
        .unique_session(unique_session)
        .threads(threads)
        .limits(limits);
    if let Some((user, password)) = nats_login {
        cluster = cluster.nats_login(user, password);
    }
    cluster = match nats_proof {
        Some(Proof::Token(token)) => cluster.nats_token(token),
        Some(Proof::NKey(seed)) => cluster.nats_nkey(seed),
        Some(Proof::CredentialsFile(path)) => cluster.nats_credentials_file(path),
        None => cluster,
    };
    if let Some(tls) = nats_tls {
        cluster = cluster.nats_tls(tls);
    }
    if let Some((user, password)) = etcd_login {
        cluster = cluster.etcd_login(user, password);
    }
    if let Some(tls) = etcd_tls {
        cluster = cluster.etcd_tls(tls);
    }
    if let Some(id) = server_id {
        cluster = cluster.server_id(id);
    }
    if let Some(hostname) = hostname {
        cluster = cluster.hostname(hostname);
    }
    cluster = types.into_iter().fold(cluster, |cluster, (name, _)| cluster.server_type(name));
    let add = |cluster: PitayaCluster, (key, value)| cluster.metadata(key, value);
    Pitaya { cluster: Some(metadata.into_iter().fold(cluster, add)), lanes_full }
}

/// A type, unless there is nothing in the table.
fn read_type(table: &mut Table<'_>) -> Option<(String, Option<LaneFull>)> {
    let name = table.read_some("name", TEXT);
    let lane_full = table.read_some("lane_full", LANE_FULL);
    if name.is_none() && lane_full.is_some() {
        table.refuse("name", "the name of a server type", None);
    }
    Some((name?, lane_full))
}

/// A user and a password, or a certificate and its key, of which neither comes alone.
fn read_login(
    table: &mut Table<'_>,
    user_key: &'static str,
    password_key: &'static str,
) -> Option<(String, String)> {
    let found = (table.read_some(user_key, TEXT), table.read_some(password_key, TEXT));
    both(table, [user_key, password_key], found)
}

/// Two values of which neither comes alone.
fn both<T>(
    table: &mut Table<'_>,
    [first_key, second_key]: [&'static str; 2],
    (first, second): (Option<T>, Option<T>),
) -> Option<(T, T)> {
    if first.is_some() != second.is_some() {
        let missing = if first.is_none() { first_key } else { second_key };
        table.refuse(missing, "text, as neither of the two comes alone", None);
    }
    Some((first?, second?))
}

/// A login at NATS other than by user and password.
enum Proof {
    Token(String),
    NKey(String),
    CredentialsFile(PathBuf),
}

/// The login at NATS, of which there is one at most.
fn read_proof(table: &mut Table<'_>, has_login: bool) -> Option<Proof> {
    let found = [
        ("nats_token", table.read_some("nats_token", TEXT).map(Proof::Token)),
        ("nats_nkey", table.read_some("nats_nkey", TEXT).map(Proof::NKey)),
        ("nats_credentials", table.read_path("nats_credentials").map(Proof::CredentialsFile)),
    ];
    let mut found = found.into_iter().filter_map(|(key, proof)| Some((key, proof?)));
    let first = found.next();
    let second = if has_login { first.as_ref().map(|(key, _)| *key) } else { None };
    if let Some(key) = second.or_else(|| found.next().map(|(key, _)| key)) {
        table.refuse(key, "no value, as there is another login at NATS", None);
    }
    first.map(|(_, proof)| proof)
}

/// TLS to NATS or etcd, by the keys of its three files.
fn read_tls(
    table: &mut Table<'_>,
    [ca, certificate, key]: [&'static str; 3],
) -> Option<ClusterTls> {
    let ca = table.read_path(ca);
    let pair = (table.read_path(certificate), table.read_path(key));
    let pair = both(table, [certificate, key], pair);
    if ca.is_none() && pair.is_none() {
        return None;
    }
    let mut tls = ClusterTls::new();
    if let Some(ca) = ca {
        tls = tls.ca_file(ca);
    }
    if let Some((certificate, key)) = pair {
        tls = tls.certificate_files(certificate, key);
    }
    Some(tls)
}

/// Taken apart whole, so that a bound that is added later is not forgotten here.
fn read_limits(table: &mut Table<'_>) -> PitayaLimits {
    let mut limits = PitayaLimits::default();
    let PitayaLimits {
        window,
        calls_max,
        calls_per_server_max,
        queue_bytes_max,
        bytes_max,
        queue_len_max,
        callers_max,
        servers_max,
        list_bytes_max,
    } = &mut limits;
    table.read("window", window, count());
    table.read("calls_max", calls_max, count());
    table.read("calls_per_server_max", calls_per_server_max, count());
    table.read("queue_bytes_max", queue_bytes_max, bytes());
    table.read("bytes_max", bytes_max, bytes());
    table.read("queue_len_max", queue_len_max, count());
    table.read("callers_max", callers_max, count());
    table.read("servers_max", servers_max, count());
    table.read("list_bytes_max", list_bytes_max, bytes());
    limits
}

fn read_metadata(table: &mut Table<'_>) -> Option<(String, String)> {
    let key = table.read_some("key", TEXT);
    let value = table.read_some("value", TEXT);
    if key.is_some() != value.is_some() {
        let missing = if key.is_none() { "key" } else { "value" };
        table.refuse(missing, "text, as metadata has a key and a value", None);
    }
    Some((key?, value?))
}

impl Section for Pitaya {
    fn describe(&self, builder: Builder) -> Builder {
        let Some(cluster) = &self.cluster else { return builder };
        let set = |builder: Builder, (name, policy): &(String, LaneFull)| {
            builder.lane_full(name, *policy)
        };
        self.lanes_full.iter().fold(builder.pitaya(cluster.clone()), set)
    }

    fn forwards(&self) -> bool {
        self.cluster.is_some()
    }
}
