//! The facts that the demo app's clients learn in the handshake.

use serde_json::{Value, json};
use shaddock::route::{Dictionary, DictionaryError};
use shaddock::wire::protobuf::{ProtoTable, Protos, SchemaError};
use shaddock::{Refusal, Welcome};

use super::{chat, connector, js};

/// The routes of pushes, which have codes as well.
const PUSH_ROUTES: [&str; 4] = ["onChat", "onJoin", "onLeave", "onProto"];
/// Schemas of bodies from clients, and to them.
const CLIENT_PROTOS: &str = include_str!("client_protos.json");
const SERVER_PROTOS: &str = include_str!("server_protos.json");
/// The one client that is too old.
const OLD_VERSION: &str = "0.0.0-old";

/// The routes of all handlers, on the connector and behind it.
pub(crate) fn handler_routes() -> impl Iterator<Item = String> {
    let routes = |prefix, methods: &'static [&'static str]| {
        methods.iter().map(move |method| format!("{prefix}{method}"))
    };
    routes(connector::PREFIX, &connector::METHODS).chain(routes(chat::PREFIX, &chat::METHODS))
}

/// Codes for all routes.
pub(crate) fn dictionary() -> Result<Dictionary, DictionaryError> {
    Dictionary::new(handler_routes(), PUSH_ROUTES)
}

/// The schemas of `proto` and `onProto`.
pub(crate) fn protos() -> Result<ProtoTable, SchemaError> {
    Ok(ProtoTable::new(Protos::parse_text(CLIENT_PROTOS)?, Protos::parse_text(SERVER_PROTOS)?))
}

/// True if a client may connect.
pub(crate) fn check_client(_type: Option<&str>, version: Option<&str>) -> bool {
    version != Some(OLD_VERSION)
}

/// Answers a handshake for the game itself: it greets who says hello, and may be asked to refuse.
pub(crate) fn greet(user: Option<&Value>) -> Result<Welcome, Refusal> {
    let Some(user) = user else { return Ok(Welcome::new()) };
    if js::truthy(user, "refuse").is_some() {
        return Err(Refusal::new());
    }
    let hello = js::truthy(user, "hello");
    Ok(hello.map_or_else(Welcome::new, |hello| Welcome::user(json!({"hi": hello}))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the real Pomelo handed them out when it was recorded.
    #[test]
    fn the_versions_are_those_of_the_reference() {
        let dictionary = dictionary().unwrap();
        assert_eq!(dictionary.version(), "bfH69JPXEujLCMRtqut4bA==");
        assert_eq!(dictionary.code("connector.entryHandler.who"), Some(26));
        assert_eq!(dictionary.code("onProto"), Some(30));
        assert_eq!(protos().unwrap().version(), "cawcjjqsI8REkXuwWAhE5w==");
    }

    #[test]
    fn one_version_is_too_old() {
        assert!(check_client(None, None));
        assert!(check_client(Some("js"), Some("1.0.0")));
        assert!(!check_client(Some("js"), Some("0.0.0-old")));
    }

    #[test]
    fn the_game_greets_or_refuses() {
        let ask = |user: &str| greet(Some(&serde_json::from_str(user).unwrap()));
        assert_eq!(greet(None), Ok(Welcome::new()));
        assert_eq!(ask(r#"{"hello":"you"}"#), Ok(Welcome::user(json!({"hi": "you"}))));
        assert_eq!(ask(r#"{"hello":0}"#), Ok(Welcome::new()));
        assert_eq!(ask("null"), Ok(Welcome::new()));
        assert_eq!(ask(r#"{"refuse":0}"#), Ok(Welcome::new()));
        assert_eq!(ask(r#"{"refuse":1,"hello":"you"}"#), Err(Refusal::new()));
    }
}
