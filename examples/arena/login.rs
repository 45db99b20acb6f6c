//! Logins: the clients that may come in, and their names.

use serde_json::{Value, json};
use shaddock::{Fault, Handshake, Refusal, Session, Welcome};

use crate::accounts::{Accounts, Unavailable};

/// Looks up the token of a client that shakes hands. It waits for the service; other clients of
/// the shard are served meanwhile.
pub(crate) async fn admit(
    accounts: &impl Accounts,
    handshake: Handshake,
) -> Result<Welcome, Refusal> {
    let Some(token) = handshake.user().and_then(|user| user["token"].as_str()) else {
        return Err(Refusal::code(401).text("a token is missing"));
    };
    match accounts.name_of(token).await {
        Ok(Some(name)) => Ok(Welcome::user(json!({ "name": name })).setting("name", name)),
        Ok(None) => Err(Refusal::code(403).text("nobody has that token")),
        Err(error @ Unavailable) => Err(Refusal::code(503).text(error.to_string())),
    }
}

/// Binds a session to its player. Another session of the player's is kicked by that.
pub(crate) async fn enter((): (), mut session: Session) -> Result<Value, Fault> {
    let name = session.get("name").and_then(Value::as_str).map(str::to_owned);
    let name = name.ok_or_else(|| Fault::new(401, "there is no name without a handshake"))?;
    session.bind(name.as_str()).await?;
    Ok(json!({ "code": 200, "name": name }))
}
