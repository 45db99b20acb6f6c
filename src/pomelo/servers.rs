//! The servers of a cluster, as the master or the configuration names them.

use serde_json::Value;

use crate::forward::ServerId;

/// One backend server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) id: ServerId,
    pub(crate) server_type: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// For [`Router::Weighted`](super::Router::Weighted).
    pub(crate) weight: u32,
}

/// A change of the list of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// One has come, or has moved.
    Add(Server),
    /// One has gone, by its name.
    Remove(ServerId),
    /// These are all.
    Replace(Vec<Server>),
}

impl Server {
    /// Reads a server's entry. `None` where it lacks what a caller needs: it can't be called then.
    /// Numbers may come as text, as they do from a server that was started by hand.
    pub(crate) fn from_entry(entry: &Value) -> Option<Self> {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
        let number = |key: &str| match entry.get(key)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let port = number("port").filter(|port| (1.0..=65_535.0).contains(port))?;
        let weight = number("weight").filter(|weight| *weight >= 0.0);
        Some(Self {
            id: ServerId::from(text("id")?),
            server_type: text("serverType")?.to_owned(),
            host: text("host")?.to_owned(),
            port: port as u16,
            weight: weight.map_or(1, |weight| weight as u32),
        })
    }

    /// Reads a map of entries by their names, in its order.
    pub(crate) fn from_entries(entries: &Value) -> Option<Vec<Self>> {
        let entries = entries.as_object()?;
        Some(entries.values().filter_map(Self::from_entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_may_hold_numbers_as_text() {
        let number = json!({"id": "chat-1", "serverType": "chat", "host": "h", "port": 6050});
        let mut text = number.clone();
        text["port"] = "6050".into();
        text["weight"] = "1".into();
        assert_eq!(Server::from_entry(&number), Server::from_entry(&text));
        assert_eq!(Server::from_entry(&number).unwrap().port, 6050);
    }

    #[test]
    fn entries_that_nobody_could_call_are_left_out() {
        let good = json!({"id": "a", "serverType": "t", "host": "h", "port": 1});
        for (key, value) in [
            ("id", json!("")),
            ("id", json!(5)),
            ("serverType", json!(null)),
            ("host", json!({})),
            ("port", json!(0)),
            ("port", json!(65_536)),
            ("port", json!("x")),
            ("port", json!(null)),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            assert_eq!(Server::from_entry(&bad), None, "{bad}");
        }
        let servers = Server::from_entries(&json!({"a": good, "master": {"id": "master"}}));
        assert_eq!(servers.unwrap().len(), 1);
        assert_eq!(Server::from_entries(&json!([])), None);
    }
}
