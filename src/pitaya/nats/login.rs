//! The first line to a server: who connects, and how it shows that.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde::Serialize;

/// The login at NATS.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum NatsLogin {
    User {
        user: String,
        password: String,
    },
    Token(String),
    /// The seed of an NKey, which signs the server's challenge.
    NKey(String),
    /// A file with a JWT and the seed of its NKey, as `nsc` writes it. Read for each connection.
    CredentialsFile(PathBuf),
    /// The content of such a file.
    Credentials(String),
}

/// Nothing of it is shown.
impl std::fmt::Debug for NatsLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A login that can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadLogin {
    /// No seed of an NKey.
    Seed,
    /// No JWT and seed in a file of credentials.
    Credentials,
    /// The server sends no challenge to be signed.
    NoChallenge,
}

impl std::fmt::Display for BadLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Seed => "the seed of a user's NKey begins with SU and has 58 characters",
            Self::Credentials => "a file of credentials has a JWT and a seed between dashed lines",
            Self::NoChallenge => "the server has no logins by NKey or JWT",
        })
    }
}

impl std::error::Error for BadLogin {}

/// The members of a `CONNECT`; those that are absent are left out.
#[derive(Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    tls_required: bool,
    name: &'a str,
    lang: &'a str,
    version: &'a str,
    /// 1: the server sends `INFO` again when it changes.
    protocol: u8,
    headers: bool,
    no_responders: bool,
    #[serde(flatten)]
    proof: Proof<'a>,
}

#[derive(Default, Serialize)]
struct Proof<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

/// The line that answers a server's `INFO`.
///
/// # Errors
/// The login can't be used.
pub(crate) fn connect(
    login: Option<&NatsLogin>,
    nonce: Option<&str>,
    tls_required: bool,
) -> Result<Vec<u8>, BadLogin> {
    let connect = Connect {
        verbose: false,
        pedantic: false,
        tls_required,
        name: "shaddock",
        lang: "rust",
        version: env!("CARGO_PKG_VERSION"),
        protocol: 1,
        headers: true,
        no_responders: true,
        proof: prove(login, nonce)?,
    };
    let mut line = b"CONNECT ".to_vec();
    // It is made of text, numbers and flags, which are JSON.
    line.extend(serde_json::to_vec(&connect).unwrap_or_default());
    line.extend(b"\r\n");
    Ok(line)
}

fn prove<'a>(login: Option<&'a NatsLogin>, nonce: Option<&str>) -> Result<Proof<'a>, BadLogin> {
    Ok(match login {
        None => Proof::default(),
        Some(NatsLogin::User { user, password }) => {
            Proof { user: Some(user), pass: Some(password), ..Proof::default() }
        }
        Some(NatsLogin::Token(token)) => Proof { auth_token: Some(token), ..Proof::default() },
        Some(NatsLogin::NKey(seed)) => {
            let (key, sig) = sign(seed, nonce)?;
            Proof { nkey: Some(key.public_key()), sig: Some(sig), ..Proof::default() }
        }
        Some(NatsLogin::Credentials(text)) => {
            let (jwt, seed) = parse_credentials(text).ok_or(BadLogin::Credentials)?;
            let (_, sig) = sign(seed, nonce)?;
            Proof { jwt: Some(jwt), sig: Some(sig), ..Proof::default() }
        }
        // The shell reads it.
        Some(NatsLogin::CredentialsFile(_)) => return Err(BadLogin::Credentials),
    })
}

fn sign(seed: &str, nonce: Option<&str>) -> Result<(KeyPair, String), BadLogin> {
    let key = KeyPair::from_seed(seed.trim()).map_err(|_| BadLogin::Seed)?;
    let nonce = nonce.ok_or(BadLogin::NoChallenge)?;
    let signature = key.sign(nonce.as_bytes()).map_err(|_| BadLogin::Seed)?;
    Ok((key, URL_SAFE_NO_PAD.encode(signature)))
}

/// JWT and seed, each the first line behind one of dashes with `BEGIN` in it.
fn parse_credentials(text: &str) -> Option<(&str, &str)> {
    let mut lines = text.lines().map(str::trim);
    let mut next = || {
        lines.find(|line| line.starts_with("---") && line.contains("BEGIN"))?;
        lines.find(|line| !line.is_empty())
    };
    Some((next()?, next()?))
}

impl NatsLogin {
    /// The fault of a login that needs no file to be seen.
    pub(crate) fn check(&self) -> Result<(), BadLogin> {
        match prove(Some(self), Some("challenge")) {
            Err(_) if matches!(self, Self::CredentialsFile(_)) => Ok(()),
            result => result.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sent(login: &NatsLogin, nonce: Option<&str>) -> Result<Value, BadLogin> {
        let line = connect(Some(login), nonce, false)?;
        let json = line.strip_prefix(b"CONNECT ").unwrap();
        Ok(serde_json::from_slice(json).unwrap())
    }

    #[test]
    fn a_login_stands_in_the_first_line() {
        let user = NatsLogin::User { user: "amy".into(), password: "s".into() };
        let value = sent(&user, None).unwrap();
        assert_eq!((&value["user"], &value["pass"]), (&json!("amy"), &json!("s")));
        assert_eq!((&value["no_responders"], &value["headers"]), (&json!(true), &json!(true)));
        let value = sent(&NatsLogin::Token("t".into()), None).unwrap();
        assert_eq!(value["auth_token"], "t");
        assert!(value.get("user").is_none());
        assert!(!format!("{user:?}").contains("amy"));
    }

    #[test]
    fn a_challenge_is_signed() {
        let key = KeyPair::new_user();
        let seed = key.seed().unwrap();
        let is_good = |value: &Value| {
            let signature = URL_SAFE_NO_PAD.decode(value["sig"].as_str().unwrap()).unwrap();
            key.verify(b"nonce", &signature).is_ok()
        };
        let value = sent(&NatsLogin::NKey(seed.clone()), Some("nonce")).unwrap();
        assert_eq!(value["nkey"], key.public_key());
        assert!(is_good(&value));
        let file = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.a.b\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             NKEY Seed printed below can be used to sign and prove identity.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let value = sent(&NatsLogin::Credentials(file), Some("nonce")).unwrap();
        assert_eq!(value["jwt"], "eyJ0.a.b");
        assert!(is_good(&value));
        let challenged = |login: &NatsLogin| sent(login, Some("nonce")).map(drop);
        assert_eq!(sent(&NatsLogin::NKey(seed), None), Err(BadLogin::NoChallenge));
        assert_eq!(challenged(&NatsLogin::NKey("SUX".into())), Err(BadLogin::Seed));
        assert_eq!(challenged(&NatsLogin::Credentials("".into())), Err(BadLogin::Credentials));
    }
}
