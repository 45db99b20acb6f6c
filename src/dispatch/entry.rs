//! Rules about who may come in that an operator changes while the engine runs: the versions and
//! types of clients that are served, and maintenance.

use std::net::IpAddr;
use std::str::FromStr;

use serde_json::Value;

use super::host_filter::HostRule;
use super::verdict::Refusal;
use crate::wire::handshake::HandshakeRequest;

/// A version of a client: up to four numbers with dots between them, such as `1.2` or `v2.10.3`.
///
/// Numbers that are left out are zeros, and what stands behind a `-` or `+` does not count.
///
/// ```
/// use shaddock::ClientVersion;
///
/// let least: ClientVersion = "1.9".parse()?;
/// assert!(least <= "1.10.0-beta.2".parse()?);
/// assert!(least > "1.8.99".parse()?);
/// # Ok::<(), shaddock::BadVersion>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientVersion([u64; NUMBERS_MAX]);

/// Numbers of a version.
const NUMBERS_MAX: usize = 4;

/// A text that is no version (made by the embedder or the operator).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadVersion;

impl std::fmt::Display for BadVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a version of up to four numbers such as 1.2.0")
    }
}

impl std::error::Error for BadVersion {}

impl FromStr for ClientVersion {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let text = text.trim();
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let text = text.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = [0; NUMBERS_MAX];
        for (index, part) in text.split('.').enumerate() {
            let number = numbers.get_mut(index).ok_or(BadVersion)?;
            if !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(BadVersion);
            }
            *number = part.parse().map_err(|_| BadVersion)?;
        }
        Ok(Self(numbers))
    }
}

/// The clients that are served, by what they say of themselves in the handshake. Others are
/// answered with the code and text of a [`Refusal`], and closed.
///
/// ```
/// use shaddock::{ClientRules, Engine, Refusal};
///
/// let rules = ClientRules::new()
///     .version_min("1.2".parse()?, Refusal::code(501).text("please update"))
///     .version_at("user.version")
///     .version_required() // One that tells no version is too old.
///     .types(["js-websocket", "unity"], Refusal::code(403));
/// let builder = Engine::builder().client_rules(rules);
/// # Ok::<(), shaddock::BadVersion>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientRules {
    version: Option<(ClientVersion, Refusal)>,
    version_at: Option<String>,
    version_required: bool,
    types: Option<(Vec<String>, Refusal)>,
}

impl ClientRules {
    /// No rules: every client is served.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses clients whose version is less. Where the refusal has no code, Pomelo's clients are
    /// told 501, which they take for their being too old.
    ///
    /// A client that tells no version, or one that is none, is let in; see
    /// [`Self::version_required`].
    #[must_use]
    pub fn version_min(mut self, least: ClientVersion, refusal: Refusal) -> Self {
        self.version = Some((least, refusal));
        self
    }

    /// Names the member of the handshake that holds the version, such as `sys.clientVersion` or
    /// `user.version`. Without it that is [`Handshake::version`](crate::Handshake::version), which
    /// stock clients fill with the version of their library.
    #[must_use]
    pub fn version_at(mut self, path: impl Into<String>) -> Self {
        self.version_at = Some(path.into());
        self
    }

    /// Refuses a client that tells no version as one that is too old.
    #[must_use]
    pub fn version_required(mut self) -> Self {
        self.version_required = true;
        self
    }

    /// Refuses clients whose type is none of these: [`Handshake::client_type`], which is
    /// `js-websocket` or `js-socket` with Pomelo's own, and the platform with Pitaya's. A client
    /// that tells none is refused, too.
    ///
    /// [`Handshake::client_type`]: crate::Handshake::client_type
    #[must_use]
    pub fn types<T: Into<String>>(
        mut self,
        types: impl IntoIterator<Item = T>,
        refusal: Refusal,
    ) -> Self {
        self.types = Some((types.into_iter().map(Into::into).collect(), refusal));
        self
    }

    /// Looks at a client's handshake.
    pub(crate) fn check(&self, request: &HandshakeRequest) -> Result<(), Unserved<'_>> {
        if let Some((least, refusal)) = &self.version {
            let is_old = match self.version_of(request) {
                Some(version) => version < *least,
                None => self.version_required,
            };
            if is_old {
                return Err(Unserved::Version(refusal));
            }
        }
        if let Some((types, refusal)) = &self.types
            && !request.sys_type.as_ref().is_some_and(|found| types.contains(found))
        {
            return Err(Unserved::Type(refusal));
        }
        Ok(())
    }

    fn version_of(&self, request: &HandshakeRequest) -> Option<ClientVersion> {
        let text = match &self.version_at {
            None => request.version.as_deref(),
            Some(path) => {
                let mut member = &request.message;
                for name in path.split('.') {
                    member = Value::get(member, name)?;
                }
                member.as_str()
            }
        };
        text?.parse().ok()
    }
}

/// The rule by which a client is not served, and what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unserved<'a> {
    Version(&'a Refusal),
    Type(&'a Refusal),
}

/// A time in which nobody new comes in, but for those from some addresses. Sessions that work stay.
///
/// ```
/// use shaddock::{Engine, Maintenance, Refusal};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder().listen("127.0.0.1:0").start()?;
/// let refusal = Refusal::code(503).text("back at 10:00 UTC");
/// let maintenance = Maintenance::new(refusal).allow(["10.0.0.0/8".parse()?]);
/// engine.handle().set_maintenance(maintenance)?;
/// // And later:
/// engine.handle().set_maintenance(None)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintenance {
    refusal: Refusal,
    allowed: Vec<HostRule>,
}

impl Maintenance {
    /// Answers every handshake with that code and text, and closes.
    #[must_use]
    pub fn new(refusal: Refusal) -> Self {
        Self { refusal, allowed: Vec::new() }
    }

    /// Lets clients from these addresses in all the same; behind a trusted proxy their own count.
    #[must_use]
    pub fn allow(mut self, hosts: impl IntoIterator<Item = HostRule>) -> Self {
        self.allowed.extend(hosts);
        self
    }

    /// The refusal that a client from that address is told, if it may not come in.
    pub(crate) fn refuses(&self, address: IpAddr) -> Option<&Refusal> {
        let is_allowed = self.allowed.iter().any(|rule| rule.matches(address));
        (!is_allowed).then_some(&self.refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ClientVersion {
        text.parse().unwrap_or_else(|_| panic!("{text} is a version"))
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        for (less, more) in [("1.2", "1.10"), ("0.9.9", "1"), ("1.2.3", "1.2.3.1"), ("1", "v2-a")] {
            assert!(version(less) < version(more), "{less} {more}");
        }
        for (one, other) in [("1", "1.0.0.0"), ("v1.2", "1.2.0+build.7"), (" 1.2 ", "1.2-rc.1")] {
            assert_eq!(version(one), version(other));
        }
        let long = "9".repeat(40);
        for text in ["", "v", "1.", ".1", "1..2", "1.x", "1.2.3.4.5", "latest", "+1", &long] {
            assert_eq!(text.parse::<ClientVersion>(), Err(BadVersion), "{text}");
        }
    }

    fn check<'a>(rules: &'a ClientRules, handshake: &str) -> Result<(), Unserved<'a>> {
        rules.check(&HandshakeRequest::parse(handshake.as_bytes()).unwrap())
    }

    #[test]
    fn a_client_is_served_by_what_it_says_of_itself() {
        let (old, other) = (Refusal::code(501), Refusal::code(403));
        let rules = ClientRules::new()
            .version_min(version("1.2"), old.clone())
            .types(["unity"], other.clone());
        for (sys, expected) in [
            (r#"{"type":"unity","version":"1.2"}"#, Ok(())),
            (r#"{"type":"unity","version":"1.1.9"}"#, Err(Unserved::Version(&old))),
            (r#"{"type":"unity"}"#, Ok(())),
            (r#"{"type":"unity","version":"new"}"#, Ok(())),
            (r#"{"type":"unity","version":7}"#, Ok(())),
            (r#"{"type":"js","version":"2"}"#, Err(Unserved::Type(&other))),
            (r#"{"version":"2"}"#, Err(Unserved::Type(&other))),
        ] {
            assert_eq!(check(&rules, &format!(r#"{{"sys":{sys}}}"#)), expected, "{sys}");
        }
        let rules = ClientRules::new()
            .version_min(version("3"), old.clone())
            .version_at("user.app.version")
            .version_required();
        let with = |user: &str| format!(r#"{{"sys":{{"version":"9"}},"user":{user}}}"#);
        assert_eq!(check(&rules, &with(r#"{"app":{"version":"3.0"}}"#)), Ok(()));
        for user in [r#"{"app":{"version":"2"}}"#, r#"{"app":3}"#, "null", "[]", "\"x\""] {
            assert_eq!(check(&rules, &with(user)), Err(Unserved::Version(&old)), "{user}");
        }
    }

    #[test]
    fn maintenance_lets_some_in() {
        let maintenance =
            Maintenance::new(Refusal::code(503)).allow(["10.0.0.0/8".parse().unwrap()]);
        let refuses = |address: &str| maintenance.refuses(address.parse().unwrap());
        assert_eq!(refuses("::ffff:10.1.2.3"), None);
        assert_eq!(refuses("11.0.0.1"), Some(&Refusal::code(503)));
    }
}
