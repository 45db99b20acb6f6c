//! Verdicts on handshakes: who may come in and with what, and who may not.

use serde_json::{Map, Value};

use crate::wire::handshake::CODE_OK;

/// A client that may come in: what it is told, and the settings that its session starts with.
///
/// ```
/// use serde_json::json;
/// use shaddock::{Engine, Welcome, testing};
///
/// let builder = Engine::builder().user_handshake(|handshake| match handshake.user() {
///     Some(user) => {
///         Ok(Welcome::user(json!({"motd": "hi"})).setting("name", user["name"].clone()))
///     }
///     None => Ok(Welcome::new()),
/// });
/// let t = testing::Engine::new(builder);
/// let amy = t.client().user(json!({"name": "amy"})).connect();
/// assert_eq!(amy.handshake()["user"]["motd"], "hi");
/// assert_eq!(amy.session().get("name").unwrap(), "amy");
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "a client is welcome only where this is returned"]
pub struct Welcome {
    pub(crate) user: Option<Value>,
    pub(crate) settings: Map<String, Value>,
}

impl Welcome {
    /// A client that is told nothing besides.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client that is told this as `user`, unless it is `null`, `false`, zero or empty.
    pub fn user(user: impl Into<Value>) -> Self {
        Self { user: Some(user.into()), settings: Map::new() }
    }

    /// Sets a setting of the session, as
    /// [`Session::store_setting`](crate::Session::store_setting) would.
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.settings.insert(key.into(), value.into());
        self
    }
}

/// A client that may not come in: it is told a code and a text, and closed.
///
/// ```
/// use shaddock::Refusal;
///
/// let refusal = Refusal::code(401).text("the token has expired");
/// assert_eq!(refusal.to_string(), "refused with 401: the token has expired");
/// assert_eq!(Refusal::new().text("we are full").to_string(), "refused: we are full");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) code: Option<u16>,
    pub(crate) text: Option<String>,
}

impl Refusal {
    /// A refusal with the code of the client's dialect: 500 for Pomelo's clients, 400 for Pitaya's.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A refusal with that code; 200, by which clients know that they are in, becomes the code of
    /// [`Self::new`]. Pomelo's clients take 501 for their being too old.
    #[must_use]
    pub fn code(code: u16) -> Self {
        Self { code: Some(code).filter(|code| *code != CODE_OK), text: None }
    }

    /// Adds a text, which the answer carries as `msg` beside its code.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused")?;
        if let Some(code) = self.code {
            write!(f, " with {code}")?;
        }
        self.text.as_ref().map_or(Ok(()), |text| write!(f, ": {text}"))
    }
}

impl std::error::Error for Refusal {}

/// The verdict on a handshake.
pub(crate) type Admitted = Result<Welcome, Refusal>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_never_a_success() {
        assert_eq!(Refusal::code(200), Refusal::new());
        assert_eq!(Refusal::code(401).to_string(), "refused with 401");
        assert_eq!(Refusal::new().text("no").to_string(), "refused: no");
    }
}
