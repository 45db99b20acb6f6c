//! Logins at NATS and etcd, and servers of which some are away, with the real programs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use shaddock::PitayaCluster;
use support::{Client, builder, eventually};

use crate::nats_and_etcd::{Cluster, ECHO, nowhere, wait_until_forwarded};

/// A JSON Web Token of NATS, version 2.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: &Value) -> String {
    let head = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let claims = json!({
        "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": nats,
    });
    let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!("{}.{}", encoded(&head), encoded(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

/// Servers that know an operator's account by its token, and who may connect there.
struct Tokens {
    config: String,
    user: KeyPair,
    token: String,
}

impl Tokens {
    fn create() -> Self {
        let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
        let user = KeyPair::new_user();
        let operator_token = jwt(&operator, &operator, &json!({"type": "operator", "version": 2}));
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
            "wildcards": true, "conn": -1, "leaf": -1,
        });
        let claims = json!({"limits": limits, "type": "account", "version": 2});
        let account_token = jwt(&operator, &account, &claims);
        let claims = json!({
            "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
            "type": "user", "version": 2,
        });
        let token = jwt(&account, &user, &claims);
        let config = format!(
            "operator: {operator_token}\nresolver: MEMORY\n\
             resolver_preload: {{ {}: {account_token} }}",
            account.public_key()
        );
        Self { config, user, token }
    }

    /// A file of credentials with the key of a user.
    fn credentials(&self, key: &KeyPair) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            self.token,
            key.seed().unwrap()
        )
    }
}

/// Engines as they are told of a cluster; one of them may connect to NATS, and one may not.
fn only_one_connects(
    cluster: &Cluster,
    may: PitayaCluster,
    may_not: PitayaCluster,
    user: Option<&str>,
) {
    let engine = builder(1).pitaya(may).start().unwrap();
    let is_used = |it: &Value| it["subscriptions"].as_u64() > Some(0);
    eventually("the engine is connected", || cluster.nats_connections().iter().any(is_used));
    if let Some(user) = user {
        assert_eq!(cluster.nats_connections()[0]["authorized_user"], user);
    }
    drop(engine);
    eventually("it is gone", || cluster.nats_connections().is_empty());
    eventually("etcd knows that", || cluster.servers("connector").is_empty());

    let engine = builder(1).pitaya(may_not).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    // It has joined etcd, and tried NATS at the same time.
    eventually("the server is known", || !cluster.servers("connector").is_empty());
    for _ in 0..5 {
        assert_eq!(client.ask_json(1, ECHO, "1")["code"], "PIT-500");
        let connections = cluster.nats_connections();
        assert!(!connections.iter().any(is_used), "{connections:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn nats_lets_in_by_user_token_and_jwt() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster
        .restart_nats_with("authorization { users = [ { user: amy, password: \"hush hush\" } ] }");
    let is = || cluster.description();
    let right = is().nats_login("amy", "hush hush");
    only_one_connects(&cluster, right, is().nats_login("amy", "hush"), Some("amy"));
    let in_url = cluster.nats().replace("nats://", "nats://amy:hush%20hush@");
    let right = PitayaCluster::new([in_url], [cluster.etcd()]).server_type("room");
    only_one_connects(&cluster, right, is(), Some("amy"));

    cluster.restart_nats_with("authorization { token: \"hush hush\" }");
    let is = || cluster.description();
    let right = is().nats_token("hush hush");
    only_one_connects(&cluster, right, is().nats_token("hush"), None);

    let tokens = Tokens::create();
    cluster.restart_nats_with(&tokens.config);
    let folder = support::folder::Folder::create();
    let right = folder.write("right.creds", &tokens.credentials(&tokens.user));
    let wrong = folder.write("wrong.creds", &tokens.credentials(&KeyPair::new_user()));
    let is = || cluster.description();
    let (right, wrong) = (is().nats_credentials_file(right), is().nats_credentials_file(wrong));
    only_one_connects(&cluster, right, wrong, Some(&tokens.user.public_key()));
}

#[test]
fn etcd_lets_in_by_user_and_password() {
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    cluster.lock_etcd("amy", "hush hush");
    for login in [Some(("amy", "hush")), Some(("bob", "hush hush")), None] {
        let description = match login {
            Some((user, password)) => cluster.description().etcd_login(user, password),
            None => cluster.description(),
        };
        let engine = builder(1).pitaya(description).start().unwrap();
        let mut client = Client::ready(engine.local_addr());
        for _ in 0..5 {
            let answer = client.ask_json(1, ECHO, "1");
            assert!(
                answer["code"].as_str().is_some_and(|code| code.starts_with("PIT-")),
                "{answer}"
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    let description = cluster.description().etcd_login("amy", "hush hush");
    let engine = builder(1).pitaya(description).start().unwrap();
    wait_until_forwarded(&mut Client::ready(engine.local_addr()));
}

#[test]
fn an_endpoint_that_is_away_keeps_nobody_from_the_next() {
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let nats = || [format!("nats://{}", nowhere()), cluster.nats()];
    let etcd = || [nowhere().to_string(), cluster.etcd()];
    for is_first in [false, true] {
        let (mut nats, mut etcd) = (nats(), etcd());
        if is_first {
            nats.reverse();
            etcd.reverse();
        }
        let description = PitayaCluster::new(nats, etcd).server_type("room");
        let engine = builder(1).pitaya(description).start().unwrap();
        let mut client = Client::ready(engine.local_addr());
        wait_until_forwarded(&mut client);
        assert_eq!(client.ask(2, ECHO, "\"here\""), "\"here\"");
    }
}
