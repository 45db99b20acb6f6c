//! The dictionary and the schemas that a server has told.

use serde_json::Value;

use super::error::Fault;
use crate::route::Dictionary;
use crate::wire::protobuf::ProtoTable;

/// The dictionary and the schemas of a server, as the answer of its handshake has them.
///
/// # Examples
///
/// ```
/// use serde_json::json;
/// use shaddock::client::Tables;
///
/// let sys = json!({"heartbeat": 3, "dict": {"onChat": 1}, "dictVersion": "v1", "useDict": true});
/// let tables = Tables::from_handshake(&sys)?;
/// assert_eq!(tables.dictionary().and_then(|dictionary| dictionary.code("onChat")), Some(1));
/// assert!(tables.protos().is_none());
/// # Ok::<(), shaddock::client::Fault>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Tables {
    dictionary: Option<Told<Dictionary>>,
    protos: Option<Told<ProtoTable>>,
}

/// A table with the version that the server told of it, empty if it told none.
#[derive(Debug, Clone)]
struct Told<T> {
    table: T,
    version: String,
}

impl Tables {
    /// Reads `sys` of a handshake's answer.
    ///
    /// # Errors
    /// [`Fault::Dictionary`] or [`Fault::Schemas`].
    pub fn from_handshake(sys: &Value) -> Result<Self, Fault> {
        Self::default().updated(sys)
    }

    /// Reads `sys` of an answer to a handshake that told the versions of these tables. The server
    /// leaves out those that are the same with it.
    pub(super) fn updated(&self, sys: &Value) -> Result<Self, Fault> {
        let is_used = |flag| sys.get(flag) == Some(&Value::Bool(true));
        let text = |value: Option<&Value>| {
            value.and_then(Value::as_str).map(str::to_owned).unwrap_or_default()
        };
        let dictionary = match Dictionary::from_handshake(sys).map_err(Fault::Dictionary)? {
            Some(table) => Some(Told { table, version: text(sys.get("dictVersion")) }),
            None => self.dictionary.clone().filter(|_| is_used("useDict")),
        };
        let protos = match sys.get("protos").filter(|protos| !protos.is_null()) {
            Some(protos) => {
                let table = ProtoTable::from_handshake(protos).map_err(Fault::Schemas)?;
                Some(Told { table, version: text(protos.get("version")) })
            }
            None => self.protos.clone().filter(|_| is_used("useProto")),
        };
        Ok(Self { dictionary, protos })
    }

    /// The codes of the server's routes, `None` if it has no dictionary.
    #[must_use]
    pub fn dictionary(&self) -> Option<&Dictionary> {
        self.dictionary.as_ref().map(|told| &told.table)
    }

    /// The schemas of both directions, `None` if the server uses none.
    #[must_use]
    pub fn protos(&self) -> Option<&ProtoTable> {
        self.protos.as_ref().map(|told| &told.table)
    }

    /// The handshake's `dictVersion`; `None` if there is nothing to tell.
    pub(super) fn dict_version(&self) -> Option<&str> {
        Some(&*self.dictionary.as_ref()?.version).filter(|version| !version.is_empty())
    }

    /// The handshake's `protoVersion`; `None` if there is nothing to tell.
    pub(super) fn proto_version(&self) -> Option<&str> {
        Some(&*self.protos.as_ref()?.version).filter(|version| !version.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_leaves_out_is_kept_while_it_is_used() {
        let first = json!({
            "dict": {"a": 1}, "dictVersion": "d1", "useDict": true,
            "protos": {"server": {}, "client": {}, "version": "p1"}, "useProto": true,
        });
        let tables = Tables::from_handshake(&first).unwrap();
        assert_eq!((tables.dict_version(), tables.proto_version()), (Some("d1"), Some("p1")));

        let same = tables.updated(&json!({"useDict": true, "useProto": true})).unwrap();
        assert_eq!((same.dict_version(), same.proto_version()), (Some("d1"), Some("p1")));
        let other = json!({"dict": {"b": 1}, "dictVersion": "d2", "useDict": true});
        let other = tables.updated(&other).unwrap();
        assert_eq!((other.dict_version(), other.proto_version()), (Some("d2"), None));
        assert_eq!(other.dictionary().unwrap().code("a"), None);
        let none = tables.updated(&json!({})).unwrap();
        assert!(none.dictionary().is_none() && none.protos().is_none());
    }
}
