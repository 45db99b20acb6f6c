//! Clients that are connected, and those that are logged in: Pomelo's connection service.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::{Serialize, Serializer};

use crate::session::Uid;

/// The counterpart of `getStatisticsInfo` in Pomelo; as JSON it has the same members.
///
/// ```
/// use shaddock::{Engine, testing};
///
/// let t = testing::Engine::new(Engine::builder());
/// let _players = ["amy", "bob"].map(|name| t.client().uid(name).connect());
/// let statistics = t.block_on(t.handle().statistics_async())?;
/// assert_eq!((statistics.connections, statistics.login_count), (2, 2));
/// # Ok::<(), shaddock::HandleError>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Statistics {
    /// The connector's server id.
    pub server_id: String,
    /// Open connections.
    #[serde(rename = "totalConnCount")]
    pub connections: usize,
    /// Entries of `logins`.
    #[serde(rename = "loginedCount")]
    pub login_count: usize,
    /// The users that are logged in, in no particular order.
    #[serde(rename = "loginedList")]
    pub logins: Vec<Login>,
}

/// One player who is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Login {
    /// The time of the login, in milliseconds since 1970.
    #[serde(rename = "loginTime")]
    pub login_time_ms: u64,
    /// The user.
    pub uid: Uid,
    /// From where.
    #[serde(serialize_with = "address_text")]
    pub address: SocketAddr,
}

/// `ip:port` with no brackets round an IPv6 address, as Pomelo writes it.
fn address_text<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}:{}", address.ip().to_canonical(), address.port()))
}

/// The logins of one shard, by uid.
///
/// As in Pomelo a uid has one entry, which the close of any of its sessions removes.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    by_uid: HashMap<Box<str>, Login>,
}

impl Logins {
    pub(crate) fn add(&mut self, uid: &Uid, address: SocketAddr, login_time_ms: u64) {
        let login = Login { login_time_ms, uid: uid.clone(), address };
        self.by_uid.insert(uid.text().into(), login);
    }

    pub(crate) fn remove(&mut self, uid: &Uid) {
        self.by_uid.remove(uid.text());
    }

    #[cfg(feature = "internals")]
    pub(crate) fn len(&self) -> usize {
        self.by_uid.len()
    }

    pub(crate) fn list(&self) -> Vec<Login> {
        self.by_uid.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_have_the_members_of_pomelo() {
        let mut logins = Logins::default();
        logins.add(&Uid::from(7), "[::ffff:10.0.0.1]:5000".parse().unwrap(), 123);
        logins.add(&Uid::from("amy"), "10.0.0.2:1".parse().unwrap(), 4);
        logins.remove(&Uid::from("amy"));
        let statistics = Statistics {
            server_id: "connector-1".into(),
            connections: 2,
            login_count: 1,
            logins: logins.list(),
        };
        assert_eq!(
            serde_json::to_string(&statistics).unwrap(),
            r#"{"serverId":"connector-1","totalConnCount":2,"loginedCount":1,"loginedList":[{"loginTime":123,"uid":7,"address":"10.0.0.1:5000"}]}"#
        );
    }
}
